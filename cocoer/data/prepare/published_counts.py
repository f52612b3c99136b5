"""Counts that others published for EMOTIC and CAER-S, and how a prepared index compares with them.

The numbers are those of docs/data.md, where their sources are. A difference is reported, never an error: copies differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cocoer.names import EMOTIC_CLASSES, SPLITS

EMOTIC_COUNTS: dict[str, dict[str, dict[str, int]]] = {
    "pami": {
        "images in the annotations": {"train": 17077, "val": 2088, "test": 4389},
        "persons in the annotations": {"train": 23706, "val": 3334, "test": 7280},
        "persons with valid VAD and box": {"train": 23266, "val": 3315, "test": 7203},
    },
    "cvpr17": {
        "images in the annotations": {"train": 12915, "val": 1705, "test": 3682},
        "persons with a category": {"train": 16001, "val": 2397, "test": 5368},
    },
}

_LABELS_TRAIN = (
    1063, 209, 368, 5335, 168, 4059, 325, 1462, 479, 659, 152, 12814, 851, 4394, 538, 177, 5630, 188, 1691, 2103, 404, 360,
    260, 417, 718, 668,
)  # fmt: skip
_LABELS_VAL = (
    661, 110, 278, 2958, 196, 1892, 229, 842, 419, 390, 160, 3133, 708, 1964, 235, 169, 2276, 162, 627, 1119, 175, 144,
    152, 300, 695, 403,
)  # fmt: skip
_LABELS_TEST = (
    961, 172, 337, 3408, 209, 3446, 308, 1109, 893, 1041, 133, 5592, 988, 3469, 425, 230, 3466, 140, 1062, 2090, 369, 205,
    240, 436, 605, 467,
)  # fmt: skip
_LABELS_VAL17 = (
    526, 76, 224, 2124, 147, 1561, 188, 643, 340, 443, 108, 2263, 560, 1658, 173, 166, 1724, 118, 511, 1093, 125, 122, 118,
    427, 626, 351,
)  # fmt: skip
_LABELS_TEST17 = (
    921, 268, 300, 2614, 187, 3503, 326, 849, 870, 1721, 93, 4177, 994, 3681, 359, 751, 2616, 133, 996, 2411, 294, 216, 248,
    1043, 530, 417,
)  # fmt: skip

EMOTIC_LABELS: dict[str, dict[str, dict[str, int]]] = {
    release: {split: dict(zip(EMOTIC_CLASSES, counts, strict=True)) for split, counts in by_split.items()}
    for release, by_split in {
        "pami": {"train": _LABELS_TRAIN, "val": _LABELS_VAL, "test": _LABELS_TEST},
        "cvpr17": {"val": _LABELS_VAL17, "test": _LABELS_TEST17},
    }.items()
}
"""Persons per category. PAMI: among those with valid VAD and box, which is why this index has a few more in train."""

CAERS_COUNTS: dict[str, dict[str, int]] = {
    "original": {"train": 49007, "test": 20992},
    "community": {"train": 48850, "val": 6971, "test": 13942},
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
