"""Compute the metrics of an `Evaluation` that are logged, stored with the weights and reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.names import LEVELS


def headline(evaluation: Evaluation, multi_label: bool, source: str = "pred") -> float:
    """The number that chooses the best epoch, 0..1: mean average precision, or accuracy for one label a person."""
    scores, targets = m.checked(evaluation.probabilities[source], evaluation.targets, evaluation.keys)
    if multi_label:
        return m.mean_over_classes(m.average_precision(scores, targets))
    return float((scores.argmax(1) == targets.argmax(1)).mean())


def source_scores(evaluation: Evaluation, multi_label: bool) -> dict[str, float]:
    """`headline` of every source alone (fused answer, vocabulary, levels, late fusion)."""
    return {source: headline(evaluation, multi_label, source) for source in evaluation.probabilities}


def exclusion_shares(exclusion: NDArray[np.int64]) -> dict[str, dict[str, float]]:
    """Place of leaving (`first`, `second`, `survivor`) -> level -> share of persons, as in the paper's Table 5.

    Over the persons with a pseudo label; NaN where there are none.
    """
    exclusion = exclusion[(exclusion >= 0).all(1)]
    return {
        place: {level: float((exclusion[:, i] == index).mean()) for index, level in enumerate(LEVELS)}
        for i, place in enumerate(("first", "second", "survivor"))
    }


def mechanism(evaluation: Evaluation) -> dict[str, Any]:
    """How the levels competed, over all persons: exclusion shares, mean lambda of each round, L_hier, |delta|."""
    if evaluation.exclusion is None or evaluation.weights is None or evaluation.losses is None:
        return {}
    assert evaluation.delta_norm is not None, "delta_norm comes with the competition"
    rounds = evaluation.weights.mean(0)  # [rounds, 3]
    return {
        "exclusion": exclusion_shares(evaluation.exclusion),
        "without_pseudo_label": int((evaluation.exclusion < 0).any(1).sum()),
        "lambda": [{level: float(row[i]) for i, level in enumerate(LEVELS)} for row in rounds],
        "hierarchy_loss": {level: float(evaluation.losses[:, i].mean()) for i, level in enumerate(LEVELS)},
        "delta_norm": float(evaluation.delta_norm.mean()),
    }


def class_frequency_baseline(targets: NDArray[np.floating]) -> float:
    """Mean average precision of scores that are the same for every person: the mean share of positives per class."""
    share = np.asarray(targets, dtype=np.float64).mean(0)
    return m.mean_over_classes(np.where(share > 0, share, np.nan))


def fitted_thresholds(evaluation: Evaluation, classes: Sequence[str], split: str) -> dict[str, Any]:
    """Per class, the fused score where precision = recall on the evaluated split; a class without a positive is left out."""
    values = m.break_even_thresholds(evaluation.probabilities["pred"], evaluation.targets)
    fitted = {name: float(value) for name, value in zip(classes, values, strict=True) if np.isfinite(value)}
    return {"rule": "precision = recall", "split": split, "classes": fitted}


def summarise(evaluation: Evaluation, classes: Sequence[str], multi_label: bool, split: str) -> dict[str, Any]:
    """All numbers of an evaluation, plain values; shares and average precisions in 0..1.

    Classes without a positive person are listed under `classes_without_positives` and left out of the means.
    Raises ScoreError for a score that is not finite (person and class named).
    """
    scores, targets = m.checked(evaluation.probabilities["pred"], evaluation.targets, evaluation.keys, classes)
    absent = [name for name, count in zip(classes, targets.sum(0), strict=True) if not count]
    out: dict[str, Any] = {"split": split, "persons": len(evaluation), "classes_without_positives": absent}
    if multi_label:
        per_class = m.average_precision(scores, targets)
        out["mAP"] = m.mean_over_classes(per_class)
        for definition in m.DEFINITIONS[1:]:
            out[f"mAP_{definition}"] = m.mean_over_classes(m.average_precision(scores, targets, definition))
        out["ap"] = _named(classes, per_class)
        out["calibration_error"] = m.expected_calibration_error(scores, targets)
    else:
        matrix = m.confusion(scores, targets)
        right = scores.argmax(1) == targets.argmax(1)
        out["accuracy"] = float(right.mean())
        out["recall"] = _named(classes, m.recall_per_class(matrix))
        out["confusion"] = matrix.tolist()
        out["calibration_error"] = m.expected_calibration_error(scores.max(1), right)
    out["sources"] = source_scores(evaluation, multi_label)
    return out | mechanism(evaluation)


def label_quality(
    evaluation: Evaluation, classes: Sequence[str], thresholds: Mapping[str, float], default: float
) -> dict[str, Any]:
    """F1 and Jaccard of the fused answer at per-class thresholds; a class without one uses `default`. Multi-label only."""
    limits = np.array([thresholds.get(name, default) for name in classes])
    predicted = evaluation.probabilities["pred"] >= limits
    f1 = m.f1_per_class(predicted, evaluation.targets)
    return {
        "f1": _named(classes, f1),
        "f1_macro": float(f1.mean()),
        "jaccard": m.jaccard(predicted, evaluation.targets),
    }


def _named(classes: Sequence[str], values: NDArray[np.floating]) -> dict[str, float | None]:
    """Class name -> value; None where there is none."""
    return {name: float(v) if np.isfinite(v) else None for name, v in zip(classes, values, strict=True)}


def value_interval(
    evaluation: Evaluation,
    multi_label: bool,
    source: str = "pred",
    resamples: int = m.RESAMPLES,
    rows: NDArray[np.bool_] | None = None,
) -> m.Interval:
    """`headline` of a source with its 95 % bootstrap interval over persons; rows: only these persons, [n] bool."""
    chosen = np.ones(len(evaluation), dtype=bool) if rows is None else rows
    scores, targets = m.checked(evaluation.probabilities[source][chosen], evaluation.targets[chosen])
    if not multi_label:
        return m.mean_interval(scores.argmax(1) == targets.argmax(1), resamples)
    value = m.mean_over_classes(m.average_precision(scores, targets))
    return m.interval_of(value, m.bootstrap_mean_average_precision(scores, targets, resamples), 0.0, 1.0)


def paired_difference(
    targets: NDArray[np.floating],
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    multi_label: bool,
    resamples: int = m.RESAMPLES,
) -> m.Interval:
    """Headline of `first` minus that of `second` on the same persons, [n, k] each, with its 95 % interval over persons."""
    if not multi_label:
        truth = targets.argmax(1)
        return m.mean_interval((first.argmax(1) == truth).astype(np.float64) - (second.argmax(1) == truth), resamples)
    value = m.mean_over_classes(m.average_precision(first, targets)) - m.mean_over_classes(
        m.average_precision(second, targets)
    )
    draws = [
        m.bootstrap_mean_average_precision(np.asarray(s, np.float64), np.asarray(targets, np.float64), resamples)
        for s in (first, second)
    ]
    return m.interval_of(value, draws[0] - draws[1], -1.0, 1.0)


def contradiction(
    evaluation: Evaluation, contradicted: Sequence[str | None], resamples: int = m.RESAMPLES
) -> dict[str, Any]:
    """How often the level that leaves first is the one that contradicts the label (made-up scenes alone know that).

    contradicted: per person the contradicting level's name, or None. Only persons with one, whose levels were judged, count;
    chance is 1/3.
    Empty where no level contradicts or there was no competition.
    """
    level = np.array([-1 if name is None else LEVELS.index(name) for name in contradicted])
    if evaluation.exclusion is None or not (level >= 0).any():
        return {}
    marked = (level >= 0) & (evaluation.exclusion >= 0).all(1)
    if not marked.any():
        return {}
    hit = (evaluation.exclusion[:, 0] == level)[marked].astype(np.float64)
    per_level = {
        name: m.mean_interval(hit[level[marked] == i], resamples).to_dict()
        | {"persons": int((level[marked] == i).sum())}
        for i, name in enumerate(LEVELS)
        if (level[marked] == i).any()
    }
    return {
        "persons": int(marked.sum()),
        "first_excluded": m.mean_interval(hit, resamples).to_dict(),
        "per_level": per_level,
    }
