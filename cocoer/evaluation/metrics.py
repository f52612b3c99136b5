"""Metrics over persons: average precision in three definitions, thresholds, F1, Jaccard, calibration, bootstrap intervals.

Letters: n persons, k classes. scores: [n, k] probabilities; targets: [n, k], 0 or 1 (one 1 a row for CAER-S).
The headline is the non-interpolated average precision (scikit-learn's). A class without
a positive person has no average precision: it is NaN here, left out of the mean, and named by `summarise`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

from cocoer.errors import ScoreError

Array = NDArray[np.float64]
Definition = Literal["non_interpolated", "voc_all_point", "voc_11_point"]

DEFINITIONS: tuple[Definition, ...] = ("non_interpolated", "voc_all_point", "voc_11_point")


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its bootstrap interval over persons."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers for a JSON file."""
        return {"value": self.value, "low": self.low, "high": self.high}


def checked(
    scores: NDArray[np.floating], targets: NDArray[np.floating], keys: Sequence[str] = (), classes: Sequence[str] = ()
) -> tuple[Array, Array]:
    """Scores and targets as float64, after looking at every entry.

    Raises ScoreError for shapes that do not agree, no person, a score that is not finite (person and class named),
    and a target that is neither 0 nor 1.
    """
    said: Array = np.asarray(scores, dtype=np.float64)
    true: Array = np.asarray(targets, dtype=np.float64)
    if said.ndim != 2 or said.shape != true.shape:
        raise ScoreError(
            f"wanted scores and targets of one shape [persons, classes], got {said.shape} and {true.shape}"
        )
    if not len(said):
        raise ScoreError("wanted at least one person, got none; is the split empty?")
    for name, array, bad in (
        ("score", said, ~np.isfinite(said)),
        ("target", true, (true != 0) & (true != 1)),
    ):
        if bad.any():
            n, j = (int(v) for v in np.argwhere(bad)[0])
            person = keys[n] if keys else f"number {n}"
            label = classes[j] if classes else f"number {j}"
            wanted = "a finite number" if name == "score" else "0 or 1"
            raise ScoreError(
                f"{name} of person {person}, class {label}: wanted {wanted}, got {array[n, j]}"
                f" ({int(bad.sum())} such entries); the model or its weights are broken, or the labels were read wrongly"
            )
    return said, true


def _one_class(scores: Array, targets: Array, definition: Definition) -> float:
    """Average precision of one class; scores and targets [n]; NaN without a positive."""
    if not targets.any():
        return float("nan")
    if definition == "non_interpolated":
        return float(sk.average_precision_score(targets, scores))
    precision, recall, _ = sk.precision_recall_curve(targets, scores)
    # scikit-learn adds an end point (recall 0, precision 1) that no threshold reaches; recall falls along the arrays.
    precision, recall = precision[:-1][::-1], recall[:-1][::-1]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # best precision at this recall or a higher one
    if definition == "voc_all_point":
        return float(np.sum(np.diff(recall, prepend=0.0) * envelope))
    marks = np.linspace(0.0, 1.0, 11)
    reached = np.searchsorted(recall, marks - 1e-12)  # a tenth is not exact in binary; the last recall is 1
    return float(np.mean(envelope[reached]))


def average_precision(
    scores: NDArray[np.floating], targets: NDArray[np.floating], definition: Definition = "non_interpolated"
) -> Array:
    """Average precision of every class, [k] in 0..1, NaN for a class without a positive person.

    definition: `non_interpolated` = sum of precision times gain in recall over distinct scores (headline);
    `voc_all_point` = area under the precision envelope; `voc_11_point` = mean envelope at recall 0, 0.1 .. 1.
    Raises ScoreError as `checked` does.
    """
    scores, targets = checked(scores, targets)
    return np.array([_one_class(scores[:, j], targets[:, j], definition) for j in range(scores.shape[1])])


def mean_over_classes(per_class: Array) -> float:
    """Mean over the classes that have a value; NaN where none has."""
    valid = per_class[~np.isnan(per_class)]
    return float(valid.mean()) if len(valid) else float("nan")


def weighted_average_precision(scores: Array, targets: Array, weights: NDArray[np.floating]) -> Array:
    """Average precision of one class under R sets of person weights [R, n] -> [R]; NaN where no positive has weight."""
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    ends = np.append(np.flatnonzero(np.diff(sorted_scores)), len(scores) - 1)  # last person of each run of equal scores
    drawn = weights[:, order]
    true_positives = np.cumsum(drawn * targets[order], axis=1)[:, ends]  # [R, distinct scores]
    predicted = np.cumsum(drawn, axis=1)[:, ends]
    precision = np.divide(true_positives, predicted, out=np.zeros_like(true_positives), where=predicted > 0)
    gained = np.diff(true_positives, axis=1, prepend=0.0)
    total = true_positives[:, -1]
    area = (gained * precision).sum(axis=1)
    return np.divide(area, total, out=np.full_like(total, np.nan), where=total > 0)


RESAMPLES = 1000
"""Draws of a bootstrap unless it is said otherwise: 25 of them lie beyond each end of a 95 % interval."""

MOST_RESAMPLES = 20_000
"""Draws of a bootstrap; each takes a number a person in memory."""

BINS = 15
"""Bins of confidence in a calibration error and a reliability diagram, as in Guo et al. 2017."""


def _draws(n: int, resamples: int, seed: int) -> NDArray[np.float64]:
    """How often each of n persons comes in each resample, [R, n]."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(np.float64)


def bootstrap_mean_average_precision(
    scores: Array, targets: Array, resamples: int = RESAMPLES, seed: int = 0, chunk: int = 100
) -> Array:
    """Mean average precision of `resamples` draws of n persons with replacement, [R].

    The same seed draws the same persons, so two score sets of the same persons can be compared draw by draw.
    """
    scores, targets = checked(scores, targets)
    weights = _draws(len(scores), resamples, seed)
    means: list[float] = []
    for start in range(0, resamples, chunk):
        part = weights[start : start + chunk]
        per_class = np.stack(
            [weighted_average_precision(scores[:, j], targets[:, j], part) for j in range(scores.shape[1])], axis=1
        )  # [chunk, k]
        means.extend(mean_over_classes(row) for row in per_class)
    return np.array(means)


def interval_of(
    value: float, draws: Array, least: float = -math.inf, most: float = math.inf, level: float = 0.95
) -> Interval:
    """The spread of bootstrap draws (percentiles around their own mean), put around a value and cut at what it can be.

    The mean of the draws itself is no good centre: a draw holds persons twice, which flatters the average precision of
    a rare class. least, most: an average precision is never below 0 or above 1, a difference of two never outside -1..1.
    """
    tail = 50.0 * (1.0 - level)
    low, high = np.nanpercentile(draws - np.nanmean(draws), [tail, 100.0 - tail])
    return Interval(value, max(least, value + float(low)), min(most, value + float(high)))


def mean_interval(values: NDArray[np.floating], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """Mean of one value per person with its percentile bootstrap interval; for accuracies and shares. values: [n].

    The ends are means of drawn values, so they never leave the values' own range: a share stays in 0..1.
    """
    values = np.asarray(values, dtype=np.float64)
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    draws = _draws(len(values), resamples, seed) @ values / len(values)
    low, high = np.percentile(draws, [2.5, 97.5]).clip(values.min(), values.max())  # sums round
    return Interval(float(values.mean()), float(low), float(high))


def break_even_thresholds(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> Array:
    """Per class, the score at which precision is nearest to recall, [k]; NaN for a class without a positive.

    To be fitted on the validation split. The threshold lies half-way to the next lower score, so no fitted person is on it.
    """
    scores, targets = checked(scores, targets)
    out = np.full(scores.shape[1], np.nan)
    for j in range(scores.shape[1]):
        if targets[:, j].any():
            precision, recall, thresholds = sk.precision_recall_curve(targets[:, j], scores[:, j])
            gap = np.abs(precision[:-1] - recall[:-1])
            gap[recall[:-1] == 0] = np.inf  # both zero is no break-even point
            place = int(np.argmin(gap))
            below = thresholds[place - 1] if place else 0.0  # thresholds rise
            out[j] = (thresholds[place] + below) / 2
    return out


def f1_per_class(predicted: NDArray[np.bool_], targets: NDArray[np.floating]) -> Array:
    """F1 of every class, [k]; 0 where there is neither a predicted nor a true positive. predicted: [n, k]."""
    true = np.asarray(targets).astype(bool)  # scikit-learn's takes one class for two
    both, sizes = (predicted & true).sum(axis=0), predicted.sum(axis=0) + true.sum(axis=0)
    return np.divide(2.0 * both, sizes, out=np.zeros(len(sizes)), where=sizes > 0)


def jaccard(predicted: NDArray[np.bool_], targets: NDArray[np.floating]) -> float:
    """Mean over persons of |predicted and true| / |predicted or true|; a person with neither counts 1."""
    true = np.asarray(targets).astype(bool)
    both, either = (predicted & true).sum(axis=1), (predicted | true).sum(axis=1)
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())


def bin_of(confidence: NDArray[np.floating], bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence, 0..bins - 1, of equal bins over 0..1; 1 itself is in the last."""
    return np.minimum((confidence * bins).astype(np.int64), bins - 1)


def expected_calibration_error(
    confidence: NDArray[np.floating], correct: NDArray[np.floating], bins: int = BINS
) -> float:
    """Mean distance between confidence and share correct, over equal bins of confidence, weighted by their persons.

    Multi-label: every (person, class) pair with its target. Single-label: the top class with whether it is right.
    Equal to torchmetrics' (a test says so), in float64 and without its seconds of import.
    """
    confidence, correct = np.ravel(confidence).astype(np.float64), np.ravel(correct).astype(np.float64)
    place = bin_of(confidence, bins)
    count = np.bincount(place, minlength=bins)
    gap = np.abs(np.bincount(place, confidence, bins) - np.bincount(place, correct, bins))
    return float(gap[count > 0].sum() / len(confidence))


def confusion(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.int64]:
    """Confusion matrix [k, k] of the top class: row = true class, column = predicted class. Single-label only."""
    k = scores.shape[1]
    matrix = sk.confusion_matrix(targets.argmax(axis=1), scores.argmax(axis=1), labels=np.arange(k))
    return np.asarray(matrix, dtype=np.int64)


def recall_per_class(matrix: NDArray[np.int64]) -> Array:
    """Share of each class's persons that were recognised, [k], from `confusion`; NaN for a class without a person."""
    persons = matrix.sum(axis=1)
    return np.divide(np.diag(matrix), persons, out=np.full(len(matrix), np.nan), where=persons > 0)
