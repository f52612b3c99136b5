"""Published counts of EMOTIC and CAER-S, and their comparison with a prepared index.

The numbers stand in configs/datasets, their sources in docs/data.md. A difference is reported, never an error: copies differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cocoer.data.batch import PersonRecord
from cocoer.datasets import EMOTIC_CLASSES, find_dataset
from cocoer.names import SPLITS

EMOTIC_COUNTS: dict[str, dict[str, dict[str, int]]] = {
    release: found.counts for release, found in find_dataset("emotic").published.items()
}

EMOTIC_LABELS: dict[str, dict[str, dict[str, int]]] = {
    release: {split: dict(zip(EMOTIC_CLASSES, counts, strict=True)) for split, counts in found.labels.items()}
    for release, found in find_dataset("emotic").published.items()
}
"""Persons per category. PAMI: among those with valid VAD and box, which is why this index has a few more in train."""

CAERS_COUNTS: dict[str, dict[str, int]] = {
    rule: found.counts["persons"] for rule, found in find_dataset("caers").published.items()
}


def compare_counts(
    published: Mapping[str, Mapping[str, int]], here: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, Any]]:
    """Outer key -> inner key -> {published, here, difference}, for the outer keys that both sides have.

    Both are counts by name and split, or by split and class.
    """
    found: dict[str, dict[str, Any]] = {}
    for outer in (key for key in published if key in here):
        mine = here[outer]
        found[outer] = {
            inner: {"published": number, "here": mine.get(inner, 0), "difference": mine.get(inner, 0) - number}
            for inner, number in published[outer].items()
        }
    return found


def label_counts(records: Iterable[PersonRecord], classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """Split -> class -> persons with that label."""
    labels = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for record in records:
        for label in record.labels:
            labels[record.split][label] += 1
    return labels
