"""Text, colours and small shapes on a Pillow image: what every drawing of this package is made of.

The typeface is DejaVu Sans as matplotlib brings it, with Pillow's own (basic) text layout, so the bytes are the same on every
machine. `printable` turns letters outside ASCII into ASCII first; JSON keeps them as they are.
"""

from __future__ import annotations

import base64
import io
import math
import unicodedata
from collections.abc import Sequence
from functools import cache, lru_cache
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from cocoer.errors import MissingPackage

Colour = tuple[int, int, int]
Point = tuple[float, float]

BODY_GREEN: Colour = (46, 204, 64)
HEAD_YELLOW: Colour = (255, 220, 40)
ORANGE: Colour = (232, 119, 0)
RED: Colour = (226, 62, 52)
INK: Colour = (26, 29, 33)
GREY: Colour = (112, 118, 126)
RULE: Colour = (214, 218, 223)
PAPER: Colour = (255, 255, 255)
PANEL: Colour = (244, 245, 247)

PERSON_COLOURS: tuple[Colour, ...] = (
    BODY_GREEN, (41, 161, 255), (255, 133, 27), (240, 70, 150), (160, 110, 255), (0, 205, 205),
    (240, 200, 0), (255, 90, 80), (150, 205, 50), (200, 140, 90), (110, 150, 190), (230, 130, 240),
)  # fmt: skip
"""One hue per person where an image shows several; they repeat after twelve."""

_SPELLED_OUT = {
    0x2013: "-", 0x2014: "-", 0x2212: "-", 0x2026: "...", 0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"',
    0x2192: "->", 0x00D7: "x", 0x03BB: "lambda", 0x2264: "<=", 0x2265: ">=", 0x00DF: "ss", 0x00A0: " ",
}  # fmt: skip


def printable(text: str) -> str:
    """`text` in the letters the built-in typeface has: accents go, other scripts become '?', control characters a space."""
    plain = unicodedata.normalize("NFKD", text.translate(_SPELLED_OUT))
    kept = (c for c in plain if not unicodedata.combining(c))
    return "".join(c if " " <= c <= "~" else " " if c.isspace() or ord(c) < 32 else "?" for c in kept)


@lru_cache(maxsize=128)
def typeface(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, regular or bold, at `size` pixels: the typeface that comes with matplotlib.

    Raises RuntimeError where Pillow was built without FreeType.
    """
    file = _typefaces() / f"DejaVuSans{'-Bold' if bold else ''}.ttf"
    try:
        # The other layout engine depends on a library of the system, so its spacing differs from machine to machine.
        return ImageFont.truetype(str(file), size, layout_engine=ImageFont.Layout.BASIC)
    except ImportError:
        raise RuntimeError(
            "drawing labels wants Pillow with FreeType, this Pillow was built without it; install Pillow's own wheel"
        ) from None


@cache
def _typefaces() -> Path:
    """The folder of matplotlib's typefaces; found without importing matplotlib, which takes as long as recognising a person."""
    found = find_spec("matplotlib")
    if found is None or not found.submodule_search_locations:
        raise MissingPackage("matplotlib", "drawing", "matplotlib", "or ask for no images: --format json")
    return Path(found.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"


def text_width(text: str, size: int, bold: bool = False) -> int:
    """Width in whole pixels of one line."""
    return math.ceil(typeface(size, bold).getlength(printable(text)))


def write(
    draw: ImageDraw.ImageDraw, at: Point, text: str, size: int, fill: Colour, anchor: str = "lm", bold: bool = False
) -> None:
    """One line of text. `anchor` as in Pillow; its second letter m sets the line's middle at half the capital height."""
    x, y = at
    if anchor[1] == "m":  # Pillow's own middle depends on ascenders and leaves capitals and digits too high
        anchor, y = anchor[0] + "s", y + 0.36 * size
    draw.text((x, y), printable(text), font=typeface(size, bold), fill=fill, anchor=anchor)


def shorten(text: str, size: int, width: float, bold: bool = False) -> str:
    """`text`, cut with '...' where it is wider than `width` pixels."""
    text = printable(text)
    if text_width(text, size, bold) <= width:
        return text
    low, high = 0, len(text)  # the longest beginning that fits, by bisection
    while low < high:
        mid = (low + high + 1) // 2
        low, high = (mid, high) if text_width(text[:mid] + "...", size, bold) <= width else (low, mid - 1)
    return text[:low].rstrip() + "..."


def wrap(text: str, size: int, width: float, max_lines: int = 3) -> list[str]:
    """`text` in at most `max_lines` lines no wider than `width` pixels; long words are cut, the rest ends in '...'."""
    lines: list[str] = []
    words = printable(text).split()
    while words:
        count = len(words)
        while count > 1 and text_width(" ".join(words[:count]), size) > width:
            count -= 1
        if len(lines) == max_lines - 1:  # the last line takes what is left
            count = len(words)
        lines.append(shorten(" ".join(words[:count]), size, width))
        words = words[count:]
    return lines


def contrast(first: Colour, second: Colour) -> float:
    """Contrast ratio of two colours, 1 to 21, as WCAG 2 defines it."""
    levels = []
    for colour in (first, second):
        r, g, b = (c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
        levels.append(0.2126 * r + 0.7152 * g + 0.0722 * b)
    return (max(levels) + 0.05) / (min(levels) + 0.05)


def readable_on(colour: Colour) -> Colour:
    """Dark or white ink, whichever has more contrast on `colour`."""
    return max((INK, PAPER), key=lambda text: contrast(text, colour))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """`first` moved towards `second` by `share` (0 = first, 1 = second)."""
    r, g, b = (round(a + (c - a) * share) for a, c in zip(first, second, strict=True))
    return r, g, b


def outline(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, thick: int, dashed: bool = False) -> None:
    """A box outline over a thin dark one, so that it shows on any background; dashed for an estimated box."""
    x1, y1, x2, y2 = (round(v) for v in box)
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)
    edge = max(1, thick // 3)
    if not dashed:
        draw.rectangle((x1 - edge, y1 - edge, x2 + edge, y2 + edge), outline=(0, 0, 0, 150), width=thick + 2 * edge)
        draw.rectangle((x1, y1, x2, y2), outline=colour, width=thick)
        return
    corners = [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    for (ax, ay), (bx, by) in pairwise(corners):
        length = max(abs(bx - ax), abs(by - ay))
        pieces = max(1, round(length / (6 * thick)))
        for i in range(pieces):  # dash and gap, symmetric about the middle of the side
            s, e = (i + 0.2) / pieces, (i + 0.8) / pieces
            dash = [(ax + (bx - ax) * s, ay + (by - ay) * s), (ax + (bx - ax) * e, ay + (by - ay) * e)]
            draw.line(dash, fill=(0, 0, 0, 150), width=thick + 2 * edge)
            draw.line(dash, fill=colour, width=thick)


def arrow(draw: ImageDraw.ImageDraw, start: Point, end: Point, colour: Colour, thick: int) -> None:
    """A straight arrow from `start` to `end`; the typeface has none."""
    (ax, ay), (bx, by) = start, end
    length = math.hypot(bx - ax, by - ay) or 1.0
    ux, uy = (bx - ax) / length, (by - ay) / length
    tip = min(length, 4.5 * thick)
    base = (bx - ux * tip, by - uy * tip)
    draw.line([(ax, ay), base], fill=colour, width=thick)
    side = 0.5 * tip
    left, right = (base[0] - uy * side, base[1] + ux * side), (base[0] + uy * side, base[1] - ux * side)
    draw.polygon([(bx, by), left, right], fill=colour)


def fit_inside(image: Image.Image, width: int, height: int) -> Image.Image:
    """`image` in RGB, scaled up or down to the largest size within width x height pixels, shape kept."""
    scale = min(width / image.width, height / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    image = image.convert("RGB")
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def data_uri(image: Image.Image, kind: str = "JPEG", **options: Any) -> str:
    """The image as a data URI. kind: `JPEG` (of its RGB colours) or `PNG`. options: of Pillow's `save`."""
    buffer = io.BytesIO()
    (image.convert("RGB") if kind == "JPEG" else image).save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
