"""Findings of the conflict benchmark: one plain sentence per question, and the table of numbers behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cocoer.names import LEVELS
from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_points import Points

_MIDDLE = 0.3
_RULES = {"one": "type one", "two": "type two", "release": "the release rule"}


def verdict(p: ConflictPoint) -> str:
    """The conclusion that the interval of a difference allows."""
    if p.interval is None:
        return "one model, no interval"
    if p.interval[0] > 0:
        return "a gain"
    if p.interval[1] < 0:
        return "a loss"
    return "no significant difference"


def findings(points: Points) -> list[str]:
    """One plain sentence per question, in Markdown; gains and losses alike."""
    last = points.shares[-1]
    found, truth, judge = (
        points("first_excluded", last, label=label).mean for label in ("vocabulary", "true", "fused")
    )
    judged = points("first_excluded_gain", last, label="fused")
    by_level = {level: points("gain", last, level, "one", "vocabulary") for level in LEVELS}
    anew = {_RULES[r]: points("gain", last, rule=r, label="vocabulary", fusion="refitted") for r in _RULES}
    votes = [points("gain", share, rule="vote", label="vocabulary") for share in (0.0, _MIDDLE, last)]
    vote_anew = points("gain", last, rule="vote", label="vocabulary", fusion="refitted")
    return [
        f"**Competition** excludes the contradicting level first for {found:.0f} of 100 contradicted persons (chance: 33).",
        f"With the **true label** as pseudo label it does so for {truth:.0f} of 100, and coordination"
        f" {_effect([_gain(points, last, 'one', 'true')])}; this is an upper bound, because the model is given the answer.",
        f"**Coordination** with V-I's pseudo label {_effect([_gain(points, last, 'one'), _gain(points, last, 'two')])}.",
        f"**By level**, update type one {'; '.join(_by_verdict(by_level, 'if the {} contradicts', 'or'))}.",
        f"**With FFN2 retrained** for each rule, {'; '.join(_by_verdict(anew, '{}', 'and', subject=True))}.",
        f"**Late fusion** of the levels {_effect([points('gain', last, rule='late_fusion')])}.",
        f"With **a first fused prediction as pseudo label** (`model.competition.pseudo_label: fused`, ours, off by default),"
        f" competition excludes the contradicting level for {judge:.0f} of 100 ({verdict(judged)} against V-I), and coordination"
        f" {_effect([_gain(points, last, 'one', 'fused')])}.",
        f"**Averaging the prediction with the two remaining levels** (`model.competition.vote: true`, ours, off by default)"
        f" {_effect(votes)}; with FFN2 retrained it {_effect([vote_anew])}.",
    ]


def figures(points: Points) -> list[Sequence[str]]:
    """The rows behind `findings`: question, condition, number with its interval, conclusion."""
    last = points.shares[-1]
    rows: list[Sequence[str]] = []

    def add(question: str, where: str, p: ConflictPoint) -> None:
        rows.append((question, where, _change(p), verdict(p)))

    for label, name in (("vocabulary", "V-I"), ("fused", "fused prediction"), ("true", "true label")):
        p = points("first_excluded", last, label=label)
        rows.append((f"contradicting level excluded first, %; {name}", f"share {last:g}", _spread(p), "chance 33.3"))
        if label != "vocabulary":
            add(
                f"difference to V-I, points; {name}",
                f"share {last:g}",
                points("first_excluded_gain", last, label=label),
            )
    for label, name in (("vocabulary", "V-I"), ("true", "true label")):
        for rule in ("one", "two"):
            for share in (_MIDDLE, last):
                add(f"{_RULES[rule]}; {name}", f"share {share:g}", _gain(points, share, rule, label))
    for level in LEVELS:
        where = f"share {last:g}, {level} contradicts"
        add("type one; V-I", where, points("gain", last, level, "one", "vocabulary"))
    add("release rule; V-I", f"share {last:g}", _gain(points, last, "release"))
    for rule, name in _RULES.items():
        p = points("gain", last, rule=rule, label="vocabulary", fusion="refitted")
        add(f"{name}; V-I; FFN2 retrained", f"share {last:g}", p)
    add("late fusion", f"share {last:g}", points("gain", last, rule="late_fusion"))
    for label, name in (("vocabulary", "V-I"), ("fused", "fused prediction"), ("true", "true label")):
        p = points("gain", last, rule="late_fusion_two", label=label)
        add(f"late fusion without the first excluded level; {name}", f"share {last:g}", p)
    for fusion, words in (("trained", ""), ("refitted", "; FFN2 retrained")):
        p = points("gain", last, rule="one", label="fused", fusion=fusion)
        add(f"type one; fused prediction{words}", f"share {last:g}", p)
    for fusion, words, shares in (("trained", "", (0.0, _MIDDLE, last)), ("refitted", "; FFN2 retrained", (last,))):
        for share in shares:
            for measure, name in (
                ("gain", "remaining levels vote"),
                ("vote_gain", "remaining levels vote, against the control"),
            ):
                p = points(measure, share, rule="vote", label="vocabulary", fusion=fusion)
                add(f"{name}; V-I{words}", f"share {share:g}", p)
    return rows


def _gain(points: Points, share: float, rule: str, label: str = "vocabulary") -> ConflictPoint:
    return points("gain", share, rule=rule, label=label)


def _effect(changes: Sequence[ConflictPoint]) -> str:
    """The common effect of several changes of mAP, as a verb with its object."""
    verdicts = {verdict(p) for p in changes}
    if verdicts == {"a gain"}:
        return "raises mAP"
    if verdicts == {"a loss"}:
        return "lowers mAP"
    if len(verdicts) > 1:
        return "has no consistent effect on mAP"
    return f"makes {verdicts.pop()}"


def _by_verdict(changes: Mapping[str, ConflictPoint], place: str, joint: str, subject: bool = False) -> list[str]:
    """One phrase for those with a gain, with a loss, and without a significant difference."""
    words = {"a gain": "raises mAP", "a loss": "lowers mAP"}
    out = []
    for kind in dict.fromkeys(verdict(p) for p in changes.values()):
        names = f" {joint} ".join(name for name, p in changes.items() if verdict(p) == kind)
        many = sum(verdict(p) == kind for p in changes.values()) > 1
        verb = words.get(kind, f"makes {kind}")
        verb = (
            verb.replace("raises", "raise").replace("lowers", "lower").replace("makes", "make")
            if subject and many
            else verb
        )
        out.append(f"{place.format(names)} {verb}" if subject else f"{verb} {place.format(names)}")
    return out


def _change(p: ConflictPoint) -> str:
    ends = f" [{p.interval[0]:+.2f}, {p.interval[1]:+.2f}]" if p.interval else ""
    return f"{p.mean:+.2f}{ends}"


def _spread(p: ConflictPoint) -> str:
    return f"{p.mean:.1f}" if p.deviation is None else f"{p.mean:.1f} ± {p.deviation:.1f}"
