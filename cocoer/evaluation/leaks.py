"""The headline with and without the persons whose image looks like one of train, from an index that marks them.

`cocoer prepare near` (or `prepare emotic --near`) marks them. What is without is a subset of what is with, so the difference is
taken draw by draw; its interval is over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cocoer.data.batch import PersonRecord
from cocoer.data.prepare.leaks import NEAR_TRAIN, NEAR_TRAIN_BY, WAYS
from cocoer.errors import ScoreError
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.groups import (
    LEAST_IMAGES,
    LEAST_PERSONS,
    facts_of,
    image_draws,
    on_shared_classes,
    weighted_headline,
)


def with_and_without(
    evaluation: Evaluation, records: Sequence[PersonRecord], multi_label: bool, resamples: int = m.RESAMPLES
) -> dict[str, Any]:
    """Numbers of all persons, and of those that are left without near-duplicates of train; {} where no line has a mark.

    Returns {"metric", "all": {persons, images, headline}, "without": way -> {left_out, left_out_images, persons, images,
    headline, difference}}; ways: `hash` and `clip`, where it found one, and `any`. difference: without minus all, where mAP is
    over the classes that have a positive person in both. Fewer than `LEAST_PERSONS` persons or `LEAST_IMAGES` images left:
    counts only.
    Raises ScoreError for a split that is marked in part or not as `prepare near` does, and as `groups.facts_of` does.
    """
    if not any(NEAR_TRAIN in record.extra for record in records):
        return {}
    _check_marks(records)
    facts = facts_of(evaluation, records, multi_label)
    draws = image_draws(facts.images, resamples)
    everybody = np.ones(len(records))
    whole = _interval(weighted_headline(facts, everybody[None]), weighted_headline(facts, draws))
    by = [record.extra.get(NEAR_TRAIN_BY) for record in records]
    found = {
        "hash": np.array([way in ("hash", "both") for way in by]),
        "clip": np.array([way in ("clip", "both") for way in by]),
        "any": np.array([bool(record.extra.get(NEAR_TRAIN)) for record in records]),
    }
    out: dict[str, Any] = {
        "metric": "mAP" if multi_label else "accuracy",
        "all": {"persons": len(records), "images": len(set(facts.images.tolist())), "headline": whole},
        "without": {},
    }
    for way, marked in found.items():
        if way != "any" and not marked.any():
            continue
        rest = ~marked
        row: dict[str, Any] = {
            "left_out": int(marked.sum()), "left_out_images": len(set(facts.images[marked].tolist())),
            "persons": int(rest.sum()), "images": len(set(facts.images[rest].tolist())),
        }  # fmt: skip
        if row["persons"] >= LEAST_PERSONS and row["images"] >= LEAST_IMAGES:
            kept = rest.astype(np.float64)
            row["headline"] = _interval(weighted_headline(facts, kept[None]), weighted_headline(facts, draws * kept))
            same, _ = on_shared_classes(facts, kept, everybody)
            before, after = (
                (weighted_headline(same, w[None])[0], weighted_headline(same, draws * w)) for w in (everybody, kept)
            )
            row["difference"] = m.interval_of(float(after[0] - before[0]), after[1] - before[1], -1.0, 1.0).to_dict()
        out["without"][way] = row
    return out


def _check_marks(records: Sequence[PersonRecord]) -> None:
    marks = [(record.extra.get(NEAR_TRAIN), record.extra.get(NEAR_TRAIN_BY) or "nothing") for record in records]
    wrong = [place for place, (near, by) in enumerate(marks) if not isinstance(near, bool) or by not in WAYS]
    if wrong:
        near, by = marks[wrong[0]]
        raise ScoreError(
            f"near-duplicates: wanted {NEAR_TRAIN} true or false and {NEAR_TRAIN_BY} of {', '.join(map(repr, WAYS))}"
            f" for every person of the split, got {near!r:.40} and {by!r:.40} for {records[wrong[0]].key}"
            f" and {len(wrong) - 1} more; mark the index anew with `cocoer prepare near`"
        )


def _interval(value: Any, draws: Any) -> dict[str, float]:
    return m.interval_of(float(value[0]), draws, 0.0, 1.0).to_dict()
