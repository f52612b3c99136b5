"""Sentences about the conflict benchmark, each from the measured figures alone."""

from __future__ import annotations

import math

from cocoer.names import LEVELS
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
        _levels(points, last),
        _rules(points, last),
        _late(points, last),
        _judge(points, last),
        _vote(points, last),
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


def _levels(points: Points, last: float) -> str:
    gains = {level: points("gain", last, level, "one", "vocabulary") for level in LEVELS}
    said = ", ".join(f"{_change(p)} where the {level} contradicts ({verdict(p)})" for level, p in gains.items())
    return f"**By level** (share {last:g}, V-I's label, type one against no update): {said}."


def _judge(points: Points, last: float) -> str:
    found, gain = (points(m, last, label="fused") for m in ("first_excluded", "first_excluded_gain"))
    one, anew = (points("gain", last, rule="one", label="fused", fusion=f) for f in ("trained", "refitted"))
    return (
        f"**Who judges** (share {last:g}, any level). With `model.competition.pseudo_label: fused`, ours and off by default,"
        f" the contradicting level leaves first in {_spread(found)} %, {_change(gain)} points against V-I ({verdict(gain)})."
        f" Type one then changes mAP by {_change(one)} ({verdict(one)}), with FFN2 anew by {_change(anew)} ({verdict(anew)}),"
        " against no update."
    )


def _vote(points: Points, last: float) -> str:
    parts = []
    for share in (0.0, _MIDDLE, last):
        gain, over = (points(m, share, rule="vote", label="vocabulary") for m in ("gain", "vote_gain"))
        against = f"{_change(over)} of it against its control ({verdict(over)})"
        parts.append(f"{_change(gain)} at share {share:g} ({verdict(gain)}), {against}")
    gain, over = (points(m, last, rule="vote", label="vocabulary", fusion="refitted") for m in ("gain", "vote_gain"))
    helps = all(lower_end(points(m, last, rule="vote", label="vocabulary")) > 0 for m in ("gain", "vote_gain"))
    begin = "The smallest change that was found to raise mAP" if helps else "A change that was tried"
    return (
        f"**{begin}** is to give the two levels that did not leave first half of the answer (`model.competition.vote: true`,"
        " ours, off by default, no other training). With type one and V-I's label, against no update:"
        f" {'; '.join(parts)}. The control gives that half to all three levels: what lies between the two is the competition's."
        f" With FFN2 anew, share {last:g}: {_change(gain)} ({verdict(gain)}), {_change(over)} against the control"
        f" ({verdict(over)})."
    )


def lower_end(p: ConflictPoint) -> float:
    """The lower end of the interval over the models; minus infinity for a single model."""
    return p.interval[0] if p.interval else -math.inf


def _begin(text: str) -> str:
    return text[:1].upper() + text[1:]
