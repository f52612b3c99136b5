"""Plots for a page or a paper: lines with whiskers, bars, and images as figures; each saved as PNG and PDF.

Drawn by matplotlib (Agg) with the style beside this file and no metadata that changes, so the same numbers give the same bytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from cocoer.files import write_file

Point = tuple[float, float]

STYLE = Path(__file__).with_name("cocoer.mplstyle")
DRAWN = "SYNTHETIC: drawn scenes, not photographs"
"""The note of plots whose numbers were measured on synthetic images."""

FORMATS = (".png", ".pdf")

_DPI = 200  # of saved pixels
_PANEL = (5.0, 3.2)  # inches
_LONG_SERIES = 100  # from here on a running mean is drawn over the faint single values
_DODGE = 0.016  # of the x range: how far series that share their x stand apart, whiskers and points together


@dataclass(frozen=True)
class Panel:
    """One plot of lines.

    lines: name -> (x, y) points; a NaN or infinite y breaks the line. intervals: name -> (low, high) of each of its points.
    x_label, y_label: what the axes show, with the unit. from_zero: the y axis contains 0. reference: name and y of a
    horizontal line, for example chance. diagonal: name of the line where y is x; points then stand at their own x, not apart.
    """

    title: str
    x_label: str
    y_label: str
    lines: Mapping[str, Sequence[Point]]
    intervals: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    from_zero: bool = False
    reference: tuple[str, float] | None = None
    diagonal: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where the intervals are not one per point."""
        for name, pairs in self.intervals.items():
            if len(pairs) != len(self.lines[name]):
                raise ValueError(
                    f"plot: wanted an interval per point of {name!r}, got {len(pairs)} for {len(self.lines[name])}"
                )


def line_figure(panels: Sequence[Panel], columns: int = 2) -> Figure:
    """Panels side by side, row by row. They share one legend below all where each has the first one's lines, or the first few of
    them; else each has its own.

    Raises ValueError without a panel.
    """
    if not panels:
        raise ValueError("plot: wanted at least one panel, got none")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    with style.context(["default", STYLE]):
        figure = _figure(_PANEL[0] * columns, _PANEL[1] * rows + 0.3)
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        first = list(panels[0].lines)
        shared = all(list(panel.lines) == first[: len(panel.lines)] for panel in panels)
        for axes, panel in zip(grid.flat, panels, strict=False):
            _draw_panel(axes, panel)
            if not shared and len(panel.lines) > 1:
                axes.legend(loc="best")
        handles, names = grid.flat[0].get_legend_handles_labels()
        if shared and len(names) > 1:
            figure.legend(handles, names, loc="outside lower center", ncols=min(5, len(names)))
    return figure


def bar_figure(
    values: Mapping[str, float],
    title: str,
    x_label: str,
    intervals: Mapping[str, Point] | None = None,
    reference: tuple[str, float] | None = None,
    digits: int = 2,
) -> Figure:
    """Horizontal bars from 0, one per name in the given order, with their numbers.

    intervals: name -> (low, high), drawn as a whisker. reference: name and value of a dashed line, for example chance.
    A value that is not finite gets no bar and is written as it is. Raises ValueError for an empty table.
    """
    if not values:
        raise ValueError("bar plot: wanted at least one value, got none")
    intervals = intervals or {}
    with style.context(["default", STYLE]):
        figure = _figure(8.0, 0.9 + 0.28 * len(values) + (0.3 if reference else 0.0))
        axes = figure.subplots()
        axes.grid(visible=False, axis="y")
        finite = {name: value if math.isfinite(value) else 0.0 for name, value in values.items()}
        places = range(len(values))
        axes.barh(places, list(finite.values()), height=0.66, color="#0072B2", alpha=0.75)
        for place, (name, value) in zip(places, values.items(), strict=True):
            low, high = intervals.get(name, (value, value))
            if name in intervals:
                axes.errorbar(finite[name], place, xerr=[[value - low], [high - value]], color="black", fmt="none")
            end = max(0.0, high) if math.isfinite(high) else 0.0
            shown = f"{value:.{digits}f}" if math.isfinite(value) else str(value)
            axes.annotate(shown, (end, place), (4, 0), textcoords="offset points", va="center")
        axes.set_yticks(places, [_plain(name) for name in values])
        axes.invert_yaxis()
        axes.margins(x=0.08)
        axes.set_title(_plain(title))
        axes.set_xlabel(_plain(x_label))
        if reference is not None:
            axes.axvline(
                reference[1], color="#D55E00", linestyle="--", label=f"{reference[0]} {reference[1]:.{digits}f}"
            )
            figure.legend(loc="outside lower right")
    return figure


def image_grid(rows: Sequence[Sequence[tuple[Image.Image, str]]], title: str) -> Figure:
    """Rows of images, each under its caption, below a title; all images of a row have one height."""
    columns = max(len(row) for row in rows)
    shape = rows[0][0][0]
    with style.context(["default", STYLE]):
        figure = _figure(1.9 * columns, (1.8 * shape.height / shape.width + 0.35) * len(rows) + 0.4)
        figure.suptitle(_plain(title), x=0.01, ha="left", fontsize=10, fontweight="bold")
        grid = figure.subplots(len(rows), columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        for line, row in zip(grid, rows, strict=True):
            for axes, (image, caption) in zip(line, row, strict=False):
                axes.imshow(image, interpolation="none")
                axes.set_title(_plain(caption), fontsize=8, pad=3)
    return figure


def image_figure(image: Image.Image) -> Figure:
    """An image that is drawn already, as a figure of its own size, for a page that wants a PDF."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(image.width / _DPI, image.height / _DPI), dpi=_DPI)
        figure.set_layout_engine("none")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.imshow(image, aspect="auto", interpolation="none")
        axes.set_axis_off()
    return figure


def with_note(figure: Figure, note: str, above: bool = False) -> Figure:
    """The figure with a note in a band below it, such as `outputs.SYNTHETIC`; as it is where the note is empty.

    above: over it, for a figure without a title, whose legend stands below.
    """
    if note:
        place = figure.suptitle if above else figure.supxlabel
        place(note, fontsize="small", color="black", bbox={"facecolor": "#ffb000", "edgecolor": "none"}, wrap=True)
    return figure


def training_curves(records: Iterable[Mapping[str, Any]], loss: str = "loss", metric: str = "mAP") -> Figure:
    """Loss of the `step` records and `metric` of the `eval` records over steps, side by side.

    records: as in `runlog.read_log`. One line per stage (loss) and per stage and split (metric); null counts as NaN.
    Metrics are shares in the log and percent here.
    """
    losses: dict[str, list[Point]] = {}
    metrics: dict[str, list[Point]] = {}
    for record in records:
        kind, step = record.get("kind"), record.get("step")
        chosen, key = (losses, loss) if kind == "step" else (metrics, metric)
        if kind not in ("step", "eval") or step is None or key not in record:
            continue
        names = (record.get("stage"), record.get("split") if kind == "eval" else None)
        name = ", ".join(str(n) for n in names if n is not None) or key
        value = math.nan if record[key] is None else float(record[key])
        chosen.setdefault(name, []).append((float(step), value if kind == "step" else 100.0 * value))
    return line_figure(
        [
            Panel("Training loss", "optimizer step", loss, losses),
            Panel(f"{metric} on the selection split", "optimizer step", f"{metric} (%)", metrics),
        ]
    )


def save(figure: Figure, path: str | Path, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the figure beside `path` in every format (`FORMATS`); the suffix of `path` does not matter.

    Returns the files. Raises OutputError where one cannot be written.
    """
    made = []
    with style.context(["default", STYLE]):
        for suffix in formats:
            file = Path(path).with_suffix(suffix)
            unset = (
                {"Software": None} if suffix == ".png" else {"Creator": None, "Producer": None, "CreationDate": None}
            )
            write_file(file, partial(figure.savefig, format=suffix[1:], metadata=unset, dpi=_DPI))
            made.append(file)
    return made


def as_image(figure: Figure) -> Image.Image:
    """The figure as RGB pixels, for a page that holds its images inside."""
    canvas = FigureCanvasAgg(figure)
    with style.context(["default", STYLE]):
        canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def running_mean(points: Sequence[Point], window: int) -> list[Point]:
    """Each point's y replaced by the mean of the finite y of the last `window` points; at most as long as `points`."""
    out: list[Point] = []
    recent: deque[float] = deque(maxlen=max(1, window))
    for x, y in points:
        if math.isfinite(y):
            recent.append(y)
        if recent:
            out.append((x, math.fsum(recent) / len(recent)))
    return out


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def _plain(text: str) -> str:
    """The text with nothing that matplotlib would read as mathematics."""
    return text.replace("$", r"\$")


def _draw_panel(axes: Axes, panel: Panel) -> None:
    """Lines with their whiskers, the reference, and the words at the axes."""
    xs = sorted({x for points in panel.lines.values() for x, _ in points})
    span = (xs[-1] - xs[0]) if len(xs) > 1 else 1.0
    for i, (name, points) in enumerate(panel.lines.items()):
        aside = (i - (len(panel.lines) - 1) / 2) * _DODGE * span if panel.intervals and not panel.diagonal else 0.0
        x, y = [p[0] + aside for p in points], [p[1] if math.isfinite(p[1]) else math.nan for p in points]
        if name in panel.intervals:
            ends = [[abs(v - end[side]) for v, end in zip(y, panel.intervals[name], strict=True)] for side in (0, 1)]
            axes.errorbar(x, y, yerr=ends, label=_plain(name), elinewidth=0.9)
        elif len(points) >= _LONG_SERIES:
            mean = running_mean(points, min(500, len(points) // 25))
            (line,) = axes.plot([p[0] for p in mean], [p[1] for p in mean], label=_plain(name), marker="")
            axes.plot(x, y, color=line.get_color(), alpha=0.25, linewidth=0.6, marker="", linestyle="-", zorder=1)
        else:
            axes.plot(x, y, label=_plain(name), marker=None if len(points) <= 40 else "")
    if panel.reference is not None:
        axes.axhline(panel.reference[1], color="#707680", linestyle=(0, (1, 1.5)), linewidth=1.2)
        axes.annotate(
            panel.reference[0], (1.0, panel.reference[1]), (0, 3), xycoords=("axes fraction", "data"),
            textcoords="offset points", ha="right", color="#555B63",
        )  # fmt: skip
    if panel.diagonal:
        axes.axline(
            (0.0, 0.0), slope=1.0, color="#707680", linestyle=(0, (1, 1.5)), linewidth=1.2, label=panel.diagonal
        )
    if panel.from_zero:
        low, high = axes.get_ylim()
        axes.set_ylim(min(low, 0.0), max(high, 0.0))
    if all(float(x).is_integer() for x in xs):
        axes.locator_params(axis="x", integer=True)
    axes.set_title(_plain(panel.title))
    axes.set_xlabel(_plain(panel.x_label))
    axes.set_ylabel(_plain(panel.y_label))
