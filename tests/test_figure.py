"""The case-study panel says what the result says, and the plots put numbers where they belong."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from cocoer.names import LEVELS
from cocoer.outputs import SOURCES, CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report import canvas
from cocoer.report.figure import draw_case_study, label_columns, number_rows

LABELS = {
    "pred": ("Happiness", "Engagement"),
    "VI": ("Happiness", "Peace"),
    "head": ("Happiness", "Fear"),
    "body": ("Engagement",),
    "ctx": ("Sadness", "Engagement"),
}


def case(**changes: object) -> ImageResult:
    """One image with one person whose head and context levels say something that the answer does not share."""
    record = CompetitionRecord((1.5, 0.25, 2.75), ((0.2, 0.3, 0.5), (0.6, 0.4, 0.0)), ("context", "head", "body"), 0.4)
    person = PersonPrediction(
        0,
        LABELS,
        {s: {n: 0.9 - 0.1 * i for i, n in enumerate(LABELS[s])} for s in SOURCES},
        record,
        PersonBoxes((40.0, 20.0, 120.0, 190.0), (60.0, 25.0, 95.0, 60.0)),
        pseudo_label=("Happiness",),
    )
    return ImageResult("folder/case.png", 200, 200, (replace(person, **changes),))  # type: ignore[arg-type]


def photo() -> Image.Image:
    return Image.new("RGB", (200, 200), (90, 100, 130))


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def count(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(image) == np.array(colour)).all(-1).sum())


def test_columns_hold_the_labels_and_strike_out_what_the_answer_does_not_share() -> None:
    person = case().persons[0]
    columns = {c.source: c for c in label_columns(person, None)}
    assert tuple(columns) == ("pred", "head", "body", "ctx", "VI")
    for source, column in columns.items():
        shown = person.pseudo_label if source == "VI" else LABELS[source]
        assert tuple(name for name, _, _ in column.rows) == shown
        struck = tuple(name for name, _, out in column.rows if out)
        assert struck == person.inconsistent.get(source, ())
    assert [c.level for c in columns.values()] == [None, 0, 1, 2, None]


def test_the_smallest_loss_is_marked_and_a_level_that_left_has_no_lambda() -> None:
    rows = number_rows(case().persons[0])
    assert rows == [
        ("L_hier", ("1.500", "0.250", "2.750"), LEVELS.index("body")),
        ("lambda, round 1", ("0.200", "0.300", "0.500"), None),
        ("lambda, round 2", ("0.600", "0.400", "-"), None),
    ]
    assert number_rows(case(competition=None).persons[0]) == []


def test_orange_appears_only_where_a_label_is_struck_out() -> None:
    consistent = case(labels=dict.fromkeys(SOURCES, LABELS["pred"]))
    assert count(draw_case_study(photo(), consistent, 0), canvas.ORANGE) == 0
    few = count(draw_case_study(photo(), case(labels={**LABELS, "ctx": ("Engagement",)}), 0), canvas.ORANGE)
    both = count(draw_case_study(photo(), case(), 0), canvas.ORANGE)
    assert 0 < few < both


def test_what_the_pseudo_label_shares_is_not_struck_out() -> None:
    shared = case(pseudo_label=("Happiness", "Fear", "Sadness"))
    assert not any(out for column in label_columns(shared.persons[0], None) for _, _, out in column.rows)
    assert count(draw_case_study(photo(), shared, 0), canvas.ORANGE) == 0


def test_a_line_goes_through_the_whole_struck_word() -> None:
    drawn = np.asarray(draw_case_study(photo(), case(), 0))
    orange = (drawn == np.array(canvas.ORANGE)).all(-1)
    runs = [max(len(run) for run in "".join("x" if o else " " for o in row).split(" ")) for row in orange]
    assert sorted(runs)[-4:] >= [canvas.text_width("Fear", 22)] * 4, "two words, two pixels each"
    assert max(runs) >= canvas.text_width("Sadness", 22) > sorted(runs)[-5]


def test_ground_truth_is_a_column_of_its_own_also_when_it_is_empty() -> None:
    without, empty = draw_case_study(photo(), case(), 0), draw_case_study(photo(), case(), 0, ())
    given_truth = draw_case_study(photo(), case(), 0, ("Happiness", "Peace"))
    assert empty.width > without.width
    assert len({png(without), png(empty), png(given_truth)}) == 3
    assert next(c.source for c in label_columns(case().persons[0], ("Peace",))) == "truth"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"status": "no_face_estimated"},
        {"competition": None, "pseudo_label": ()},
        {"competition": CompetitionRecord((1.5, 0.25, 2.75), ((0.2, 0.3, 0.5),), (), 0.4), "status": "no_pseudo_label"},
        {"labels": {}, "probabilities": {}},
        {"labels": {s: tuple(f"Class {i}" for i in range(40)) for s in SOURCES}},
        {"labels": {}, "probabilities": {}, "competition": None, "boxes": None, "status": "error", "message": "no box"},
    ],
    ids=["ok", "no face", "no competition", "no pseudo label", "no labels", "40 labels", "error"],
)
def test_every_kind_of_person_is_drawn_the_same_twice(changes: dict[str, object]) -> None:
    drawn = draw_case_study(photo(), case(**changes), 0)
    assert drawn.mode == "RGB"
    assert png(drawn) == png(draw_case_study(photo(), case(**changes), 0))
    assert (count(drawn, canvas.RED) > 100) == (changes.get("status") == "error")
    border = np.asarray(drawn)[:, -6:]
    assert (border == 255).all(), "nothing runs over the right edge"


@pytest.mark.parametrize("size", [(1, 1), (5000, 20), (20, 5000)], ids=str)
def test_images_of_any_shape_fit(size: tuple[int, int]) -> None:
    result = replace(case(), width=size[0], height=size[1])
    drawn = draw_case_study(Image.new("L", size, 80), result, 0)
    assert drawn.width < 3500 and drawn.height < 1500


def test_a_person_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"wanted 0 to 0, got 1 \(folder/case.png\)"):
        draw_case_study(photo(), case(), 1)
