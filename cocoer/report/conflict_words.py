"""What the conflict benchmark shows: a plain sentence per question, and the table of the figures behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cocoer.names import LEVELS
from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_points import Points

_MIDDLE = 0.3
_RULES = {"one": "type one", "two": "type two", "release": "the release rule"}


def verdict(p: ConflictPoint) -> str:
    """What an interval of differences allows to say."""
    if p.interval is None:
        return "one model, so nothing can be said"
    if p.interval[0] > 0:
        return "a gain"
    if p.interval[1] < 0:
        return "a cost"
    return f"no difference that {len(p.values)} models can show"


def findings(points: Points) -> list[str]:
    """One plain sentence per question, in Markdown; gains and costs as they came, negative ones included."""
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
        f"**Competition** finds the contradicting level for {found:.0f} % of the contradicted persons (chance 33 %), and for"
        f" {truth:.0f} % where the true label is the pseudo label.",
        f"**Coordination** with V-I's pseudo label {_effect([_gain(points, last, 'one'), _gain(points, last, 'two')])}.",
        f"With the **true label** as pseudo label coordination {_effect([_gain(points, last, 'one', 'true')])}: an upper bound,"
        " for it hands the model the answer.",
        f"**By level**, type one {'; '.join(_by_verdict(by_level, 'where the {} contradicts', 'or'))}.",
        f"**With FFN2 retrained** for each rule, {'; '.join(_by_verdict(anew, '{}', 'and', subject=True))}.",
        f"**Late fusion** of the levels {_effect([points('gain', last, rule='late_fusion')])}.",
        f"**A first fused answer as judge** (`model.competition.pseudo_label: fused`, ours, off by default) finds the"
        f" contradicting level for {judge:.0f} % ({verdict(judged)} against V-I); coordination then"
        f" {_effect([_gain(points, last, 'one', 'fused')])}.",
        f"**Half of the answer to the two levels that stay** (`model.competition.vote: true`, ours, off by default)"
        f" {_effect(votes)}; with FFN2 retrained it {_effect([vote_anew])}.",
    ]


def figures(points: Points) -> list[Sequence[str]]:
    """The rows behind `findings`: question, where, figure with its interval, what may be said of it."""
    last = points.shares[-1]
    rows: list[Sequence[str]] = []

    def add(question: str, where: str, p: ConflictPoint) -> None:
        rows.append((question, where, _change(p), verdict(p)))

    for label, name in (("vocabulary", "V-I"), ("fused", "fused answer"), ("true", "true label")):
        p = points("first_excluded", last, label=label)
        rows.append((f"contradicting level leaves first, %; {name}", f"share {last:g}", _spread(p), "chance 33.3"))
        if label != "vocabulary":
            add(
                f"the same against V-I, points; {name}",
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
    for label, name in (("vocabulary", "V-I"), ("fused", "fused answer"), ("true", "true label")):
        p = points("gain", last, rule="late_fusion_two", label=label)
        add(f"late fusion without the first excluded; {name}", f"share {last:g}", p)
    for fusion, words in (("trained", ""), ("refitted", "; FFN2 retrained")):
        p = points("gain", last, rule="one", label="fused", fusion=fusion)
        add(f"type one; fused answer{words}", f"share {last:g}", p)
    for fusion, words, shares in (("trained", "", (0.0, _MIDDLE, last)), ("refitted", "; FFN2 retrained", (last,))):
        for share in shares:
            for measure, name in (("gain", "the levels that stay vote"), ("vote_gain", "of it against its control")):
                p = points(measure, share, rule="vote", label="vocabulary", fusion=fusion)
                add(f"{name}; V-I{words}", f"share {share:g}", p)
    return rows


def _gain(points: Points, share: float, rule: str, label: str = "vocabulary") -> ConflictPoint:
    return points("gain", share, rule=rule, label=label)


def _effect(changes: Sequence[ConflictPoint]) -> str:
    """What changes of mAP have in common, as a verb and its object."""
    verdicts = {verdict(p) for p in changes}
    if verdicts == {"a gain"}:
        return f"raises mAP ({_range(changes)} points)"
    if verdicts == {"a cost"}:
        return f"lowers mAP ({_range(changes)} points)"
    if verdicts <= {"a gain", "a cost"} or len(verdicts) > 1:
        return f"sometimes raises and sometimes does not raise mAP ({_range(changes)} points)"
    return f"makes {verdicts.pop()}" if "no difference" in next(iter(verdicts)) else next(iter(verdicts))


def _range(changes: Sequence[ConflictPoint]) -> str:
    ends = sorted(p.mean for p in changes)
    low, high = f"{ends[0]:+.1f}", f"{ends[-1]:+.1f}"
    return low if low == high else f"{low} to {high}"


def _by_verdict(changes: Mapping[str, ConflictPoint], place: str, joint: str, subject: bool = False) -> list[str]:
    """Those that gain, those that cost, those that show nothing, each as a few words."""
    words = {"a gain": "raises mAP", "a cost": "lowers mAP"}
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
