"""Fitting a `calibration.Calibration` on the validation split, and measuring it before and after.

For each class, nothing, Platt's line (scikit-learn's logistic regression on the logit) and isotonic regression (given
`LEAST_ISOTONIC` persons) compete by
log-loss in five folds over images; the one with the smallest loss is fitted on the whole split. So a form that only fits the
split better does not win. For one label a person a temperature competes with nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from cocoer.calibration import Calibration, ClassMap, logit
from cocoer.data.batch import PersonRecord
from cocoer.data.decode import image_path
from cocoer.data.index import read_records, split_path
from cocoer.errors import ScoreError
from cocoer.evaluation import metrics as m
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.groups import (
    LEAST_PERSONS,
    Facts,
    confidence_of,
    facts_of,
    image_draws,
    weighted_calibration_error,
)
from cocoer.files import file_sha256

Array = NDArray[np.float64]
FOLDS = 5
LEAST_POSITIVES = 10
"""Classes with fewer positive (or negative) persons keep their probabilities: two numbers cannot be fitted to so few."""

LEAST_ISOTONIC = 1000
"""Persons that isotonic regression needs: it has as many numbers as steps, and scikit-learn advises against it below this."""

_EDGE = 1e-6
Fit = Callable[[Array, Array], ClassMap]


def platt(probabilities: Array, targets: Array) -> ClassMap:
    """Platt's line for one class, [n] each; the slope is kept at 0 or above.

    Fitted to Platt's smoothed targets, (positives + 1) / (positives + 2) and 1 / (negatives + 2), as scikit-learn's own: with 0
    and 1 the line of a class whose persons can be separated has no end, and its mistakes on other persons cost without bound.
    """
    positives, count = targets.sum(), len(targets)
    aim = np.where(targets > 0, (positives + 1) / (positives + 2), 1 / (count - positives + 2))
    twice, both = np.tile(logit(probabilities), 2)[:, None], np.repeat([1.0, 0.0], count)
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(twice, both, sample_weight=np.r_[aim, 1 - aim])
    slope, shift = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope < 0:  # an answer worse than chance: only its share of positives can be told
        slope, shift = 0.0, float(logit(np.array([targets.mean()]))[0])
    return ClassMap("platt", slope=slope, shift=shift)


def isotonic(probabilities: Array, targets: Array) -> ClassMap:
    """Isotonic regression for one class, [n] each, kept away from 0 and 1."""
    share = 1.0 / (len(targets) + 2)
    model = IsotonicRegression(y_min=share, y_max=1.0 - share, out_of_bounds="clip").fit(probabilities, targets)
    at, value = np.asarray(model.X_thresholds_, np.float64), np.asarray(model.y_thresholds_, np.float64)
    if len(at) < 2:  # equal probabilities throughout
        at, value = np.array([0.0, 1.0]), np.repeat(value, 2)
    return ClassMap("isotonic", at=tuple(map(float, at)), value=tuple(map(float, value)))


FITS: dict[str, Fit] = {"none": lambda p, y: ClassMap(), "platt": platt, "isotonic": isotonic}


def log_loss(probabilities: NDArray[Any], targets: NDArray[Any]) -> float:
    """Mean of -log(probability of what is true), over persons (and classes)."""
    p = np.clip(np.asarray(probabilities, np.float64), _EDGE, 1.0 - _EDGE)
    return float(-np.where(np.asarray(targets).astype(bool), np.log(p), np.log1p(-p)).mean())


def fit_class(probabilities: Array, targets: Array, images: Sequence[str]) -> tuple[ClassMap, dict[str, float]]:
    """The best form for one class and each form's log-loss in folds over images; no losses where positives are too few."""
    positives = int(targets.sum())
    if min(positives, len(targets) - positives) < LEAST_POSITIVES or len(set(images)) < FOLDS:
        return ClassMap(), {}
    fits = {name: fit for name, fit in FITS.items() if name != "isotonic" or len(targets) >= LEAST_ISOTONIC}
    held: dict[str, list[Array]] = {name: [] for name in fits}
    truth: list[Array] = []
    for rest, fold in GroupKFold(FOLDS).split(probabilities, targets, images):
        truth.append(targets[fold])
        one_sided = targets[rest].min() == targets[rest].max()
        for name, fit in fits.items():
            found = ClassMap() if one_sided else fit(probabilities[rest], targets[rest])
            held[name].append(found(probabilities[fold]))
    losses = {name: log_loss(np.concatenate(parts), np.concatenate(truth)) for name, parts in held.items()}
    best = min(fits, key=lambda name: losses[name])
    return FITS[best](probabilities, targets), losses


def fit_temperature(probabilities: Array, targets: Array) -> float:
    """The softmax temperature with the smallest log-loss of the true class; probabilities, targets: [n, k]."""
    scores = np.log(np.clip(probabilities, _EDGE, None))
    true = targets.argmax(1)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        return float(np.mean(np.log(np.exp(scaled - top).sum(1)) + top[:, 0] - scaled[np.arange(len(true)), true]))

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def fit_calibration(
    scores: NDArray[Any],
    targets: NDArray[Any],
    images: Sequence[str],
    classes: Sequence[str],
    *,
    multi_label: bool,
    split: str,
) -> Calibration:
    """The calibration of a split's fused answer. scores, targets: [n, k]. images: each person's image, [n].

    Raises ScoreError for the test split (figures on it would be fitted to it), for an empty split, and where the persons are too
    few for any number to be fitted.
    """
    if split == "test":
        raise ScoreError(
            "calibration: wanted the val (or train) split, got test; what is fitted on test cannot be tested"
        )
    probabilities, truth = m.checked(scores, targets, classes=classes)
    fewest = np.minimum(truth.sum(0), len(truth) - truth.sum(0)).max() if multi_label else len(truth)
    least = LEAST_POSITIVES if multi_label else LEAST_PERSONS
    if fewest < least or len(set(images)) < FOLDS:
        of = "with and without one class at least" if multi_label else "at least"
        raise ScoreError(
            f"calibration: wanted {least} persons {of}, in {FOLDS} images, got {len(truth)} persons of {split} in"
            f" {len(set(images))} images; too few to fit a number to, so nothing is written"
        )
    if not multi_label:
        return Calibration(split, len(truth), {}, fit_temperature(probabilities, truth))
    maps = {name: fit_class(probabilities[:, j], truth[:, j], images)[0] for j, name in enumerate(classes)}
    return Calibration(split, len(truth), maps)


def images_of_test(images: Sequence[str], root: str | Path, index: str | Path, allow_outside: bool = False) -> set[str]:
    """Those images that the index's test split has as well, by path or with the same bytes; none where it has no such split.

    Files that are not there (a crop cache takes their place) are compared by path alone. Raises IndexFileError for a broken
    test split.
    """
    path = split_path(index, "test")
    test = {record.image for record in read_records(path) if record.split == "test"} if path.is_file() else set()
    found = set(images) & test
    lengths: dict[str, int] = {}
    for image in {*images, *test}:
        with suppress(OSError):
            lengths[image] = image_path(root, image, allow_outside).stat().st_size

    def look(image: str) -> tuple[int, str]:
        return lengths[image], file_sha256(image_path(root, image, allow_outside))

    of_test = {lengths[image] for image in test & lengths.keys()}
    alike = [image for image in {*images} - found if lengths.get(image) in of_test]
    of_alike = {lengths[image] for image in alike}
    looks = {look(image) for image in test & lengths.keys() if lengths[image] in of_alike}
    return found | {image for image in alike if look(image) in looks}


def before_and_after(
    evaluation: Evaluation,
    records: Sequence[PersonRecord],
    calibration: Calibration | None,
    classes: Sequence[str],
    *,
    multi_label: bool,
    resamples: int = m.RESAMPLES,
) -> dict[str, Any]:
    """Calibration error and log-loss of the fused answer, raw and calibrated, and their difference, with intervals over images.

    Draws are shared, so the difference is taken draw by draw. Also the points of both reliability diagrams (`reliability`).
    Without a calibration there is only `before`. Raises ScoreError as `groups.facts_of` does.
    """
    facts = facts_of(evaluation, records, multi_label)
    draws = image_draws(facts.images, resamples)
    everybody = np.ones(len(facts.scores))[None]
    both, out = {"before": facts}, dict[str, Any]()
    if calibration is not None:
        both["after"] = replace(facts, scores=calibration(facts.scores, classes))
        out = {"fitted_on": calibration.split, "fitted_persons": calibration.persons}
    measures = {"calibration_error": weighted_calibration_error, "log_loss": weighted_log_loss}
    numbers = {
        when: {what: (float(measure(of, everybody)[0]), measure(of, draws)) for what, measure in measures.items()}
        for when, of in both.items()
    }
    for when, of in both.items():
        out[when] = {what: m.interval_of(*pair, 0.0).to_dict() for what, pair in numbers[when].items()}
        out[when]["reliability"] = reliability(of, draws)
    if calibration is not None:
        pairs = {what: (numbers["before"][what], numbers["after"][what]) for what in measures}
        out["difference"] = {
            what: m.interval_of(after[0] - before[0], after[1] - before[1]).to_dict()
            for what, (before, after) in pairs.items()
        }
    return out


def weighted_log_loss(facts: Facts, weights: Array) -> Array:
    """Log-loss under each row of person weights [R, n]: [R]; over all classes, or of the true one where there is one label."""
    p = np.clip(facts.scores, _EDGE, 1.0 - _EDGE)
    if facts.multi_label:
        loss = -np.where(facts.targets.astype(bool), np.log(p), np.log1p(-p)).mean(1)
    else:
        loss = -np.log((p * facts.targets).sum(1))
    return np.asarray(weights @ loss / weights.sum(1), dtype=np.float64)


def reliability(facts: Facts, draws: Array) -> list[dict[str, float]]:
    """The points of a reliability diagram: per bin that holds any, mean confidence, share correct with its interval, and count.

    Several labels a person: every (person, class) pair with its target; one label: the top class with whether it is right.
    draws: person weights [R, n] over images; an interval is the percentiles of the drawn shares, so it stays in 0..1.
    """
    confidence, correct = confidence_of(facts)  # [n, pairs] each
    place = m.bin_of(confidence)
    out = []
    for b in np.unique(place):
        inside = place == b
        right, count = (correct * inside).sum(1), inside.sum(1).astype(np.float64)
        total = draws @ count
        shares = np.divide(draws @ right, total, out=np.full(len(draws), np.nan), where=total > 0)
        low, high = np.nanpercentile(shares, [2.5, 97.5])
        out.append(
            {
                "confidence": float(confidence[inside].mean()),
                "correct": float(correct[inside].mean()),
                "low": float(low),
                "high": float(high),
                "count": int(inside.sum()),
            }
        )
    return out
