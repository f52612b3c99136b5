"""Every number of an evaluation, as `cocoer evaluate` reports it and the tables take it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cocoer.evaluation import metrics as m
from cocoer.evaluation import summary as s
from cocoer.evaluation.evaluate import Evaluation
from cocoer.model.checkpoint import Loaded


def numbers_of(
    result: Evaluation, classes: Sequence[str], multi_label: bool, split: str,
    contradicted: Sequence[str | None], resamples: int,
) -> dict[str, Any]:  # fmt: skip
    """All that is known without the weights' own thresholds, plain values; shares and average precisions in 0..1.

    contradicted: per person the level that contradicts the label (synthetic scenes alone know), or None.
    `intervals`: source -> its headline with a 95 % bootstrap interval over persons, and the other definitions of average
    precision; `on_contradicted`: the same headline on the persons with a contradicting level. Where there is a fused answer
    (`pred`): `headline`, everything of `summary.summarise`, and `contradiction`. Several labels: `class_frequency_mAP`.
    Raises ScoreError for a score that is not finite (person and class named).
    """
    intervals = {}
    for source, scores in result.probabilities.items():
        m.checked(scores, result.targets, result.keys, classes)
        intervals[source] = s.value_interval(result, multi_label, source, resamples).to_dict()
        for definition in m.DEFINITIONS[1:] if multi_label else ():
            intervals[source][definition] = m.mean_over_classes(m.average_precision(scores, result.targets, definition))
    out: dict[str, Any] = {"persons": len(result), "split": split, "intervals": intervals}
    if multi_label:
        out["class_frequency_mAP"] = s.class_frequency_baseline(result.targets)
    if "pred" in result.probabilities:
        out |= s.summarise(result, classes, multi_label, split)
        out["headline"] = {key: intervals["pred"][key] for key in ("value", "low", "high")}
        out["contradiction"] = s.contradiction(result, contradicted, resamples)
    marked = np.array([level is not None for level in contradicted])
    if marked.any():
        out["on_contradicted"] = {
            source: s.value_interval(result, multi_label, source, resamples, marked).to_dict()
            for source in result.probabilities
        }
    return out


def label_numbers(result: Evaluation, loaded: Loaded) -> dict[str, Any]:
    """F1 and Jaccard of the fused answer at the thresholds that the weights carry; several labels a person only."""
    fitted: Mapping[str, float] = loaded.thresholds.get("classes", {})
    default = loaded.config.inference.thresholds.fused
    where = (
        f"precision = recall on {loaded.thresholds.get('split', 'a split that is not named')}"
        if fitted
        else f"threshold {default:g}"
    )
    return s.label_quality(result, loaded.config.classes, fitted, default) | {"thresholds": where}


def weights_facts(loaded: Loaded) -> dict[str, Any]:
    """What must be known of the weights to read the numbers."""
    model = loaded.config.model
    return {
        "file": loaded.path.as_posix(),
        "note": loaded.metadata.get("note", ""),
        "checksums": loaded.checksums,
        "selected_on": loaded.metadata.get("metrics", {}).get("selected_on"),
        "coordination": model.coordination.update,
        "git_revision": loaded.metadata.get("git_revision"),
        "prompt": model.vocabulary.prompt,
        "view": model.vocabulary.view,
        "tower": model.vocabulary.tower,
        "clip_weights": model.vocabulary.weights,
    }
