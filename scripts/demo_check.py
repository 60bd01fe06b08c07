"""Reads the named attributes of a demo picture back from its pixels, and from nothing else.

`Findings(image)` measures; `check(image, named)` answers yes or no for each (attribute, value) pair
that a caption names. Objects are found by anchors: a roof with a wall below it is a house, a hull with a
sail above it a boat.
"""

from __future__ import annotations

import functools

import cv2
import numpy as np

import demo_scenes as ds

Box = tuple[int, int, int, int, int, float, float]  # x, y, width, height, area, centre x, centre y


def _side(x: float, slots: dict[str, float] | None = None) -> str:
    slots = slots or {k: float(v) for k, v in ds.SLOT_X.items()}
    return min(slots, key=lambda k: abs(slots[k] - x))


class Findings:
    """Measurements of one (512, 512, 3) uint8 RGB picture, each made when first asked for."""

    def __init__(self, image: np.ndarray) -> None:
        assert image.shape == (ds.SIZE, ds.SIZE, 3), image.shape
        self.px = image.astype(np.int16)

    def near(self, colour: ds.RGB, tolerance: float, y0: int = 0, y1: int = ds.SIZE) -> np.ndarray:
        """Mask (y1 - y0, 512) of the pixels within an RGB distance of a colour."""
        d = self.px[y0:y1].astype(np.int32) - np.asarray(colour, np.int32)
        return (d * d).sum(-1) < tolerance * tolerance

    @staticmethod
    def parts(mask: np.ndarray, area: int, y0: int = 0, close: int = 0, opening: tuple[int, int] | None = None) -> list[Box]:
        """Connected parts of a mask with at least `area` pixels, in picture coordinates."""
        m = mask.astype(np.uint8)
        if close:
            m = cv2.morphologyEx(m, cv2.MORPH_CLOSE, np.ones((close, close), np.uint8))
        if opening:
            m = cv2.morphologyEx(m, cv2.MORPH_OPEN, np.ones(opening, np.uint8))
        n, _, stats, centres = cv2.connectedComponentsWithStats(m, connectivity=8)
        found = []
        for (x, y, w, h, a), (cx, cy) in zip(stats[1:n].tolist(), centres[1:n].tolist()):
            if a >= area:
                found.append((x, y + y0, w, h, a, cx, cy + y0))
        return found

    @functools.cached_property
    def sky(self) -> str:
        top = np.median(self.px[2:14].reshape(-1, 3), axis=0)
        return min(ds.SKY, key=lambda k: float(np.abs(top - np.asarray(ds.SKY[k][0])).sum()))

    def light(self, kind: str) -> Box | None:
        """The sun or the moon: the largest spot of its colour in the upper sky."""
        colour = ds.SUN if kind == "sun" else ds.MOON
        found = self.parts(self.near(colour, 38, 0, 160), 420, opening=(3, 3))
        return max(found, key=lambda b: b[4]) if found else None

    @functools.cached_property
    def any_light(self) -> Box | None:
        return self.light("moon" if self.sky == "night" else "sun")

    @functools.cached_property
    def stars(self) -> int:
        bright = self.px[:136].mean(-1) > 130
        return sum(b[4] < 160 for b in self.parts(bright, 4))

    @functools.cached_property
    def cloud_area(self) -> int:
        return sum(b[4] for b in self.parts(self.near(ds.CLOUD[self.sky], 24, 0, 142), 500, opening=(7, 7)))

    @functools.cached_property
    def rain(self) -> int:
        return int(self.near(ds.RAIN, 60, 16, 140).sum())

    @functools.cached_property
    def flakes(self) -> int:
        return sum(b[4] < 260 for b in self.parts(self.near((255, 255, 255), 60, 0, 136), 8))

    @functools.cached_property
    def birds(self) -> int:
        return len(self.parts(self.near(ds.BIRD, 42, 60, 225), 30, close=3))

    def mountain_mask(self, colour: str) -> np.ndarray:
        base = ds.mountain_colour(colour, self.sky)
        return self.near(base, 22, 190, 298) | self.near(ds.darker(base, 0.84), 22, 190, 298)

    @functools.cached_property
    def mountains(self) -> str | None:
        areas = {k: int(self.mountain_mask(k).sum()) for k in ds.MOUNTAIN}
        best = max(areas, key=lambda k: areas[k])
        return best if areas[best] > 1200 else None

    @functools.cached_property
    def mountain_side(self) -> str | None:
        if self.mountains is None:
            return None
        columns = self.mountain_mask(self.mountains).sum(0)
        left, right = int(columns[:190].sum()), int(columns[322:].sum())
        if min(left, right) > 0.16 * max(left, right):
            return "all"
        return "left" if left > right else "right"

    @functools.cached_property
    def caps(self) -> bool:
        white = self.near(ds.CAP, 26, 150, 250) | self.near(ds.darker(ds.CAP, 0.92), 22, 150, 250)
        return bool(self.parts(white, 180, opening=(9, 9)))

    @functools.cached_property
    def ground(self) -> str | None:
        areas = {}
        for kind in ds.GROUND:
            g = ds.ground_colour(kind, self.sky)
            areas[kind] = int((self.near(g, 24, 464, 511) | self.near(ds.darker(g, 0.96), 24, 464, 511)).sum())
        best = max(areas, key=lambda k: areas[k])
        return best if areas[best] > 2500 else None

    @functools.cached_property
    def hills(self) -> bool:
        if self.ground is None:
            return False
        g = ds.ground_colour(self.ground, self.sky)
        mask = self.near(ds.darker(g, 0.84), 18, 262, 284) | self.near(ds.darker(g, 0.92), 18, 262, 284)
        return float(mask.mean()) > 0.06

    @functools.cached_property
    def water(self) -> str | None:
        w = ds.WATER[self.sky]
        light = tuple(int(v * 0.72 + 255 * 0.28) for v in w)
        mask = self.near(w, 26) | self.near(ds.darker(w, 0.86), 24) | self.near(light, 20)
        if mask[318:420].mean() > 0.4:
            return "sea"
        if mask[404:432].mean() > 0.5:
            return "lake"
        return "river" if mask[488:510].mean() > 0.12 and mask[380:400].mean() > 0.05 else None

    @functools.cached_property
    def trees(self) -> tuple[str, str, str] | None:
        """Kind, count class (from the width of the group) and side."""
        y0, y1 = (330, 478) if self.water == "sea" else (205, 374)
        masks = {k: cv2.morphologyEx(self.near(c, 24, y0, y1).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
                 for k, c in ds.FOLIAGE.items()}
        kind = max(masks, key=lambda k: int(masks[k].sum()))
        if masks[kind].sum() < 900:
            return None
        xs = np.sort(np.nonzero(masks[kind])[1])
        width = xs[int(0.99 * (len(xs) - 1))] - xs[int(0.01 * len(xs))]
        count = "one" if width < 102 else "few" if width < 184 else "many"
        return kind, count, _side(float(xs.mean()), {"left": 110, "right": 402} if count == "many" else None)

    @functools.cached_property
    def houses(self) -> list[tuple[str, str, Box]]:
        """(wall, roof, roof box) of every roof that has a wall below it."""
        found = []
        for roof, colour in ds.ROOF.items():
            mask = self.near(colour, 30, 230, 480)
            for box in self.parts(mask, 260, 230, close=7, opening=(7, 21)):
                x, y, w, h = box[:4]
                if w < 34 or w > 150 or h > w:
                    continue
                below = slice(y + h + 2, min(ds.SIZE, y + h + int(w * 0.45)))
                across = slice(max(0, x + w // 12), x + w - w // 12)
                areas = {k: float(self.near(c, 26)[below, across].mean()) for k, c in ds.WALL.items()}
                wall = max(areas, key=lambda k: areas[k])
                if areas[wall] > 0.25:
                    found.append((wall, roof, box))
        return found

    @functools.cached_property
    def boats(self) -> list[tuple[str, Box]]:
        """(sail, hull box) of every hull that has a sail above it."""
        found = []
        hulls = self.parts(self.near(ds.HULL, 26, 350, 450), 260, 350, close=9, opening=(5, 25))
        for box in hulls:
            x, y, w, h = box[:4]
            if w < 40 or h > 34:
                continue
            above = slice(max(0, y - 46), y)
            areas = {k: int(self.near(c, 26)[above, x : x + w].sum()) for k, c in ds.SAIL.items()}
            sail = max(areas, key=lambda k: areas[k])
            if areas[sail] > 250:
                found.append((sail, box))
        return found

    def animal(self, kind: str) -> list[Box]:
        y0 = {"sea": 479, "lake": 456}.get(self.water or "", 392)
        return self.parts(self.near(ds.ANIMAL[kind], 26, y0, 511), 140, y0, close=5, opening=(3, 3))


def check(image: np.ndarray, named: list[tuple[str, str]]) -> list[bool]:
    """For each named attribute, whether the picture shows it."""
    f = Findings(image)
    wanted = dict(named)

    def answer(key: str, value: str) -> bool:
        if key == "sky":
            return f.sky == value
        if key in ("sun", "moon"):
            return f.light(key) is not None
        if key == "light_side":
            return f.any_light is not None and _side(f.any_light[5]) == value
        if key == "light_size":
            return f.any_light is not None and (f.any_light[3] > 70) == (value == "big")
        if key == "stars":
            return f.stars >= 6 if value == "yes" else f.stars < 4
        if key == "clouds":
            return f.cloud_area >= 1600 if value == "yes" else f.cloud_area < 700
        if key == "rain":
            return f.rain >= 250
        if key == "snow":
            return f.flakes >= 8
        if key == "birds":
            return f.birds >= 2
        if key in ("mountains", "mountain_side", "ground", "water"):
            return getattr(f, key) == value
        if key in ("caps", "hills"):
            return getattr(f, key) == (value == "yes")
        if key in ("trees", "tree_count", "tree_side"):
            return f.trees is not None and f.trees[("trees", "tree_count", "tree_side").index(key)] == value
        if key == "houses":
            return len(f.houses) == int(value)
        if key in ("wall", "roof"):
            index = 0 if key == "wall" else 1
            return bool(f.houses) and all(h[index] == value for h in f.houses)
        if key == "house_side":
            return bool(f.houses) and _side(float(np.mean([h[2][5] for h in f.houses]))) == value
        if key == "house_size":
            return bool(f.houses) and (float(np.median([h[2][2] for h in f.houses])) > 72) == (value == "big")
        if key == "boats":
            return len(f.boats) == int(value)
        if key == "sail":
            return bool(f.boats) and all(b[0] == value for b in f.boats)
        if key == "boat_side":
            slots = {"left": 132.0, "centre": 256.0, "right": 380.0}
            return bool(f.boats) and _side(float(np.mean([b[1][5] for b in f.boats])), slots) == value
        if key == "animal":
            return len(f.animal(value)) > 0
        if key == "animals":
            return len(f.animal(wanted["animal"])) == int(value)
        if key == "animal_side":
            found = f.animal(wanted["animal"])
            return bool(found) and _side(float(np.mean([b[5] for b in found]))) == value
        raise KeyError(f"no check for attribute {key!r}")

    return [answer(k, v) for k, v in named]
