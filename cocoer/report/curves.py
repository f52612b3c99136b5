"""Line and bar plots for reports: small, drawn with Pillow alone, the same bytes on every machine.

Everything is drawn at twice the size and then halved, which smooths lines and letters.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from PIL import Image, ImageDraw

from cocoer.report import canvas as ink
from cocoer.report.canvas import Colour

Point = tuple[float, float]

SERIES_COLOURS: tuple[Colour, ...] = (
    (31, 98, 180), (222, 110, 20), (30, 140, 80), (190, 50, 60), (120, 80, 170), (100, 106, 114),
)  # fmt: skip

_TWICE = 2
_EM = 15 * _TWICE
_LONG_SERIES = 100  # from here on a running mean is drawn over the faint single values


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers (1, 2, 2.5 or 5 times a power of ten apart) that lie in [low, high].

    Raises ValueError where low < high does not hold or either is not finite.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"axis: wanted finite low < high, got {low} and {high}")
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [i * step for i in range(first, last + 1)]
    raise AssertionError("a step of 50 powers of ten always leaves few enough ticks")


def tick_text(value: float, step: float) -> str:
    """A tick's number with just the decimals that its distance to the next one needs; 12k for 12,000."""
    if step >= 1000:
        return f"{value / 1000:g}k"
    exact = max(0, -math.floor(math.log10(step) + 1e-9))
    decimals = exact if math.isclose(step * 10**exact, round(step * 10**exact)) else exact + 1
    return f"{value:.{decimals}f}" if decimals < 7 else f"{value:.1e}"


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


def _range(values: Iterable[float], from_zero: bool) -> Point:
    """An axis range that holds all finite values with a little room; 0 to 1 where there are none."""
    finite = [v for v in values if math.isfinite(v)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if from_zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return (low if from_zero and low == 0.0 else low - room), high + room


class _Axes:
    """A rectangle of the drawing with data ranges; turns data into pixels."""

    def __init__(self, frame: tuple[int, int, int, int], x_range: Point, y_range: Point) -> None:
        self.frame, self.x_range, self.y_range = frame, x_range, y_range

    def at(self, x: float, y: float) -> Point:
        """Pixel of the data point (x, y)."""
        x1, y1, x2, y2 = self.frame
        (a, b), (c, d) = self.x_range, self.y_range
        return x1 + (x - a) / (b - a) * (x2 - x1), y2 - (y - c) / (d - c) * (y2 - y1)

    def paint(self, draw: ImageDraw.ImageDraw, x_label: str) -> None:
        """Grid lines and numbers of both axes, and the name of the x axis."""
        x1, _, x2, y2 = self.frame
        y_ticks, x_ticks = ticks(*self.y_range), ticks(*self.x_range, most=max(3, (x2 - x1) // (5 * _EM)))
        for value in y_ticks:
            y = self.at(self.x_range[0], value)[1]
            draw.line([(x1, y), (x2, y)], fill=ink.RULE, width=_TWICE)
            ink.write(draw, (x1 - _EM // 2, y), tick_text(value, _step(y_ticks)), _EM, ink.GREY, anchor="rm")
        draw.line([(x1, y2), (x2, y2)], fill=ink.GREY, width=_TWICE)
        for value in x_ticks:
            x = self.at(value, self.y_range[0])[0]
            draw.line([(x, y2), (x, y2 + _EM // 3)], fill=ink.GREY, width=_TWICE)
            ink.write(draw, (x, y2 + _EM), tick_text(value, _step(x_ticks)), _EM, ink.GREY, anchor="mm")
        ink.write(draw, ((x1 + x2) / 2, y2 + 2.3 * _EM), x_label, _EM, ink.GREY, anchor="mm")


def _step(values: Sequence[float]) -> float:
    return values[1] - values[0] if len(values) > 1 else abs(values[0]) or 1.0 if values else 1.0


def _paint_series(draw: ImageDraw.ImageDraw, axes: _Axes, points: Sequence[Point], colour: Colour) -> None:
    """One line; a NaN breaks it. A short series also gets dots, a long one its running mean over faint values."""
    drawn = [axes.at(x, y) if math.isfinite(y) else None for x, y in points]
    long = len(points) >= _LONG_SERIES
    window = min(500, len(points) // 25)
    for start, end in pairwise(drawn):
        if start and end:
            shade = ink.mix(colour, ink.PAPER, 0.65) if long else colour
            draw.line([start, end], fill=shade, width=(1 if long else 2) * _TWICE)
    if long:
        mean = [axes.at(x, y) for x, y in running_mean(points, window)]
        draw.line(mean, fill=colour, width=2 * _TWICE, joint="curve")
    elif len(points) <= 40:
        for x, y in (p for p in drawn if p):
            draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=colour)


def _paint_legend(draw: ImageDraw.ImageDraw, series: Mapping[str, Sequence[Point]], x: int, y: int, right: int) -> int:
    """Names with their colour and last value, in as many lines as they need; returns the y below them."""
    start, below = x, y + round(1.4 * _EM)
    for i, (name, points) in enumerate(series.items()):
        last = next((v for _, v in reversed(points) if math.isfinite(v)), None)
        shown = f"{name} (last {last:.4g})" if last is not None else f"{name} (no value)"
        wide = round(1.6 * _EM) + ink.text_width(shown, _EM) + _EM
        if x > start and x + wide > right:
            x, y, below = start, below, below + round(1.4 * _EM)
        middle = y + 0.7 * _EM
        draw.line([(x, middle), (x + _EM, middle)], fill=SERIES_COLOURS[i % len(SERIES_COLOURS)], width=4 * _TWICE)
        ink.write(draw, (x + 1.4 * _EM, middle), ink.shorten(shown, _EM, right - x - 1.4 * _EM), _EM, ink.INK)
        x += wide
    return below


def line_plot(
    series: Mapping[str, Sequence[Point]],
    title: str = "",
    x_label: str = "step",
    size: tuple[int, int] = (640, 400),
    from_zero: bool = False,
    intervals: Mapping[str, Sequence[Point]] | None = None,
) -> Image.Image:
    """Lines through (x, y) points, one per name, with a legend that tells each last value; RGB of `size` pixels.

    A NaN or infinite y breaks its line. from_zero: the y axis contains 0. An empty series is named in the legend only.
    intervals: name -> (low, high) of each of its points, drawn as whiskers, side by side where series share an x.
    """
    intervals = intervals or {}
    for name, pairs in intervals.items():
        if len(pairs) != len(series[name]):
            raise ValueError(
                f"plot: wanted an interval per point of {name!r}, got {len(pairs)} for {len(series[name])}"
            )
    if min(size) < 160:
        raise ValueError(f"plot size: wanted at least 160x160 pixels, got {size[0]}x{size[1]}")
    width, height = size[0] * _TWICE, size[1] * _TWICE
    drawing = Image.new("RGB", (width, height), ink.PAPER)
    draw = ImageDraw.Draw(drawing)
    top = _paint_title(draw, title, width)
    top = _paint_legend(draw, series, _EM, top, width - _EM) + _EM
    x_range = _range((x for points in series.values() for x, _ in points), from_zero=False)
    whiskers = (end for pairs in intervals.values() for pair in pairs for end in pair)
    y_range = _range([*(y for points in series.values() for _, y in points), *whiskers], from_zero)
    numbers = [tick_text(v, _step(ticks(*y_range))) for v in ticks(*y_range)]
    left = round(1.3 * _EM) + max(ink.text_width(text, _EM) for text in numbers)
    axes = _Axes((left, min(top, height - 6 * _EM), width - _EM, height - round(3.2 * _EM)), x_range, y_range)
    axes.paint(draw, x_label)
    for i, (name, points) in enumerate(series.items()):
        colour = SERIES_COLOURS[i % len(SERIES_COLOURS)]
        aside = (i - (len(series) - 1) / 2) * 3 * _TWICE
        for (x, _), (low, high) in zip(points, intervals.get(name, ()), strict=False):
            if math.isfinite(low) and math.isfinite(high):
                _paint_whisker(draw, axes, x, (low, high), aside, ink.mix(colour, ink.PAPER, 0.35))
        _paint_series(draw, axes, points, colour)
    return drawing.resize(size, Image.Resampling.BOX)


def _paint_whisker(draw: ImageDraw.ImageDraw, axes: _Axes, x: float, ends: Point, aside: float, colour: Colour) -> None:
    """A vertical bar with caps from low to high, `aside` pixels beside x."""
    (middle, bottom), (_, top) = axes.at(x, ends[0]), axes.at(x, ends[1])
    at = middle + aside
    draw.line([(at, bottom), (at, top)], fill=colour, width=_TWICE)
    for y in (bottom, top):
        draw.line([(at - 2 * _TWICE, y), (at + 2 * _TWICE, y)], fill=colour, width=_TWICE)


def _paint_title(draw: ImageDraw.ImageDraw, title: str, width: int) -> int:
    """The title in bold; returns the y below it."""
    if not title:
        return _EM
    size = round(1.15 * _EM)
    ink.write(draw, (_EM, 1.4 * _EM), ink.shorten(title, size, width - 2 * _EM, bold=True), size, ink.INK, bold=True)
    return round(2.6 * _EM)


def bar_plot(
    values: Mapping[str, float],
    title: str = "",
    intervals: Mapping[str, tuple[float, float]] | None = None,
    reference: tuple[str, float] | None = None,
    width: int = 640,
    digits: int = 3,
) -> Image.Image:
    """Horizontal bars from 0, one per name in the given order, with their numbers; RGB, `width` pixels wide.

    intervals: name -> (low, high), drawn as a whisker. reference: text and value of a dashed line, for example chance.
    A value that is not finite gets no bar and is written as it is. Raises ValueError for an empty table.
    """
    if not values:
        raise ValueError("bar plot: wanted at least one value, got none")
    intervals = intervals or {}
    wide, row = width * _TWICE, round(1.7 * _EM)
    numbers = {n: f"{v:.{digits}f}" if math.isfinite(v) else str(v) for n, v in values.items()}
    name_width = min(wide // 3, max(ink.text_width(n, _EM) for n in values))
    left = round(1.5 * _EM) + name_width
    right = wide - 2 * _EM - max(ink.text_width(text, _EM) for text in numbers.values())
    everything = [
        *values.values(),
        *(v for pair in intervals.values() for v in pair),
        *([reference[1]] if reference else []),
    ]
    axes = _Axes((left, 0, max(left + 20, right), 1), _range(everything, from_zero=True), (0.0, 1.0))
    height = round(2.6 * _EM if title else _EM) + len(values) * row + round(1.8 * _EM if reference else _EM // 2)
    drawing = Image.new("RGB", (wide, height + height % 2), ink.PAPER)
    draw = ImageDraw.Draw(drawing)
    first = y = _paint_title(draw, title, wide)
    zero = axes.at(0.0, 0.0)[0]
    for name, value in values.items():
        middle = y + row / 2
        ink.write(draw, (left - _EM // 2, middle), ink.shorten(name, _EM, name_width), _EM, ink.INK, anchor="rm")
        end = axes.at(value, 0.0)[0] if math.isfinite(value) else zero
        if end != zero:
            draw.rectangle(
                (min(zero, end), y + 5, max(zero, end), y + row - 5), fill=ink.mix(SERIES_COLOURS[0], ink.PAPER, 0.25)
            )
        if name in intervals:
            low, high = (axes.at(v, 0.0)[0] for v in intervals[name])
            draw.line([(low, middle), (high, middle)], fill=ink.INK, width=3)
            for x in (low, high):
                draw.line([(x, middle - 9), (x, middle + 9)], fill=ink.INK, width=3)
        ink.write(draw, (wide - _EM, middle), numbers[name], _EM, ink.GREY, anchor="rm")
        y += row
    draw.line([(zero, first), (zero, y)], fill=ink.GREY, width=_TWICE)
    if reference is not None:
        _paint_reference(draw, axes, reference, (first, y), digits)
    return drawing.resize((width, drawing.height // _TWICE), Image.Resampling.BOX)


def _paint_reference(
    draw: ImageDraw.ImageDraw, axes: _Axes, reference: tuple[str, float], rows: tuple[int, int], digits: int
) -> None:
    """A dashed line over the bars between the two heights in `rows`, and below it what it means."""
    x, (top, bottom) = axes.at(reference[1], 0.0)[0], rows
    for dash in range(top, bottom, 16):
        draw.line([(x, dash), (x, min(bottom, dash + 9))], fill=ink.ORANGE, width=3)
    shown = f"{reference[0]} {reference[1]:.{digits}f}"
    half = ink.text_width(shown, _EM) / 2
    middle = min(max(x, half + _EM), max(half + _EM, axes.frame[2] - half))
    ink.write(draw, (middle, bottom + 0.8 * _EM), shown, _EM, ink.ORANGE, anchor="mm")


def training_curves(
    records: Iterable[Mapping[str, Any]], loss: str = "loss", metric: str = "mAP", title: str = ""
) -> Image.Image:
    """Loss of the `step` records and `metric` of the `eval` records over steps, side by side; 1,280 x 400 pixels.

    records: as in `runlog.read_log`. One line per stage (loss) and per stage and split (metric); null counts as NaN.
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
        value = record[key]
        chosen.setdefault(name, []).append((float(step), math.nan if value is None else float(value)))
    drawing = Image.new("RGB", (1280, 400), ink.PAPER)
    drawing.paste(line_plot(losses, f"{title}: {loss}" if title else loss), (0, 0))
    drawing.paste(line_plot(metrics, f"{title}: {metric}" if title else metric), (640, 0))
    return drawing
