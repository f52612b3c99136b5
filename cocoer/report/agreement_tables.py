"""The tables of the agreement page: accuracy by variant, first exclusions, the required CLIP, and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cocoer.names import LEVELS
from cocoer.outputs import StudyPoint
from cocoer.report.agreement_words import (
    CAERS,
    CAERS_COMMANDS,
    CAERS_SOURCES,
    READERS,
    SETTINGS,
    SHIPPED,
    SHIPPED_COMMANDS,
    SHIPPED_NAMES,
    VARIANTS,
)
from cocoer.report.text import markdown_table


@dataclass(frozen=True)
class Table:
    """Points by setting, test, what, condition and share."""

    points: Mapping[tuple[str, str, str, str, float | None], StudyPoint]

    @classmethod
    def of(cls, points: Sequence[StudyPoint]) -> Table:
        """See the class."""
        return cls({(p.setting, p.test, p.what, p.condition, p.share): p for p in points})

    def __call__(
        self, setting: str, test: str, what: str, condition: str, share: float | None = None
    ) -> StudyPoint | None:
        """The point, or None where it was not measured."""
        return self.points.get((setting, test, what, condition, share))

    @property
    def settings(self) -> list[str]:
        """Those that were measured."""
        return [s for s in SETTINGS if any(key[0] == s for key in self.points)]

    def trainings(self, setting: str) -> int:
        """How many trainings a setting has."""
        return max((len(p.values) for key, p in self.points.items() if key[0] == setting), default=0)


def value(p: StudyPoint | None) -> str:
    """Mean and deviation as text."""
    if p is None:
        return "-"
    varies = p.deviation is not None and p.deviation > 1e-9  # CLIP alone is the same in every training
    return f"{p.mean:.2f} ± {p.deviation:.2f}" if varies else f"{p.mean:.2f}"


def gain(p: StudyPoint | None) -> str:
    """A difference with its interval."""
    if p is None:
        return "-"
    return f"{p.mean:+.2f}" + (f" [{p.interval[0]:+.2f}, {p.interval[1]:+.2f}]" if p.interval else " (one training)")


def sure(p: StudyPoint | None) -> bool:
    """Whether a gain's interval lies above 0."""
    return p is not None and p.interval is not None and p.interval[0] > 0


def headline(table: Table, setting: str) -> str:
    """Every variant that was measured in a setting, with its gains over all three levels."""
    rows = []
    for name, text in VARIANTS.items():
        if table(setting, "fresh", name, "all") is None:
            continue
        shown = [value(table(setting, "fresh", name, condition)) for condition in ("all", "contradicted", "others")]
        gains = [
            gain(table(setting, "fresh_gain", name, condition)) if name != "all" else ""
            for condition in ("all", "contradicted")
        ]
        rows.append([text, *shown, *gains])
    metric = "accuracy" if setting == "caers" else "mAP"
    return markdown_table(
        ["prediction by", f"{metric}, all", "contradicted", "others", "gain, all", "gain, contradicted"], rows
    )


def exclusion(table: Table, setting: str) -> str:
    """First exclusions by rule: for any contradicting level, and for each."""
    rows = []
    for name, text in READERS.items():
        row = [text, value(table(setting, "fresh_first_excluded", name, "any"))]
        row += [value(table(setting, "pool_first_excluded", name, level)) for level in LEVELS]
        rows.append(row)
    return markdown_table(["excluded by", "any level (fresh persons)", *(f"the {level}" for level in LEVELS)], rows)


def noises(table: Table, setting: str) -> list[float]:
    """The deviations of noise that were tried on the shipped CLIP."""
    return sorted(
        {key[4] for key in table.points if key[:3] == (setting, "strength", "shipped") and key[4] is not None}
    )


def strength(table: Table, setting: str) -> str:
    """The shipped CLIP with noise on its readings: accuracy per level, first exclusions, predictions from CLIP alone."""
    rows = []
    for share in noises(table, setting):
        row = [f"{share:g}"]
        row += [value(table(setting, "strength", "shipped", level, share)) for level in LEVELS]
        row.append(value(table(setting, "strength_first_excluded", "shipped", "any", share)))
        for test in ("strength", "strength_contradicted"):
            row += [value(table(setting, test, "shipped", what, share)) for what in ("clip_late", "clip_agree")]
        rows.append(row)
    columns = ["noise", *(f"mAP of the {level} read alone" for level in LEVELS), "excluded first correctly, %",
               "mean of readings, all", "agreement, all",
               "mean of readings, contradicted", "agreement, contradicted"]  # fmt: skip
    return markdown_table(columns, rows)


def clips(table: Table, setting: str) -> list[str]:
    """The further CLIPs of the study, by name, the least accurate first."""
    names = {key[2] for key in table.points if key[:2] == (setting, "strength") and key[2] != "shipped"}
    return sorted(names, key=lambda name: reads(table, setting, name))


def reads(table: Table, setting: str, clip: str, noise: float = 0.0) -> float:
    """How well a CLIP reads one level by itself: mAP, mean of the three levels."""
    found = [table(setting, "strength", clip, level, noise) for level in LEVELS]
    return sum(p.mean for p in found if p is not None) / len(LEVELS)


def other_clips(table: Table, setting: str) -> str:
    """Each further CLIP: accuracy per level, first exclusions, predictions from CLIP alone, and the gate's gain."""
    rows = []
    for name in [*clips(table, setting), "shipped"]:
        row = [name]
        row += [value(table(setting, "strength", name, level, 0.0)) for level in LEVELS]
        row.append(value(table(setting, "strength_first_excluded", name, "any", 0.0)))
        row += [value(table(setting, "strength_contradicted", name, what, 0.0)) for what in ("clip_late", "clip_agree")]
        gate = "gate" if name == "shipped" else f"gate_{name}"
        row += [gain(table(setting, "fresh_gain", gate, condition)) for condition in ("all", "contradicted")]
        rows.append(row)
    columns = ["CLIP", *(f"mAP of the {level} read alone" for level in LEVELS), "excluded first correctly, %",
               "mean of readings, contradicted", "agreement, contradicted", "gate's gain, all",
               "gate's gain, contradicted"]  # fmt: skip
    return markdown_table(columns, rows)


def shares(table: Table, setting: str) -> str:
    """Gains as more persons are contradicted, at any level and at each."""
    shares = sorted(
        {key[4] for key in table.points if key[:4] == (setting, "pool_gain", "gate", "any") and key[4] is not None}
    )
    names = ("gate", "exclude", "exclude_paper", "gate_late", "late_vote")
    rows = [
        [
            VARIANTS[name],
            *(gain(table(setting, "pool_gain", name, "any", s)) for s in shares if round(10 * s) % 2 or s == 0),
        ]
        for name in names
    ]
    columns = ["gain in mAP over all three levels", *(f"share {s:g}" for s in shares if round(10 * s) % 2 or s == 0)]
    by_level = [
        [VARIANTS[name], *(gain(table(setting, "pool_gain", name, level, 0.7)) for level in LEVELS)] for name in names
    ]
    return (
        markdown_table(columns, rows)
        + "\n\n"
        + markdown_table(["share 0.7", *(f"the {level} contradicts" for level in LEVELS)], by_level)
    )


def costs(table: Table, setting: str) -> str:
    """Gains where the majority is wrong and where a level is damaged."""
    names = ("gate", "exclude", "gate_late", "late_vote")
    rows = []
    for name in names:
        row = [VARIANTS[name], gain(table(setting, "minority_gain", name, "any"))]
        row += [
            gain(table(setting, f"{damage}_gain", name, level))
            for damage in ("blurred", "occluded")
            for level in LEVELS
        ]
        rows.append(row)
    columns = [
        "gain in mAP",
        "two levels agree on the wrong label",
        *(f"{level} {damage}" for damage in ("blurred", "occluded") for level in LEVELS),
    ]
    left = [
        f"{level} {damage}: {p.mean:.0f} %"
        for damage in ("blurred", "occluded")
        for level in LEVELS
        if (p := table(setting, f"{damage}_first_excluded", "shipped", level)) is not None
    ]
    return markdown_table(columns, rows) + "\n\nHow often the damaged level is excluded first: " + ", ".join(left) + "."


def spread(interval: Mapping[str, float] | None) -> str:
    """A share with its interval, in percent."""
    if interval is None:
        return ""
    return "{value:.2f} [{low:.2f}, {high:.2f}]".format(**{k: 100 * interval[k] for k in ("value", "low", "high")})


def shipped(evaluations: Mapping[str, Any]) -> list[str]:
    """The section on the shipped weights, from what `cocoer evaluate` wrote of them, by name; nothing where nothing was."""
    rows = [
        [
            text,
            spread(found["contradiction"]["first_excluded"]) if name != "none" else "",
            str(found["contradiction"]["persons"]) if name != "none" else "",
            spread(found["headline"]),
            spread(found["against"]["difference"]) if "against" in found else "",
            spread(found["on_contradicted"]["pred"]),
        ]
        for name, text in SHIPPED_NAMES.items()
        if (found := evaluations.get(name))
    ]
    if not rows:
        return []
    columns = [
        "competition",
        "contradicting level excluded first, %",
        "of persons",
        "mAP",
        "minus no update",
        "mAP of contradicted persons",
    ]
    return ["## The shipped weights", SHIPPED, markdown_table(columns, rows), SHIPPED_COMMANDS]


def caers(found: Mapping[str, Any] | None) -> list[str]:
    """The section on CAER-S's world, from what `cocoer evaluate` wrote of CLIP alone there; nothing where nothing was."""
    if found is None:
        return []
    rows = [
        [text, f"{100 * found['sources'][source]:.1f}", spread(found["on_contradicted"][source])]
        for source, text in CAERS_SOURCES.items()
    ]
    right = found["contradiction"]
    text = CAERS.format(persons=found["persons"], right=spread(right["first_excluded"]), contradicted=right["persons"])
    return [
        "## CLIP alone in CAER-S's world",
        text,
        markdown_table(["prediction by", "accuracy, all", "accuracy, contradicted"], rows),
        CAERS_COMMANDS,
    ]


def persons(table: Table, setting: str) -> str:
    """How many persons the headline has, and how many of them are contradicted."""
    p, marked = (table(setting, "fresh", "all", condition) for condition in ("all", "contradicted"))
    return f"{p.persons} persons, {marked.persons} contradicted" if p and marked else ""
