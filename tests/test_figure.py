"""The case-study panel says what the result says, and the plots put numbers where they belong."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cocoer.names import LEVELS
from cocoer.outputs import SOURCES, CompetitionRecord, ImageResult, PersonBoxes, PersonPrediction
from cocoer.report import canvas
from cocoer.report.curves import (
    SERIES_COLOURS,
    bar_plot,
    line_plot,
    running_mean,
    tick_text,
    ticks,
    training_curves,
)
from cocoer.report.figure import draw_case_study, label_columns, number_rows

LABELS = {
    "pred": ("Happiness", "Engagement"),
    "VI": ("Happiness",),
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
        assert tuple(name for name, _, _ in column.rows) == LABELS[source]
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
        {"labels": {}, "probabilities": {}},
        {"labels": {s: tuple(f"Class {i}" for i in range(40)) for s in SOURCES}},
        {"labels": {}, "probabilities": {}, "competition": None, "boxes": None, "status": "error", "message": "no box"},
    ],
    ids=["ok", "no face", "no competition", "no labels", "40 labels", "error"],
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


@settings(max_examples=40)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e6), st.integers(2, 12))
def test_ticks_are_round_evenly_apart_and_inside(low: float, span: float, most: int) -> None:
    values = ticks(low, low + span, most)
    assert len(values) <= most
    slack = 1e-6 * span
    assert all(low - slack <= v <= low + span + slack for v in values)
    if len(values) > 2:
        steps = np.diff(values)
        assert np.allclose(steps, steps[0])
        mantissa = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-9)
        assert min(abs(mantissa - m) for m in (1, 2, 2.5, 5, 10)) < 1e-3


def test_tick_texts_tell_neighbours_apart() -> None:
    for low, high in [(0, 1), (0, 0.01), (-3, 7), (0, 25), (0, 5000), (0, 12345), (0.3, 0.31)]:
        values = ticks(low, high)
        step = values[1] - values[0]
        texts = [tick_text(v, step) for v in values]
        assert len(set(texts)) == len(texts) > 1
        for value, text in zip(values, texts, strict=True):
            number = float(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)
            assert number == pytest.approx(value, abs=1e-3 * step)


def test_an_impossible_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="finite low < high"):
        ticks(1.0, 1.0)


@settings(max_examples=40)
@given(st.lists(st.floats(-100, 100) | st.just(math.nan), max_size=30), st.integers(1, 8))
def test_the_running_mean_is_the_mean_of_the_last_finite_values(values: list[float], window: int) -> None:
    points = [(float(i), v) for i, v in enumerate(values)]
    expected = []
    for i in range(len(values)):
        seen = [v for v in values[: i + 1] if math.isfinite(v)][-window:]
        if seen:
            expected.append((float(i), sum(seen) / len(seen)))
    assert running_mean(points, window) == [(x, pytest.approx(y, abs=1e-9)) for x, y in expected]


def test_a_line_rises_where_its_numbers_rise() -> None:
    plot = np.asarray(line_plot({"a": [(float(x), float(x)) for x in range(11)]}, size=(400, 300)))
    blue = np.argwhere((np.abs(plot.astype(int) - np.array(SERIES_COLOURS[0])).sum(-1)) < 30)
    blue = blue[blue[:, 0] > 60]  # below the legend
    left, right = blue[blue[:, 1] < 150], blue[blue[:, 1] > 300]
    assert len(left) and len(right)
    assert left[:, 0].min() > right[:, 0].max()


def test_plots_take_nan_constants_single_points_and_nothing() -> None:
    for series in (
        {},
        {"empty": []},
        {"one": [(1.0, 2.0)]},
        {"constant": [(0.0, 3.0), (1.0, 3.0)]},
        {"broken": [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]},
        {"long": [(float(i), math.sin(i)) for i in range(500)]},
        {f"series with a long name {i}": [(0.0, 1e-9 * i), (1.0, 1e9 * i)] for i in range(9)},
    ):
        assert line_plot(series, "title", size=(320, 240)).size == (320, 240)
        assert png(line_plot(series)) == png(line_plot(series))
    with pytest.raises(ValueError, match="160x160"):
        line_plot({}, size=(10, 10))


def test_longer_bars_mean_larger_values() -> None:
    values = {"a": 0.2, "b": 0.8, "c": math.nan, "d": -0.1}
    plot = bar_plot(values, "bars", {"a": (0.1, 0.3)}, ("chance", 0.5), width=500)
    fill = canvas.mix(SERIES_COLOURS[0], canvas.PAPER, 0.25)
    rows = (np.asarray(plot) == np.array(fill)).all(-1).sum(1)
    runs = np.split(rows, np.flatnonzero(np.diff((rows > 0).astype(int))) + 1)
    lengths = [int(run.max()) for run in runs if run.max() > 0]
    assert len(lengths) == 3, "a value that is not a number has no bar"
    assert lengths[1] / lengths[0] == pytest.approx(4, rel=0.12)
    assert lengths[2] / lengths[0] == pytest.approx(0.5, rel=0.12)
    with pytest.raises(ValueError, match="at least one value"):
        bar_plot({})


def test_training_curves_read_the_records_of_a_log() -> None:
    records = [{"kind": "step", "stage": "recognition", "step": i, "loss": 2.0 / i} for i in range(1, 30)]
    nothing, some = training_curves([]), training_curves(records)
    assert some.size == nothing.size == (1280, 400)
    assert png(some.crop((640, 0, 1280, 400))) == png(nothing.crop((640, 0, 1280, 400)))
    full = training_curves([*records, {"kind": "eval", "split": "val", "step": 29, "mAP": None}, {"kind": "stage"}])
    assert png(full.crop((0, 0, 640, 400))) == png(some.crop((0, 0, 640, 400)))
    assert png(full) != png(some)
