"""Tables line up, numbers are said in words, and a summary holds what the result holds."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoer.outputs import CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report.text import (
    Cell,
    cell_text,
    display_width,
    exclusion_text,
    human_size,
    markdown_table,
    summarize,
    table,
)

CELL = st.none() | st.integers(-(10**6), 10**6) | st.floats() | st.text("ab|漢é ", min_size=1, max_size=8)
ROWS = st.lists(st.tuples(CELL, CELL, CELL), max_size=6)
HEADER = ("class", "AP", "persons")


@settings(max_examples=40)
@given(ROWS)
def test_a_markdown_table_is_a_rectangle_that_reads_back(rows: list[tuple[Cell, ...]]) -> None:
    lines = markdown_table(HEADER, rows).split("\n")
    assert len(lines) == len(rows) + 2
    assert len({display_width(line) for line in lines}) == 1
    for line, row in zip(lines[2:], rows, strict=True):
        cells = [c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line)[1:-1]]
        assert cells == [cell_text(v).strip() for v in row]


@settings(max_examples=40)
@given(ROWS)
def test_a_plain_table_has_its_columns_under_each_other(rows: list[tuple[Cell, ...]]) -> None:
    lines = table(HEADER, rows).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(line == line.rstrip() for line in lines)
    assert re.fullmatch(r"-+  -+  -+", lines[1])
    assert all(display_width(line) <= len(lines[1]) for line in lines)


def test_numbers_stand_right_and_text_left() -> None:
    assert table(("name", "AP"), [("a", 0.5), ("bcdef", None)]).split("\n") == [
        "name      AP",
        "-----  -----",
        "a      0.500",
        "bcdef      -",
    ]


def test_a_row_of_the_wrong_length_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"row 1: wanted 2 cells \(a, b\), got 1"):
        table(("a", "b"), [(1, 2), (3,)])


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (12_400_000, "12.4 MB"),
     (5e9, "5.0 GB"), (3.2e15, "3200.0 TB")],
)  # fmt: skip
def test_sizes_in_words(size: float, text: str) -> None:
    assert human_size(size) == text


def test_exclusion_in_words() -> None:
    record = CompetitionRecord((1.0, 2.0, 3.0), (), ("context", "head", "body"), 0.1)
    assert exclusion_text(person(competition=record)) == "(1) Context -> (2) Head -> (3) Body"
    assert exclusion_text(person(competition=None)) == "none, nothing competed"
    unjudged = person(competition=replace(record, exclusion=()), status="no_pseudo_label", message="no label")
    assert exclusion_text(unjudged) == "none, the pseudo label is empty"
    said = summarize(ImageResult("a.png", 64, 48, (unjudged,)))
    assert (
        "[no_pseudo_label]" in said
        and "Exclusion Sequence: none, the pseudo label is empty" in said
        and "no label" in said
    )


def person(**changes: object) -> PersonPrediction:
    fields: dict[str, object] = {
        "person": 3,
        "labels": {"pred": ("Fear", "Happiness"), "head": ("Fear", "Happiness/Joy"), "body": (), "ctx": ("Sadness",)},
        "probabilities": {"pred": {"Fear": 0.5, "Happiness": 0.75}, "head": {"Fear": 0.9, "Happiness/Joy": 0.8}},
        "competition": CompetitionRecord((1.0, 2.0, 3.0), (), ("context", "body", "head"), 0.1),
        "boxes": PersonBoxes((0.0, 0.0, 9.0, 9.0), (1.0, 1.0, 3.0, 3.0), track="t7"),
    }
    return PersonPrediction(**(fields | changes))  # type: ignore[arg-type]


def test_a_summary_holds_levels_losses_and_the_exclusion_sequence() -> None:
    judged = person(pseudo_label=("Anger", "Happiness/Joy"))  # what V-I says too is not struck out
    lines = summarize(ImageResult("a.png", 640, 480, (judged,))).split("\n")
    assert lines == [
        "a.png (640x480): 1 person",
        "person 3 (track t7): Happiness 0.75, Fear 0.50",
        "  head     L_hier 1.000  Fear 0.90, Happiness/Joy 0.80",
        "  body     L_hier 2.000  -",
        "  context  L_hier 3.000  !Sadness",
        "  V-I      Anger, Happiness/Joy (pseudo label)",
        "  Exclusion Sequence: (1) Context -> (2) Body -> (3) Head",
    ]


def test_a_summary_says_every_status() -> None:
    failed = person(status="error", message="empty box", labels={}, probabilities={}, competition=None, boxes=None)
    text = summarize(ImageResult("a.png", 64, 48, (person(status="no_face_estimated"), failed), message="from --boxes"))
    assert "2 persons; from --boxes" in text
    assert "[no_face_estimated]" in text
    assert "person 3: error: empty box" in text
    assert summarize(ImageResult("b.png", 64, 48, (), frame=7)) == "b.png (64x48, frame 7): no person found"
    assert summarize(ImageResult("c.png", 0, 0, (), "error", "truncated")) == "c.png: error: truncated"
