"""Contact sheets: many small images with captions, in rows of equal cells."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from cocoer.report import canvas as ink

Cell = tuple[Image.Image, Sequence[str]]
"""An image (any mode and size) and the lines below it; the first is bold."""


def contact_sheet(cells: Sequence[Cell], columns: int = 6, cell: int = 240, title: str = "") -> Image.Image:
    """The cells row by row, `columns` a row, each image scaled into a `cell` x `cell` square; a new RGB image.

    Captions are cut at the width of a cell. Same input, same bytes.
    Raises ValueError for an empty list, or where `columns` or `cell` is too small.
    """
    if not cells:
        raise ValueError("contact sheet: wanted at least one image, got an empty list")
    if columns < 1 or cell < 32:
        raise ValueError(f"contact sheet: wanted columns >= 1 and cell >= 32, got columns {columns} and cell {cell}")
    columns = min(columns, len(cells))
    em, gap = max(11, cell // 15), max(6, cell // 20)
    line, top = round(1.35 * em), gap + (2 * em + gap if title else 0)
    fitted = [ink.fit_inside(image, cell, cell) for image, _ in cells]
    rows = [range(i, min(i + columns, len(cells))) for i in range(0, len(cells), columns)]
    heights = [max(fitted[i].height for i in row) for row in rows]  # landscape rows need no square
    texts = [max(len(cells[i][1]) for i in row) * line for row in rows]
    width = columns * (cell + gap) + gap
    sheet = Image.new("RGB", (width, top + sum(heights) + sum(texts) + 2 * gap * len(rows)), ink.PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        shown = ink.shorten(title, round(1.3 * em), width - 2 * gap, bold=True)
        ink.write(draw, (gap, gap + em), shown, round(1.3 * em), ink.INK, bold=True)
    y = top
    for row, high, text in zip(rows, heights, texts, strict=True):
        for place, i in enumerate(row):
            x = gap + place * (cell + gap)
            sheet.paste(fitted[i], (x + (cell - fitted[i].width) // 2, y + (high - fitted[i].height) // 2))
            for number, caption in enumerate(cells[i][1]):
                bold = number == 0
                shown = ink.shorten(caption, em, cell, bold=bold)
                colour = ink.INK if bold else ink.GREY
                ink.write(draw, (x, y + high + gap // 2 + (number + 0.5) * line), shown, em, colour, bold=bold)
        y += high + text + 2 * gap
    return sheet
