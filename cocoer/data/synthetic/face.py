"""The head of a person: skull, hair, eyes, brows, mouth, tears and things worn.

Units: 1 is the height of the face from chin to crown; the origin is the middle of the face.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cocoer.data.synthetic.expression import Expression
from cocoer.data.synthetic.pen import Colour, Pen, Point, arc_points, darker, lighter, mix

SKINS: tuple[Colour, ...] = (
    (255, 224, 196), (248, 208, 176), (236, 188, 150), (215, 162, 120), (180, 124, 84), (140, 92, 62), (104, 68, 48),
)  # fmt: skip
HAIRS: tuple[Colour, ...] = (
    (35, 28, 26), (66, 44, 32), (104, 66, 38), (150, 98, 50), (214, 172, 96), (176, 74, 36), (150, 150, 155),
)  # fmt: skip
STYLES: dict[str, tuple[str, ...]] = {
    "Male": ("short", "short", "spiky", "curly", "bald", "side"),
    "Female": ("long", "long", "bun", "bob", "ponytail", "curly"),
}


@dataclass(frozen=True)
class Looks:
    """What makes a head this person's head: skin, hair, beard, something worn."""

    skin: Colour
    hair: Colour
    style: str
    beard: bool
    worn: str


def sample_looks(rng: np.random.Generator, gender: str, age: str) -> Looks:
    """A random head; about one in five wears something that hides a part of the face."""
    styles = STYLES[gender]
    style = styles[int(rng.integers(len(styles)))]
    if style == "bald" and age != "Adult":
        style = "short"
    hairs = HAIRS if age == "Adult" else HAIRS[:-1]
    worn = ("", "glasses", "sunglasses", "cap", "fringe", "scarf")[
        int(rng.choice(6, p=(0.66, 0.12, 0.06, 0.07, 0.05, 0.04)))
    ]
    return Looks(
        skin=SKINS[int(rng.integers(len(SKINS)))],
        hair=hairs[int(rng.integers(len(hairs)))],
        style=style,
        beard=gender == "Male" and age == "Adult" and bool(rng.random() < 0.3),
        worn=worn,
    )


def draw_head(pen: Pen, looks: Looks, face: Expression, intensity: float) -> None:
    """Draw a head about the pen's origin."""
    skin = looks.skin if face.tint is None else mix(looks.skin, face.tint, 0.34 * min(1.0, intensity))
    _hair_behind(pen, looks)
    for side in (-1, 1):
        pen.ellipse(side * 0.4, 0.04, 0.07, 0.1, darker(skin, 0.12))
    pen.ellipse(0, -0.04, 0.4, 0.44, skin)
    pen.ellipse(0, 0.14, 0.31, 0.35, skin)
    _blush(pen, skin, face)
    if looks.beard:
        pen.polygon(
            [*arc_points(0, 0.12, 0.35, 0.39, -4, 184), (-0.22, 0.15), (0, 0.1), (0.22, 0.15)],
            mix(looks.hair, skin, 0.2),
        )
    _nose(pen, skin, face)
    for side in (-1, 1):
        _eye(pen, side, face, looks)
    _mouth(pen, face)
    _hair_front(pen, looks)
    for side in (-1, 1):
        _brow(pen, side, face, looks)
    _drops(pen, face)
    _worn(pen, looks)


def _hair_behind(pen: Pen, looks: Looks) -> None:
    hair = darker(looks.hair, 0.12)
    if looks.style == "long":
        pen.ellipse(0, -0.08, 0.5, 0.5, hair)
        pen.polygon([(-0.5, -0.1), (0.5, -0.1), (0.53, 0.62), (0.3, 0.7), (-0.3, 0.7), (-0.53, 0.62)], hair)
    elif looks.style == "bob":
        pen.ellipse(0, -0.06, 0.5, 0.5, hair)
        pen.polygon([(-0.5, -0.1), (0.5, -0.1), (0.5, 0.34), (-0.5, 0.34)], hair)
    elif looks.style == "bun":
        pen.ellipse(0, -0.56, 0.19, 0.17, hair)
    elif looks.style == "ponytail":
        pen.polygon([(0.2, -0.45), (0.55, -0.38), (0.68, 0.1), (0.55, 0.5), (0.45, 0.1), (0.36, -0.2)], hair)
    elif looks.style == "curly":
        for x, y in arc_points(0, -0.1, 0.42, 0.4, 150, 390):
            pen.ellipse(x, y, 0.14, 0.14, hair)


def _hair_front(pen: Pen, looks: Looks) -> None:
    hair = looks.hair
    low = {"short": -0.24, "side": -0.22, "spiky": -0.26, "curly": -0.27}.get(looks.style, -0.22)
    if looks.style == "bald":
        pen.ellipse(-0.13, -0.33, 0.08, 0.05, lighter(looks.skin, 0.3))
        return
    crown = arc_points(0, -0.06, 0.43, 0.47, 188, 352)
    part = -0.15 if looks.style in ("side", "long", "ponytail") else 0.0
    pen.polygon([*crown, (0.36, -0.12), (0.3, low), (part, low - 0.1), (-0.3, low), (-0.36, -0.12)], hair)
    if looks.style == "spiky":
        for i in range(7):
            x = -0.36 + i * 0.12
            pen.polygon([(x - 0.09, -0.34), (x + 0.02, -0.62 + abs(x) * 0.35), (x + 0.09, -0.34)], hair)
    if looks.style == "curly":
        for x, y in arc_points(0, -0.14, 0.35, 0.33, 195, 345):
            pen.ellipse(x, y, 0.11, 0.1, hair)
    if looks.worn == "fringe":
        pen.polygon([(-0.4, -0.25), (0.38, -0.3), (0.36, 0.0), (0.12, 0.03), (0.02, -0.1), (-0.3, -0.05)], hair)


def _blush(pen: Pen, skin: Colour, face: Expression) -> None:
    if face.blush > 0.15:
        colour = mix(skin, (240, 70, 80), min(0.55, 0.5 * face.blush))
        for side in (-1, 1):
            pen.ellipse(side * 0.24, 0.17, 0.1, 0.07, colour)


def _nose(pen: Pen, skin: Colour, face: Expression) -> None:
    shade = darker(skin, 0.25)
    pen.line([(0.0, 0.02), (0.04, 0.12), (-0.02, 0.135)], 0.025, shade)
    if face.wrinkles:
        for y in (-0.03, -0.08):
            pen.line([(-0.05, y - 0.02), (0, y), (0.05, y - 0.02)], 0.02, shade)


def _eye(pen: Pen, side: int, face: Expression, looks: Looks) -> None:
    x, y, dark = side * 0.17, -0.03, (38, 26, 24)
    if face.lids == "happy":
        pen.arc(x, y + 0.03, 0.095, 0.09, 195, 345, 0.035, dark)
    elif face.lids == "asleep":
        pen.arc(x, y - 0.03, 0.095, 0.075, 15, 165, 0.035, dark)
    elif face.lids == "squeezed":
        pen.line([(x + side * 0.09, y - 0.06), (x - side * 0.07, y), (x + side * 0.09, y + 0.06)], 0.035, dark)
    else:
        rx, ry = 0.1, 0.09 * max(0.15, face.eye)
        pen.ellipse(x, y, rx + 0.016, ry + 0.018, dark)
        pen.ellipse(x, y + 0.008, rx, ry, (252, 252, 250))
        iris = min(0.062 * face.pupil, ry * 1.02)
        ix, iy = x + face.gaze_x * 0.045, y + face.gaze_y * max(0.0, ry - iris) + 0.006
        pen.ellipse(ix, iy, iris, iris, (52, 38, 32))
        if iris > 0.03:
            pen.ellipse(ix - 0.018, iy - 0.02, 0.016, 0.016, (255, 255, 255))
        if face.eye < 0.7:  # a heavy lid
            lid = darker(looks.skin, 0.1)
            pen.polygon(arc_points(x, y - ry * 0.2, rx + 0.016, 0.1, 182, 358), lid)
            pen.line([(x - rx - 0.01, y - ry * 0.25), (x + rx + 0.01, y - ry * 0.25)], 0.026, dark)


def _brow(pen: Pen, side: int, face: Expression, looks: Looks) -> None:
    skew = max(0.0, face.brow_skew * side)
    inner = (side * 0.07, -0.18 - face.brow_in - skew)
    outer = (side * 0.29, -0.17 - face.brow_out - skew * 0.6)
    middle = (side * 0.18, (inner[1] + outer[1]) / 2 - 0.025)
    colour = darker(looks.hair, 0.35) if looks.style != "bald" else (60, 45, 40)
    pen.line([inner, middle, outer], 0.042, colour)


def _mouth(pen: Pen, face: Expression) -> None:
    width, y0 = max(0.05, face.width), 0.27 - max(0.0, face.open) * 0.3
    steps = [-1 + i / 6 for i in range(13)]

    def upper(t: float) -> Point:
        wave = face.wave * float(np.sin(t * 9.0))
        return t * width, y0 + face.curve * (0.5 - t * t) + face.slant * t + wave

    line = [upper(t) for t in steps]
    if face.open < 0.03:
        pen.line(line, 0.036, (110, 36, 38))
        return
    power = 6 if face.teeth == "clenched" else 2
    drop = [face.open * (1 - abs(t) ** power) for t in steps]
    floor = [(x, y + d) for (x, y), d in zip(line, drop, strict=True)]
    inside = (250, 248, 240) if face.teeth == "clenched" else (96, 22, 30)
    pen.polygon([*line, *reversed(floor)], inside)
    if face.tongue:
        pen.ellipse(0, y0 + face.curve * 0.5 + face.open * 0.85, width * 0.55, face.open * 0.4 + 0.02, (228, 100, 110))
    if face.teeth in ("top", "both"):
        row = [(x * 0.97, y + min(0.06, d * 0.45)) for (x, y), d in zip(line, drop, strict=True)]
        pen.polygon([*line, *reversed(row)], (252, 250, 244))
    if face.teeth == "clenched":
        for t in (-0.6, -0.3, 0.0, 0.3, 0.6):
            x, y = upper(t)
            pen.line([(x, y), (x, y + face.open * 0.95)], 0.012, (150, 130, 125))
        x0, y1 = line[1][0], (line[6][1] + floor[6][1]) / 2
        pen.line(
            [(x0, (line[1][1] + floor[1][1]) / 2), (0, y1), (-x0, (line[11][1] + floor[11][1]) / 2)],
            0.014,
            (150, 130, 125),
        )
    pen.line([*line, *reversed(floor), line[0]], 0.022, (110, 36, 38))


def _drops(pen: Pen, face: Expression) -> None:
    water = (120, 190, 245)
    if face.tears:
        for side in (-1, 1):
            pen.line([(side * 0.19, 0.05), (side * 0.2, 0.22)], 0.05, water)
            pen.ellipse(side * 0.205, 0.27, 0.045, 0.06, (150, 208, 250))
    if face.sweat:
        pen.polygon([(0.33, -0.32), (0.385, -0.18), (0.33, -0.13), (0.275, -0.18)], water)
        pen.ellipse(0.33, -0.175, 0.05, 0.05, water)


def _worn(pen: Pen, looks: Looks) -> None:
    if looks.worn in ("glasses", "sunglasses"):
        frame = (40, 40, 46)
        for side in (-1, 1):
            if looks.worn == "sunglasses":
                pen.ellipse(side * 0.17, -0.02, 0.145, 0.115, frame)
            else:
                pen.arc(side * 0.17, -0.02, 0.14, 0.13, 0, 360, 0.022, frame)
        pen.line([(-0.04, -0.03), (0.04, -0.03)], 0.025, frame)
    elif looks.worn == "cap":
        colour = lighter(looks.hair, 0.35)
        pen.polygon(arc_points(0, -0.2, 0.45, 0.36, 180, 360), colour)
        pen.ellipse(0.12, -0.21, 0.42, 0.055, darker(colour, 0.3))
    elif looks.worn == "scarf":
        pen.polygon([(-0.38, 0.2), (0.38, 0.2), (0.44, 0.56), (-0.44, 0.56)], (170, 60, 70))
        pen.line([(-0.38, 0.3), (0.38, 0.3)], 0.03, (230, 200, 190))
