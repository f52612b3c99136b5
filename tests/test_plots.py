"""Plots put numbers where they belong, say what their axes are, and are the same bytes for the same numbers."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_plots import exclusion_plot, gain_plot, score_plot
from cocoer.report.conflict_points import CONDITIONS, LABELS, RULES, Points
from cocoer.report.conflict_words import figures, findings
from cocoer.report.plots import (
    Panel,
    as_image,
    bar_figure,
    image_figure,
    line_figure,
    running_mean,
    save,
    training_curves,
)

SHARES = (0.0, 0.3, 0.7)


def conflict_points() -> Points:
    """A point for everything that the plots ask for; numbers made up."""
    measures, fusions = (
        ("first_excluded", "first_excluded_gain", "score", "gain", "vote_gain"),
        ("", "trained", "refitted"),
    )
    made = []
    for measure, fusion, rule, label, condition, share in product(
        measures, fusions, ("", *RULES), ("", *LABELS), CONDITIONS, SHARES
    ):
        mean = 40.0 * share + len(rule)
        ends = (mean - 2.0, mean + 1.0)
        made.append(ConflictPoint(measure, fusion, rule, label, condition, share, (mean,), mean, 1.0, ends, 400))
    return Points(made)


def test_the_findings_are_plain_sentences_and_their_figures_stand_in_the_table() -> None:
    points = conflict_points()
    said, rows = findings(points), figures(points)
    assert len(said) == 8 and all(len(line) < 260 and line.endswith(".") for line in said)
    assert "raises mAP" in said[3] and len({len(row) for row in rows}) == 1
    for question, where, value, verdict in rows:
        assert question and where.startswith("share") and value
        lower = value.partition("[")[2].partition(",")[0]
        assert not lower or (verdict == "a gain") == (float(lower) > 0)


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


def test_whiskers_stand_on_their_points_and_series_beside_each_other() -> None:
    lines = {name: [(0.0, y), (1.0, y + 1)] for name, y in (("a", 1.0), ("b", 1.0))}
    ends = {name: [(y - 0.5, y + 0.25) for _, y in points] for name, points in lines.items()}
    (axes,) = line_figure([Panel("t", "x", "y (%)", lines, ends, reference=("chance", 1.0))]).axes
    drawn = []
    for container in axes.containers:
        line, _, (bars,) = container.lines
        xs, ys = line.get_data()
        segments = bars.get_segments()
        for x, y, segment in zip(xs, ys, segments, strict=True):
            assert np.allclose(segment, [[x, y - 0.5], [x, y + 0.25]])
        drawn.append(tuple(xs))
    assert len(set(drawn)) == 2, "series that share their x are drawn apart"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("x", "y (%)")
    with pytest.raises(ValueError, match=r"wanted an interval per point of 'a', got 1 for 2"):
        Panel("t", "x", "y", lines, {"a": [(0.0, 1.0)]})
    with pytest.raises(ValueError, match="at least one panel"):
        line_figure([])


def test_nothing_of_a_figure_overlaps() -> None:
    points = conflict_points()
    for figure in (exclusion_plot(points), score_plot(points), gain_plot(points)):
        as_image(figure)
        renderer = figure.canvas.get_renderer()
        boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
        boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
        assert len(figure.legends) == 1
        for i, first in enumerate(boxes):
            assert all(not first.overlaps(second) for second in boxes[i + 1 :])
        for axes in figure.axes:
            assert axes.get_xlabel() and axes.get_ylabel() and axes.get_title(loc="left")
            looks = {
                (line.get_color(), line.get_marker())
                for line in axes.lines
                if line.get_marker() not in ("_", "|", "None")
            }
            assert len(looks) >= 3


@pytest.mark.parametrize(
    "lines",
    [
        {},
        {"empty": []},
        {"one": [(1.0, 2.0)]},
        {"constant": [(0.0, 3.0), (1.0, 3.0)]},
        {"broken": [(0.0, 1.0), (1.0, math.nan), (2.0, math.inf), (3.0, 2.0)]},
        {"long": [(float(i), math.sin(i)) for i in range(500)]},
        {f"$series {i}": [(0.0, 1e-9 * i), (1.0, 1e9 * i)] for i in range(9)},
    ],
)
def test_any_numbers_are_drawn_the_same_twice(lines: dict[str, list[tuple[float, float]]], tmp_path: Path) -> None:
    files = [
        [p.read_bytes() for p in save(line_figure([Panel("a $ b", "step", "loss", lines)]), tmp_path / name)]
        for name in ("one.png", "two.png")
    ]
    assert files[0] == files[1] and files[0][0][:4] == b"\x89PNG" and files[0][1][:5] == b"%PDF-"


def test_a_users_own_settings_change_nothing() -> None:
    panel = [Panel("t", "x", "y", {"a": [(0.0, 1.0), (1.0, 2.0)]})]
    plain = as_image(line_figure(panel)).tobytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "lines.linewidth": 9}):
        assert as_image(line_figure(panel)).tobytes() == plain


def test_longer_bars_mean_larger_values() -> None:
    figure = bar_figure({"a": 0.2, "b": 0.8, "c": math.nan}, "bars", "percent", {"a": (0.1, 0.3)}, ("chance", 0.5))
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.8, 0.0]
    assert [text.get_text() for text in axes.texts] == ["0.20", "0.80", "nan"]
    assert axes.get_xlabel() == "percent" and figure.legends[0].get_texts()[0].get_text() == "chance 0.50"
    with pytest.raises(ValueError, match="at least one value"):
        bar_figure({}, "t", "x")


def test_training_curves_read_the_records_of_a_log() -> None:
    records = [{"kind": "step", "stage": "recognition", "step": i, "loss": 2.0 / i} for i in range(1, 30)]
    records += [
        {"kind": "eval", "split": "val", "step": 29, "mAP": 0.25},
        {"kind": "eval", "split": "val", "step": 30, "mAP": None},
    ]
    losses, scores = training_curves([*records, {"kind": "stage"}]).axes
    (loss,), (score,) = losses.lines, scores.lines
    assert loss.get_ydata().tolist() == [2.0 / i for i in range(1, 30)]
    assert score.get_ydata()[0] == 25.0 and math.isnan(score.get_ydata()[1]) and "%" in scores.get_ylabel()
    assert not training_curves([]).axes[0].lines


def test_an_image_keeps_its_pixels() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (120, 200, 3), dtype=np.uint8))
    assert as_image(image_figure(image)).size == image.size
    assert np.abs(np.asarray(as_image(image_figure(image))).astype(int) - np.asarray(image)).mean() < 2
