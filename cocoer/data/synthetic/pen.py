"""Draw on a Pillow image in local units: origin, unit and angle are set once per pen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`share` of the second colour in the first (0: first, 1: second; beyond is clipped to 0..255)."""
    r, g, b = (max(0, min(255, round(p + (q - p) * share))) for p, q in zip(first, second, strict=True))
    return r, g, b


def darker(colour: Colour, share: float = 0.3) -> Colour:
    """The colour moved towards black by a share."""
    return mix(colour, (0, 0, 0), share)


def lighter(colour: Colour, share: float = 0.3) -> Colour:
    """The colour moved towards white by a share."""
    return mix(colour, (255, 255, 255), share)


class Pen:
    """Draws shapes given in units on `image`: x right, y down, rotated by `degrees` (clockwise) about the origin."""

    def __init__(self, image: Image.Image, origin: Point = (0.0, 0.0), unit: float = 1.0, degrees: float = 0.0):
        self.image, self.origin, self.unit, self.degrees = image, origin, unit, degrees
        self._draw = ImageDraw.Draw(image)
        self._cos, self._sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))

    def px(self, point: Point) -> Point:
        """A point in pixels of the image."""
        x, y = point
        rx, ry = x * self._cos - y * self._sin, x * self._sin + y * self._cos
        return self.origin[0] + rx * self.unit, self.origin[1] + ry * self.unit

    def at(self, point: Point, unit: float = 1.0, degrees: float = 0.0) -> Pen:
        """A pen on the same image with its origin at `point`, `unit` times as large and turned further."""
        return Pen(self.image, self.px(point), self.unit * unit, self.degrees + degrees)

    def polygon(self, points: Sequence[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([self.px(p) for p in points], fill=fill)

    def rect(self, x1: float, y1: float, x2: float, y2: float, fill: Colour) -> None:
        """A filled rectangle."""
        self.polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """A filled ellipse about (x, y)."""
        if self.degrees == 0 or rx == ry:
            cx, cy = self.px((x, y))
            a, b = abs(rx * self.unit), abs(ry * self.unit)
            self._draw.ellipse((cx - a, cy - b, cx + a, cy + b), fill=fill)
        else:
            self.polygon(arc_points(x, y, rx, ry, 0, 360), fill)

    def line(self, points: Sequence[Point], width: float, fill: Colour) -> None:
        """A line through the points with round ends and joints."""
        dots = [self.px(p) for p in points]
        w = max(1.0, width * self.unit)
        self._draw.line(dots, fill=fill, width=round(w), joint="curve" if len(dots) > 2 else None)
        if w >= 3:
            for x, y in (dots[0], dots[-1]) if len(dots) > 4 else dots:
                self._draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=fill)

    def arc(
        self, x: float, y: float, rx: float, ry: float, start: float, end: float, width: float, fill: Colour
    ) -> None:
        """A curved line along an ellipse; degrees, 0 to the right, 90 down."""
        self.line(arc_points(x, y, rx, ry, start, end), width, fill)


def arc_points(x: float, y: float, rx: float, ry: float, start: float, end: float) -> list[Point]:
    """Points along an ellipse, one about every 12 degrees."""
    steps = max(3, int(abs(end - start) / 12))
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def gradient(size: tuple[int, int], top: Colour, bottom: Colour) -> Image.Image:
    """An RGB image (width, height) that goes from one colour at the top to another at the bottom."""
    strip = Image.new("RGB", (1, 64))
    strip.putdata([mix(top, bottom, i / 63) for i in range(64)])
    return strip.resize(size, Image.Resampling.BILINEAR)
