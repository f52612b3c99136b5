"""Check a finished index: decode every image, and draw a contact sheet of boxes and labels."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cocoer.boxes import Box
from cocoer.data.batch import PersonRecord
from cocoer.data.decode import decode_image, decode_record, image_path
from cocoer.data.files import in_threads
from cocoer.errors import ImageError

_COLOURS = {"annotated": (60, 220, 90), "detected": (70, 190, 255), "estimated": (255, 170, 40)}
"""Of the head box, by its source."""

_BODY_COLOUR = (255, 80, 80)
_CELL, _HIGH, _TEXT, _GAP, _COLUMNS = 300, 250, 46, 6, 4  # pixels of a cell: width, height, text below, space between


@dataclass(frozen=True)
class BrokenImage:
    """One image that cannot be used, the persons it takes with it, and why."""

    image: str
    persons: int
    reason: str


def check_images(records: Sequence[PersonRecord], root: Path, allow_outside: bool = False) -> list[BrokenImage]:
    """Decode every image of the index completely; returns the broken ones, in the order of the index.

    In threads, with a progress bar on a terminal. An image of another size than the index says is broken too.
    """
    by_image: dict[str, list[PersonRecord]] = defaultdict(list)
    for record in records:
        by_image[record.image].append(record)

    def fault(persons: list[PersonRecord]) -> str:
        try:
            decode_record(persons[0], root, allow_outside)
        except ImageError as err:
            return str(err)
        return ""

    images = list(by_image.values())
    faults = in_threads(fault, images, "decoding images")
    return [BrokenImage(p[0].image, len(p), why) for p, why in zip(images, faults, strict=True) if why]


def contact_sheet(
    records: Sequence[PersonRecord], root: Path, count: int = 24, seed: int = 0, allow_outside: bool = False
) -> Image.Image:
    """A sheet of up to `count` randomly chosen persons: the whole image with body and head box, and what the index says.

    Body boxes are red; head boxes green (annotated), blue (detected) or orange (estimated). An image that cannot be read
    is a gray cell with the reason. RGB. Raises ValueError for an empty index.
    """
    if not records:
        raise ValueError("a contact sheet needs at least one person, got none")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(records))[:count])
    rows = -(-len(chosen) // _COLUMNS)
    columns = min(_COLUMNS, len(chosen))
    step_x, step_y = _CELL + _GAP, _HIGH + _TEXT + _GAP
    sheet = Image.new("RGB", (columns * step_x + _GAP, rows * step_y + _GAP), (24, 24, 28))
    for place, index in enumerate(chosen):
        corner = (_GAP + place % _COLUMNS * step_x, _GAP + place // _COLUMNS * step_y)
        _draw_cell(sheet, corner, records[int(index)], root, allow_outside)
    return sheet


def _draw_cell(
    sheet: Image.Image, corner: tuple[int, int], record: PersonRecord, root: Path, allow_outside: bool
) -> None:
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(11)
    x, y = corner
    try:
        image = decode_image(image_path(root, record.image, allow_outside))
    except ImageError as err:
        draw.rectangle((x, y, x + _CELL, y + _HIGH), fill=(80, 80, 80))
        draw.multiline_text((x + 6, y + 6), _wrapped(str(err), 44, 12), fill=(255, 255, 255), font=font)
    else:
        scale = min(_CELL / image.width, _HIGH / image.height)
        small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        left, top = x + (_CELL - small.width) // 2, y + (_HIGH - small.height) // 2
        sheet.paste(small, (left, top))
        for box, colour in ((record.body, _BODY_COLOUR), (record.head, _COLOURS[record.head_source])):
            draw.rectangle(_on_sheet(box, scale, left, top), outline=colour, width=2)
    score = record.extra.get("head_score")
    head = f"head {record.head_source}" + (f" {score:.2f}" if isinstance(score, float) else "")
    text = f"{PurePosixPath(record.image).name[-26:]} #{record.person}  {head}\n{_wrapped(', '.join(record.labels), 50, 3)}"
    draw.multiline_text((x + 2, y + _HIGH + 2), text, fill=(235, 235, 235), font=font, spacing=2)


def _on_sheet(box: Box, scale: float, left: int, top: int) -> tuple[float, float, float, float]:
    """The box in pixels of the sheet, at least a line wide."""
    x1, y1 = left + box[0] * scale, top + box[1] * scale
    return x1, y1, max(x1 + 1, left + box[2] * scale - 1), max(y1 + 1, top + box[3] * scale - 1)


def _wrapped(text: str, width: int, lines: int) -> str:
    """The text in at most `lines` lines of about `width` characters."""
    found = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(found[:lines]) + (" ..." if len(found) > lines else "")
