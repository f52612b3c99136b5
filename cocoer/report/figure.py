"""The paper's case study (Fig. 5 and 6) for one person: the prediction of each level, the competition and the final prediction.

Left the image with the person's boxes. Right the columns GT, Prediction, Head, Body, Context and V-I, the last one being the
pseudo label; a level's label that neither V-I nor the prediction shares is struck out in orange. Below the levels L_hier (the
smallest boxed) and the simplex weights (lambda) of each round, then the exclusion sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES, ImageResult, PersonPrediction
from cocoer.report import canvas as ink
from cocoer.report.band import with_band
from cocoer.report.canvas import Colour
from cocoer.report.text import exclusion_text

EM = 22
_ROW = round(1.5 * EM)
_PAD = 20
_IMAGE = (680, 520)
_MOST_LABELS = 12

_COLOURS: dict[str, Colour] = {
    "truth": (96, 102, 110), "pred": (26, 29, 33), "head": (214, 160, 0), "body": (26, 126, 54), "ctx": (38, 110, 190),
    "VI": (128, 80, 180),
}  # fmt: skip
_TITLES = {
    "truth": "GT",
    "pred": "Prediction",
    "head": "Head",
    "body": "Body",
    "ctx": "Context",
    "VI": "V-I (pseudo label)",
}


@dataclass(frozen=True)
class LabelColumn:
    """One column of labels: rows of name, probability and whether it is struck out."""

    source: str
    rows: tuple[tuple[str, float | None, bool], ...]
    width: int

    @property
    def level(self) -> int | None:
        """Place of the column's level in `names.LEVELS`, None for the other columns."""
        return next((i for i, level in enumerate(LEVELS) if LEVEL_SOURCES[level] == self.source), None)


def _column(source: str, names: Sequence[str], by_name: dict[str, float], struck: Sequence[str]) -> LabelColumn:
    ordered = sorted(names, key=lambda n: -by_name.get(n, 0.0))
    rows: list[tuple[str, float | None, bool]] = [(n, by_name.get(n), n in struck) for n in ordered[:_MOST_LABELS]]
    if len(ordered) > _MOST_LABELS:
        rows.append((f"+{len(ordered) - _MOST_LABELS} more", None, False))
    if not rows:
        rows.append(("none", None, False))
    number = ink.text_width("0.00", EM) + EM // 2
    widest = max(ink.text_width(n, EM, bold=source == "pred") + (number if p is not None else 0) for n, p, _ in rows)
    title = ink.text_width(_TITLES[source], EM, bold=True)
    return LabelColumn(source, tuple(rows), max(widest, title, 5 * EM))


def label_columns(person: PersonPrediction, truth: Sequence[str] | None) -> list[LabelColumn]:
    """GT where it is known, then Prediction, Head, Body, Context, and V-I with the pseudo label."""
    columns = [] if truth is None else [_column("truth", truth, {}, ())]
    for source in ("pred", "head", "body", "ctx", "VI"):
        by_name = dict(person.probabilities.get(source, {}))
        names = person.pseudo_label if source == "VI" else person.labels.get(source, ())
        columns.append(_column(source, names, by_name, person.inconsistent.get(source, ())))
    return columns


def _image(image: Image.Image, result: ImageResult, person: PersonPrediction) -> Image.Image:
    """The image at the figure's size, the person's boxes in the levels' colours, everybody else's thin and grey."""
    shown = ink.fit_inside(image, *_IMAGE)
    draw = ImageDraw.Draw(shown, "RGBA")
    sx, sy = shown.width / (result.width or image.width), shown.height / (result.height or image.height)

    def scaled(box: Sequence[float]) -> tuple[float, ...]:
        return tuple(v * s for v, s in zip(box, (sx, sy, sx, sy), strict=True))

    for other in result.persons:
        if other is not person and other.boxes is not None:
            ink.outline(draw, scaled(other.boxes.body), (190, 194, 200), 1)
    if person.boxes is not None:
        dashed = person.boxes.body_source == "estimated", person.boxes.head_source == "estimated"
        ink.outline(draw, scaled(person.boxes.body), ink.BODY_GREEN, 4, dashed[0])
        ink.outline(draw, scaled(person.boxes.head), ink.HEAD_YELLOW, 4, dashed[1])
    return shown


def _paint_labels(draw: ImageDraw.ImageDraw, column: LabelColumn, x: int, y: int) -> None:
    """A column's title on its colour, and its labels below."""
    colour = _COLOURS[column.source]
    draw.rectangle((x - EM // 2, y, x + column.width + EM // 2, y + _ROW + 5), fill=colour)
    middle = y + (_ROW + 6) / 2
    ink.write(draw, (x, middle), _TITLES[column.source], EM, ink.readable_on(colour), bold=True)
    y += 2 * _ROW
    for name, probability, struck in column.rows:
        known = probability is not None or column.source == "truth"
        text = ink.ORANGE if struck else ink.INK if known else ink.GREY
        ink.write(draw, (x, y), name, EM, text, bold=column.source == "pred" and known)
        if struck:
            draw.line([(x - 3, y), (x + ink.text_width(name, EM) + 3, y)], fill=ink.ORANGE, width=2)
        if probability is not None:
            ink.write(draw, (x + column.width, y), f"{probability:.2f}", EM, ink.GREY, anchor="rm")
        y += _ROW


def number_rows(person: PersonPrediction) -> list[tuple[str, tuple[str, ...], int | None]]:
    """Title, one text per level and the level to mark: L_hier with its smallest, then lambda of each round.

    A level that has left before a round has '-' there. Empty where nothing competed.
    """
    record = person.competition
    if record is None:
        return []
    losses = tuple(f"{loss:.3f}" for loss in record.losses)
    smallest = min(range(len(LEVELS)), key=lambda i: record.losses[i])
    rows: list[tuple[str, tuple[str, ...], int | None]] = [("L_hier", losses, smallest)]
    for i, weights in enumerate(record.weights):
        gone = record.exclusion[:i]
        shown = tuple("-" if n in gone else f"{w:.3f}" for n, w in zip(LEVELS, weights, strict=True))
        rows.append((f"lambda, round {i + 1}", shown, None))
    return rows


def _paint_numbers(
    draw: ImageDraw.ImageDraw,
    rows: Sequence[tuple[str, tuple[str, ...], int | None]],
    columns: Sequence[tuple[int, LabelColumn]],
    left: int,
    y: int,
) -> None:
    """The rows of numbers under their levels, a marked one bold in a box."""
    for title, texts, mark in rows:
        ink.write(draw, (left, y), title, EM, ink.GREY)
        for x, column in columns:
            if column.level is None:
                continue
            text, bold = texts[column.level], column.level == mark
            ink.write(draw, (x, y), text, EM, ink.GREY if text == "-" else ink.INK, bold=bold)
            if bold:
                wide = ink.text_width(text, EM, bold=True)
                draw.rounded_rectangle((x - 9, y - 15, x + wide + 9, y + 15), radius=6, outline=ink.INK, width=2)
        y += _ROW


def _sequence(draw: ImageDraw.ImageDraw, person: PersonPrediction, x: int, y: int) -> None:
    """The exclusion sequence as coloured chips with arrows, the survivor filled; or why there is none."""
    title = "Exclusion Sequence:"
    ink.write(draw, (x, y), title, EM, ink.INK, bold=True)
    x += ink.text_width(title, EM, bold=True) + EM
    exclusion = person.competition.exclusion if person.competition else ()
    if not exclusion:
        ink.write(draw, (x, y), exclusion_text(person), EM, ink.INK)
    for i, level in enumerate(exclusion):
        colour = _COLOURS[LEVEL_SOURCES[level]]
        last = i == len(exclusion) - 1
        shown = f"({i + 1}) {level.title()}"
        wide = ink.text_width(shown, EM, bold=last)
        chip = (x, y - EM // 2 - 7, x + wide + EM, y + EM // 2 + 7)
        draw.rounded_rectangle(chip, radius=EM // 2, fill=colour if last else ink.PAPER, outline=colour, width=3)
        ink.write(draw, (x + EM / 2, y), shown, EM, ink.readable_on(colour) if last else ink.INK, bold=last)
        x += wide + EM
        if not last:
            ink.arrow(draw, (x + 10, y), (x + 60, y), ink.INK, 4)
            x += 70


def draw_case_study(
    image: Image.Image, result: ImageResult, person_index: int, truth: Sequence[str] | None = None
) -> Image.Image:
    """The case-study panel of the person at place `person_index` of `result.persons`, as a new RGB image.

    image: the image that was scored, any mode and size. truth: class names, for a column of their own; None = unknown.
    Same input, same bytes. Raises ValueError where the image has no such person.
    """
    if not 0 <= person_index < len(result.persons):
        raise ValueError(f"person_index: wanted 0 to {len(result.persons) - 1}, got {person_index} ({result.image})")
    person = result.persons[person_index]
    shown = _image(image, result, person)
    columns, numbers = label_columns(person, truth), number_rows(person)
    left = _PAD + shown.width + 2 * _PAD
    gutter = max([0, *(ink.text_width(title, EM) + 2 * EM for title, _, _ in numbers)])
    placed: list[tuple[int, LabelColumn]] = []
    x = left + EM // 2
    for column in columns:  # the first level column starts right of the titles of the rows of numbers
        x = max(x, left + gutter) if column.level == 0 else x
        placed.append((x, column))
        x += column.width + round(1.6 * EM)
    width = max(x, left + 1100)
    top = _PAD + round(2.2 * EM)
    body = 2 * _ROW + max(len(c.rows) for c in columns) * _ROW
    foot = top + body + len(numbers) * _ROW + EM
    height = max(shown.height + top, foot + round(1.7 * _ROW)) + _PAD
    drawing = Image.new("RGB", (width, height), ink.PAPER)
    draw = ImageDraw.Draw(drawing)
    drawing.paste(shown, (_PAD, top))
    _paint_title(draw, result, person, width)
    if person.status == "error":
        for i, line in enumerate(ink.wrap(f"error: {person.message or 'not scored'}", EM, width - left - _PAD, 6)):
            ink.write(draw, (left, top + (i + 0.5) * _ROW), line, EM, ink.RED, bold=True)
        return with_band(drawing, result.synthetic)
    for x, column in placed:
        _paint_labels(draw, column, x, top)
    draw.line([(left, top + body - _ROW // 2 + 4), (width - _PAD, top + body - _ROW // 2 + 4)], fill=ink.RULE, width=2)
    _paint_numbers(draw, numbers, placed, left, top + body + _ROW // 3)
    _sequence(draw, person, left, foot + _ROW // 2)
    return with_band(drawing, result.synthetic)


def _paint_title(draw: ImageDraw.ImageDraw, result: ImageResult, person: PersonPrediction, width: int) -> None:
    """Image name, person number and, where it is not `ok`, the status."""
    frame = f", frame {result.frame}" if result.frame is not None else ""
    title = f"{result.image.replace(chr(92), '/').rsplit('/', 1)[-1]}{frame}, person {person.person}"
    said = {
        "no_face_estimated": "no face was found: the head box is estimated", "equal_readings": "levels read alike",
        "no_pseudo_label": "no pseudo label",
    }  # fmt: skip
    remark = f"   {said[person.status]}" if person.status in said else ""
    title = ink.shorten(title, EM, width - 3 * _PAD - ink.text_width(remark, EM), bold=True)
    ink.write(draw, (_PAD, _PAD + EM // 2), title, EM, ink.INK, bold=True)
    ink.write(draw, (_PAD + ink.text_width(title, EM, bold=True), _PAD + EM // 2), remark, EM, ink.ORANGE)
