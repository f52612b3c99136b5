"""Plots of the conflict benchmark: which level is excluded first, mAP under every rule, and what an update gains."""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure

from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_points import CHANCE, CONDITIONS, LABELS, RULES, Points, where_contradicted
from cocoer.report.plots import Panel, line_figure

_DRAWN = ("none", "one", "two", "release", "late_fusion", "vote")
"""Rules in the plot of scores: few enough to be distinguishable."""
_GAINING = ("one", "two", "vote", "vote_three")
_SHARE = "contradicted persons (share)"


def _panel(title: str, y_label: str, lines: dict[str, list[ConflictPoint]], paired: bool = False) -> Panel:
    """Means with whiskers: 95 % over the models where `paired`, else one standard deviation to either side."""

    def ends(p: ConflictPoint) -> tuple[float, float]:
        if paired:
            return p.interval or (p.mean, p.mean)
        return p.mean - (p.deviation or 0.0), p.mean + (p.deviation or 0.0)

    series = {name: [(p.share, p.mean) for p in points] for name, points in lines.items()}
    return Panel(title, _SHARE, y_label, series, {name: [ends(p) for p in points] for name, points in lines.items()})


def exclusion_plot(points: Points) -> Figure:
    """How often the contradicting level is excluded first, for each pseudo label; one panel per contradicting level."""
    shares = [share for share in points.shares if share]
    panels = []
    for condition in CONDITIONS:
        lines = {
            name: [points("first_excluded", s, condition, label=key) for s in shares] for key, name in LABELS.items()
        }
        panel = _panel(f"Where {where_contradicted(condition)}", "contradicting level excluded first (%)", lines)
        panels.append(replace(panel, from_zero=True, reference=("chance", CHANCE)))
    return line_figure(panels)


def score_plot(points: Points) -> Figure:
    """mAP under every rule with V-I's pseudo label; one panel per contradicting level."""
    panels = []
    for condition in CONDITIONS:
        lines = {
            RULES[rule]: [points("score", share, condition, rule, "vocabulary") for share in points.shares]
            for rule in _DRAWN
        }
        panels.append(_panel(f"Where {where_contradicted(condition)}", "mAP (%)", lines))
    return line_figure(panels)


def gain_plot(points: Points) -> Figure:
    """mAP minus that of "no update", paired by model; a column per pseudo label, below with FFN2 retrained."""
    panels: list[Panel] = []
    for fusion, words in (("trained", "FFN2 as trained"), ("refitted", "FFN2 retrained")):
        for label, name in LABELS.items():
            rules = {RULES[r]: [points("gain", s, "any", r, label, fusion) for s in points.shares] for r in _GAINING}
            panel = _panel(f"Pseudo label: {name}; {words}", "mAP gain over no update (points)", rules, paired=True)
            panels.append(replace(panel, reference=("", 0.0)))
    return line_figure(panels, columns=3)
