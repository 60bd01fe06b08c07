"""Paints a Scene: layers from the sky to the animals, antialiased, in 512 x 512 units."""

from __future__ import annotations

import cv2
import numpy as np

from demo_scenes import (
    ANIMAL, BIRD, CAP, CLOUD, DOOR, FACE, FOLIAGE, HORIZON, HULL, MOON, RAIN, RGB, ROOF, SAIL, SAND, SIDES,
    SIZE, SKY, SLOT_X, STAR, SUN, Scene, TRUNK, WALL, WATER, darker, ground_colour, mountain_colour, shade,
)

SS = 2  # supersampling: painted at 1024, averaged down
TOKEN = 16  # pixels a side of what the transformer sees as one token


class Canvas:
    """An antialiased painter in 512-unit coordinates. `emphasis` (32, 32) notes how much each token's place matters:
    the highest `weight` of what was painted there."""

    def __init__(self) -> None:
        self.px = np.zeros((SIZE * SS, SIZE * SS, 3), np.uint8)
        self.emphasis = np.ones((SIZE // TOKEN, SIZE // TOKEN), np.uint8)
        self.weight = 1

    @staticmethod
    def _fixed(points) -> np.ndarray:
        return np.round(np.asarray(points, np.float64) * (SS * 16)).astype(np.int32)

    def poly(self, points, colour: RGB) -> None:
        cv2.fillPoly(self.px, [self._fixed(points)], colour, cv2.LINE_AA, 4)
        if self.weight > 1:
            x, y = np.asarray(points, np.float64).T
            where = tuple(slice(max(0, int(v.min()) // TOKEN), max(0, int(v.max()) // TOKEN + 1)) for v in (y, x))
            np.maximum(self.emphasis[where], self.weight, out=self.emphasis[where])

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: RGB, angle: float = 0.0) -> None:
        a = np.linspace(0, 2 * np.pi, 48, endpoint=False)
        c, s = np.cos(angle), np.sin(angle)
        ex, ey = rx * np.cos(a), ry * np.sin(a)
        self.poly(np.stack([x + c * ex - s * ey, y + s * ex + c * ey], 1), colour)

    def disc(self, x: float, y: float, r: float, colour: RGB) -> None:
        self.ellipse(x, y, r, r, colour)

    def rect(self, x0: float, y0: float, x1: float, y1: float, colour: RGB) -> None:
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def line(self, x0: float, y0: float, x1: float, y1: float, width: float, colour: RGB) -> None:
        d = np.array([x1 - x0, y1 - y0], float)
        n = np.array([-d[1], d[0]]) / max(1e-6, float(np.hypot(*d))) * width / 2
        a, b = np.array([x0, y0]), np.array([x1, y1])
        self.poly([a + n, b + n, b - n, a - n], colour)

    def glow(self, x: float, y: float, radius: float, colour: RGB, strength: float) -> None:
        """Blend a soft radial light into what is already painted."""
        x0, x1 = int(max(0, x - radius) * SS), int(min(SIZE, x + radius) * SS)
        y0, y1 = int(max(0, y - radius) * SS), int(min(SIZE, y + radius) * SS)
        gy, gx = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        d = np.sqrt((gx - x * SS) ** 2 + (gy - y * SS) ** 2) / (radius * SS)
        a = (np.clip(1 - d, 0, 1) ** 2 * strength)[..., None]
        patch = self.px[y0:y1, x0:x1].astype(np.float32)
        self.px[y0:y1, x0:x1] = (patch * (1 - a) + np.asarray(colour, np.float32) * a + 0.5).astype(np.uint8)

    def image(self) -> np.ndarray:
        return cv2.resize(self.px, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def _sky(c: Canvas, s: Scene, r: np.random.Generator) -> None:
    top, mid, low = (np.asarray(v, np.float32) for v in SKY[s.time])
    t = np.linspace(0, 1, HORIZON * SS, dtype=np.float32)[:, None]
    column = np.where(t < 0.6, top + (mid - top) * (t / 0.6), mid + (low - mid) * ((t - 0.6) / 0.4))
    c.px[: HORIZON * SS] = (column + 0.5).astype(np.uint8)[:, None]
    c.px[HORIZON * SS :] = (low + 0.5).astype(np.uint8)
    lx = SLOT_X[s.light_side] + r.uniform(-30, 30)
    ly = r.uniform(62, 96)
    radius = r.uniform(42, 48) if s.light_big else r.uniform(25, 29)
    if s.stars:
        for _ in range(int(r.integers(26, 38))):
            x, y, q = r.uniform(8, 504), r.uniform(8, 215), r.uniform(1.8, 3.2)
            if s.light and np.hypot(x - lx, y - ly) < radius * 1.7:
                continue
            c.poly([(x, y - 2 * q), (x + 0.6 * q, y - 0.6 * q), (x + 2 * q, y), (x + 0.6 * q, y + 0.6 * q), (x, y + 2 * q),
                    (x - 0.6 * q, y + 0.6 * q), (x - 2 * q, y), (x - 0.6 * q, y - 0.6 * q)], STAR)
    c.weight = 3
    if s.light == "sun":
        c.glow(lx, ly, radius * 2.6, (255, 236, 170), 0.75)
        c.disc(lx, ly, radius, SUN)
    elif s.light:
        c.glow(lx, ly, radius * 2.4, (150, 160, 210), 0.5)
        if s.light == "moon":
            c.disc(lx, ly, radius, MOON)
        else:
            a = np.linspace(-np.pi / 2, np.pi / 2, 24)
            outer = np.stack([lx + radius * np.cos(a), ly + radius * np.sin(a)], 1)
            inner = np.stack([lx + radius * 0.36 * np.cos(a), ly + radius * np.sin(a)], 1)[::-1]
            c.poly(np.concatenate([outer, inner]), MOON)
    c.weight = 1
    if s.weather == "clouds":
        free = [x for x in (60, 170, 256, 342, 452) if not s.light or abs(x - lx) > 110]
        for x in r.permutation(free)[: int(r.integers(2, 4))]:
            _cloud(c, x + r.uniform(-18, 18), r.uniform(46, 120), r.uniform(0.8, 1.15), CLOUD[s.time])
    if s.birds:
        c.weight = 3
        bx = next(SLOT_X[k] for k in r.permutation(list(SIDES)) if not s.light or k != s.light_side)
        for i in range(int(r.integers(3, 6))):
            x, y, w = bx + (i % 3 - 1) * 46 + r.uniform(-6, 6), 138 + (i // 3) * 34 + r.uniform(-10, 10), r.uniform(15, 18)
            for d in (-1, 1):
                c.poly([(x, y), (x + d * w * 0.55, y - w * 0.55), (x + d * w * 1.1, y - w * 0.35),
                        (x + d * w * 0.6, y - w * 0.2), (x, y + w * 0.32)], BIRD)
    c.weight = 1


def _cloud(c: Canvas, x: float, y: float, k: float, colour: RGB) -> None:
    for dx, dy, q in ((-30, 4, 15), (-10, -7, 21), (15, -3, 18), (34, 6, 12)):
        c.disc(x + dx * k, y + dy * k, q * k, colour)
    c.rect(x - 32 * k, y + 4 * k, x + 36 * k, y + 18.5 * k, colour)


def _mountains(c: Canvas, s: Scene, r: np.random.Generator) -> None:
    if not s.mountains:
        return
    base = mountain_colour(s.mountains, s.time)
    low = SKY[s.time][2]
    spans = {"all": (0, 512), "left": (-20, 190), "right": (322, 532)}
    x0, x1 = spans[s.mountain_side]
    n = int(r.integers(4, 6)) if s.mountain_side == "all" else 2
    xs = np.linspace(x0, x1, n) + r.uniform(-20, 20, n)
    far = tuple(int(b * 0.55 + w * 0.45) for b, w in zip(base, low))
    for x in xs[:-1] + (x1 - x0) / (2 * n):  # a paler ridge between the peaks gives depth
        h = r.uniform(60, 90)
        c.poly([(x - h * 1.3, HORIZON), (x, HORIZON - h), (x + h * 1.3, HORIZON)], far)
    for x in xs[np.argsort(r.random(n))]:
        h, w = r.uniform(112, 158), r.uniform(0.72, 0.86)
        top, left, right = (x, HORIZON - h), (x - h * w, HORIZON), (x + h * w, HORIZON)
        c.poly([top, right, left], base)
        c.poly([top, right, (x + h * 0.12, HORIZON), (x - h * 0.06, HORIZON - h * 0.5)], darker(base, 0.84))
        if s.caps:
            k = 0.36  # the share of the peak that snow covers
            y = HORIZON - h * (1 - k)
            zig = [(x + h * w * k * f, y + d * h * 0.07) for f, d in ((1, 0), (0.55, 1), (0.2, -0.4), (-0.15, 1), (-0.5, -0.2), (-1, 0.2))]
            c.poly([top, *zig], CAP)
            c.poly([top, zig[0], zig[1], zig[2]], darker(CAP, 0.92))


def _wave(y: float, amp: float, length: float, phase: float, x0: float = 0, x1: float = SIZE, bottom: float = SIZE):
    xs = np.linspace(x0, x1, 65)
    ys = y - amp * np.sin(xs / length * 2 * np.pi + phase)
    return np.concatenate([np.stack([xs, ys], 1), [(x1, bottom), (x0, bottom)]])


def _land(c: Canvas, s: Scene, r: np.random.Generator) -> None:
    g, w = ground_colour(s.ground, s.time), shade(WATER[s.time], "day")
    light, dark = tuple(int(v * 0.72 + 255 * 0.28) for v in w), darker(w, 0.86)
    if s.water == "sea":
        c.rect(0, HORIZON, SIZE, SIZE, w)
        c.rect(0, HORIZON, SIZE, HORIZON + 16, dark)
        _ripples(c, s, r, 322, 418, 20, 492, light)
        y = r.uniform(430, 438)
        c.poly(_wave(y, 5, 300, r.uniform(0, 6)), shade(SAND, s.time))
        c.poly(_wave(y + 16, 5, 340, r.uniform(0, 6)), g)
        return
    c.rect(0, HORIZON - 1, SIZE, SIZE, darker(g, 0.84) if s.hills else g)
    if s.hills:
        for k, (y, f) in enumerate(((284, 0.84), (298, 0.92))):
            c.poly(_wave(y, r.uniform(24, 30) - 8 * k, r.uniform(260, 340), r.uniform(0, 6)), darker(g, f))
        c.poly(_wave(HORIZON + 20, 6, 380, r.uniform(0, 6)), g)
    c.poly(_wave(372, 7, 420, r.uniform(0, 6)), darker(g, 0.96))
    if s.water == "lake":
        x, y, rx, ry = 256 + r.uniform(-16, 16), 418 + r.uniform(-3, 3), r.uniform(218, 236), r.uniform(36, 41)
        c.ellipse(x, y + 4, rx + 8, ry + 5, darker(g, 0.84))
        c.ellipse(x, y, rx, ry, w)
        c.ellipse(x, y - ry * 0.42, rx * 0.78, ry * 0.32, dark)
        _ripples(c, s, r, y - 14, y + 26, x - rx * 0.7, x + rx * 0.7, light)
    elif s.water == "river":
        t = np.linspace(0, 1, 40)
        mid = 256 + r.uniform(-14, 14) + r.choice([-1, 1]) * r.uniform(22, 30) * np.sin(t * np.pi * 1.8)
        half, ys = 9 + 62 * t**1.2, 306 + (SIZE - 306) * t
        for grow, colour in ((5, darker(g, 0.84)), (0, w)):
            left, right = np.stack([mid - half - grow, ys], 1), np.stack([mid + half + grow, ys], 1)
            c.poly(np.concatenate([left, right[::-1]]), colour)
        for y in (372, 416, 462, 492):
            i = int((y - 306) / (SIZE - 306) * 39)
            x = mid[i] + r.uniform(-0.3, 0.3) * half[i]
            c.line(x - half[i] * 0.4, y, x + half[i] * 0.4, y, 3, light)


def _ripples(c: Canvas, s: Scene, r: np.random.Generator, y0: float, y1: float, x0: float, x1: float, colour: RGB) -> None:
    """Short light strokes, and under a sun or moon a broken column of its light."""
    for _ in range(9):
        x, y, w = r.uniform(x0, x1 - 50), r.uniform(y0, y1), r.uniform(22, 46)
        c.line(x, y, x + w, y, 3, colour)
    if s.light:
        glint = tuple(int(a * 0.5 + b * 0.5) for a, b in zip(SUN if s.light == "sun" else MOON, colour))
        lx = float(np.clip(SLOT_X[s.light_side], x0 + 40, x1 - 40))
        for i, y in enumerate(np.linspace(y0, y1, 5)):
            c.line(lx - 30 + 4 * i, y, lx + 30 - 4 * i, y, 4, glint)


def _tree(c: Canvas, kind: str, x: float, y: float, h: float) -> None:
    leaf = FOLIAGE[kind]
    c.rect(x - h * 0.045, y - h * 0.3, x + h * 0.045, y, TRUNK)
    if kind == "pine":
        for f0, f1, w in ((0.14, 0.55, 0.27), (0.36, 0.78, 0.21), (0.6, 1.0, 0.15)):
            c.poly([(x - h * w, y - h * f0), (x + h * w, y - h * f0), (x, y - h * f1)], leaf)
    else:
        c.ellipse(x, y - h * 0.62, h * 0.27, h * 0.36, leaf)
        c.disc(x - h * 0.15, y - h * 0.46, h * 0.18, leaf)
        c.disc(x + h * 0.15, y - h * 0.46, h * 0.18, leaf)
        c.disc(x - h * 0.09, y - h * 0.7, h * 0.09, darker(leaf, 1.14))


def _trees(c: Canvas, s: Scene, r: np.random.Generator, y: float) -> None:
    if not s.trees:
        return
    x = SLOT_X[s.tree_side]
    if s.tree_count == "one":
        _tree(c, s.trees, x + r.uniform(-14, 14), y + 4, r.uniform(132, 146))
    elif s.tree_count == "few":
        for i in r.permutation(3):
            _tree(c, s.trees, x + (i - 1) * 52 + r.uniform(-3, 3), y + r.uniform(-4, 6), r.uniform(84, 104))
    else:
        x = 110 if s.tree_side == "left" else 402
        for i in range(4):
            _tree(c, s.trees, x + (i - 1.5) * 56 + r.uniform(-5, 5), y - 12 + r.uniform(-3, 3), r.uniform(84, 98))
        for i in range(4):
            _tree(c, s.trees, x + (i - 1.5) * 58 + 14 + r.uniform(-5, 5), y + 10 + r.uniform(-3, 3), r.uniform(78, 90))


def _house(c: Canvas, s: Scene, x: float, y: float, w: float) -> None:
    h = w * 0.62
    wall, roof = WALL[s.wall], ROOF[s.roof]
    c.rect(x - w / 2, y - h, x + w / 2, y, wall)
    c.poly([(x - w * 0.6, y - h + 1), (x - w * 0.3, y - h - w * 0.42), (x + w * 0.3, y - h - w * 0.42), (x + w * 0.6, y - h + 1)], roof)
    c.rect(x - w * 0.08, y - h * 0.56, x + w * 0.12, y, DOOR)
    glass = (255, 226, 120) if s.time == "night" and s.wall != "yellow" else (196, 224, 240)
    for d in (-0.3, 0.33):
        c.rect(x + w * (d - 0.08), y - h * 0.72, x + w * (d + 0.08), y - h * 0.36, glass)


def _houses(c: Canvas, s: Scene, r: np.random.Generator, y: float) -> None:
    if not s.houses:
        return
    w = r.uniform(46, 50)
    if s.house_size == "big":
        w = r.uniform(92, 100) if s.houses == 1 else r.uniform(72, 78)
    step = w * 1.24 + 10
    for i in range(s.houses):
        _house(c, s, SLOT_X[s.house_side] + (i - (s.houses - 1) / 2) * step, y + r.uniform(-5, 5), w)


def _boats(c: Canvas, s: Scene, r: np.random.Generator) -> None:
    y = r.uniform(418, 430) if s.water == "lake" else r.uniform(378, 404)
    x = {"left": 132, "centre": 256, "right": 380}[s.boat_side] + r.uniform(-12, 12)
    for i in range(s.boats):
        bx, by = x + (i - (s.boats - 1) / 2) * 92, y - 8 * i
        c.line(bx, by, bx, by - 60, 3, HULL)
        c.poly([(bx + 3, by - 8), (bx + 3, by - 60), (bx + 35, by - 8)], SAIL[s.sail])
        c.poly([(bx - 3, by - 8), (bx - 3, by - 48), (bx - 24, by - 8)], SAIL[s.sail])
        c.poly([(bx - 34, by - 3), (bx + 38, by - 3), (bx + 24, by + 12), (bx - 22, by + 12)], HULL)


def _animal(c: Canvas, kind: str, x: float, y: float, d: int) -> None:
    """One animal standing at (x, y); d is 1 to look right, -1 to look left."""
    body = ANIMAL[kind]
    if kind == "sheep":
        for q in (-11, 9):
            c.rect(x + q - 2.5, y - 10, x + q + 2.5, y, FACE)
        for dx, dy, q in ((-12, -17, 10), (0, -20, 13), (12, -17, 10), (0, -13, 11)):
            c.disc(x + dx, y + dy, q, body)
        c.ellipse(x + d * 21, y - 22, 7, 9, FACE, d * 0.3)
    elif kind == "cow":
        for q in (-17, -8, 9, 17):
            c.rect(x + q - 2.5, y - 14, x + q + 2.5, y, darker(body, 0.7))
        c.ellipse(x, y - 21, 25, 13, body)
        c.ellipse(x - d * 6, y - 23, 8, 6, (252, 240, 224))
        c.ellipse(x + d * 27, y - 31, 10, 8, body, d * 0.5)
        c.ellipse(x + d * 33, y - 28, 4.5, 4.5, (240, 196, 180))
    else:
        for q in (-8, 8):
            c.rect(x + q - 2, y - 9, x + q + 2, y, FACE)
        c.ellipse(x, y - 14, 16, 8.5, body)
        head = ((10, -17), (11, -32), (17, -26), (23, -32), (29, -15), (15, -10))
        c.poly([(x + d * hx, y + hy) for hx, hy in head], body)
        c.ellipse(x - d * 21, y - 18, 10, 5.5, body, d * 0.5)
        c.ellipse(x - d * 29, y - 22, 4.5, 4, (255, 250, 244), d * 0.5)


def _animals(c: Canvas, s: Scene, r: np.random.Generator) -> None:
    if not s.animal:
        return
    y0 = {"lake": 494, "sea": 500, "river": 462, None: 452}[s.water]
    x0 = SLOT_X[s.animal_side]
    if s.water == "river":
        x0 = 70 if s.animal_side == "left" else 442
    places = {1: ((0, 0),), 2: ((-36, 0), (38, 4)), 3: ((-66, 0), (4, 6), (72, 0))}[s.animals]
    if s.water == "river" and s.animals > 1:  # one above the other where the bank is narrow
        places = ((-10, -50), (4, -4), (-4, 42))[: s.animals]
    d = int(r.choice([-1, 1]))
    for dx, dy in places:
        _animal(c, s.animal, x0 + dx + r.uniform(-3, 3), y0 + dy, d)


def paint(s: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Paint the scene: (512, 512, 3) uint8 RGB, and its emphasis (32, 32) uint8: small things that a caption names
    count for more than the sky, whose many tokens would drown them in a loss."""
    r = np.random.default_rng((s.seed, 1))
    c = Canvas()
    _sky(c, s, r)
    _mountains(c, s, r)
    _land(c, s, r)
    y = 472.0 if s.water == "sea" else 358.0
    c.weight = 2
    _trees(c, s, r, y)
    c.weight = 4
    _houses(c, s, r, y)
    c.weight = 5
    if s.boats:
        _boats(c, s, r)
    c.weight = 6
    _animals(c, s, r)
    c.weight = 1
    if s.weather == "rain":
        for _ in range(64):
            x, yy = r.uniform(0, 520), r.uniform(-10, 500)
            c.line(x, yy, x - 7, yy + 24, 3.4, RAIN)
    elif s.weather == "snow":
        for _ in range(80):
            c.disc(r.uniform(0, 512), r.uniform(0, 500), r.uniform(2.6, 4.6), (255, 255, 255))
    return c.image(), c.emphasis


def draw(s: Scene) -> np.ndarray:
    """Paint the scene: (512, 512, 3) uint8 RGB."""
    return paint(s)[0]
