"""Plots of the conflict benchmark: who leaves first, mAP under every rule, and what an update gains."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from cocoer.outputs import ConflictPoint
from cocoer.report.canvas import PAPER
from cocoer.report.conflict_points import CHANCE, CONDITIONS, LABELS, RULES, Points, where_contradicted
from cocoer.report.curves import line_plot

_PANEL = (620, 400)
_DRAWN = ("none", "one", "two", "release", "late_fusion", "vote")
"""Rules in the plot of scores: as many as there are colours."""
_GAINING = ("one", "two", "vote", "vote_three")


def _joined(panels: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Panels in rows."""
    width, height = panels[0][0].size
    whole = Image.new("RGB", (width * len(panels[0]), height * len(panels)), PAPER)
    for y, row in enumerate(panels):
        for x, panel in enumerate(row):
            whole.paste(panel, (x * width, y * height))
    return whole


def _interval(p: ConflictPoint) -> tuple[float, float]:
    """95 % over the models; of no length for a single one."""
    return p.interval or (p.mean, p.mean)


def _deviation(p: ConflictPoint) -> tuple[float, float]:
    """One deviation to either side."""
    return p.mean - (p.deviation or 0.0), p.mean + (p.deviation or 0.0)


def exclusion_plot(points: Points) -> Image.Image:
    """How often the contradicting level leaves first, for each pseudo label; one panel per contradicting level."""
    shares = [share for share in points.shares if share]
    panels = []
    for condition in CONDITIONS:
        lines = {
            name: [points("first_excluded", s, condition, label=key) for s in shares] for key, name in LABELS.items()
        }
        series = {name: [(p.share, p.mean) for p in line] for name, line in lines.items()}
        series["chance"] = [(share, CHANCE) for share in shares]
        ends = {name: [_deviation(p) for p in line] for name, line in lines.items()}
        title = f"{where_contradicted(condition)}: first excluded is right, %"
        panels.append(line_plot(series, title, "share of contradicted persons", _PANEL, from_zero=True, intervals=ends))
    return _joined([panels[:2], panels[2:]])


def score_plot(points: Points) -> Image.Image:
    """mAP under every rule with V-I's pseudo label; one panel per contradicting level."""
    panels = []
    for condition in CONDITIONS:
        lines = {
            RULES[rule]: [points("score", share, condition, rule, "vocabulary") for share in points.shares]
            for rule in _DRAWN
        }
        series = {name: [(p.share, p.mean) for p in line] for name, line in lines.items()}
        ends = {name: [_deviation(p) for p in line] for name, line in lines.items()}
        title = f"{where_contradicted(condition)}: mAP, %"
        panels.append(line_plot(series, title, "share of contradicted persons", _PANEL, intervals=ends))
    return _joined([panels[:2], panels[2:]])


def gain_plot(points: Points) -> Image.Image:
    """mAP minus that of "no update", paired by model; a column per pseudo label, below with FFN2 trained anew."""
    rows = []
    for fusion, words in (("trained", "FFN2 as trained"), ("refitted", "FFN2 anew for each rule")):
        row = []
        for label, name in LABELS.items():
            rules = {RULES[r]: [points("gain", s, "any", r, label, fusion) for s in points.shares] for r in _GAINING}
            series = {rule: [(p.share, p.mean) for p in line] for rule, line in rules.items()}
            ends = {rule: [_interval(p) for p in line] for rule, line in rules.items()}
            title = f"gain over no update, {name}; {words}"
            row.append(
                line_plot(series, title, "share of contradicted persons", _PANEL, from_zero=True, intervals=ends)
            )
        rows.append(row)
    return _joined(rows)
