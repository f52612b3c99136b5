"""Lookup of the conflict benchmark's figures by their keys, and the display names of the keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cocoer.names import LEVELS
from cocoer.outputs import ConflictPoint

RULES: Mapping[str, str] = {
    "none": "no update",
    "one": "type one",
    "two": "type two",
    "release": "release rule",
    "late_fusion": "late fusion",
    "late_fusion_two": "late fusion without the first excluded",
    "vote": "type one, remaining levels vote",
    "vote_three": "type one, all three vote (control)",
}
LABELS: Mapping[str, str] = {"vocabulary": "V-I", "fused": "fused prediction", "true": "true label (upper bound)"}
CONDITIONS = ("any", *LEVELS)
CHANCE = 100 / 3


class Points:
    """The benchmark's figures by their keys. Raises KeyError for one that was not measured."""

    def __init__(self, points: Sequence[ConflictPoint]) -> None:
        self.all = tuple(points)
        self._by_key = {(p.measure, p.fusion, p.rule, p.label, p.condition, p.share): p for p in points}

    def __call__(
        self,
        measure: str,
        share: float,
        condition: str = "any",
        rule: str = "",
        label: str = "",
        fusion: str = "trained",
    ) -> ConflictPoint:
        """One point; at share 0 all conditions are one, and rules that read no label have none."""
        condition = "any" if share == 0 else condition
        label = "" if rule in ("none", "late_fusion") else label
        fusion = "" if measure.startswith("first_excluded") else fusion
        return self._by_key[measure, fusion, rule, label, condition, share]

    @property
    def rules(self) -> dict[str, str]:
        """The rules by their shown names: the known ones, then those of plugins."""
        others = dict.fromkeys(p.rule for p in self.all if p.rule and p.rule not in RULES)
        return {**RULES, **{rule: f"plugin: {rule}" for rule in others}}

    @property
    def shares(self) -> list[float]:
        """All shares, rising."""
        return sorted({p.share for p in self.all})


def where_contradicted(condition: str) -> str:
    """A condition in words."""
    return "any level contradicts" if condition == "any" else f"the {condition} contradicts"
