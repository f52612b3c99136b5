"""Case studies: persons of a split with ground truth, prediction and the measures used to find interesting cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from cocoer.data.batch import PersonRecord
from cocoer.data.decode import decode_record
from cocoer.inference.recognizer import Recognizer
from cocoer.outputs import LEVEL_SOURCES, CaseStudy, ImageResult, PersonBoxes, PersonPrediction

_LEAST = 1e-7  # probability below which a logarithm is cut, as float32 sigmoids reach 0 and 1


def choose_persons(total: int, num: int, seed: int) -> list[int]:
    """`num` different numbers below `total`, in order, drawn from the seed; all of them where there are no more.

    Raises ValueError for `num` below 1.
    """
    if num < 1:
        raise ValueError(f"--persons wants a whole number of at least 1, got {num}")
    return sorted(int(i) for i in np.random.default_rng(seed).permutation(total)[:num])


def truth_loss(probabilities: Mapping[str, float], truth: Sequence[str], multi_label: bool) -> float:
    """Loss of one person's fused probabilities against its labels: mean binary cross-entropy, or -log p of the label."""
    if not multi_label:
        return -math.log(max(probabilities[truth[0]], _LEAST))
    right = [p if name in truth else 1.0 - p for name, p in probabilities.items()]
    return -sum(math.log(max(p, _LEAST)) for p in right) / len(right)


def level_conflict(person: PersonPrediction) -> float:
    """Mean |p - p'| over the pairs of levels and the classes, in 0..1: 0 where all levels say the same."""
    levels = [np.array(list(person.probabilities[source].values())) for source in LEVEL_SOURCES.values()]
    return float(np.mean([np.abs(a - b).mean() for a, b in combinations(levels, 2)]))


def case_of(
    record: PersonRecord, prediction: PersonPrediction, multi_label: bool, about: Mapping[str, object]
) -> CaseStudy:
    """The case study of one person. A person that could not be scored has loss, conflict and error 0 and says why."""
    person = replace(prediction, person=record.person)
    result = ImageResult(record.image, record.width, record.height, (person,), model=about)
    level = record.contradicted_level
    remark = f"synthetic scene: the {level} contradicts the label" if level else ""
    if person.status == "error":
        return CaseStudy(record.key, result, record.labels, 0.0, 0.0, 0, person.message)
    loss = truth_loss(person.probabilities["pred"], record.labels, multi_label)
    error = len(set(person.labels["pred"]) ^ set(record.labels))
    error = error if multi_label else int(error > 0)
    return CaseStudy(record.key, result, record.labels, loss, level_conflict(person), error, remark)


def case_studies(
    recognizer: Recognizer, records: Sequence[PersonRecord], root: str | Path, allow_outside: bool = False
) -> Iterator[tuple[CaseStudy, Image.Image]]:
    """Every record's case study and its image, in order; images are read as they are needed.

    root: the folder to which the records' images are relative. allow_outside: read those that lie elsewhere.
    Raises ImageError for an image that cannot be used.
    """
    multi_label, step = recognizer.config.multi_label, recognizer.config.inference.batch_size
    for start in range(0, len(records), step):
        part = records[start : start + step]
        images = tuple(decode_record(record, Path(root), allow_outside) for record in part)
        boxes = [[PersonBoxes(r.body, r.head, head_source=r.head_source)] for r in part]
        answers = recognizer(images, boxes)
        for record, image, (prediction,) in zip(part, images, answers, strict=True):
            yield case_of(record, prediction, multi_label, recognizer.about), image
