"""Indoor scenes. Each function paints one; 1 is the image's height, x runs from 0 to `wide`."""

from __future__ import annotations

import numpy as np

from cocoer.data.synthetic.outdoor import confetti, question_mark, sky
from cocoer.data.synthetic.pen import Colour, Pen, arc_points, darker, lighter, mix
from cocoer.data.synthetic.props import heart

Rng = np.random.Generator
_BRIGHT: tuple[Colour, ...] = ((240, 80, 90), (250, 190, 60), (90, 190, 120), (90, 150, 240), (200, 110, 220))


def _room(pen: Pen, wide: float, wall: Colour, floor: Colour) -> None:
    sky(pen, lighter(wall, 0.12), wall)
    pen.rect(0, 0.76, wide, 1, floor)
    pen.rect(0, 0.74, wide, 0.765, darker(wall, 0.25))


def party(pen: Pen, rng: Rng, wide: float) -> None:
    """Garland, balloons and a cake."""
    _room(pen, wide, (252, 226, 170), (214, 160, 110))
    for start in (0.0, wide * 0.5):
        rope = arc_points(start + wide * 0.25, 0.02, wide * 0.25, 0.14, 180, 0)
        pen.line(rope, 0.008, (120, 90, 80))
        for i, (x, y) in enumerate(rope[1:-1:2]):
            pen.polygon([(x - 0.035, y), (x + 0.035, y), (x, y + 0.08)], _BRIGHT[i % 5])
    for i in range(7):
        x, y = wide * (0.05 if i % 2 else 0.95) + rng.uniform(-0.1, 0.1), rng.uniform(0.22, 0.55)
        pen.line([(x, y), (x * 0.9 + wide * 0.05, 0.72)], 0.006, (130, 120, 120))
        pen.ellipse(x, y, 0.065, 0.08, _BRIGHT[int(rng.integers(5))])
    x = wide * rng.uniform(0.25, 0.75)
    pen.rect(x - 0.15, 0.64, x + 0.15, 0.76, (250, 240, 235))
    pen.rect(x - 0.15, 0.64, x + 0.15, 0.67, (236, 120, 150))
    for dx in (-0.09, 0.0, 0.09):
        pen.rect(x + dx - 0.008, 0.57, x + dx + 0.008, 0.64, (90, 160, 230))
        pen.ellipse(x + dx, 0.555, 0.012, 0.02, (255, 180, 40))
    confetti(pen, rng, wide, 26)


def living_room(pen: Pen, rng: Rng, wide: float) -> None:
    """A fireplace, a sofa, family images with hearts."""
    _room(pen, wide, (246, 206, 190), (170, 116, 84))
    x = wide * rng.choice((0.17, 0.83))
    pen.rect(x - 0.2, 0.4, x + 0.2, 0.78, (150, 80, 66))
    pen.rect(x - 0.12, 0.52, x + 0.12, 0.78, (44, 26, 24))
    for dx in (-0.05, 0.05, 0.0):
        pen.ellipse(x + dx, 0.7, 0.045, 0.075, (250, 140, 40) if dx else (255, 220, 100))
    pen.rect(x - 0.23, 0.37, x + 0.23, 0.41, (120, 70, 56))
    s = wide - x
    pen.rect(s - 0.3, 0.56, s + 0.3, 0.84, (196, 96, 110))
    pen.rect(s - 0.34, 0.62, s - 0.26, 0.86, (176, 80, 96))
    pen.rect(s + 0.26, 0.62, s + 0.34, 0.86, (176, 80, 96))
    for i in range(4):
        fx, fy = wide * (0.2 + 0.2 * i), rng.uniform(0.14, 0.24)
        pen.rect(fx - 0.075, fy - 0.075, fx + 0.075, fy + 0.085, (150, 104, 70))
        pen.rect(fx - 0.058, fy - 0.058, fx + 0.058, fy + 0.068, (255, 246, 236))
        heart(pen.at((fx, fy), 0.075), (230, 70, 100))


def stage(pen: Pen, rng: Rng, wide: float) -> None:
    """Red curtains, a spotlight and a row of medals and stars."""
    sky(pen, (60, 20, 40), (110, 36, 50))
    middle = wide * rng.uniform(0.4, 0.6)
    pen.polygon([(middle - 0.08, 0), (middle + 0.08, 0), (middle + 0.5, 0.9), (middle - 0.5, 0.9)], (196, 140, 110))
    for side in (0.0, 1.0):
        for i in range(4):
            x = abs(side * wide - (0.03 + i * 0.075))
            pen.line([(x, -0.05), (x, 0.8)], 0.085, (178, 28, 40) if i % 2 else (146, 18, 32))
    pen.rect(0, 0, wide, 0.09, (160, 24, 36))
    for x in np.arange(0.04, wide, 0.12):
        pen.ellipse(float(x), 0.09, 0.06, 0.035, (244, 196, 70))
    pen.rect(0, 0.8, wide, 1, (130, 84, 54))
    pen.ellipse(middle, 0.9, 0.5, 0.08, (240, 206, 150))
    for i in range(5):
        star(pen.at((wide * (0.18 + 0.16 * i), 0.24 + 0.04 * (i % 2)), 0.07), (252, 214, 80))


def star(pen: Pen, fill: Colour) -> None:
    """A five-pointed star of radius one."""
    outer, inner = arc_points(0, 0, 1, 1, -90, 270), arc_points(0, 0, 0.42, 0.42, -54, 306)
    pen.polygon([p for i in range(5) for p in (outer[i * 6], inner[i * 6])], fill)


def top_office(pen: Pen, rng: Rng, wide: float) -> None:
    """A high office above a skyline, with certificates on the wall."""
    sky(pen, (150, 196, 236), (232, 236, 226))
    x = 0.0
    while x < wide:
        w, top = rng.uniform(0.07, 0.15), rng.uniform(0.24, 0.56)
        pen.rect(x, top, x + w, 0.74, mix((96, 124, 160), (134, 160, 190), rng.random()))
        x += w
    pen.rect(0, 0.72, wide, 1, (74, 66, 72))
    pen.rect(0, 0, wide, 0.05, (58, 62, 78))
    for x in np.arange(0.0, wide + 0.01, wide / 3):
        pen.rect(float(x) - 0.02, 0, float(x) + 0.02, 0.74, (58, 62, 78))
    for i in range(3):
        cx = wide * (i / 3 + 1 / 6)
        pen.rect(cx - 0.075, 0.1, cx + 0.075, 0.21, (216, 168, 60))
        pen.rect(cx - 0.062, 0.112, cx + 0.062, 0.198, (252, 248, 232))
        pen.ellipse(cx + 0.035, 0.178, 0.016, 0.016, (200, 40, 50))
    pen.polygon([(wide * 0.1, 0.84), (wide * 0.9, 0.84), (wide, 1), (0, 1)], (132, 88, 56))


def library(pen: Pen, rng: Rng, wide: float) -> None:
    """Shelves full of books and a desk lamp."""
    sky(pen, (120, 84, 60), (96, 66, 48))
    books: tuple[Colour, ...] = (
        (150, 60, 54),
        (64, 96, 120),
        (92, 116, 74),
        (196, 160, 90),
        (110, 76, 110),
        (210, 200, 180),
    )
    for y in (0.05, 0.25, 0.45, 0.65):
        x = 0.01
        while x < wide:
            w, h = rng.uniform(0.02, 0.045), rng.uniform(0.11, 0.16)
            pen.rect(x, y + 0.16 - h, x + w, y + 0.16, books[int(rng.integers(6))])
            x += w + 0.004
        pen.rect(0, y + 0.16, wide, y + 0.185, (70, 46, 34))
    pen.rect(0, 0.8, wide, 1, (146, 104, 72))
    x = wide * rng.choice((0.12, 0.88))
    pen.line([(x, 0.84), (x, 0.62)], 0.018, (60, 70, 66))
    pen.polygon([(x - 0.1, 0.64), (x + 0.1, 0.64), (x + 0.05, 0.54), (x - 0.05, 0.54)], (60, 140, 100))


def office(pen: Pen, rng: Rng, wide: float) -> None:
    """Desks with screens full of charts, a clock and notes on the wall."""
    _room(pen, wide, (214, 222, 226), (150, 158, 164))
    for i in range(3):
        x = wide * (0.14 + 0.36 * i) + rng.uniform(-0.04, 0.04)
        pen.rect(x - 0.16, 0.3, x + 0.16, 0.54, (50, 56, 66))
        pen.rect(x - 0.14, 0.32, x + 0.14, 0.52, (110, 180, 220))
        for j in range(5):
            h = rng.uniform(0.03, 0.15)
            pen.rect(x - 0.115 + j * 0.048, 0.51 - h, x - 0.085 + j * 0.048, 0.51, (240, 246, 250))
        pen.rect(x - 0.015, 0.54, x + 0.015, 0.6, (60, 64, 72))
    pen.rect(0, 0.6, wide, 0.65, (178, 140, 100))
    pen.rect(0, 0.65, wide, 0.78, (150, 116, 84))
    for i in range(8):
        x, y = wide * rng.random(), rng.uniform(0.06, 0.22)
        pen.rect(x, y, x + 0.06, y + 0.06, ((250, 226, 110), (160, 220, 170), (250, 180, 170))[i % 3])


def hospital(pen: Pen, rng: Rng, wide: float) -> None:
    """A bed, a drip and a red cross."""
    _room(pen, wide, (206, 228, 226), (176, 196, 198))
    x = wide * rng.choice((0.24, 0.76))
    pen.rect(x - 0.35, 0.6, x + 0.35, 0.72, (244, 248, 250))
    pen.rect(x - 0.35, 0.72, x + 0.35, 0.76, (130, 150, 160))
    pen.rect(x - 0.38, 0.46, x - 0.34, 0.86, (150, 166, 174))
    pen.rect(x + 0.34, 0.56, x + 0.38, 0.86, (150, 166, 174))
    pen.ellipse(x - 0.24, 0.58, 0.1, 0.045, (226, 236, 242))
    s = wide - x + rng.uniform(-0.05, 0.05)
    pen.line([(s, 0.2), (s, 0.9)], 0.014, (130, 140, 146))
    pen.rect(s + 0.01, 0.2, s + 0.1, 0.36, (196, 226, 240))
    pen.line([(s + 0.055, 0.36), (s + 0.03, 0.52), (x, 0.62)], 0.008, (120, 160, 180))
    c = wide * rng.uniform(0.42, 0.58)
    pen.rect(c - 0.13, 0.05, c + 0.13, 0.31, (252, 252, 252))
    pen.rect(c - 0.032, 0.08, c + 0.032, 0.28, (216, 36, 44))
    pen.rect(c - 0.1, 0.148, c + 0.1, 0.212, (216, 36, 44))


def ambulance_yard(pen: Pen, rng: Rng, wide: float) -> None:
    """An ambulance and a broken car, cones on the road."""
    sky(pen, (150, 160, 176), (198, 200, 204))
    pen.rect(0, 0.62, wide, 1, (108, 110, 116))
    x = wide * rng.choice((0.25, 0.75))
    pen.rect(x - 0.32, 0.26, x + 0.2, 0.66, (250, 250, 250))
    pen.polygon([(x + 0.2, 0.36), (x + 0.3, 0.36), (x + 0.36, 0.5), (x + 0.36, 0.66), (x + 0.2, 0.66)], (244, 244, 246))
    pen.rect(x - 0.32, 0.54, x + 0.36, 0.58, (220, 40, 46))
    pen.rect(x - 0.1, 0.3, x - 0.05, 0.5, (220, 40, 46))
    pen.rect(x - 0.175, 0.375, x + 0.025, 0.425, (220, 40, 46))
    pen.rect(x + 0.04, 0.2, x + 0.13, 0.26, (60, 120, 240))
    for wheel in (-0.18, 0.22):
        pen.ellipse(x + wheel, 0.67, 0.065, 0.065, (34, 34, 38))
    s = wide - x
    pen.polygon(
        [(s - 0.2, 0.7), (s - 0.16, 0.58), (s - 0.06, 0.54), (s + 0.05, 0.6), (s + 0.16, 0.61), (s + 0.19, 0.72)],
        (130, 60, 60),
    )
    for cone in (0.4, 0.5, 0.62):
        cx = wide * cone
        pen.polygon([(cx - 0.035, 0.86), (cx, 0.73), (cx + 0.035, 0.86)], (244, 116, 40))
        pen.rect(cx - 0.02, 0.79, cx + 0.02, 0.815, (250, 250, 250))


def dirty_kitchen(pen: Pen, rng: Rng, wide: float) -> None:
    """A stack of mouldy dishes, slime on the wall and a steaming pot."""
    _room(pen, wide, (200, 204, 160), (130, 124, 96))
    for x in np.arange(0, wide, 0.12):
        pen.line([(float(x), 0), (float(x), 0.6)], 0.005, (176, 180, 138))
    pen.rect(0, 0.56, wide, 0.8, (124, 98, 74))
    pen.rect(0, 0.54, wide, 0.58, (164, 156, 136))
    for i in range(5):
        x = wide * (0.1 + 0.2 * i) + rng.uniform(-0.04, 0.04)
        for j in range(int(rng.integers(2, 5))):
            pen.ellipse(x, 0.53 - j * 0.03, 0.085, 0.024, (226, 224, 206) if j % 2 else (150, 166, 90))
    for _ in range(5):
        x, drop = wide * rng.random(), rng.uniform(0.12, 0.34)
        pen.line([(x, 0.0), (x, drop)], 0.05, (112, 158, 52))
        pen.ellipse(x, drop, 0.034, 0.05, (112, 158, 52))
    for x, y in rng.random((20, 2)):
        pen.ellipse(float(x) * wide, float(y) * 0.6, 0.008, 0.007, (30, 30, 26))


def gift_box(pen: Pen, rng: Rng, wide: float) -> None:
    """A giant box bursts open: rays, stars, confetti."""
    sky(pen, (250, 226, 90), (252, 196, 110))
    middle = wide * rng.uniform(0.4, 0.6)
    rays = arc_points(middle, 0.55, 1.4, 1.4, 180, 360)
    for i in range(0, len(rays) - 1, 2):
        pen.polygon([(middle, 0.6), rays[i], rays[i + 1]], (255, 244, 170))
    pen.rect(0, 0.8, wide, 1, (206, 130, 150))
    for cx, size in ((middle, 1.0), (wide * 0.1, 0.5), (wide * 0.9, 0.5)):
        b = pen.at((cx, 0.84), size)
        b.rect(-0.22, -0.3, 0.22, 0.0, (120, 80, 200))
        b.rect(-0.04, -0.3, 0.04, 0.0, (250, 90, 140))
        b.at((0.2, -0.42), degrees=24).rect(-0.25, -0.035, 0.25, 0.035, (98, 60, 176))
    for _ in range(7):
        star(pen.at((wide * rng.random(), rng.uniform(0.05, 0.5)), rng.uniform(0.03, 0.06)), (255, 255, 255))
    confetti(pen, rng, wide, 50)


def magic_show(pen: Pen, rng: Rng, wide: float) -> None:
    """A hat, a rabbit, a wand and sparks on a violet stage."""
    sky(pen, (70, 30, 130), (150, 80, 190))
    pen.rect(0, 0.8, wide, 1, (84, 44, 110))
    x = wide * rng.choice((0.2, 0.8))
    for dx in (-0.05, 0.05):
        pen.ellipse(x + dx, 0.36, 0.03, 0.11, (250, 246, 246))
    pen.ellipse(x, 0.48, 0.1, 0.09, (250, 246, 246))
    for dx in (-0.035, 0.035):
        pen.ellipse(x + dx, 0.47, 0.013, 0.016, (40, 30, 40))
    pen.ellipse(x, 0.57, 0.2, 0.04, (24, 22, 32))
    pen.polygon([(x - 0.14, 0.57), (x + 0.14, 0.57), (x + 0.11, 0.82), (x - 0.11, 0.82)], (24, 22, 32))
    pen.line([(wide - x - 0.12, 0.56), (wide - x + 0.1, 0.34)], 0.022, (24, 22, 32))
    for _ in range(16):
        star(pen.at((wide * rng.random(), rng.uniform(0.03, 0.6)), rng.uniform(0.02, 0.05)), (255, 232, 120))
    for _ in range(3):
        cx, cy = wide * rng.random(), rng.uniform(0.1, 0.4)
        for i in range(5):
            pen.ellipse(cx + 0.03 * i, cy - 0.012 * (i % 3), 0.025, 0.025, (220, 200, 250))


def classroom(pen: Pen, rng: Rng, wide: float) -> None:
    """A blackboard with sums that do not come out."""
    _room(pen, wide, (226, 214, 190), (166, 128, 94))
    pen.rect(wide * 0.06, 0.08, wide * 0.94, 0.58, (120, 84, 56))
    pen.rect(wide * 0.08, 0.1, wide * 0.92, 0.56, (44, 84, 68))
    for i in range(6):
        cx, cy = wide * (0.15 + 0.14 * i), 0.2 + 0.17 * (i % 2) + rng.uniform(-0.02, 0.02)
        if i % 3 == 0 or rng.random() < 0.4:
            question_mark(pen.at((cx, cy), 0.18), (240, 244, 236))
        else:
            for dy in (-0.04, 0.0, 0.04):
                pen.line([(cx - 0.06, cy + dy), (cx + rng.uniform(0.0, 0.07), cy + dy)], 0.012, (226, 232, 220))
    for i in range(3):
        x = wide * (0.2 + 0.3 * i)
        pen.rect(x - 0.13, 0.68, x + 0.13, 0.72, (196, 150, 100))
        pen.rect(x - 0.1, 0.72, x - 0.08, 0.9, (120, 120, 126))
        pen.rect(x + 0.08, 0.72, x + 0.1, 0.9, (120, 120, 126))


def bedroom_night(pen: Pen, rng: Rng, wide: float) -> None:
    """A bed, the moon in the window and a clock long after midnight."""
    _room(pen, wide, (86, 92, 138), (74, 66, 92))
    x = wide * rng.choice((0.22, 0.78))
    pen.rect(x - 0.16, 0.08, x + 0.16, 0.46, (214, 210, 224))
    pen.rect(x - 0.14, 0.1, x + 0.14, 0.44, (26, 30, 66))
    pen.ellipse(x + 0.03, 0.22, 0.07, 0.07, (248, 240, 190))
    pen.ellipse(x + 0.065, 0.2, 0.06, 0.06, (26, 30, 66))
    c = wide - x
    pen.ellipse(c, 0.2, 0.1, 0.1, (220, 220, 226))
    pen.line([(c, 0.2), (c, 0.13)], 0.012, (40, 40, 50))
    pen.line([(c, 0.2), (c + 0.04, 0.23)], 0.012, (40, 40, 50))
    b = wide * rng.choice((0.3, 0.7))
    pen.rect(b - 0.42, 0.64, b + 0.42, 0.84, (116, 128, 186))
    pen.rect(b - 0.46, 0.5, b - 0.41, 0.9, (104, 74, 60))
    pen.ellipse(b - 0.28, 0.63, 0.13, 0.055, (226, 226, 240))
    for i in range(3):
        z, s = pen.at((wide * 0.5 + 0.09 * i, 0.4 - 0.11 * i)), 0.025 + 0.012 * i
        z.line([(-s, -s), (s, -s), (-s, s), (s, s)], 0.014, (214, 218, 244))


def night_train(pen: Pen, rng: Rng, wide: float) -> None:
    """A half-empty carriage: windows, seats, handles."""
    sky(pen, (150, 156, 160), (128, 134, 140))
    for i in range(3):
        x = wide * (i + 0.5) / 3
        pen.rect(x - wide * 0.14, 0.18, x + wide * 0.14, 0.5, (52, 60, 82))
        for _ in range(4):
            pen.rect(
                x + rng.uniform(-0.12, 0.08), rng.uniform(0.3, 0.44), x + rng.uniform(0.09, 0.12), 0.47, (78, 84, 104)
            )
    pen.rect(0, 0.08, wide, 0.1, (196, 200, 204))
    for x in np.arange(0.08, wide, 0.17):
        pen.line([(float(x), 0.1), (float(x), 0.17)], 0.01, (190, 190, 194))
        pen.arc(float(x), 0.2, 0.028, 0.035, 0, 360, 0.011, (236, 214, 130))
    for x in np.arange(0.0, wide, 0.3):
        pen.rect(float(x) + 0.02, 0.54, float(x) + 0.28, 0.82, (92, 112, 128))
        pen.rect(float(x) + 0.05, 0.5, float(x) + 0.25, 0.6, (108, 130, 146))
    pen.rect(0, 0.82, wide, 1, (96, 98, 104))
