"""Images of one split that look like images of another, found by a perceptual hash: what equal bytes do not show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cocoer.data.decode import decode_image, image_path
from cocoer.data.files import in_threads
from cocoer.data.prepare.near_duplicates import near_groups, perceptual_hash
from cocoer.errors import ImageError
from cocoer.names import SPLITS

NEAR_TRAIN = "near_train"
"""Key of an index line: whether the person's image, of val or test, looks like one of train."""

_SHOWN = 20


@dataclass
class Leaks:
    """of: image path -> the other splits with an image that looks like it. report: counts by pair of splits, for the sidecar."""

    of: dict[str, set[str]] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def elsewhere(self, path: str, split: str) -> str:
        """The other splits that have an image like this one, as words; "" for none."""
        return " and ".join(sorted(self.of.get(path, set()) - {split}))


def find_leaks(persons: Mapping[str, Mapping[str, int]], root: Path, bits: int) -> Leaks:
    """Which images are near-duplicates of another split's.

    persons: image path -> split that uses it -> how many persons it has there. root: folder of the paths.
    bits: two images are near where their hashes differ in at most so many of 64; a chain of pairs is one group, and an image
    that several splits use is a leak of its own. Images that cannot be read are left out.
    """
    paths = sorted(persons)
    hashes = list(in_threads(lambda path: _hash(root, path), paths, "comparing images"))
    read = [i for i, value in enumerate(hashes) if value is not None]
    groups = near_groups([h for h in hashes if h is not None], bits) if read else np.empty(0, dtype=np.int64)
    members: dict[int, list[str]] = defaultdict(list)
    for group, i in zip(groups.tolist(), read, strict=True):
        members[group].append(paths[i])
    across = [group for group in members.values() if len({s for path in group for s in persons[path]}) > 1]
    out = Leaks()
    counts: dict[str, Counter[str]] = {f"{a}/{b}": Counter() for a, b in combinations(SPLITS, 2)}
    for group in across:
        there = {s for path in group for s in persons[path]}
        for path in group:
            out.of[path] = there
        for pair, found in counts.items():
            if set(pair.split("/")) <= there:
                found["groups"] += 1
                for path in group:
                    for split in set(pair.split("/")) & set(persons[path]):
                        found[f"{split}_images"] += 1
                        found[f"{split}_persons"] += persons[path][split]
    out.report = {
        "bits": bits,
        "images": len(read),
        "largest_group": max(map(len, members.values()), default=0),
        "pairs": {pair: dict(found) for pair, found in counts.items() if found},
        "groups": [{path: sorted(persons[path]) for path in group} for group in across[:_SHOWN]],
    }
    return out


def _hash(root: Path, path: str) -> int | None:
    try:
        return perceptual_hash(decode_image(image_path(root, path, follow_links=True)))
    except ImageError:
        return None
