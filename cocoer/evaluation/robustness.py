"""The effect of corruptions on the headline metric and on the level that is excluded first, with intervals over images.

A level that is damaged alone is the one that a competition should exclude first. Its share of leaving first is told beside
what it was undamaged, draw by draw, for a level may leave often anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.data.batch import PersonRecord
from cocoer.data.damage import Damage
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.groups import Facts, facts_of, image_draws, weighted_headline, weighted_share
from cocoer.names import LEVELS

Array = NDArray[np.float64]
Pair = tuple[float, Array]  # a number, and the same under every draw


def robustness(
    clean: Evaluation,
    damages: Sequence[Damage],
    evaluated: Callable[[Damage], Evaluation],
    records: Sequence[PersonRecord],
    multi_label: bool,
    resamples: int = m.RESAMPLES,
) -> dict[str, Any]:
    """Numbers of every damage beside those without.

    clean: the evaluation of `records`; evaluated: the same under a damage. Persons without a pseudo label (-1) do not
    count in shares of leaving. Returns {"metric", "clean": numbers, "conditions": [numbers]}; numbers: `headline` and `first`
    (level -> share that leaves first). A condition also has kind, strength, where, `difference` (headline minus the clean one)
    and, where one level is damaged, `level`, `damaged_first` (share of persons whose damaged level leaves first),
    `damaged_first_gain` (minus that share without the damage) and, on synthetic scenes, `damaged_first_consistent` (of persons
    whom no level contradicts). `any_level`: kind -> strength -> share of (person, level) whose damaged level leaves first, where
    each level was damaged alone in turn; undamaged and by chance that is exactly a third, for one level of three leaves first.
    """
    facts = facts_of(clean, records, multi_label)
    drawn = _Drawn(image_draws(facts.images, resamples))
    before = drawn.headline(facts)
    consistent = _consistent(records)
    each: dict[tuple[str, int], list[Pair]] = {}
    out: dict[str, Any] = {
        "metric": "mAP" if multi_label else "accuracy",
        "clean": {"headline": _told(before), "first": drawn.first(facts)},
        "conditions": [],
    }
    for damage in damages:
        of = facts_of(evaluated(damage), records, multi_label)
        after = drawn.headline(of)
        row: dict[str, Any] = {"kind": damage.kind, "strength": damage.strength, "where": damage.where}
        row |= {"level": damage.level, "headline": _told(after), "first": drawn.first(of)}
        row["difference"] = _minus(after, before)
        if damage.level is not None and of.first is not None and facts.first is not None:
            level = LEVELS.index(damage.level)
            share = drawn.leaving(of, level)
            row["damaged_first"] = _told(share)
            each.setdefault((damage.kind, damage.strength), []).extend([share] if damage.where != "image" else [])
            row["damaged_first_gain"] = _minus(share, drawn.leaving(facts, level))
            if consistent is not None and consistent.any():
                row["damaged_first_consistent"] = _told(drawn.leaving(of, level, consistent))
        out["conditions"].append(row)
    for (kind, strength), shares in each.items():
        if len(shares) == len(LEVELS):
            mean = float(np.mean([value for value, _ in shares])), np.mean([draws for _, draws in shares], axis=0)
            out.setdefault("any_level", {}).setdefault(kind, {})[str(strength)] = _told(mean)
    if consistent is not None:
        out["consistent_persons"] = int(consistent.sum())
    return out


@dataclass(frozen=True)
class _Drawn:
    """Numbers of facts and of each draw of images. weights: [R, n]."""

    weights: Array

    def headline(self, facts: Facts) -> Pair:
        everybody = np.ones(len(facts.scores))[None]
        return float(weighted_headline(facts, everybody)[0]), weighted_headline(facts, self.weights)

    def leaving(self, facts: Facts, level: int, of: NDArray[np.bool_] | None = None) -> Pair:
        """Share of whom the level leaves first; of: only these persons, [n]."""
        chosen = (np.ones(len(facts.scores)) if of is None else of.astype(np.float64))[None]
        return float(leaves_first(facts, chosen, level)[0]), leaves_first(facts, self.weights * chosen, level)

    def first(self, facts: Facts) -> dict[str, dict[str, float]]:
        """Level -> share of persons of whom it leaves first; empty where nothing competed."""
        levels = () if facts.first is None else LEVELS
        return {level: _told(self.leaving(facts, place)) for place, level in enumerate(levels)}


def _told(pair: Pair) -> dict[str, float]:
    return m.interval_of(*pair, 0.0, 1.0).to_dict()


def _minus(pair: Pair, other: Pair) -> dict[str, float]:
    """The difference, draw by draw."""
    return m.interval_of(pair[0] - other[0], pair[1] - other[1], -1.0, 1.0).to_dict()


def leaves_first(facts: Facts, weights: Array, level: int) -> Array:
    """Share of the judged persons of whom the level leaves first, under each row of person weights [R, n]: [R]."""
    assert facts.first is not None, "asked where levels competed"
    return weighted_share(weights * (facts.first >= 0), (facts.first == level).astype(np.float64))


def _consistent(records: Sequence[PersonRecord]) -> NDArray[np.bool_] | None:
    """Whether no level contradicts the person's label, [n]; None where it is unknown (photographs)."""
    if not any("synthetic" in record.extra for record in records):
        return None
    made: list[dict[str, Any]] = [record.extra.get("synthetic") or {} for record in records]
    return np.array(["contradicted_level" in one and one["contradicted_level"] is None for one in made])
