"""Case studies as one self-contained HTML page: images embedded, sorting in plain JavaScript, readable on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape
from PIL import Image, ImageDraw

from cocoer.names import LEVELS
from cocoer.outputs import SYNTHETIC, CaseStudy
from cocoer.report import canvas as ink
from cocoer.report.person_html import person_answer
from cocoer.report.templates import render

_SIDE = 480
_KEYS = {"loss": "loss", "conflict": "conflict", "excluded": "first excluded", "error": "wrong labels"}


def image_uri(image: Image.Image, case: CaseStudy) -> str:
    """The image, reduced, with the person's two boxes, as a data URI (JPEG)."""
    shown = image.convert("RGB")
    if max(shown.size) > _SIDE:
        shown = ink.fit_inside(shown, _SIDE, _SIDE)
    boxes = case.person.boxes
    if boxes is not None:
        draw = ImageDraw.Draw(shown, "RGBA")
        scale = (
            shown.width / (case.result.width or image.width),
            shown.height / (case.result.height or image.height),
        ) * 2
        for box, colour in ((boxes.body, ink.BODY_GREEN), (boxes.head, ink.HEAD_YELLOW)):
            ink.outline(draw, [v * s for v, s in zip(box, scale, strict=True)], colour, 2)
    return ink.data_uri(shown, quality=85)


def _name(key: str) -> Markup:
    """A key that may be broken after the separators of paths, not in the middle of a word."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[/_])|(?=#)", key) if part)


def _card(case: CaseStudy, image: Image.Image) -> dict[str, object]:
    """What a person's card shows."""
    first = case.first_excluded
    failed = case.person.status == "error"
    return {
        "case": case, "name": _name(case.key), "image": image_uri(image, case),
        "excluded": -1 if first is None else LEVELS.index(first), "failed": failed,
        "answer": Markup() if failed else person_answer(case.person, case.truth),
        "remarks": [text for text in (case.person.message, case.remark) if text and not failed],
    }  # fmt: skip


def case_page(cases: Iterable[tuple[CaseStudy, Image.Image]], title: str, remarks: Sequence[str] = ()) -> str:
    """The whole page as text: no link leads out of it, everything that was read from files is escaped.

    cases: in the order in which they first appear. remarks: lines below the title, such as what the model is.
    Raises ValueError without a case.
    """
    cards = [_card(case, image) for case, image in cases]
    if not cards:
        raise ValueError("case page: wanted at least one person, got none")
    unjudged = sum(case["case"].person.status == "no_pseudo_label" for case in cards)  # type: ignore[attr-defined]
    counted = (
        [f"{unjudged} of {len(cards)} persons have an empty pseudo label and no exclusion sequence"] if unjudged else []
    )
    made_up = SYNTHETIC if any(case["case"].result.synthetic for case in cards) else ""  # type: ignore[attr-defined]
    notes = [*remarks, *counted]
    return str(render("cases.html", cards=cards, title=title, band=made_up, remarks=notes, keys=_KEYS, levels=LEVELS))
