"""Compute means, deviations and intervals over the trained models from every seed's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cocoer.errors import ConflictError
from cocoer.outputs import ConflictPoint
from cocoer.studies.kept import spread_of

_KEY = ("measure", "fusion", "rule", "label", "condition", "share")


def over_models(results: Sequence[Mapping[str, Any]]) -> list[ConflictPoint]:
    """Every row of the seeds' results as one point, and with every score its gain over "no update", model by model.

    Raises ConflictError where the seeds do not hold the same rows, or a value is not a number.
    """
    if not results:
        raise ConflictError("wanted the results of at least one seed, got none")
    by_seed = [{tuple(row[k] for k in _KEY): row for row in result["rows"]} for result in results]
    for result, rows in zip(results, by_seed, strict=True):
        if rows.keys() != by_seed[0].keys() or len(rows) != len(result["rows"]):
            raise ConflictError(
                f"seed {result['seed']}: holds other rows than seed {results[0]['seed']}; delete its seed-N.json and run again"
            )
        for key, row in rows.items():
            if not math.isfinite(row["value"]):
                raise ConflictError(
                    f"seed {result['seed']}: {' '.join(map(str, key))} is {row['value']}, wanted a finite number;"
                    " the model or its weights are broken"
                )
    out = []
    for key in by_seed[0]:
        values = [rows[key]["value"] for rows in by_seed]
        persons = by_seed[0][key]["persons"]
        out.append(point(key, values, persons))
        measure, fusion, rule, _, condition, share = key
        if measure == "score" and rule != "none":
            base = ("score", "refitted" if fusion == "refitted" else "trained", "none", "", condition, share)
            gains = [rows[key]["value"] - rows[base]["value"] for rows in by_seed]
            out.append(point(("gain", *key[1:]), gains, persons))
        if rule == "vote":
            control = (measure, fusion, "vote_three", *key[3:])
            gains = [rows[key]["value"] - rows[control]["value"] for rows in by_seed]
            out.append(point(("vote_gain", *key[1:]), gains, persons))
        if measure == "first_excluded" and key[3] != "vocabulary":
            base = (*key[:3], "vocabulary", condition, share)
            gains = [rows[key]["value"] - rows[base]["value"] for rows in by_seed]
            out.append(point(("first_excluded_gain", *key[1:]), gains, persons))
    return out


def point(key: Sequence[Any], values: Sequence[float], persons: int) -> ConflictPoint:
    """Mean, deviation and 95 % interval of the mean (Student's t) of one value per model, 0..1, in percent."""
    percent = tuple(100 * v for v in values)
    measure, fusion, rule, label, condition, share = key
    return ConflictPoint(measure, fusion, rule, label, condition, share, percent, *spread_of(percent), persons)
