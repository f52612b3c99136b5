"""The body of a person: limbs drawn by two-bone reach towards the posture's hands, clothes, seat and shadow.

Units: 1 is the height of a face; the origin is the middle between the shoulders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from cocoer.data.synthetic.expression import Expression
from cocoer.data.synthetic.face import Looks, draw_head
from cocoer.data.synthetic.pen import Colour, Pen, Point, darker, lighter, mix
from cocoer.data.synthetic.posture import Posture
from cocoer.data.synthetic.props import draw_prop

ARM, FOREARM = 0.68, 0.64


CLOTHES: tuple[Colour, ...] = (
    (206, 74, 68), (232, 140, 60), (240, 200, 84), (92, 160, 92), (62, 134, 150), (72, 110, 180), (120, 92, 168),
    (206, 110, 150), (236, 236, 232), (120, 124, 132), (58, 62, 74), (150, 108, 78),
)  # fmt: skip
TROUSERS: tuple[Colour, ...] = (
    (52, 66, 102), (60, 60, 66), (110, 90, 70), (86, 104, 128), (130, 130, 120), (72, 52, 64),
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """Everything needed to draw one person: looks, expression, posture, clothes and build (units of face heights)."""

    looks: Looks
    face: Expression
    posture: Posture
    intensity: float
    top: Colour
    bottom: Colour
    pattern: str
    skirt: bool
    width: float
    torso: float
    leg: float


def sample_figure(
    rng: np.random.Generator, looks: Looks, face: Expression, posture: Posture, intensity: float, gender: str, age: str
) -> Figure:
    """Clothes and build that fit gender and age: children have short limbs for their head."""
    scale = {"Kid": 0.72, "Teenager": 0.92, "Adult": 1.0}[age]
    return Figure(
        looks=looks,
        face=face,
        posture=posture,
        intensity=intensity,
        top=_cloth(rng, looks.skin),
        bottom=TROUSERS[int(rng.integers(len(TROUSERS)))],
        pattern=("", "", "stripes", "collar", "zip")[int(rng.integers(5))],
        skirt=gender == "Female" and bool(rng.random() < 0.4),
        width=(0.46 if gender == "Male" else 0.4) * (0.85 + 0.15 * scale) * float(rng.uniform(0.94, 1.08)),
        torso=1.22 * scale * float(rng.uniform(0.95, 1.05)),
        leg=1.62 * scale * float(rng.uniform(0.93, 1.08)),
    )


def _cloth(rng: np.random.Generator, skin: Colour) -> Colour:
    """A colour for the shirt that differs clearly from the skin."""
    fitting = [c for c in CLOTHES if sum(abs(p - q) for p, q in zip(c, skin, strict=True)) > 110]
    return fitting[int(rng.integers(len(fitting)))]


def height_below(figure: Figure) -> float:
    """How far the feet lie below the shoulders, in face heights."""
    legs = {"sit": 0.72, "lotus": 0.34, "kneel": 0.5, "bent": 0.86, "jump": 0.95}.get(figure.posture.legs, 1.0)
    return figure.torso + figure.leg * legs


def draw_ground(pen: Pen, figure: Figure, shadow: Image.Image) -> None:
    """What lies under a person: a shadow on the mask `shadow` (mode L) and, for those who sit, a stool."""
    x, feet, kind = -figure.posture.lean, height_below(figure), figure.posture.legs
    cx, cy = pen.px((x, feet))
    wide, high = 0.75 * pen.unit, 0.13 * pen.unit
    ImageDraw.Draw(shadow).ellipse((cx - wide, cy - high, cx + wide, cy + high), fill=80)
    if kind == "sit":
        wood, seat = (126, 92, 66), figure.torso + 0.16
        for side in (-0.42, 0.42):
            pen.line([(x + side, seat), (x + side * 1.15, feet - 0.05)], 0.1, darker(wood, 0.25))
        pen.rect(x - 0.56, seat - 0.08, x + 0.56, seat + 0.1, wood)


def draw_body(pen: Pen, figure: Figure, head_pen: Pen) -> None:
    """Draw the whole person with the shoulders at the pen's origin.

    `head_pen` has the same frame on another layer of the same size: the head goes there as well, so that its own
    extent can be measured.
    """
    posture = figure.posture
    hips = (-posture.lean, figure.torso)
    lift = -posture.shoulders
    _legs(pen, figure, hips)
    _torso(pen, figure, hips, lift)
    head_at = (posture.head[0] + posture.lean * 0.25, -0.66 + posture.head[1] + lift * 0.3)
    if not posture.front:
        _arms(pen, figure, lift, head_at)
    pen.line([(0, 0.02 + lift * 0.5), (head_at[0] * 0.6, head_at[1] + 0.4)], 0.26, darker(figure.looks.skin, 0.14))
    for target in (pen, head_pen):
        draw_head(target.at(head_at, degrees=posture.tilt), figure.looks, figure.face, figure.intensity)
    if posture.front:
        _arms(pen, figure, lift, head_at)
    draw_prop(pen, posture.prop, figure.looks.skin, _shoulders(figure, lift), _hands(figure, lift), head_at)


def _shoulders(figure: Figure, lift: float) -> tuple[Point, Point]:
    x, y = figure.width * 0.92, 0.12 + lift
    return (-x, y), (x, y)


def _hands(figure: Figure, lift: float) -> tuple[Point, Point]:
    """Hand positions in body units: the posture's offsets from the shoulders, scaled to the person's arms."""
    (lx, ly), (rx, ry) = _shoulders(figure, lift)
    k = _reach(figure)
    low = 1.0 if k > 0.9 else 0.9
    (lo, ld), (ro, rd) = figure.posture.left, figure.posture.right
    return (lx - lo, ly + ld * (k if ld > 0.3 else low)), (rx + ro, ry + rd * (k if rd > 0.3 else low))


def _reach(figure: Figure) -> float:
    return 0.8 + 0.2 * figure.torso / 1.22 if figure.torso < 1.1 else 1.0


def _elbow(shoulder: Point, hand: Point, side: int, k: float, sink: float) -> tuple[Point, Point]:
    """Elbow and hand of an arm that reaches for `hand`; the elbow bends outward (or down, with a large `sink`).

    A hand that is too far away is pulled into reach.
    """
    a, b = ARM * k, FOREARM * k
    dx, dy = hand[0] - shoulder[0], hand[1] - shoulder[1]
    distance = max(0.2, math.hypot(dx, dy))
    if distance > 0.99 * (a + b):
        pull = 0.99 * (a + b) / distance
        dx, dy, distance = dx * pull, dy * pull, 0.99 * (a + b)
    along = (a * a - b * b + distance * distance) / (2 * distance)
    across = math.sqrt(max(0.0, a * a - along * along))
    ux, uy = dx / distance, dy / distance
    first = (shoulder[0] + ux * along - uy * across, shoulder[1] + uy * along + ux * across)
    second = (shoulder[0] + ux * along + uy * across, shoulder[1] + uy * along - ux * across)
    elbow = max((first, second), key=lambda p: side * p[0] + sink * p[1])
    return elbow, (shoulder[0] + dx, shoulder[1] + dy)


def _arms(pen: Pen, figure: Figure, lift: float, head_at: Point) -> None:
    sleeve, skin, k = darker(figure.top, 0.12), figure.looks.skin, _reach(figure)
    for side, shoulder, hand in zip((-1, 1), _shoulders(figure, lift), _hands(figure, lift), strict=True):
        elbow, wrist = _elbow(shoulder, hand, side, k, figure.posture.sink)
        pen.line([shoulder, elbow, wrist], 0.27, darker(figure.top, 0.38))
        pen.line([shoulder, elbow], 0.22, sleeve)
        middle = ((elbow[0] + wrist[0]) / 2, (elbow[1] + wrist[1]) / 2)
        pen.line([elbow, middle], 0.21, sleeve)
        pen.line([middle, wrist], 0.17, skin)
        pen.ellipse(*wrist, 0.13, 0.13, darker(skin, 0.3))
        pen.ellipse(*wrist, 0.112, 0.112, skin)
        if not figure.posture.fists:
            away = (wrist[0] - elbow[0], wrist[1] - elbow[1])
            n = max(0.1, math.hypot(*away))
            fx, fy = away[0] / n, away[1] / n
            for turn in (-0.6, 0.0, 0.6):
                px, py = fx - fy * turn, fy + fx * turn
                pen.line([wrist, (wrist[0] + px * 0.17, wrist[1] + py * 0.17)], 0.065, skin)
        else:
            pen.line([(wrist[0] - 0.05, wrist[1] - 0.02), (wrist[0] + 0.06, wrist[1] - 0.02)], 0.025, darker(skin, 0.3))


def _torso(pen: Pen, figure: Figure, hips: Point, lift: float) -> None:
    w, (hx, hy), top = figure.width, hips, figure.top
    waist = w * 0.78
    pen.polygon(
        [(-w * 0.45, -0.04 + lift * 0.5), (w * 0.45, -0.04 + lift * 0.5), (w, 0.08 + lift), (w * 1.03, 0.3 + lift),
         (hx + waist, hy * 0.8), (hx + waist * 1.08, hy + 0.12), (hx - waist * 1.08, hy + 0.12), (hx - waist, hy * 0.8),
         (-w * 1.03, 0.3 + lift), (-w, 0.08 + lift)],
        top,
    )  # fmt: skip
    if figure.pattern == "stripes":
        for i in range(1, 4):
            share = 0.2 + i * 0.2
            x = hx * share
            pen.line([(x - w * 0.86, hy * share), (x + w * 0.86, hy * share)], 0.09, lighter(top, 0.4))
    elif figure.pattern == "collar":
        pen.polygon([(-0.2, -0.04), (0.2, -0.04), (0, 0.26)], lighter(top, 0.75))
    elif figure.pattern == "zip":
        pen.line([(0, 0.05), (hx, hy + 0.05)], 0.035, darker(top, 0.45))


def _legs(pen: Pen, figure: Figure, hips: Point) -> None:
    (hx, hy), kind, n = hips, figure.posture.legs, figure.leg
    spread = {"wide": 0.42, "jump": 0.4, "bent": 0.34}.get(kind, 0.2)
    cloth, shoe = figure.bottom, mix(figure.bottom, (30, 26, 26), 0.7)
    for side in (-1, 1):
        hip = (hx + side * figure.width * 0.42, hy)
        if kind == "sit":
            knee, foot = (hx + side * 0.42, hy + 0.26), (hx + side * 0.36, hy + 0.7 * n)
        elif kind == "lotus":
            knee, foot = (hx + side * 0.95, hy + 0.2), (hx - side * 0.2, hy + 0.26)
        elif kind == "kneel":
            knee, foot = (hx + side * 0.3, hy + 0.42 * n), (hx + side * 0.62, hy + 0.46 * n)
        elif kind == "bent":
            knee, foot = (hx + side * (spread + 0.16), hy + 0.42 * n), (hx + side * spread, hy + 0.85 * n)
        elif kind == "jump":
            knee, foot = (
                (hx + side * spread, hy + 0.42 * n),
                (hx + side * (spread + 0.12), hy + (0.92 if side > 0 else 0.7) * n),
            )
        else:
            knee, foot = (hx + side * (spread * 0.6 + 0.1), hy + 0.5 * n), (hx + side * spread, hy + 0.98 * n)
        bare = figure.skirt and kind in ("stand", "wide", "bent", "jump")
        pen.line([hip, knee, foot], 0.34, darker(cloth, 0.3))
        pen.line([hip, knee, foot], 0.29, figure.looks.skin if bare else cloth)
        pen.ellipse(foot[0] + side * 0.06, foot[1], 0.21, 0.12, shoe)
    if figure.skirt and kind in ("stand", "wide", "bent", "jump"):
        w = figure.width * 0.85
        hem = hy + n * 0.48
        pen.polygon([(hx - w, hy - 0.05), (hx + w, hy - 0.05), (hx + w * 1.7, hem), (hx - w * 1.7, hem)], cloth)
