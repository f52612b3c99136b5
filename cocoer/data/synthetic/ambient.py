"""Plain surroundings with one small thing in them that carries the cue: the hard scenes of the demo world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cocoer.data.synthetic.indoor import star
from cocoer.data.synthetic.outdoor import question_mark, sky
from cocoer.data.synthetic.pen import Colour, Pen, arc_points, darker, lighter
from cocoer.data.synthetic.props import heart

Rng = np.random.Generator


def plain_room(pen: Pen, rng: Rng, wide: float) -> None:
    """A wall of any colour, a floor, a window or a door."""
    walls: tuple[Colour, ...] = ((214, 206, 190), (186, 200, 206), (204, 186, 186), (178, 184, 160), (150, 150, 166))
    wall = walls[int(rng.integers(len(walls)))]
    sky(pen, lighter(wall, 0.15), wall)
    pen.rect(0, 0.78, wide, 1, darker(wall, 0.35))
    pen.rect(0, 0.76, wide, 0.785, darker(wall, 0.5))
    x = wide * rng.random()
    if rng.random() < 0.5:
        pen.rect(x - 0.14, 0.26, x + 0.14, 0.77, darker(wall, 0.25))
        pen.ellipse(x + 0.1, 0.54, 0.015, 0.015, (230, 210, 140))
    else:
        pen.rect(x - 0.17, 0.14, x + 0.17, 0.48, (246, 246, 244))
        pen.rect(x - 0.15, 0.16, x + 0.15, 0.46, (160, 196, 220))
        pen.line([(x, 0.16), (x, 0.46)], 0.014, (246, 246, 244))


def plain_street(pen: Pen, rng: Rng, wide: float) -> None:
    """House fronts without anything to tell."""
    sky(pen, (180, 196, 208), (216, 218, 214))
    x = -rng.uniform(0.0, 0.2)
    while x < wide:
        w, top = rng.uniform(0.22, 0.4), rng.uniform(0.1, 0.34)
        shade = int(rng.integers(120, 200))
        wall: Colour = (shade, shade - 10, shade - 24)
        pen.rect(x, top, x + w, 0.76, wall)
        for y in np.arange(top + 0.06, 0.6, 0.14):
            for share in (0.18, 0.58):
                pen.rect(x + w * share, float(y), x + w * (share + 0.2), float(y) + 0.075, darker(wall, 0.35))
        x += w
    pen.rect(0, 0.76, wide, 1, (150, 150, 148))
    pen.rect(0, 0.76, wide, 0.79, (186, 184, 178))


def plain_park(pen: Pen, rng: Rng, wide: float) -> None:
    """Grass, hedges and an overcast sky."""
    sky(pen, (188, 204, 214), (224, 226, 220))
    pen.rect(0, 0.62, wide, 1, (132, 160, 104))
    for x in np.arange(0.0, wide + 0.2, 0.22):
        pen.ellipse(float(x) + float(rng.uniform(-0.05, 0.05)), 0.6, 0.16, float(rng.uniform(0.1, 0.2)), (96, 132, 86))
    pen.polygon([(wide * 0.3, 1), (wide * 0.7, 1), (wide * 0.55, 0.64), (wide * 0.48, 0.64)], (206, 194, 164))


def _balloons(pen: Pen) -> None:
    for x, y, c in ((-0.3, -0.1, (240, 80, 90)), (0.05, -0.3, (250, 200, 60)), (0.34, -0.05, (90, 150, 240))):
        pen.line([(x, y), (0, 0.6)], 0.025, (120, 120, 120))
        pen.ellipse(x, y, 0.21, 0.26, c)


def _framed_heart(pen: Pen) -> None:
    pen.rect(-0.45, -0.45, 0.45, 0.45, (150, 104, 70))
    pen.rect(-0.36, -0.36, 0.36, 0.36, (255, 246, 236))
    heart(pen.at((0, 0), 0.55), (230, 70, 100))


def _rocket_star(pen: Pen) -> None:
    for x, y in arc_points(0, 0, 0.5, 0.5, 0, 348):
        pen.line([(x * 0.35, y * 0.35), (x, y)], 0.04, (255, 170, 60))
    star(pen.at((0, 0), 0.3), (250, 90, 80))


def _plant(pen: Pen) -> None:
    for angle in (-50, -25, 0, 25, 50):
        pen.at((0, 0.1), degrees=angle).ellipse(0, -0.32, 0.09, 0.3, (84, 160, 92))
    pen.polygon([(-0.24, 0.1), (0.24, 0.1), (0.17, 0.5), (-0.17, 0.5)], (200, 120, 80))


def _medal(pen: Pen) -> None:
    pen.polygon([(-0.2, -0.5), (0.2, -0.5), (0.06, 0.05), (-0.06, 0.05)], (60, 100, 200))
    pen.ellipse(0, 0.2, 0.27, 0.27, (244, 196, 48))
    star(pen.at((0, 0.2), 0.17), (255, 244, 190))


def _books(pen: Pen) -> None:
    for i, colour in enumerate(((150, 60, 54), (64, 96, 120), (196, 160, 90), (92, 116, 74))):
        pen.rect(-0.42 + 0.05 * (i % 2), 0.3 - 0.2 * i, 0.4 - 0.06 * (i % 3), 0.48 - 0.2 * i, colour)


def _cross(pen: Pen) -> None:
    pen.ellipse(0, -0.1, 0.36, 0.36, (142, 144, 150))
    pen.rect(-0.36, -0.1, 0.36, 0.5, (142, 144, 150))
    pen.line([(0, -0.3), (0, 0.3)], 0.09, (70, 72, 78))
    pen.line([(-0.17, -0.1), (0.17, -0.1)], 0.09, (70, 72, 78))


def _first_aid(pen: Pen) -> None:
    pen.rect(-0.45, -0.3, 0.45, 0.4, (252, 252, 252))
    pen.rect(-0.09, -0.2, 0.09, 0.3, (216, 36, 44))
    pen.rect(-0.25, -0.04, 0.25, 0.14, (216, 36, 44))
    pen.line([(-0.14, -0.32), (-0.14, -0.42), (0.14, -0.42), (0.14, -0.32)], 0.05, (120, 120, 126))


def _eyes(pen: Pen) -> None:
    pen.ellipse(0, 0, 0.5, 0.4, (20, 18, 30))
    for x in (-0.2, 0.2):
        pen.ellipse(x, 0, 0.15, 0.11, (250, 214, 70))
        pen.ellipse(x, 0, 0.04, 0.1, (20, 16, 16))


def _no_sign(pen: Pen) -> None:
    pen.rect(-0.03, 0.2, 0.03, 0.7, (120, 84, 60))
    pen.rect(-0.45, -0.4, 0.45, 0.28, (246, 240, 226))
    pen.line([(-0.25, -0.28), (0.25, 0.16)], 0.11, (210, 30, 30))
    pen.line([(0.25, -0.28), (-0.25, 0.16)], 0.11, (210, 30, 30))


def _bin(pen: Pen) -> None:
    pen.polygon([(-0.3, -0.2), (0.3, -0.2), (0.24, 0.5), (-0.24, 0.5)], (88, 98, 92))
    for x, y in ((-0.16, -0.28), (0.12, -0.3), (0.0, -0.22)):
        pen.ellipse(x, y, 0.17, 0.12, (122, 150, 60))
    for x, y in ((-0.35, -0.55), (0.0, -0.62), (0.3, -0.5), (0.16, -0.7)):
        pen.ellipse(x, y, 0.035, 0.03, (26, 26, 24))


def _gift(pen: Pen) -> None:
    pen.rect(-0.4, -0.1, 0.4, 0.5, (120, 80, 200))
    pen.rect(-0.07, -0.1, 0.07, 0.5, (250, 200, 70))
    pen.at((0.25, -0.3), degrees=25).rect(-0.42, -0.07, 0.42, 0.07, (98, 60, 176))
    star(pen.at((-0.2, -0.45), 0.16), (255, 240, 120))


def _question(pen: Pen) -> None:
    question_mark(pen, (110, 90, 150))


def _clock(pen: Pen) -> None:
    pen.ellipse(0, 0, 0.44, 0.44, (60, 60, 80))
    pen.ellipse(0, 0, 0.37, 0.37, (236, 236, 240))
    pen.line([(0, 0), (0, -0.28)], 0.06, (40, 40, 50))
    pen.line([(0, 0), (0.16, 0.12)], 0.06, (40, 40, 50))


CUES: dict[str, Callable[[Pen], None]] = {
    "joy": _balloons, "affection": _framed_heart, "triumph": _rocket_star, "calm": _plant, "pride": _medal,
    "focus": _books, "grief": _cross, "pain": _first_aid, "fear": _eyes, "anger": _no_sign, "aversion": _bin,
    "surprise": _gift, "doubt": _question, "fatigue": _clock,
}  # fmt: skip
STANDING = ("calm", "focus", "grief", "pain", "aversion", "surprise")
"""Archetypes whose thing stands on the ground; the others hang or float."""
BACKDROPS = (plain_room, plain_street, plain_park)


def with_cue(archetype: str) -> Callable[[Pen, Rng, float], None]:
    """A painter of any plain backdrop with one to three of the archetype's things in it."""

    def paint(pen: Pen, rng: Rng, wide: float) -> None:
        BACKDROPS[int(rng.integers(len(BACKDROPS)))](pen, rng, wide)
        for _ in range(int(rng.integers(1, 4))):
            low, high = (0.64, 0.8) if archetype in STANDING else (0.14, 0.5)
            at = wide * float(rng.uniform(0.06, 0.94)), float(rng.uniform(low, high))
            turn = 0.0 if archetype in STANDING else float(rng.uniform(-8, 8))
            CUES[archetype](pen.at(at, float(rng.uniform(0.12, 0.24)), turn))

    return paint
