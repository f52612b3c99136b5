"""Compute means, intervals and gains over the trainings from every training's rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cocoer.errors import ConflictError
from cocoer.outputs import StudyPoint
from cocoer.studies.kept import spread_of

BASE = "all"
"""What gains are over: the paper's model without competition and coordination."""

CONTROLS = {
    "gate": "gate_random",
    "exclude": "exclude_random",
    "late_vote": "late_vote_all",
    "late_shares": "late_vote_all",
    "gate_late": "late_vote_all",
    "clip_agree": "clip_late",
}
"""A variant -> the same without what the agreement knows."""

_SCORES = ("fresh", "pool", "minority", "blurred", "occluded")
_Key = tuple[str, str, str, str, float | None]


def over_trainings(results: Sequence[Mapping[str, Any]]) -> list[StudyPoint]:
    """Every row as one point over the trainings of its setting, with gains over `BASE` and the control, paired by training.

    Raises ConflictError where two trainings of a setting hold different rows, or a value is not a number.
    """
    by_setting: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        by_setting.setdefault(result["setting"], []).append(result)
    out: list[StudyPoint] = []
    for setting, trainings in by_setting.items():
        tables = [_table(setting, training) for training in trainings]
        for training, table in zip(trainings, tables, strict=True):
            if table.keys() != tables[0].keys():
                raise ConflictError(
                    f"{setting}-{training['seed']}: holds other rows than {setting}-{trainings[0]['seed']}; delete it, run again"
                )
        for key, first in tables[0].items():
            test, what = key[1], key[2]
            values = [table[key]["value"] for table in tables]
            out.append(point(key, values, first["persons"]))
            for name, base in (("gain", BASE), ("control", CONTROLS.get(what))):
                if test in _SCORES and base is not None and what != base:
                    other = (setting, test, base, *key[3:])
                    gains = [table[key]["value"] - table[other]["value"] for table in tables]
                    out.append(point((setting, f"{test}_{name}", *key[2:]), gains, first["persons"]))
    return out


def _table(setting: str, training: Mapping[str, Any]) -> dict[_Key, Mapping[str, Any]]:
    table = {(setting, r["test"], r["what"], r["condition"], r["share"]): r for r in training["rows"]}
    for key, row in table.items():
        if not math.isfinite(row["value"]):
            raise ConflictError(f"{setting}-{training['seed']}: {key} is {row['value']}, wanted a finite number")
    return table


def point(key: _Key, values: Sequence[float], persons: int) -> StudyPoint:
    """Mean, deviation and 95 % interval of the mean (Student's t) of one value per training, 0..1, in percent."""
    percent = tuple(100 * v for v in values)
    return StudyPoint(*key, percent, *spread_of(percent), persons)
