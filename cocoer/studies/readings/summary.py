"""Compute means, deviations and paired differences, in percent, from the results of every seed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cocoer.studies.kept import spread_of

Results = Mapping[tuple[str, str], Mapping[int, Mapping[str, Any]]]
"""(data set, reading) -> seed -> result."""

Value = Callable[[Mapping[str, Any]], float]


def by_reading(results: Sequence[Mapping[str, Any]]) -> Results:
    """The results in their places."""
    out: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for result in results:
        out.setdefault((result["dataset"], result["reading"]), {})[result["seed"]] = result
    return out


def asked(loss: str, name: str) -> Value:
    """Reads one number of a result, asked under a `model.competition.loss`."""
    return lambda result: float(result["asked"][loss][name])


def mean_text(results: Results, key: tuple[str, str], value: Value) -> str:
    """Mean and sample deviation over the seeds, in percent."""
    values = [100 * value(result) for result in results.get(key, {}).values()]
    if not values:
        return ""
    mean, deviation, _ = spread_of(values)
    return f"{mean:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


def difference_text(
    results: Results, first: tuple[tuple[str, str], Value], second: tuple[tuple[str, str], Value]
) -> str:
    """First minus second, seed by seed, in points of a percent: mean and 95 % interval (Student's t) over the seeds."""
    ours, base = results.get(first[0], {}), results.get(second[0], {})
    points = [100 * (first[1](ours[seed]) - second[1](base[seed])) for seed in sorted(ours.keys() & base.keys())]
    if not points:
        return ""
    mean, _, interval = spread_of(points)
    return f"{mean:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def rule_rows(results: Results) -> list[tuple[str, ...]]:
    """EMOTIC's format: one row a reading of update and penalty, each model asked as it was trained."""
    rows: list[tuple[str, ...]] = []
    for reading in ("letter", "relative", "none", "release", "letter_sum"):
        key, score = ("emotic", reading), asked("training", "score")
        if key in results:
            first = asked("training", "first_excluded")
            rows.append((
                reading, str(len(results[key])), mean_text(results, key, score),
                "" if reading == "letter" else difference_text(results, (key, score), (("emotic", "letter"), score)),
                mean_text(results, key, asked("training", "on_contradicted")),
                mean_text(results, key, lambda r: float(r["levels"]["late_fusion"])), mean_text(results, key, first),
            ))  # fmt: skip
    return rows


def loss_rows(results: Results) -> list[tuple[str, ...]]:
    """L_hier inside the competition: the same weights asked under both, and models that were trained so."""
    rows: list[tuple[str, ...]] = []
    for dataset in ("emotic", "caers"):
        base = (dataset, "letter")
        for reading, loss in (("letter", "training"), ("letter", "mean_bce"), ("letter_mean_bce", "mean_bce")):
            key = (dataset, reading)
            if key not in results:
                continue
            cells = [mean_text(results, key, asked(loss, name)) for name in ("first_excluded", "score")]
            changes = ["", ""]
            if (reading, loss) != ("letter", "training"):
                changes = [
                    difference_text(results, (key, asked(loss, name)), (base, asked("training", name)))
                    for name in ("first_excluded", "score")
                ]
            trained = "trained so" if reading == "letter_mean_bce" else "trained with training"
            rows.append((
                dataset, f"{loss}, {trained}", str(len(results[key])), cells[0], changes[0], cells[1], changes[1],
                *(f"{statistics.fmean(asked(loss, name)(r) for r in results[key].values()):.2f}"
                  for name in ("hier_loss_first", "hier_loss_last")),
            ))  # fmt: skip
    return rows
