"""Metrics by group of persons, and the differences between groups.

Intervals are bootstraps over images, not persons: people of one image share scene, light and often emotion, so they are not
independent. A group of few persons gets no numbers at all.

Letters: n persons, k classes, R bootstrap draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.data.batch import PersonRecord
from cocoer.errors import ScoreError
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.names import HEAD_SOURCES, LEVELS

Array = NDArray[np.float64]

LEAST_PERSONS = 30
"""Smaller groups are not reported, because their intervals would be too wide."""

LEAST_IMAGES = 10
"""Groups of fewer images are not reported: images are what is drawn, and of a few of them an interval is too narrow."""

MOST_GROUPS = 6
"""A column of numbers with more values than this is cut into three groups of equal size."""

LONGEST_NAME = 80
"""Characters of a group's name."""

NONE = "(not given)"


@dataclass(frozen=True)
class Facts:
    """Per person what group numbers are made of. scores, targets: [n, k]. first: level that leaves first [n], -1 unknown.

    sources: where the head box comes from [n], of `names.HEAD_SOURCES`. images: [n], number of the image.
    """

    scores: Array
    targets: Array
    first: NDArray[np.int64] | None
    sources: NDArray[np.str_]
    images: NDArray[np.int64]
    multi_label: bool


def derived_columns(records: Sequence[PersonRecord]) -> dict[str, list[str]]:
    """Columns that the index implies: `persons_in_image` (1, 2, 3 or more), `body_size` (side of the box, in pixels)."""
    count: dict[str, int] = {}
    for record in records:
        count[record.image] = count.get(record.image, 0) + 1
    sides = [((r.body[2] - r.body[0]) * (r.body[3] - r.body[1])) ** 0.5 for r in records]
    return {
        "persons_in_image": [str(count[r.image]) if count[r.image] < 3 else "3 or more" for r in records],
        "body_size": ["below 96 px" if s < 96 else "96 to 224 px" if s < 224 else "224 px or more" for s in sides],
    }


def column_values(records: Sequence[PersonRecord], column: str) -> list[str]:
    """Each person's group in a column: a field of the index, a further key of its lines, or a derived column.

    Numbers with more than `MOST_GROUPS` values are cut at their terciles; texts are groups by themselves; what is missing, empty
    or no finite number is `NONE`. Raises ScoreError where no person has a value, and for values that name no group: lists,
    objects, and texts of more than `LONGEST_NAME` characters.
    """
    derived = derived_columns(records)
    if column in derived:
        return derived[column]
    fields = ("head_source", "split", "width", "height")
    raw = [_group_of(getattr(r, column) if column in fields else r.extra.get(column), column) for r in records]
    if all(value is None for value in raw):
        keys = sorted(
            {key for r in records for key, v in r.extra.items() if isinstance(v, str | int | float) and v != ""}
        )
        raise ScoreError(
            f"--groups: no person of this split has a value in the column {column!r}; there are"
            f" {', '.join([*derived, *fields, *(key for key in keys if key != column)])}"
        )
    numbers = [v for v in raw if isinstance(v, float)]
    if len(set(numbers)) > MOST_GROUPS:
        low, high = (float(x) for x in np.quantile(numbers, [1 / 3, 2 / 3]))
        return [_third(v, low, high) if isinstance(v, float) else v or NONE for v in raw]
    return [NONE if v is None else f"{v:.12g}" if isinstance(v, float) else v for v in raw]


def _group_of(value: Any, column: str) -> str | float | None:
    """A value of the index as a group's name, as a number that may be cut with others, or None where there is none."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) else None
    if value is not None and not isinstance(value, str):
        kind = "a list" if isinstance(value, list | tuple) else "an object"
        raise ScoreError(f"--groups {column}: wanted a text, a number, true or false for each person, got {kind}")
    text = " ".join((value or "").split())
    if len(text) > LONGEST_NAME:
        raise ScoreError(
            f"--groups {column}: wanted names of groups, of up to {LONGEST_NAME} characters, got one of {len(text):,}"
        )
    return text or None


def _third(value: float, low: float, high: float) -> str:
    return f"at most {low:g}" if value <= low else f"{low:g} to {high:g}" if value <= high else f"above {high:g}"


def facts_of(evaluation: Evaluation, records: Sequence[PersonRecord], multi_label: bool) -> Facts:
    """The facts of an evaluation whose persons are `records`, in this order.

    Raises ScoreError where they are not, and as `metrics.checked` does.
    """
    if tuple(r.key for r in records) != evaluation.keys:
        raise ScoreError(
            f"groups: wanted the {len(evaluation)} evaluated persons in their order, got {len(records)} others"
        )
    scores, targets = m.checked(evaluation.probabilities["pred"], evaluation.targets, evaluation.keys)
    numbers: dict[str, int] = {}
    images = np.array([numbers.setdefault(r.image, len(numbers)) for r in records], dtype=np.int64)
    first = None if evaluation.exclusion is None else evaluation.exclusion[:, 0]
    sources = np.array([r.head_source for r in records])
    return Facts(scores, targets, first, sources, images, multi_label)


def image_draws(images: NDArray[np.int64], resamples: int, seed: int = 0) -> Array:
    """How often each person comes in each draw of images with replacement: [R, n]; persons of one image come together."""
    count = int(images.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1.0 / count), size=resamples)
    return np.asarray(drawn[:, images], dtype=np.float64)


def weighted_headline(facts: Facts, weights: Array) -> Array:
    """mAP (over classes with a positive of weight) or accuracy under each row of person weights [R, n]: [R]."""
    if not facts.multi_label:
        right = (facts.scores.argmax(1) == facts.targets.argmax(1)).astype(np.float64)
        return weighted_share(weights, right)
    per_class = [
        m.weighted_average_precision(facts.scores[:, j], facts.targets[:, j], weights)
        for j in range(facts.scores.shape[1])
    ]
    values = np.stack(per_class, axis=1)  # [R, k]
    there = ~np.isnan(values)
    total = np.where(there, values, 0.0).sum(1)
    return np.divide(total, there.sum(1), out=np.full(len(values), np.nan), where=there.any(1))


def weighted_calibration_error(facts: Facts, weights: Array) -> Array:
    """Expected calibration error (`metrics.expected_calibration_error`) under each row of person weights [R, n]: [R]."""
    confidence, correct = confidence_of(facts)
    place = m.bin_of(confidence)  # [n, pairs]
    gap = np.zeros((len(weights), m.BINS))
    for b in range(m.BINS):
        inside = place == b
        gap[:, b] = np.abs(weights @ ((confidence - correct) * inside).sum(1))
    return gap.sum(1) / (weights.sum(1) * confidence.shape[1]).clip(min=1e-12)


def confidence_of(facts: Facts) -> tuple[Array, Array]:
    """What is said and whether it is so, [n, pairs] each: of every class, or of the top class where there is one label."""
    if facts.multi_label:
        return facts.scores, facts.targets
    right = facts.scores.argmax(1) == facts.targets.argmax(1)
    return facts.scores.max(1, keepdims=True), right.astype(np.float64)[:, None]


def weighted_share(weights: Array, yes: Array) -> Array:
    """Weighted mean of a 0/1 value per person, [R]; NaN for a draw without persons."""
    total = weights.sum(1)
    return np.divide(weights @ yes, total, out=np.full(len(weights), np.nan), where=total > 0)


def measures(facts: Facts) -> dict[str, Callable[[Array], Array]]:
    """Name -> the number under person weights [R, n] -> [R]: headline, calibration error, shares of detected and estimated heads
    (numbers that depend on a detector; only where a head was) and of the level that leaves first.
    """
    out: dict[str, Callable[[Array], Array]] = {
        "mAP" if facts.multi_label else "accuracy": lambda w: weighted_headline(facts, w),
        "calibration_error": lambda w: weighted_calibration_error(facts, w),
    }
    for source in (source for source in HEAD_SOURCES[1:] if (facts.sources == source).any()):
        came = (facts.sources == source).astype(np.float64)
        out[f"head_{source}"] = lambda w, came=came: weighted_share(w, came)  # type: ignore[misc]
    if facts.first is not None:
        for i, level in enumerate(LEVELS):
            leaves = (facts.first == i).astype(np.float64)
            out[f"first_excluded_{level}"] = lambda w, leaves=leaves: weighted_share(w, leaves)  # type: ignore[misc]
    return out


def group_numbers(
    facts: Facts, groups: Sequence[str], resamples: int = m.RESAMPLES, seed: int = 0, least: int = LEAST_PERSONS
) -> dict[str, Any]:
    """One column: every group's numbers, and each group minus the largest one, with 95 % intervals over images.

    groups: each person's group, [n]. Draws are shared by all groups, so a difference is taken draw by draw; a difference of
    mAP is over the classes that have a positive person in both groups, for a mean over other classes is another number.
    Returns {"groups": name -> {persons, images, chance, classes, measure -> interval}, "reference": name, "differences": name ->
    {classes, measure -> interval}, "too_few": name -> persons, "least_persons": count,
    "least_images": count}. chance: mAP of the class frequencies, or
    the share of the largest class. classes: of mAP, those with a positive person in the group, or in both.
    """
    names = np.array(groups)
    sizes = {str(name): int(count) for name, count in zip(*np.unique(names, return_counts=True), strict=True)}
    images = {name: len(set(facts.images[names == name].tolist())) for name in sizes}
    large = [name for name, count in sizes.items() if count >= least and images[name] >= LEAST_IMAGES]
    told = sorted(large, key=lambda name: (-sizes[name], name))
    draws = image_draws(facts.images, resamples, seed)
    masks = {name: (names == name).astype(np.float64) for name in told}
    found = {name: _numbers(facts, masks[name], draws) for name in told}
    report: dict[str, Any] = {
        "groups": {
            name: {
                "persons": sizes[name],
                "images": images[name],
                "chance": chance(facts.targets[names == name], facts.multi_label),
            }
            | ({"classes": int((masks[name] @ facts.targets > 0).sum())} if facts.multi_label else {})
            | _intervals(found[name])
            for name in told
        },
        "too_few": {name: count for name, count in sizes.items() if name not in told},
        "least_persons": least,
        "least_images": LEAST_IMAGES,
    }
    if len(told) > 1:
        report["reference"] = told[0]
        report["differences"] = {name: _difference(facts, masks[name], masks[told[0]], draws) for name in told[1:]}
    return report


def chance(targets: Array, multi_label: bool) -> float:
    """The score of a constant prediction: mean share of positives, or the share of the largest class."""
    share = targets.mean(0)
    return m.mean_over_classes(np.where(share > 0, share, np.nan)) if multi_label else float(share.max())


def _numbers(facts: Facts, mask: Array, draws: Array) -> dict[str, tuple[float, Array]]:
    """Measure -> its value for the persons of a mask [n], and under every draw [R, n]."""
    return {what: (float(number(mask[None])[0]), number(draws * mask)) for what, number in measures(facts).items()}


def on_shared_classes(facts: Facts, mask: Array, reference: Array) -> tuple[Facts, int]:
    """What a difference of two sets of persons, [n] each, is taken on: the classes with a positive person in both; and how many.

    One label a person, or no such class: everything as it is.
    """
    both = (mask @ facts.targets > 0) & (reference @ facts.targets > 0)
    if facts.multi_label and both.any():
        facts = replace(facts, scores=facts.scores[:, both], targets=facts.targets[:, both])
    return facts, int(both.sum())


def _difference(facts: Facts, mask: Array, reference: Array, draws: Array) -> dict[str, Any]:
    """Numbers of a mask minus those of the reference, on the classes that both have."""
    facts, both = on_shared_classes(facts, mask, reference)
    mine, theirs = _numbers(facts, mask, draws), _numbers(facts, reference, draws)
    gaps = {what: (mine[what][0] - theirs[what][0], mine[what][1] - theirs[what][1]) for what in mine}
    return {"classes": both} | _intervals(gaps)


def _intervals(numbers: Mapping[str, tuple[float, Array]]) -> dict[str, dict[str, float]]:
    """Measure -> value with the ends of its interval."""
    return {what: m.interval_of(value, draws).to_dict() for what, (value, draws) in numbers.items()}


def by_groups(
    evaluation: Evaluation,
    records: Sequence[PersonRecord],
    columns: Sequence[str],
    multi_label: bool,
    resamples: int = m.RESAMPLES,
) -> dict[str, Any]:
    """Column -> `group_numbers`. Raises ScoreError for a column that no person has."""
    facts = facts_of(evaluation, records, multi_label)
    return {column: group_numbers(facts, column_values(records, column), resamples) for column in columns}
