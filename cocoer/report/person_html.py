"""One person's answer as HTML, in the columns of the paper's Fig. 5 and 6; the case-study page and app.py are made of it.

`style()` is scoped to the class `person`, so that it can stand in a page of any other style. Everything that came from a file is
escaped. Colours have enough contrast on white, and on dark ground below an element of class `dark`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from PIL import Image

from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES, SYNTHETIC, PersonPrediction
from cocoer.report.canvas import data_uri
from cocoer.report.figure import number_rows
from cocoer.report.templates import render
from cocoer.report.text import exclusion_text

MOST_LABELS = 12

_REMARKS = {"no_face_estimated": "No face was found: the head box is estimated."}


@dataclass(frozen=True)
class Label:
    """A label as it is shown. kind: empty, or `right`, `wrong`, `missed`, `struck`."""

    name: str
    kind: str = ""
    probability: str = ""


@dataclass(frozen=True)
class Column:
    """One source's labels. level: for the colour, empty for other sources. loss: L_hier as text, empty where there is none.

    empty: the text of a column without labels. more: how many labels are not shown.
    """

    title: str
    labels: tuple[Label, ...]
    level: str = ""
    loss: str = ""
    empty: str = "none"

    @property
    def more(self) -> int:
        """Labels beyond the first `MOST_LABELS`."""
        return max(0, len(self.labels) - MOST_LABELS)


def style() -> str:
    """The CSS of a person's HTML."""
    return str(render("person.css"))


def synthetic_band(synthetic: bool) -> str:
    """A paragraph with `outputs.SYNTHETIC`; empty for weights that are not synthetic."""
    return str(Markup('<p class="synthetic" role="note">{}</p>').format(SYNTHETIC)) if synthetic else ""


def columns_of(person: PersonPrediction, truth: Sequence[str] | None = None) -> list[Column]:
    """GT where it is known (what the answer lacks is marked), Prediction, Head, Body, Context, V-I with the pseudo label.

    Labels are in the order of their probability. An answer without a label names the most probable class, which stays below
    its threshold.
    """
    said, fused = person.labels.get("pred", ()), person.probabilities.get("pred", {})

    def kind(name: str) -> str:
        return "" if truth is None else "right" if name in truth else "wrong"

    top = max(fused, key=lambda n: fused[n], default="")
    empty = f"none; highest: {top} {fused[top]:.2f}" if top else "none"
    out = [] if truth is None else [Column("GT", tuple(Label(n, "" if n in said else "missed") for n in truth))]
    answer = (Label(n, kind(n), f"{fused[n]:.2f}" if n in fused else "") for n in person.ordered("pred"))
    out.append(Column("Prediction", tuple(answer), empty=empty))
    for i, level in enumerate(LEVELS):
        source = LEVEL_SOURCES[level]
        struck = person.inconsistent.get(source, ())
        labels = tuple(Label(n, "struck" if n in struck else "") for n in person.ordered(source))
        loss = f"{person.competition.losses[i]:.3f}" if person.competition else ""
        out.append(Column(level.title(), labels, level, loss))
    return [*out, Column("V-I (pseudo label)", tuple(Label(name) for name in person.pseudo_label))]


def person_answer(person: PersonPrediction, truth: Sequence[str] | None = None) -> Markup:
    """The columns and the exclusion sequence; no element of class `person` around them."""
    exclusion = person.competition.exclusion if person.competition else ()
    return render(
        "answer.html",
        columns=columns_of(person, truth),
        exclusion=exclusion,
        sequence=exclusion_text(person),
        most=MOST_LABELS,
    )


def person_block(person: PersonPrediction) -> str:
    """Everything that is known of a person without ground truth, or why it was not scored."""
    failed = person.status == "error"
    remark = f"{person.message}." if person.message else _REMARKS.get(person.status, "")
    answer = Markup() if failed else person_answer(person)
    rows = [] if failed else number_rows(person)[1:]
    made_up = SYNTHETIC if person.synthetic else ""
    return str(
        render("person.html", person=person, band=made_up, answer=answer, rows=rows, levels=LEVELS, remark=remark)
    )


def map_rows(rows: Mapping[str, Sequence[tuple[Image.Image, str]]]) -> str:
    """Rows of captioned images (`saliency.saliency_rows`, `saliency.attention_rows`) that wrap on a narrow screen."""
    shown = {
        title: [(data_uri(image, quality=85), caption) for image, caption in cells] for title, cells in rows.items()
    }
    return str(render("maps.html", rows=shown))
