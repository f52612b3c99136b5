"""Outdoor scenes. Each function paints one; 1 is the image's height, x runs from 0 to `wide`.

All details are drawn from the generator that is handed in, so the same seed paints the same scene.
"""

from __future__ import annotations

import numpy as np

from cocoer.data.synthetic.pen import Colour, Pen, arc_points, darker, gradient, lighter, mix
from cocoer.data.synthetic.props import heart

Rng = np.random.Generator


def sky(pen: Pen, top: Colour, bottom: Colour) -> None:
    """Fill the whole image with a vertical gradient."""
    pen.image.paste(gradient(pen.image.size, top, bottom))


def _tree(pen: Pen, x: float, y: float, size: float, leaf: Colour) -> None:
    pen.rect(x - 0.025 * size, y - 0.35 * size, x + 0.025 * size, y, (104, 74, 50))
    for dx, dy, r in ((-0.13, -0.4, 0.15), (0.13, -0.4, 0.15), (0, -0.54, 0.18), (0, -0.38, 0.16)):
        pen.ellipse(x + dx * size, y + dy * size, r * size, r * size, leaf)
    pen.ellipse(x - 0.06 * size, y - 0.58 * size, 0.07 * size, 0.06 * size, lighter(leaf, 0.2))


def _cloud(pen: Pen, x: float, y: float, size: float, fill: Colour) -> None:
    for dx, dy, r in ((-0.1, 0, 0.06), (0, -0.03, 0.085), (0.1, 0, 0.065), (0.04, 0.02, 0.07)):
        pen.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.8, fill)


def _flames(pen: Pen, x: float, y: float, size: float) -> None:
    for share, colour in ((1.0, (228, 70, 30)), (0.68, (250, 150, 40)), (0.36, (255, 226, 110))):
        s = size * share
        pen.polygon(
            [(x - 0.16 * s, y), (x - 0.19 * s, y - 0.18 * s), (x - 0.1 * s, y - 0.14 * s), (x - 0.06 * s, y - 0.36 * s),
             (x + 0.02 * s, y - 0.22 * s), (x + 0.09 * s, y - 0.44 * s), (x + 0.13 * s, y - 0.16 * s),
             (x + 0.19 * s, y - 0.24 * s), (x + 0.16 * s, y)],
            colour,
        )  # fmt: skip


def _rain(pen: Pen, rng: Rng, wide: float, count: int) -> None:
    for x, y in rng.random((count, 2)):
        pen.line([(x * wide, y), (x * wide - 0.02, y + 0.07)], 0.005, (190, 205, 225))


def beach(pen: Pen, rng: Rng, wide: float) -> None:
    """Sun, sea, sand and a parasol."""
    sky(pen, (90, 180, 240), (196, 232, 250))
    sun = wide * rng.uniform(0.15, 0.85)
    pen.ellipse(sun, 0.17, 0.13, 0.13, (255, 240, 170))
    pen.ellipse(sun, 0.17, 0.1, 0.1, (255, 214, 70))
    pen.rect(0, 0.46, wide, 0.7, (38, 140, 190))
    for y in (0.52, 0.58):
        x = wide * rng.random()
        pen.line([(x - 0.15, y), (x + 0.2, y)], 0.01, (160, 216, 236))
    pen.polygon([(0, 0.66), (wide * 0.5, 0.63), (wide, 0.67), (wide, 1), (0, 1)], (244, 218, 160))
    x = wide * rng.choice((0.1, 0.9))
    pen.line([(x, 0.85), (x, 0.35)], 0.015, (240, 240, 240))
    for i in range(6):
        colour = (232, 70, 70) if i % 2 else (250, 250, 245)
        pen.polygon([(x - 0.24 + i * 0.08, 0.42), (x, 0.26), (x - 0.16 + i * 0.08, 0.42)], colour)
    ball = wide * rng.uniform(0.25, 0.75)
    pen.ellipse(ball, 0.9, 0.06, 0.06, (250, 250, 245))
    pen.ellipse(ball, 0.9, 0.03, 0.06, (230, 80, 80))


def sunset_park(pen: Pen, rng: Rng, wide: float) -> None:
    """A bench under a tree at sunset, with hearts in the air."""
    sky(pen, (250, 150, 130), (255, 220, 180))
    pen.ellipse(wide * rng.uniform(0.3, 0.7), 0.55, 0.16, 0.16, (255, 236, 180))
    pen.ellipse(wide * 0.3, 0.85, wide * 0.7, 0.28, (150, 150, 90))
    pen.rect(0, 0.74, wide, 1, (120, 140, 80))
    _tree(pen, wide * rng.choice((0.08, 0.92)), 0.8, 1.25, (206, 110, 110))
    x = wide * rng.uniform(0.3, 0.7)
    for y in (0.6, 0.67, 0.76):
        pen.rect(x - 0.3, y, x + 0.3, y + 0.04, (150, 96, 60))
    for side in (-0.26, 0.26):
        pen.rect(x + side - 0.02, 0.6, x + side + 0.02, 0.9, (92, 60, 44))
    for _ in range(6):
        heart(pen.at((wide * rng.random(), rng.uniform(0.06, 0.4)), rng.uniform(0.05, 0.11)), (232, 70, 110))


def stadium(pen: Pen, rng: Rng, wide: float) -> None:
    """A sports field with stands, floodlights, confetti and a podium or a goal."""
    sky(pen, (70, 90, 170), (150, 170, 220))
    pen.rect(0, 0.3, wide, 0.62, (84, 84, 104))
    crowd = np.array([(230, 90, 80), (240, 210, 90), (240, 240, 240), (90, 150, 220), (250, 160, 70)])
    for row in range(6):
        for x in np.arange(0.01, wide, 0.045):
            c = crowd[int(rng.integers(5))]
            pen.ellipse(float(x) + 0.02 * (row % 2), 0.33 + row * 0.05, 0.015, 0.018, (int(c[0]), int(c[1]), int(c[2])))
    pen.rect(0, 0.62, wide, 1, (66, 160, 76))
    for i in range(0, 8, 2):
        pen.polygon(
            [(wide * i / 8, 0.62), (wide * (i + 1) / 8, 0.62), (wide * (i + 0.8) / 8, 1), (wide * (i - 0.4) / 8, 1)],
            (80, 176, 88),
        )
    for x in (0.07 * wide, 0.93 * wide):
        pen.rect(x - 0.008, 0.1, x + 0.008, 0.4, (60, 60, 70))
        pen.rect(x - 0.08, 0.04, x + 0.08, 0.14, (255, 252, 214))
    x = wide * rng.uniform(0.4, 0.6)
    pen.rect(x - 0.35, 0.88, x + 0.35, 1, (236, 236, 240))
    pen.rect(x - 0.12, 0.82, x + 0.12, 1, (248, 206, 70))
    confetti(pen, rng, wide, 40)


def confetti(pen: Pen, rng: Rng, wide: float, count: int) -> None:
    """Small coloured papers all over the upper part."""
    colours: tuple[Colour, ...] = ((240, 80, 90), (250, 210, 70), (90, 200, 120), (90, 150, 240), (220, 120, 230))
    for x, y, k in rng.random((count, 3)):
        pen.at((float(x) * wide, float(y) * 0.75), degrees=float(k) * 180).rect(
            -0.012, -0.006, 0.012, 0.006, colours[int(k * 5)]
        )


def fireworks(pen: Pen, rng: Rng, wide: float) -> None:
    """Fireworks over a crowd at night."""
    sky(pen, (24, 22, 66), (92, 60, 120))
    colours: tuple[Colour, ...] = ((255, 110, 100), (255, 226, 110), (120, 230, 255), (250, 150, 255))
    for i in range(5):
        x, y, r = wide * (0.1 + 0.2 * i), rng.uniform(0.1, 0.36), rng.uniform(0.1, 0.19)
        for j, (px, py) in enumerate(arc_points(x, y, r, r, 0, 360)):
            pen.line([(x + (px - x) * 0.3, y + (py - y) * 0.3), (px, py)], 0.009, colours[(i + j % 2) % 4])
    for x in np.arange(0.02, wide, 0.09):
        pen.ellipse(float(x), 0.7 + float(rng.uniform(0, 0.03)), 0.045, 0.05, (40, 30, 62))
        pen.line([(float(x), 0.75), (float(x) + 0.03, 0.6)], 0.018, (40, 30, 62))
    pen.rect(0, 0.72, wide, 1, (58, 44, 84))


def lake(pen: Pen, rng: Rng, wide: float) -> None:
    """A still lake before mountains."""
    sky(pen, (170, 210, 236), (236, 240, 232))
    for i in range(3):
        x = wide * (0.2 + 0.3 * i) + rng.uniform(-0.08, 0.08)
        h = rng.uniform(0.22, 0.36)
        pen.polygon([(x - 0.4, 0.52), (x, 0.52 - h), (x + 0.4, 0.52)], (132, 150, 172))
        pen.polygon([(x - 0.09, 0.52 - h * 0.78), (x, 0.52 - h), (x + 0.09, 0.52 - h * 0.78)], (248, 250, 252))
    pen.rect(0, 0.5, wide, 0.78, (128, 184, 204))
    for y in (0.57, 0.64, 0.71):
        x = wide * rng.random()
        pen.line([(x - 0.2, y), (x + 0.2, y)], 0.007, (190, 222, 232))
    pen.polygon([(0, 0.74), (wide * 0.5, 0.78), (wide, 0.73), (wide, 1), (0, 1)], (140, 180, 110))


def meadow(pen: Pen, rng: Rng, wide: float) -> None:
    """A flowering meadow with soft hills and butterflies."""
    sky(pen, (186, 222, 246), (244, 248, 236))
    for i, colour in enumerate(((168, 206, 140), (146, 194, 120), (126, 180, 102))):
        pen.ellipse(wide * (0.15 + 0.4 * i), 0.98, wide * 0.6, 0.46 - 0.08 * i, colour)
    pen.rect(0, 0.8, wide, 1, (126, 180, 102))
    for x, y, k in rng.random((46, 3)):
        colour = ((250, 250, 250), (250, 214, 90), (226, 150, 200))[int(k * 3)]
        pen.ellipse(float(x) * wide, 0.68 + 0.32 * float(y), 0.013, 0.012, colour)
    for _ in range(2):
        _cloud(pen, wide * rng.random(), rng.uniform(0.1, 0.28), 1.1, (252, 252, 252))


def graveyard(pen: Pen, rng: Rng, wide: float) -> None:
    """Gravestones, a bare tree and rain."""
    sky(pen, (92, 100, 116), (150, 156, 164))
    pen.rect(0, 0.68, wide, 1, (84, 96, 84))
    x = wide * rng.choice((0.1, 0.9))
    pen.line([(x, 0.75), (x, 0.3)], 0.035, (52, 44, 42))
    for dx, dy in ((-0.15, 0.12), (0.14, 0.16), (-0.08, 0.05), (0.1, 0.02)):
        pen.line([(x, 0.44), (x + dx, 0.1 + dy)], 0.014, (52, 44, 42))
    for i in range(5):
        gx, gy = wide * (0.1 + 0.2 * i) + rng.uniform(-0.03, 0.03), 0.74 + 0.05 * (i % 2)
        stone: Colour = mix((150, 152, 156), (110, 112, 118), rng.random())
        if i % 3 == 1:
            pen.rect(gx - 0.02, gy - 0.28, gx + 0.02, gy, stone)
            pen.rect(gx - 0.085, gy - 0.22, gx + 0.085, gy - 0.18, stone)
        else:
            pen.ellipse(gx, gy - 0.16, 0.075, 0.075, stone)
            pen.rect(gx - 0.075, gy - 0.16, gx + 0.075, gy, stone)
            pen.line([(gx, gy - 0.19), (gx, gy - 0.08)], 0.012, darker(stone))
            pen.line([(gx - 0.03, gy - 0.15), (gx + 0.03, gy - 0.15)], 0.012, darker(stone))
    _rain(pen, rng, wide, 70)


def rainy_street(pen: Pen, rng: Rng, wide: float) -> None:
    """Grey houses, puddles and heavy rain."""
    sky(pen, (96, 108, 128), (148, 156, 170))
    x = -0.05
    while x < wide:
        w, top = rng.uniform(0.2, 0.34), rng.uniform(0.14, 0.4)
        wall: Colour = mix((104, 108, 120), (78, 84, 98), rng.random())
        pen.rect(x, top, x + w, 0.72, wall)
        for wy in np.arange(top + 0.05, 0.6, 0.12):
            for wx in (x + w * 0.2, x + w * 0.6):
                pen.rect(wx, float(wy), wx + w * 0.18, float(wy) + 0.06, (146, 152, 150))
        x += w
    pen.rect(0, 0.72, wide, 1, (82, 88, 98))
    for _ in range(4):
        pen.ellipse(wide * rng.random(), rng.uniform(0.8, 0.97), 0.14, 0.022, (140, 156, 176))
    _rain(pen, rng, wide, 120)


def dark_forest(pen: Pen, rng: Rng, wide: float) -> None:
    """Black trees at night with glowing eyes."""
    sky(pen, (16, 20, 44), (44, 58, 78))
    pen.ellipse(wide * rng.uniform(0.2, 0.8), 0.14, 0.075, 0.075, (214, 220, 200))
    for _ in range(9):
        x, w = wide * rng.random(), rng.uniform(0.02, 0.05)
        pen.polygon([(x - w, 0), (x + w, 0), (x + w * 1.6, 0.85), (x - w * 1.6, 0.85)], (14, 16, 26))
        for side in (-1, 1):
            y = rng.uniform(0.1, 0.45)
            pen.line([(x, y), (x + side * 0.14, y - 0.09), (x + side * 0.2, y - 0.04)], 0.014, (14, 16, 26))
    pen.rect(0, 0.8, wide, 1, (30, 38, 44))
    for _ in range(6):
        x, y = wide * rng.random(), rng.uniform(0.3, 0.7)
        for dx in (-0.028, 0.028):
            pen.ellipse(x + dx, y, 0.019, 0.013, (250, 214, 70))
            pen.ellipse(x + dx, y, 0.005, 0.012, (20, 16, 16))


def storm_house(pen: Pen, rng: Rng, wide: float) -> None:
    """A haunted house, lightning and bats."""
    sky(pen, (30, 24, 54), (84, 70, 104))
    x = wide * rng.uniform(0.15, 0.8)
    pen.line([(x, 0), (x + 0.08, 0.17), (x - 0.02, 0.2), (x + 0.09, 0.42)], 0.018, (255, 250, 190))
    h = wide * rng.choice((0.2, 0.8))
    pen.rect(h - 0.2, 0.36, h + 0.2, 0.82, (32, 26, 40))
    pen.polygon([(h - 0.25, 0.38), (h, 0.14), (h + 0.25, 0.38)], (22, 18, 30))
    for dx in (-0.1, 0.06):
        pen.rect(h + dx, 0.46, h + dx + 0.07, 0.57, (236, 200, 80))
    for _ in range(5):
        b = pen.at((wide * rng.random(), rng.uniform(0.06, 0.35)), rng.uniform(0.6, 1.0))
        b.polygon(
            [(-0.08, -0.03), (-0.03, 0.0), (0, -0.02), (0.03, 0.0), (0.08, -0.03), (0.03, 0.035), (-0.03, 0.035)],
            (16, 12, 22),
        )
    pen.rect(0, 0.8, wide, 1, (44, 40, 52))


def protest(pen: Pen, rng: Rng, wide: float) -> None:
    """Fires, smoke and angry signs in a street."""
    sky(pen, (96, 60, 60), (220, 120, 80))
    for _ in range(5):
        _cloud(pen, wide * rng.random(), rng.uniform(0.08, 0.3), 1.6, (70, 58, 60))
    for x in np.arange(0.05, wide, 0.13):
        pen.ellipse(float(x), 0.58, 0.04, 0.045, (62, 44, 46))
        pen.rect(float(x) - 0.05, 0.62, float(x) + 0.05, 0.8, (62, 44, 46))
    for i in range(3):
        x, y = wide * (0.17 + 0.33 * i) + rng.uniform(-0.06, 0.06), rng.uniform(0.22, 0.34)
        pen.rect(x - 0.01, y, x + 0.01, 0.62, (120, 84, 60))
        pen.rect(x - 0.13, y - 0.1, x + 0.13, y + 0.08, (246, 240, 226))
        pen.line([(x - 0.06, y - 0.06), (x + 0.06, y + 0.04)], 0.025, (210, 30, 30))
        pen.line([(x + 0.06, y - 0.06), (x - 0.06, y + 0.04)], 0.025, (210, 30, 30))
    pen.rect(0, 0.76, wide, 1, (86, 74, 74))
    for x in (0.07 * wide, 0.93 * wide, wide * rng.uniform(0.3, 0.7)):
        _flames(pen, x, 0.86, rng.uniform(0.7, 1.0))


def traffic_jam(pen: Pen, rng: Rng, wide: float) -> None:
    """Cars nose to tail under a red sky, with exhaust fumes and a red light."""
    sky(pen, (206, 130, 100), (236, 190, 150))
    pen.rect(0, 0.5, wide, 1, (96, 94, 98))
    for row, y in enumerate((0.6, 0.78)):
        for x in np.arange(-0.1 + 0.2 * row, wide + 0.2, 0.46):
            colour = ((200, 50, 46), (230, 180, 60), (70, 90, 130), (214, 214, 214))[int(rng.integers(4))]
            c = pen.at((float(x), y), 0.9 + 0.3 * row)
            c.polygon([(-0.12, -0.08), (-0.07, -0.17), (0.08, -0.17), (0.13, -0.08)], (190, 214, 226))
            c.rect(-0.2, -0.09, 0.2, 0.02, colour)
            for wheel in (-0.11, 0.11):
                c.ellipse(wheel, 0.03, 0.042, 0.042, (30, 30, 34))
            c.ellipse(0.19, -0.05, 0.018, 0.018, (255, 60, 50))
            _cloud(c, -0.26, -0.02, 0.5, (150, 140, 136))
    x = wide * rng.choice((0.12, 0.88))
    pen.rect(x - 0.01, 0.3, x + 0.01, 0.6, (50, 50, 54))
    pen.rect(x - 0.05, 0.06, x + 0.05, 0.32, (40, 40, 44))
    for y, lamp in ((0.11, (255, 50, 40)), (0.19, (90, 74, 30)), (0.27, (30, 80, 44))):
        pen.ellipse(x, y, 0.034, 0.034, lamp)


def dump(pen: Pen, rng: Rng, wide: float) -> None:
    """A rubbish heap with flies and green vapours."""
    sky(pen, (170, 178, 130), (206, 206, 160))
    for i in range(4):
        pen.ellipse(
            wide * (0.1 + 0.27 * i), 0.86, 0.3, rng.uniform(0.22, 0.4), mix((110, 100, 66), (90, 92, 60), rng.random())
        )
    pen.rect(0, 0.8, wide, 1, (122, 112, 78))
    for _ in range(6):
        x, y = wide * rng.random(), rng.uniform(0.6, 0.8)
        pen.ellipse(x, y, 0.08, 0.085, (44, 46, 52))
        pen.polygon([(x - 0.03, y - 0.07), (x, y - 0.13), (x + 0.03, y - 0.07)], (44, 46, 52))
    for _ in range(4):
        x = wide * rng.random()
        pen.line([(x, 0.5), (x + 0.04, 0.42), (x - 0.02, 0.34), (x + 0.04, 0.26), (x, 0.18)], 0.018, (120, 170, 70))
    for x, y in rng.random((22, 2)):
        pen.ellipse(float(x) * wide, float(y) * 0.6, 0.008, 0.007, (26, 26, 24))


def crossroads(pen: Pen, rng: Rng, wide: float) -> None:
    """A fork in a foggy road with signs that point everywhere."""
    sky(pen, (186, 192, 206), (222, 220, 214))
    pen.rect(0, 0.66, wide, 1, (160, 168, 136))
    middle = wide * 0.5
    near, fork = (
        [(middle - 0.2, 1), (middle + 0.2, 1)],
        [(wide, 0.68), (wide, 0.66), (middle, 0.78), (0, 0.66), (0, 0.68)],
    )
    pen.polygon([*near, (middle + 0.05, 0.82), *fork, (middle - 0.05, 0.82)], (196, 182, 160))
    for x in (wide * rng.uniform(0.08, 0.22), wide * rng.uniform(0.78, 0.92)):
        pen.rect(x - 0.015, 0.14, x + 0.015, 0.78, (110, 84, 64))
        for i, y in enumerate((0.18, 0.29, 0.4)):
            side = 1 if (i + int(rng.integers(2))) % 2 else -1
            pen.polygon([(x - side * 0.08, y), (x + side * 0.13, y), (x + side * 0.19, y + 0.04), (x + side * 0.13, y + 0.08),
                         (x - side * 0.08, y + 0.08)], (236, 196, 96))  # fmt: skip
    for _ in range(4):
        question_mark(pen.at((wide * rng.random(), rng.uniform(0.12, 0.5)), rng.uniform(0.12, 0.22)), (120, 104, 150))


def question_mark(pen: Pen, fill: Colour) -> None:
    """A question mark, about one unit high."""
    pen.line([*arc_points(0, -0.25, 0.22, 0.22, 180, 430), (0, 0.1), (0, 0.22)], 0.12, fill)
    pen.ellipse(0, 0.42, 0.075, 0.075, fill)
