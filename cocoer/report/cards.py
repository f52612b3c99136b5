"""The label card of one person: a number, the labels of the fused answer with probabilities, remarks."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import ImageDraw

from cocoer.outputs import PersonPrediction
from cocoer.report import canvas as ink
from cocoer.report.canvas import Colour
from cocoer.report.layout import Plate, Size


@dataclass(frozen=True)
class Card:
    """The content of a card. number: shown in a badge, None where the image has one person only.

    rows: label and probability (None where there is none), the most probable first.
    remarks: smaller lines below. alarm: the person could not be scored.
    """

    number: str | None
    colour: Colour
    rows: tuple[tuple[str, float | None], ...]
    remarks: tuple[str, ...] = ()
    alarm: bool = False


_REMARKS = {
    "no_face_estimated": "no face: head estimated", "equal_readings": "levels read alike",
    "no_pseudo_label": "no pseudo label, no exclusion",
}  # fmt: skip
"""Status -> what the card says of it."""


def card_of(person: PersonPrediction, colour: Colour, numbered: bool, most_rows: int) -> Card:
    """The card of one person: at most `most_rows` labels of the fused answer (the rest as '+n more'), then remarks."""
    number = str(person.person) if numbered else None
    remarks: list[str] = []
    if person.boxes is not None and person.boxes.track is not None:
        remarks.append(f"track {person.boxes.track}")
    if person.status == "error":
        return Card(number, ink.RED, (("error", None),), (*remarks, person.message or "not scored"), alarm=True)
    by_name = person.probabilities.get("pred", {})
    labels = person.emotions
    rows: list[tuple[str, float | None]] = [(name, by_name.get(name)) for name in labels[:most_rows]]
    if len(labels) > most_rows:
        rows.append((f"+{len(labels) - most_rows} more", None))
    if not rows:
        top = max(by_name, key=lambda name: by_name[name], default=None)
        rows.append(("no label", None))
        if top is not None:
            remarks.insert(0, f"highest: {top} {by_name[top]:.2f}")
    if person.status != "ok":
        remarks.append(_REMARKS.get(person.status, person.status))
    return Card(number, colour, tuple(rows), tuple(remarks))


@dataclass(frozen=True)
class _Measures:
    """Distances of a card in pixels, all from the text size."""

    em: int
    small: int
    pad: int
    row: int
    small_row: int
    badge: int
    text_x: int
    text_width: int
    remarks: tuple[str, ...]


def _measure(card: Card, em: int, max_width: int) -> _Measures:
    small, pad, stripe = max(12, round(0.82 * em)), max(3, round(0.45 * em)), max(2, round(0.22 * em))
    badge = 0 if card.number is None else badge_size(card.number, em)[0]
    text_x = stripe + pad + (badge + pad if badge else 0)
    room = max(4 * em, max_width - text_x - pad)
    wanted = 0
    for name, probability in card.rows:
        number = 0 if probability is None else ink.text_width("0.00", em) + em
        wanted = max(wanted, ink.text_width(name, em, bold=True) + number)
    remarks = tuple(line for text in card.remarks for line in ink.wrap(text, small, min(room, max(wanted, 11 * em))))
    wanted = max([wanted, *(ink.text_width(line, small) for line in remarks)])
    return _Measures(em, small, pad, round(1.3 * em), round(1.3 * small), badge, text_x, min(room, wanted), remarks)


def badge_size(number: str, em: int) -> Size:
    """Width and height in pixels of a person's number badge."""
    height = round(1.25 * em)
    return max(height, ink.text_width(number, em, bold=True) + round(0.5 * em)), height


def card_size(card: Card, em: int, max_width: int) -> Size:
    """Width and height in pixels of a card written at `em` pixels; longer lines than `max_width` are cut or wrapped."""
    m = _measure(card, em, max_width)
    height = 2 * m.pad + len(card.rows) * m.row + len(m.remarks) * m.small_row
    return m.text_x + m.text_width + m.pad, max(height, 2 * m.pad + round(1.25 * em))


def paint_badge(draw: ImageDraw.ImageDraw, place: Plate, number: str, colour: Colour, em: int) -> None:
    """A filled square with a person's number."""
    x1, y1, x2, y2 = place
    draw.rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius=max(2, em // 5), fill=colour)
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    ink.write(draw, middle, number, em, ink.readable_on(colour), anchor="mm", bold=True)


def paint_card(draw: ImageDraw.ImageDraw, place: Plate, card: Card, em: int, on_image: bool) -> None:
    """The card at `place` (as `card_size` measured it): dark and slightly clear over an image, light in a panel."""
    x1, y1, x2, y2 = place
    m = _measure(card, em, x2 - x1)
    ground = (17, 20, 24, 215) if on_image else ink.PAPER
    text, faint = (ink.PAPER, (190, 196, 204)) if on_image else (ink.INK, ink.GREY)
    if card.alarm:
        text = (255, 140, 130) if on_image else ink.RED
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=ground)
    draw.rectangle((x1, y1, x1 + max(2, round(0.22 * em)) - 1, y2 - 1), fill=card.colour)
    if card.number is not None:
        wide, high = badge_size(card.number, em)
        left, top = x1 + m.text_x - m.pad - m.badge, y1 + m.pad
        paint_badge(draw, (left, top, left + wide, top + high), card.number, card.colour, em)
    y, right = y1 + m.pad + m.row / 2, x2 - m.pad
    for i, (name, probability) in enumerate(card.rows):
        shown = "" if probability is None else f"{probability:.2f}"
        room = right - x1 - m.text_x - (ink.text_width("0.00", em) + em // 2 if shown else 0)
        first = i == 0 and probability is not None
        name = ink.shorten(name, em, room, bold=first)
        ink.write(
            draw, (x1 + m.text_x, y), name, em, text if probability is not None or card.alarm else faint, bold=first
        )
        ink.write(draw, (right, y), shown, em, faint, anchor="rm")
        y += m.row
    y += (m.small_row - m.row) / 2
    for line in m.remarks:
        ink.write(draw, (x1 + m.text_x, y), line, m.small, faint)
        y += m.small_row
