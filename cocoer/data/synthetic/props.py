"""Things that people of the demo world hold or wear; part of the posture's cue. Units as in `body.py`."""

from __future__ import annotations

from cocoer.data.synthetic.pen import Colour, Pen, Point, darker, lighter


def draw_prop(
    pen: Pen, name: str, skin: Colour, shoulders: tuple[Point, Point], hands: tuple[Point, Point], head_at: Point
) -> None:
    """Draw a held thing at the hands; an empty name (or one without a drawing of its own) draws nothing."""
    middle = ((hands[0][0] + hands[1][0]) / 2, (hands[0][1] + hands[1][1]) / 2)
    high = hands[0] if hands[0][1] < hands[1][1] else hands[1]
    if name == "balloon":
        pen.line([high, (high[0], high[1] - 0.5)], 0.03, (90, 90, 90))
        pen.ellipse(high[0], high[1] - 0.8, 0.3, 0.36, (228, 60, 80))
        pen.ellipse(high[0] - 0.1, high[1] - 0.92, 0.07, 0.09, (250, 170, 180))
    elif name == "teddy":
        _teddy(pen, middle)
    elif name == "heart":
        heart(pen.at(middle, 0.5), (226, 46, 80))
    elif name == "trophy":
        _trophy(pen.at((high[0], high[1] - 0.2), 0.55))
    elif name == "book":
        x, y = middle
        for side in (-0.46, 0.46):
            pen.polygon([(x, y - 0.14), (x + side, y - 0.22), (x + side, y + 0.2), (x, y + 0.28)], (150, 50, 50))
            top = [(x, y - 0.18), (x + side * 0.92, y - 0.27), (x + side * 0.88, y - 0.18), (x, y - 0.09)]
            pen.polygon(top, (250, 246, 232))
    elif name == "laptop":
        x, y = middle
        pen.rect(x - 0.5, y - 0.3, x + 0.5, y + 0.26, (96, 102, 112))
        pen.rect(x - 0.46, y - 0.26, x + 0.46, y + 0.22, (150, 158, 168))
        pen.ellipse(x, y - 0.02, 0.07, 0.07, (235, 240, 245))
    elif name == "flower":
        low = hands[1] if high is hands[0] else hands[0]
        pen.line([low, (low[0] + 0.1, low[1] - 0.45)], 0.04, (70, 120, 60))
        pen.ellipse(low[0] + 0.1, low[1] - 0.5, 0.11, 0.11, (245, 245, 250))
    elif name == "bandage":
        _bandage(pen, head_at)
        pen.rect(middle[0] - 0.2, middle[1] - 0.14, middle[0] + 0.2, middle[1] + 0.1, (246, 240, 230))
        pen.ellipse(middle[0], middle[1] - 0.02, 0.07, 0.06, (205, 40, 40))
    elif name == "sling":
        low = hands[1] if high is hands[0] else hands[0]
        shoulder = shoulders[1] if high is hands[0] else shoulders[0]
        pen.line([(-shoulder[0] * 0.3, 0.0), low, (shoulder[0] * 0.9, shoulder[1] + 0.6)], 0.2, (244, 240, 232))
        _bandage(pen, head_at)
    elif name == "cup":
        x, y = hands[0]
        pen.rect(x - 0.12, y - 0.14, x + 0.12, y + 0.14, (240, 240, 236))
        pen.rect(x - 0.12, y - 0.02, x + 0.12, y + 0.08, (140, 90, 60))
    elif name == "palms":
        for x, y in hands:
            pen.ellipse(x, y, 0.17, 0.17, darker(skin, 0.3))
            pen.ellipse(x, y, 0.15, 0.15, lighter(skin, 0.1))


def heart(pen: Pen, fill: Colour) -> None:
    """A heart about the pen's origin, about one unit wide."""
    for side in (-1, 1):
        pen.ellipse(side * 0.24, -0.14, 0.27, 0.27, fill)
    pen.polygon([(-0.48, -0.02), (0.48, -0.02), (0, 0.55)], fill)


def _teddy(pen: Pen, middle: Point) -> None:
    p, fur, light = pen.at((middle[0], middle[1] - 0.1)), (164, 108, 62), (224, 184, 138)
    for side in (-1, 1):
        p.ellipse(side * 0.16, -0.42, 0.09, 0.09, fur)
        p.ellipse(side * 0.24, 0.02, 0.1, 0.1, fur)
        p.ellipse(side * 0.16, 0.34, 0.12, 0.1, fur)
    p.ellipse(0, 0.12, 0.25, 0.27, fur)
    p.ellipse(0, 0.14, 0.15, 0.17, light)
    p.ellipse(0, -0.27, 0.21, 0.2, fur)
    p.ellipse(0, -0.22, 0.09, 0.07, light)
    for x in (-0.08, 0.08, 0.0):
        p.ellipse(x, -0.31 if x else -0.23, 0.03, 0.03, (40, 28, 24))


def _trophy(pen: Pen) -> None:
    gold, shade = (244, 196, 48), (196, 140, 24)
    pen.ellipse(0, -0.32, 0.62, 0.26, shade)
    pen.polygon([(-0.42, -0.68), (0.42, -0.68), (0.3, -0.12), (0.08, 0.06), (-0.08, 0.06), (-0.3, -0.12)], gold)
    pen.rect(-0.08, 0.0, 0.08, 0.3, shade)
    pen.rect(-0.3, 0.26, 0.3, 0.46, gold)
    pen.ellipse(-0.16, -0.45, 0.07, 0.14, (255, 240, 170))


def _bandage(pen: Pen, head_at: Point) -> None:
    x, y = head_at
    pen.line([(x - 0.4, y - 0.3), (x + 0.4, y - 0.36)], 0.17, (248, 244, 236))
    pen.ellipse(x + 0.2, y - 0.34, 0.07, 0.06, (205, 40, 40))
