"""Procedural flat-design landscapes: a Scene is a small record of attributes, demo_paint.py paints it.

The same palettes serve demo_check.py, which reads the attributes back from pixels, so every
attribute has a colour (or a place) of its own. All coordinates are in 512 x 512 units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 512
HORIZON = 300

RGB = tuple[int, int, int]

TIMES = ("dawn", "day", "sunset", "night", "overcast")
SIDES = ("left", "centre", "right")
SLOT_X = {"left": 108, "centre": 256, "right": 404}

# top, middle (at 60 % of the way down) and horizon colours
SKY: dict[str, tuple[RGB, RGB, RGB]] = {
    "dawn": ((158, 158, 214), (240, 184, 200), (255, 226, 196)),
    "day": ((66, 146, 224), (134, 196, 240), (206, 234, 248)),
    "sunset": ((104, 58, 124), (226, 92, 84), (255, 178, 92)),
    "night": ((12, 18, 50), (24, 34, 82), (40, 52, 104)),
    "overcast": ((116, 126, 140), (136, 146, 158), (152, 162, 174)),
}
TINT: dict[str, tuple[RGB, float]] = {
    "dawn": ((255, 190, 190), 0.14),
    "day": ((255, 255, 255), 0.0),
    "sunset": ((140, 60, 60), 0.24),
    "night": ((20, 34, 90), 0.46),
    "overcast": ((120, 130, 140), 0.22),
}
WATER: dict[str, RGB] = {
    "dawn": (142, 160, 214),
    "day": (44, 140, 206),
    "sunset": (196, 96, 128),
    "night": (30, 62, 128),
    "overcast": (92, 124, 152),
}
CLOUD: dict[str, RGB] = {
    "dawn": (255, 240, 240),
    "day": (255, 255, 255),
    "sunset": (255, 200, 170),
    "night": (76, 92, 150),
    "overcast": (84, 92, 106),
}
MOUNTAIN: dict[str, RGB] = {
    "blue": (66, 104, 176),
    "purple": (124, 82, 164),
    "grey": (124, 128, 138),
    "brown": (158, 106, 80),
}
CAP: RGB = (244, 248, 252)
GROUND: dict[str, RGB] = {"green": (140, 194, 96), "golden": (232, 196, 100), "snowy": (232, 240, 250)}
SAND: RGB = (240, 220, 170)
FOLIAGE: dict[str, RGB] = {"pine": (18, 82, 66), "leafy": (48, 136, 46), "autumn": (222, 112, 34)}
TRUNK: RGB = (92, 64, 50)
WALL: dict[str, RGB] = {
    "white": (250, 246, 238),
    "yellow": (250, 206, 76),
    "blue": (74, 140, 212),
    "pink": (244, 146, 172),
}
ROOF: dict[str, RGB] = {"red": (204, 56, 48), "brown": (112, 66, 44), "black": (38, 36, 44), "teal": (20, 136, 128)}
DOOR: RGB = (74, 54, 62)
HULL: RGB = (66, 40, 56)
SAIL: dict[str, RGB] = {"white": (255, 255, 255), "red": (230, 38, 70), "orange": (252, 140, 26), "purple": (140, 66, 190)}
SUN: RGB = (255, 224, 84)
MOON: RGB = (250, 240, 190)
STAR: RGB = (255, 250, 214)
RAIN: RGB = (58, 120, 214)
BIRD: RGB = (40, 42, 60)
ANIMAL: dict[str, RGB] = {"sheep": (252, 246, 230), "cow": (156, 82, 44), "fox": (250, 92, 40)}
FACE: RGB = (48, 44, 54)


@dataclass(frozen=True)
class Scene:
    """What a picture shows. None or 0 means absent; sides are named from the viewer's place."""

    time: str
    weather: str  # clear, clouds, rain, snow
    light: str | None = None  # sun, moon, crescent
    light_side: str = "centre"
    light_big: bool = False
    stars: bool = False
    birds: bool = False
    mountains: str | None = None
    mountain_side: str = "all"  # all, left, right
    caps: bool = False
    ground: str = "green"
    hills: bool = False
    water: str | None = None  # lake, sea, river
    trees: str | None = None
    tree_count: str = "few"  # one, few, many
    tree_side: str = "left"
    houses: int = 0
    wall: str = "white"
    roof: str = "red"
    house_size: str = "small"  # small, big
    house_side: str = "right"
    boats: int = 0
    sail: str = "white"
    boat_side: str = "centre"
    animal: str | None = None
    animals: int = 0
    animal_side: str = "left"
    seed: int = 0


def shade(colour: RGB, time: str, strength: float = 1.0) -> RGB:
    """Tint a landscape colour by the time of day; houses, trees, boats and animals keep theirs."""
    tint, amount = TINT[time]
    a = amount * strength
    return tuple(int(round(c * (1 - a) + t * a)) for c, t in zip(colour, tint))  # type: ignore[return-value]


def ground_colour(ground: str, time: str) -> RGB:
    return shade(GROUND[ground], time)


def mountain_colour(mountain: str, time: str) -> RGB:
    return shade(MOUNTAIN[mountain], time, 0.4)


def darker(colour: RGB, factor: float) -> RGB:
    return tuple(min(255, int(round(c * factor))) for c in colour)  # type: ignore[return-value]


def sample_scene(seed: int) -> Scene:
    """Draw the attributes of one scene; the same seed always gives the same scene and picture."""
    r = np.random.default_rng(seed)

    def pick(options, weights=None):
        p = None if weights is None else np.asarray(weights, float) / np.sum(weights)
        return options[int(r.choice(len(options), p=p))]

    time = pick(TIMES, (2, 3, 2, 2.5, 2))
    weather = pick(("clear", "clouds", "rain", "snow"), (1, 1, 2, 2)) if time == "overcast" else pick(("clear", "clouds"))
    if time == "night" and r.random() < 0.2:
        weather = "snow"
    if time == "overcast" and weather == "clear":
        weather = "clouds"
    light = None
    if time == "night":
        light = pick(("moon", "crescent", None), (4, 3, 1.5))
    elif time != "overcast":
        light = pick(("sun", None), (4, 1))
    ground = "snowy" if weather == "snow" else pick(("green", "golden", "snowy"), (5, 2.5, 1.5))
    if weather == "rain" and ground == "snowy":
        ground = "green"
    water = pick((None, "lake", "sea", "river"), (2, 2.5, 2.5, 1.5))
    mountains = pick((None, *MOUNTAIN), (1.2, 1, 1, 1, 1))
    slots = list(r.permutation(["left", "right"] if water == "river" else list(SIDES)))
    trees = pick((None, *FOLIAGE), (1, 1.3, 1.3, 1.3))
    tree_count, tree_side = "few", "left"
    if trees:
        tree_count = pick(("one", "few", "many"))
        if tree_count == "many":
            tree_side = pick(("left", "right"))
            slots = [s for s in slots if s not in (tree_side, "centre")]
        else:
            tree_side = slots.pop()
    houses = pick((0, 1, 2, 3), (1.2, 2, 1.2, 1.2))
    house_side = slots.pop() if houses else "centre"
    size = pick(("small", "big")) if houses < 3 else "small"
    walls = [w for w in WALL if not (w == "white" and ground == "snowy") and not (w == "yellow" and ground == "golden")]
    wall, roof = pick(walls), pick(tuple(ROOF))
    boats = pick((0, 1, 2), (1, 2, 1)) if water in ("lake", "sea") else 0
    taken = {tree_side if trees else "", house_side if houses and size == "big" else ""}
    boat_sides = [b for b in SIDES if (b != "centre" or boats == 1) and not (water == "sea" and b in taken)]
    if not boat_sides:
        boats, boat_sides = 0, ["left"]
    kinds = [a for a in ANIMAL if not (a == "sheep" and ground == "snowy")]
    animal = pick(kinds) if r.random() < 0.5 else None
    animal_side = pick(SIDES)
    if water == "river":
        animal_side = pick(("left", "right"))
    if water == "sea":  # everything stands on one strip of shore: a side of its own, or none
        if slots:
            animal_side = slots.pop()
        else:
            animal = None
    return Scene(
        time=time, weather=weather, light=light, light_side=pick(SIDES), light_big=bool(r.random() < 0.35),
        stars=time == "night" and weather != "snow" and bool(r.random() < 0.6),
        birds=time != "night" and weather in ("clear", "clouds") and bool(r.random() < 0.3),
        mountains=mountains, mountain_side=pick(("all", "left", "right"), (2, 1, 1)), caps=bool(r.random() < 0.5),
        ground=ground, hills=water != "sea" and bool(r.random() < 0.4), water=water,
        trees=trees, tree_count=tree_count, tree_side=tree_side,
        houses=houses, wall=wall, roof=roof, house_size=size, house_side=house_side,
        boats=boats, sail=pick(tuple(SAIL)), boat_side=pick(boat_sides),
        animal=animal, animals=int(r.integers(1, 4)) if animal else 0, animal_side=animal_side, seed=seed,
    )
