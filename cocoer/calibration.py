"""Calibrated probabilities: maps from the fused probability of each class to a calibrated one.

A calibration is plain data that a weights file carries (`evaluation.calibration` fits it on the validation split): for each
class nothing, a Platt line on the logit, or isotonic steps; for one label a person a temperature of the softmax. Every form
rises with the probability, so it never changes which of two persons scores higher, and labels stay those of the raw answer.
Imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.errors import CheckpointError

Array = NDArray[np.float64]
KINDS = ("none", "platt", "isotonic")
_EDGE = 1e-6  # a probability of 0 or 1 has no logit


def logit(probabilities: NDArray[Any]) -> Array:
    """log(p / (1 - p)), with p kept inside (0, 1)."""
    p = np.clip(np.asarray(probabilities, dtype=np.float64), _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(p) - np.log1p(-p), dtype=np.float64)


@dataclass(frozen=True)
class ClassMap:
    """One class. kind `platt`: sigmoid(slope * logit(p) + shift). `isotonic`: linear between the points (at, value)."""

    kind: str = "none"
    slope: float = 1.0
    shift: float = 0.0
    at: tuple[float, ...] = ()
    value: tuple[float, ...] = ()

    def __call__(self, probabilities: NDArray[Any]) -> Array:
        """Probabilities [n] -> calibrated ones [n]."""
        p = np.asarray(probabilities, dtype=np.float64)
        if self.kind == "platt":
            return np.asarray(
                1.0 / (1.0 + np.exp(-np.clip(self.slope * logit(p) + self.shift, -700.0, 700.0))), dtype=np.float64
            )
        if self.kind == "isotonic":
            return np.asarray(np.interp(p, self.at, self.value), dtype=np.float64)
        return p

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without what the kind does not need."""
        numbers: dict[str, Any] = {}
        if self.kind == "platt":
            numbers = {"slope": self.slope, "shift": self.shift}
        if self.kind == "isotonic":
            numbers = {"at": list(self.at), "value": list(self.value)}
        return {"kind": self.kind, **numbers}


@dataclass(frozen=True)
class Calibration:
    """Of all classes. temperature: of the softmax, where every person has one label; then `classes` is empty.

    split: where it was fitted, never test. persons: how many it was fitted on.
    """

    split: str
    persons: int
    classes: Mapping[str, ClassMap]
    temperature: float | None = None

    def __call__(self, probabilities: NDArray[Any], names: Sequence[str]) -> NDArray[Any]:
        """The calibrated fused probabilities [n, k], of the same type. A class without a map is unchanged."""
        p = np.asarray(probabilities)
        if self.temperature is not None:
            scaled = np.log(np.clip(p.astype(np.float64), _EDGE, None)) / self.temperature
            scaled = np.exp(scaled - scaled.max(-1, keepdims=True))
            return np.asarray(scaled / scaled.sum(-1, keepdims=True), dtype=p.dtype)
        columns = [self.classes.get(name, ClassMap())(p[:, j]) for j, name in enumerate(names)]
        return np.stack(columns, axis=1).astype(p.dtype) if len(columns) else p

    def to_dict(self) -> dict[str, Any]:
        """As a weights file keeps it."""
        found = {name: by.to_dict() for name, by in self.classes.items()}
        return {"split": self.split, "persons": self.persons, "temperature": self.temperature, "classes": found}


def calibration_of(stored: Mapping[str, Any] | None, where: str = "weights") -> Calibration | None:
    """The calibration that a file's metadata holds, or None. Raises CheckpointError for one that is broken."""
    if not stored:
        return None
    try:
        classes = {str(name): _class_map(by) for name, by in dict(stored["classes"]).items()}
        temperature = None if stored["temperature"] is None else float(stored["temperature"])
        if temperature is not None and not (np.isfinite(temperature) and temperature > 0):
            raise ValueError(f"a temperature of {temperature}")
        return Calibration(str(stored["split"]), int(stored["persons"]), classes, temperature)
    except (KeyError, TypeError, ValueError) as err:
        raise CheckpointError(
            f"{where}: its calibration cannot be read ({err}); run `cocoer calibrate` again"
        ) from None


def _class_map(stored: Mapping[str, Any]) -> ClassMap:
    """One class's map. Raises ValueError for an unknown kind, numbers that are not finite, or one that falls."""
    kind = stored["kind"]
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r}")
    at, value = (tuple(float(x) for x in stored.get(name, ())) for name in ("at", "value"))
    made = ClassMap(kind, float(stored.get("slope", 1.0)), float(stored.get("shift", 0.0)), at, value)
    if not np.isfinite([made.slope, made.shift, *at, *value]).all():
        raise ValueError("a number that is not finite")
    if made.slope < 0 or (np.diff(at) <= 0).any() or (np.diff(value) < 0).any():
        raise ValueError("it would turn the order of persons around")
    if kind == "isotonic" and (len(at) < 2 or len(at) != len(value) or min(value) < 0 or max(value) > 1):
        raise ValueError("isotonic points must be two or more, as many values as places, in 0..1")
    return made
