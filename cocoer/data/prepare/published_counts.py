"""Counts that others published for EMOTIC and CAER-S, and how a prepared index compares with them.

The numbers stand in configs/datasets, their sources in docs/data.md. A difference is reported, never an error: copies differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    """Name -> split -> {published, here, difference}, for what both sides have."""
    return {
        name: {
            split: {
                "published": number,
                "here": here[name].get(split, 0),
                "difference": here[name].get(split, 0) - number,
            }
            for split, number in by_split.items()
        }
        for name, by_split in published.items()
        if name in here
    }


def compare_labels(
    published: Mapping[str, Mapping[str, int]], here: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, dict[str, int]]]:
    """Split -> class -> {published, here, difference}."""
    return {
        split: {
            name: {
                "published": number,
                "here": here.get(split, {}).get(name, 0),
                "difference": here.get(split, {}).get(name, 0) - number,
            }
            for name, number in published[split].items()
        }
        for split in SPLITS
        if split in published
    }
