"""Natural-language captions for demo scenes, with the list of attributes that each one names.

`caption(scene, rng)` words the same scene differently every time: synonyms, parts left out, order
changed. What a caption names is returned as (attribute, value) pairs, which demo_check.py can look for.
"""

from __future__ import annotations

import numpy as np

from demo_scenes import Scene

Named = list[tuple[str, str]]

SKY_WORDS = {
    "dawn": ("at dawn", "at daybreak", "in the early morning", "under a pink dawn sky", "under a pale pink morning sky", "at sunrise"),
    "day": ("on a bright day", "in the daytime", "under a blue sky", "at noon", "under a bright blue sky", "on a summer day"),
    "sunset": ("at sunset", "at dusk", "in the evening", "under an orange sunset sky", "under a red evening sky", "under a glowing sunset"),
    "night": ("at night", "under a dark night sky", "by night", "under a dark blue night sky", "in the dark of night", "at midnight"),
    "overcast": ("under a grey sky", "on an overcast day", "on a grey day", "under an overcast sky", "on a gloomy day", "under a gray sky"),
}
PREFIXES = ("", "", "", "a landscape ", "a flat landscape ", "flat design landscape ", "an illustration of a landscape ",
            "a picture of the countryside ", "a scene ", "a view ")
SIDE_WORDS = {
    "left": ("on the left", "on the left side", "to the left", "at the left", "on the left hand side"),
    "right": ("on the right", "on the right side", "to the right", "at the right", "on the right hand side"),
    "centre": ("in the centre", "in the center", "in the middle", "at the center"),
}
NUMBERS = {1: ("a", "one", "a single", "1"), 2: ("two", "2", "a pair of", "two"), 3: ("three", "3", "a group of three", "three")}
MOUNTAIN_WORDS = {"blue": ("blue",), "purple": ("purple", "violet"), "grey": ("grey", "gray"), "brown": ("brown",)}
GROUND_WORDS = {
    "green": (("green meadow", "green field", "grassy green land"), ("green hills", "rolling green hills", "green rolling hills")),
    "golden": (("golden field", "yellow wheat field", "golden meadow"), ("golden hills", "rolling golden hills", "yellow hills")),
    "snowy": (("snowy field", "field of snow", "snow covered field"), ("snowy hills", "rolling snowy hills", "snow covered hills")),
}
TREE_WORDS = {
    "pine": ("pine", "fir", "dark green pine"),
    "leafy": ("leafy", "green leafy", "round green"),
    "autumn": ("autumn", "orange autumn", "orange"),
}
WATER_WORDS = {
    "lake": ("a lake", "a calm lake", "a small lake", "a round lake"),
    "sea": ("the sea", "a calm sea", "the ocean", "the seaside"),
    "river": ("a river", "a winding river", "a stream", "a curving river"),
}
PLURAL = {"sheep": ("sheep", "sheep"), "cow": ("cow", "cows"), "fox": ("fox", "foxes")}
ROOF_WORDS = {"red": ("red",), "brown": ("brown",), "black": ("black",), "teal": ("teal", "turquoise")}


def caption(s: Scene, r: np.random.Generator, keep: float = 0.86) -> tuple[str, Named]:
    """Word a scene; each optional part is named with probability `keep`."""

    def pick(options) -> str:
        return str(options[int(r.integers(len(options)))])

    def side(where: str) -> str:
        return pick(SIDE_WORDS[where])

    named: Named = [("sky", s.time)]
    setting = pick(SKY_WORDS[s.time])
    parts: list[str] = []

    if s.light and r.random() < keep:
        kind = "sun" if s.light == "sun" else "moon"
        named += [(kind, "yes"), ("light_side", s.light_side)]
        words = {"sun": ("sun", "yellow sun", "shining sun"), "moon": ("full moon", "moon", "round moon"),
                 "crescent": ("crescent moon", "half moon")}[s.light]
        size = pick(("big ", "large ", "huge ")) if s.light_big else pick(("small ", "little ", ""))
        if size:
            named.append(("light_size", "big" if s.light_big else "small"))
        parts.append(f"a {size}{pick(words)} {side(s.light_side)}")
    if s.time == "night" and s.weather != "snow" and r.random() < keep:
        named.append(("stars", "yes" if s.stars else "no"))
        stars = ("many stars", "a starry sky", "twinkling stars", "stars in the sky")
        parts.append(pick(stars if s.stars else ("no stars", "a starless sky")))
    if s.weather != "clear":
        if r.random() < keep + 0.1:
            named.append((s.weather, "yes"))
            parts.append(pick({
                "clouds": ("clouds", "a few clouds", "clouds in the sky", "drifting clouds"),
                "rain": ("rain", "falling rain", "rainy weather", "it is raining"),
                "snow": ("falling snow", "snowfall", "it is snowing", "snowflakes in the air"),
            }[s.weather]))
    elif r.random() < 0.4:
        named.append(("clouds", "no"))
        parts.append(pick(("a clear sky", "no clouds", "a cloudless sky")))
    if s.birds and r.random() < keep:
        named.append(("birds", "yes"))
        parts.append(pick(("birds in the sky", "flying birds", "a flock of birds", "a few birds")))

    if s.mountains and r.random() < keep:
        colour = pick(MOUNTAIN_WORDS[s.mountains])
        named += [("mountains", s.mountains), ("mountain_side", s.mountain_side)]
        if s.caps:
            named.append(("caps", "yes"))
            text = pick((f"snow capped {colour} mountains", f"{colour} mountains with snow caps", f"{colour} mountains with snowy peaks",
                         f"{colour} mountains with white peaks"))
        else:
            bare = r.random() < 0.4
            if bare:
                named.append(("caps", "no"))
            text = pick((f"bare {colour} mountains", f"{colour} mountains without snow")) if bare else f"{colour} mountains"
        across = ("in the background", "on the horizon", "across the horizon", "all along the horizon")
        where = side(s.mountain_side) if s.mountain_side != "all" else pick(across)
        if s.houses and s.mountain_side == "all" and r.random() < 0.15:
            where = "behind the " + ("house" if s.houses == 1 else "houses")
        parts.append(f"{text} {where}")
    if r.random() < keep:
        named += [("ground", s.ground)]
        if s.water != "sea":
            named.append(("hills", "yes" if s.hills else "no"))
        article = "" if s.hills else "a "
        parts.append(article + pick(GROUND_WORDS[s.ground][1 if s.hills else 0]))

    water_named = s.water is not None and r.random() < keep + 0.08
    if water_named:
        named.append(("water", s.water))
    water = pick(WATER_WORDS[s.water]) if water_named else ""
    if water_named and r.random() < 0.6:
        parts.append(water)
    elif water_named:
        setting = f"{water} {setting}" if r.random() < 0.5 else f"{setting} by {water}"

    if s.trees and r.random() < keep:
        kind = pick(TREE_WORDS[s.trees])
        named += [("trees", s.trees), ("tree_count", s.tree_count), ("tree_side", s.tree_side)]
        text = {
            "one": (f"a single {kind} tree", f"one tall {kind} tree", f"a {kind} tree", f"a lone {kind} tree"),
            "few": (f"three {kind} trees", f"a few {kind} trees", f"some {kind} trees", f"3 {kind} trees"),
            "many": (f"many {kind} trees", f"a forest of {kind} trees", f"a {kind} forest", f"lots of {kind} trees"),
        }[s.tree_count]
        phrase = pick(text).replace("a orange", "an orange").replace("a autumn", "an autumn")
        parts.append(f"{phrase} {side(s.tree_side)}")
    if s.houses and r.random() < keep:
        named += [("houses", str(s.houses)), ("wall", s.wall), ("roof", s.roof), ("house_side", s.house_side)]
        size = ""
        if s.houses < 3 and r.random() < 0.7:
            named.append(("house_size", s.house_size))
            size = pick(("big ", "large ")) if s.house_size == "big" else pick(("small ", "little ", "tiny "))
        noun = pick(("house", "house", "cottage")) + ("" if s.houses == 1 else "s")
        roof = pick(ROOF_WORDS[s.roof])
        tail = f"with a {roof} roof" if s.houses == 1 else f"with {roof} roofs"
        if r.random() < 0.25:
            tail = f"and {roof} roof" if s.houses == 1 else f"and {roof} roofs"
            body = f"{noun} with {s.wall} walls {tail}"
        else:
            body = f"{s.wall} {noun} {tail}"
        parts.append(f"{pick(NUMBERS[s.houses])} {size}{body} {side(s.house_side)}")
    if s.boats and r.random() < keep:
        named += [("boats", str(s.boats)), ("sail", s.sail), ("boat_side", s.boat_side)]
        noun = pick(("boat", "sailing boat"))
        if s.boats == 1:
            body = pick((f"{noun} with a {s.sail} sail", f"boat with {s.sail} sails", "sailboat with a %s sail" % s.sail))
        else:
            body = pick((f"{noun}s with {s.sail} sails", "sailboats with %s sails" % s.sail))
        parts.append(f"{pick(NUMBERS[s.boats])} {body} {side(s.boat_side)}")
    if s.animal and r.random() < keep:
        named += [("animal", s.animal), ("animals", str(s.animals)), ("animal_side", s.animal_side)]
        noun = PLURAL[s.animal][0 if s.animals == 1 else 1]
        parts.append(f"{pick(NUMBERS[s.animals])} {noun} {side(s.animal_side)}")

    if r.random() < 0.75:
        parts = [parts[i] for i in r.permutation(len(parts))]
    prefix = pick(PREFIXES)
    if water_named and setting.startswith(water):
        prefix = ""
    head = f"{prefix}{setting}"
    sentences = r.random() < 0.3
    joiner = ". " if sentences else ", "
    pieces = [head, *parts] if r.random() < 0.75 else [*parts, head]
    if len(pieces) > 1 and not sentences and r.random() < 0.4:
        pieces[-1] = f"and {pieces[-1]}"
    if sentences or r.random() < 0.4:
        pieces = [p[:1].upper() + p[1:] if i == 0 or sentences else p for i, p in enumerate(pieces)]
    text = joiner.join(p.strip() for p in pieces)
    if sentences or r.random() < 0.2:
        text += "."
    return text, named
