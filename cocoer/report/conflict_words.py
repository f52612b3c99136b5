"""Sentences about the conflict benchmark, each from the measured figures alone."""

from __future__ import annotations

from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_points import Points

_MIDDLE = 0.3


def verdict(p: ConflictPoint) -> str:
    """What an interval of differences allows to say."""
    if p.interval is None:
        return "one model, so nothing can be said"
    if p.interval[0] > 0:
        return "a gain"
    if p.interval[1] < 0:
        return "a cost"
    return f"no difference that {len(p.values)} models can show"


def _change(p: ConflictPoint) -> str:
    ends = f" [{p.interval[0]:+.2f}, {p.interval[1]:+.2f}]" if p.interval else ""
    return f"{p.mean:+.2f}{ends}"


def _spread(p: ConflictPoint) -> str:
    return f"{p.mean:.1f}" if p.deviation is None else f"{p.mean:.1f} ± {p.deviation:.1f}"


def findings(points: Points) -> list[str]:
    """One sentence or two per question, in Markdown; gains and costs as they came, negative ones included."""
    last = points.shares[-1]
    return [
        _competition(points, last),
        *_coordination(points, last),
        _rules(points, last),
        _late(points, last),
        _judge(points, last),
    ]


def _competition(points: Points, last: float) -> str:
    found, truth = (points("first_excluded", last, label=label) for label in ("vocabulary", "true"))
    cost = points("first_excluded_gain", last, label="true")
    return (
        f"**Competition** (share {last:g}, any level; chance 33.3). With V-I's pseudo label the contradicting level leaves first"
        f" in {_spread(found)} % of the contradicted persons, with the truth in {_spread(truth)} %. The difference,"
        f" {_change(cost)} points, is what the V-I branch costs."
    )


def _coordination(points: Points, last: float) -> list[str]:
    out = []
    for label, name in (("vocabulary", "V-I's pseudo label"), ("true", "the truth as pseudo label")):
        parts = []
        for rule, word in (("one", "type one"), ("two", "type two")):
            gains = {share: points("gain", share, rule=rule, label=label) for share in (_MIDDLE, last)}
            said = ", ".join(f"{_change(p)} at share {share:g} ({verdict(p)})" for share, p in gains.items())
            parts.append(f"{word} changes mAP by {said}")
        bound = " This hands the model the answer: it shows the room, and is no result." if label == "true" else ""
        out.append(f"**Coordination with {name}**, against no update. {_begin('; '.join(parts))}.{bound}")
    return out


def _rules(points: Points, last: float) -> str:
    parts = []
    for rule, word in (("one", "type one"), ("two", "type two"), ("release", "the release rule")):
        own, anew = (points("gain", last, rule=rule, label="vocabulary", fusion=f) for f in ("trained", "refitted"))
        parts.append(f"{word} {_change(own)}, then {_change(anew)} ({verdict(anew)})")
    where = f"share {last:g}, any level, V-I's label"
    return f"**FFN2 as trained, then anew for each rule** ({where}), against no update: {'; '.join(parts)}."


def _late(points: Points, last: float) -> str:
    late = points("gain", last, rule="late_fusion")
    names = {"vocabulary": "V-I's label", "fused": "the fused answer's", "true": "the truth"}
    without = [
        f"{_change(points('gain', last, rule='late_fusion_two', label=k))} with {name}" for k, name in names.items()
    ]
    return (
        f"**Late fusion** is {_change(late)} points of mAP from the fused answer without update (share {last:g}, any level);"
        f" without the level that was excluded first {', '.join(without)}."
    )


def _judge(points: Points, last: float) -> str:
    found, gain = (points(m, last, label="fused") for m in ("first_excluded", "first_excluded_gain"))
    one, anew = (points("gain", last, rule="one", label="fused", fusion=f) for f in ("trained", "refitted"))
    helps = gain.interval is not None and gain.interval[0] > 0
    begin = "The smallest change that was found to help the competition" if helps else "A change that was tried"
    return (
        f"**{begin}** is who judges: with `model.competition.pseudo_label: fused` the contradicting level leaves first in"
        f" {_spread(found)} %, {_change(gain)} points against V-I ({verdict(gain)}). Type one then changes mAP by {_change(one)}"
        f" ({verdict(one)}); with FFN2 anew by {_change(anew)} ({verdict(anew)}). The key is off by default."
    )


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
