"""The annotated image: boxes of every person and the labels of the fused answer.

One person: green body box and yellow head box, as in the published code. Several: one hue per person, the head lighter.
An estimated box is dashed. The labels stand in plates beside the persons, or apart with a line to the person's box, where all of
them fit without hiding any head or each other; where they do not, every person carries a number and the labels stand in a panel
beside the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from cocoer.boxes import Box
from cocoer.outputs import ImageResult, PersonPrediction
from cocoer.report import canvas as ink
from cocoer.report.band import with_band
from cocoer.report.canvas import Colour
from cocoer.report.cards import Card, badge_size, card_of, card_size, paint_badge, paint_card
from cocoer.report.layout import Plate, Size, flow, flow_below, place_plates

SMALLEST_SIDE = 640
"""An image whose longer side is shorter than this is scaled up to it, so that labels are readable."""

LARGEST_SIDE = 4096
"""An image whose longer side is longer than this is scaled down to it, so that memory and file size stay bounded."""

_NARROWEST = 200  # a shorter side below this gets a grey border, so that numbers have somewhere to stand
_MOST_INLINE = 8  # above this many persons plates beside them would hide the image


@dataclass(frozen=True)
class Plan:
    """The layout of an annotated image, in pixels of the drawn canvas.

    size: of the whole drawing. image: where the (scaled) image is. scale: canvas pixels per original pixel (x, y).
    em: text size. cards: the text of each person, in order. plates: per person the label plate (`inline`) or
    number badge inside the stage, None where there is none. panel: per person its card in the panel, None where the
    plate says it all. notes: lines of text below, notes_top: where they start.
    """

    size: Size
    stage: Plate
    image: Plate
    scale: tuple[float, float]
    em: int
    cards: tuple[Card, ...]
    plates: tuple[Plate | None, ...]
    inline: bool
    panel: tuple[Plate | None, ...]
    notes: tuple[tuple[str, Colour], ...]
    notes_top: int


def person_colours(index: int, several: bool) -> tuple[Colour, Colour]:
    """Body and head colour of the person at place `index` of an image: the published ones where it is alone."""
    if not several:
        return ink.BODY_GREEN, ink.HEAD_YELLOW
    body = ink.PERSON_COLOURS[index % len(ink.PERSON_COLOURS)]
    return body, ink.mix(body, ink.PAPER, 0.55)


def _stage(width: int, height: int, crowd: float) -> tuple[Size, Plate]:
    """The area for an image of this many pixels, and where in it the scaled image stands; larger for a crowd."""
    scale = min(max(1.0, SMALLEST_SIDE * crowd / max(width, height)), LARGEST_SIDE / max(width, height))
    w, h = max(1, round(width * scale)), max(1, round(height * scale))
    stage = max(w, _NARROWEST), max(h, _NARROWEST)
    x, y = (stage[0] - w) // 2, (stage[1] - h) // 2
    return stage, (x, y, x + w, y + h)


def _placed(box: Box, plan_image: Plate, scale: tuple[float, float]) -> Box:
    """A box of the original image in canvas pixels."""
    x, y = plan_image[:2]
    return x + box[0] * scale[0], y + box[1] * scale[1], x + box[2] * scale[0], y + box[3] * scale[1]


def _in_order(
    sizes: Sequence[Size],
    boxed: Sequence[tuple[int, Box, Box]],
    total: int,
    stage: Size,
    gap: int,
    anywhere: bool,
    last_resort: bool = False,
) -> list[Plate | None]:
    """`place_plates` for the persons that have boxes; the others get None."""
    places = place_plates(
        [sizes[i] for i, _, _ in boxed],
        [body for _, body, _ in boxed],
        [head for _, _, head in boxed],
        (0, 0, *stage),
        gap,
        anywhere,
        last_resort,
    )
    out: list[Plate | None] = [None] * total
    for (i, _, _), place in zip(boxed, places, strict=True):
        out[i] = place
    return out


def _panel(sizes: Sequence[Size], stage: Size, gap: int) -> tuple[list[Plate], Size]:
    """Cards right of the stage or below it, whichever gives the better shape; with the size of the whole."""
    right, (wide, high) = flow(sizes, stage[1] - 2 * gap, gap)
    below, (wide_b, high_b) = flow_below(sizes, stage[0] - 2 * gap, gap)
    beside = stage[0] + wide + 2 * gap, max(stage[1], high + 2 * gap)
    under = max(stage[0], wide_b + 2 * gap), stage[1] + high_b + 2 * gap

    def strain(size: Size) -> float:  # far from 3:2, or much empty ground
        shape = size[0] / size[1] / 1.5
        return max(shape, 1 / shape) * (size[0] * size[1]) ** 0.5

    if strain(beside) <= strain(under):
        return [(x1 + stage[0] + gap, y1 + gap, x2 + stage[0] + gap, y2 + gap) for x1, y1, x2, y2 in right], beside
    return [(x1 + gap, y1 + stage[1] + gap, x2 + gap, y2 + stage[1] + gap) for x1, y1, x2, y2 in below], under


def _notes(result: ImageResult, em: int, width: int) -> tuple[tuple[str, Colour], ...]:
    """Lines about the whole image: its error, or that no person was found."""
    if result.status == "error":
        return tuple((line, ink.RED) for line in ink.wrap(f"error: {result.message or 'not scored'}", em, width, 4))
    lines: list[tuple[str, Colour]] = []
    if not result.persons:
        lines.append(("no person found", ink.GREY))
    if result.message:
        lines += [(line, ink.GREY) for line in ink.wrap(result.message, em, width, 4)]
    return tuple(lines)


def plan_result(width: int, height: int, result: ImageResult) -> Plan:
    """Lay out the drawing of `result` on an image of width x height pixels, without the image.

    The boxes of `result` are in pixels of a result.width x result.height image; where that differs from width x
    height (a reduced copy is drawn on), they are scaled. No plate overlaps another or leaves the canvas.
    """
    crowd = max(1.0, len(result.persons) / 12) ** 0.5
    stage, image = _stage(width, height, crowd)
    scale = ((image[2] - image[0]) / (result.width or width), (image[3] - image[1]) / (result.height or height))
    em = max(15, round(min(max(stage) / 48, (stage[0] * stage[1]) ** 0.5 / 30) / crowd))
    gap, several = max(3, em // 4), len(result.persons) > 1
    boxed = [
        (i, _placed(p.boxes.body, image, scale), _placed(p.boxes.head, image, scale))
        for i, p in enumerate(result.persons)
        if p.boxes is not None
    ]
    most_rows = 5 if len(result.persons) <= _MOST_INLINE else 3

    def cards(rows: int) -> tuple[Card, ...]:
        return tuple(card_of(p, person_colours(i, several)[0], several, rows) for i, p in enumerate(result.persons))

    said, plates, panel = cards(most_rows), [], []  # type: tuple[Card, ...], list[Plate | None], list[Plate | None]
    size, inline = stage, False
    if len(boxed) == len(said) <= _MOST_INLINE:
        sizes = [card_size(card, em, stage[0] - 2 * gap) for card in said]
        if sum(w * h for w, h in sizes) < 0.4 * stage[0] * stage[1]:
            for anywhere in (False, True):  # beside the persons, else farther off with a line; never over a head
                plates = _in_order(sizes, boxed, len(said), stage, gap, anywhere)
                inline = all(place is not None for place in plates)
                if inline:
                    break
    if not inline and said:
        said = cards(8 if len(said) <= _MOST_INLINE else 3)
        plates = _badges(said, boxed, stage, em, gap)
        sizes = [card_size(card, em, 24 * em) for card in said]
        sizes = [(max(w for w, _ in sizes), h) for _, h in sizes]
        found, size = _panel(sizes, stage, gap)
        panel = list(found)
    notes = _notes(result, em, size[0] - 2 * em)
    size, notes_top = (size[0], size[1] + len(notes) * round(1.4 * em) + em) if notes else size, size[1]
    return Plan(
        size=size, stage=(0, 0, *stage), image=image, scale=scale, em=em, cards=said, plates=tuple(plates),
        inline=inline, panel=tuple(panel), notes=notes, notes_top=notes_top,
    )  # fmt: skip


def _badges(
    cards: Sequence[Card], boxed: Sequence[tuple[int, Box, Box]], stage: Size, em: int, gap: int
) -> list[Plate | None]:
    """Number badges at the persons, smaller where not all fit; a lone person needs none."""
    if len(cards) < 2:
        return [None] * len(cards)
    smallest = max(10, em // 2)
    for size in (em, max(smallest, round(0.8 * em)), smallest):
        sizes = [badge_size(card.number or "", size) for card in cards]
        places = _in_order(sizes, boxed, len(cards), stage, gap, anywhere=True, last_resort=True)
        if all(places[i] is not None for i, _, _ in boxed):
            break
    return places


def _leader(draw: ImageDraw.ImageDraw, plate: Plate, box: Box, colour: Colour, thick: int) -> None:
    """The shortest line from a plate to a box of its person, unless they touch nearly."""
    ends = [_closest((plate[i], plate[i + 2]), (box[i], box[i + 2])) for i in (0, 1)]
    (ax, bx), (ay, by) = ends
    if max(abs(ax - bx), abs(ay - by)) > 2 * thick:
        width = max(2, thick // 2)
        draw.line([(ax, ay), (bx, by)], fill=(0, 0, 0, 150), width=width + 2)
        draw.line([(ax, ay), (bx, by)], fill=colour, width=width)


def _closest(first: tuple[float, float], second: tuple[float, float]) -> tuple[float, float]:
    """The points of two intervals that are closest; the middle of what they share where they overlap."""
    if first[1] < second[0]:
        return first[1], second[0]
    if second[1] < first[0]:
        return first[0], second[1]
    middle = (max(first[0], second[0]) + min(first[1], second[1])) / 2
    return middle, middle


def _paint_boxes(draw: ImageDraw.ImageDraw, plan: Plan, persons: Sequence[PersonPrediction]) -> None:
    """Every person's body and head box; the largest first, so that small ones stay visible."""
    several = len(persons) > 1
    thick = max(2, round(plan.em / 5))
    order = [(i, p.boxes) for i, p in enumerate(persons) if p.boxes is not None]
    order.sort(key=lambda pair: (pair[1].body[0] - pair[1].body[2]) * (pair[1].body[3] - pair[1].body[1]))
    for i, boxes in order:
        body, head = person_colours(i, several)
        if persons[i].status == "error":
            body = head = ink.RED
        for box, source, colour in ((boxes.body, boxes.body_source, body), (boxes.head, boxes.head_source, head)):
            ink.outline(draw, _placed(box, plan.image, plan.scale), colour, thick, dashed=source == "estimated")


def draw_result(image: Image.Image, result: ImageResult) -> Image.Image:
    """The image with boxes, numbers and labels of all its persons, as a new RGB image; same input, same bytes.

    image: the image that was scored, any mode, any size (after EXIF rotation). It is drawn at its own size where the
    longer side is between `SMALLEST_SIDE` and `LARGEST_SIDE` pixels and scaled to that range otherwise; a panel or a
    note below makes the drawing larger than the image, and so does the band above
    the answer of synthetic weights. Errors of the image and of single persons are shown.
    """
    plan = plan_result(image.width, image.height, result)
    x1, y1, x2, y2 = plan.image
    drawing = Image.new("RGB", plan.size, ink.PANEL)
    stage = Image.new("RGB", (plan.stage[2], plan.stage[3]), (70, 74, 80))
    shown = image if image.size == (x2 - x1, y2 - y1) else image.resize((x2 - x1, y2 - y1), Image.Resampling.LANCZOS)
    stage.paste(shown.convert("RGB"), (x1, y1))
    draw = ImageDraw.Draw(stage, "RGBA")
    _paint_boxes(draw, plan, result.persons)
    thick = max(2, round(plan.em / 5))
    placed = [
        (person.boxes, card, plate)
        for person, card, plate in zip(result.persons, plan.cards, plan.plates, strict=True)
        if plate is not None and person.boxes is not None
    ]
    several = len(result.persons) > 1  # bodies overlap; a line to the head says whose label it is
    for boxes, card, plate in placed:
        target = boxes.head if several and plan.inline else boxes.body
        _leader(draw, plate, _placed(target, plan.image, plan.scale), card.colour, thick)
    for _, card, plate in placed:
        if plan.inline:
            paint_card(draw, plate, card, plan.em, on_image=True)
        else:
            paint_badge(draw, plate, card.number or "", card.colour, round((plate[3] - plate[1]) / 1.25))
    drawing.paste(stage, (0, 0))
    draw = ImageDraw.Draw(drawing, "RGBA")
    for place, card in zip(plan.panel, plan.cards, strict=False):
        if place is not None:
            paint_card(draw, place, card, plan.em, on_image=False)
    for i, (line, colour) in enumerate(plan.notes):
        middle = plan.notes_top + plan.em / 2 + (i + 0.5) * round(1.4 * plan.em)
        ink.write(draw, (plan.em, middle), line, plan.em, colour, bold=colour == ink.RED)
    return with_band(drawing, result.synthetic)
