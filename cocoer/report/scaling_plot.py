"""How cost grows with work: one panel per series, on linear axes, so that a straight line is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from cocoer.report import canvas as ink
from cocoer.report.curves import Point, line_plot

_PANEL = (640, 400)


@dataclass(frozen=True)
class Panel:
    """One plot. lines: name -> (work, cost) points. title says what the cost is, x_label what the work is."""

    title: str
    x_label: str
    lines: Mapping[str, Sequence[Point]]


def scaling_plot(panels: Sequence[Panel]) -> Image.Image:
    """Panels in two columns, RGB. Raises ValueError without one."""
    if not panels:
        raise ValueError("scaling plot: wanted at least one series, got none")
    wide, high = _PANEL
    rows = -(-len(panels) // 2)
    drawing = Image.new("RGB", (wide * min(2, len(panels)), high * rows), ink.PAPER)
    for i, panel in enumerate(panels):
        plot = line_plot(panel.lines, panel.title, panel.x_label, _PANEL, from_zero=True)
        drawing.paste(plot, (wide * (i % 2), high * (i // 2)))
    return drawing
