"""Images of one split that look like images of another, by perceptual hash and CLIP embedding: what equal bytes do not show."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cocoer.data.decode import decode_image, image_path
from cocoer.data.files import in_threads
from cocoer.data.prepare.near_duplicates import NEAR, joined_groups, near_groups, perceptual_hash, similar_groups
from cocoer.errors import ImageError
from cocoer.names import SPLITS

NEAR_TRAIN = "near_train"
"""Key of an index line: whether the person's image, of val or test, looks like one of train."""

NEAR_TRAIN_BY = "near_train_by"
"""Key of an index line: what found that, `hash`, `clip`, `both`, or `chain` where it takes both together; "" for nothing."""

_SHOWN = 20

Splits = dict[str, set[str]]


@dataclass(frozen=True)
class ClipLook:
    """CLIP's view of whole images. embed: RGB image -> unit-norm embedding [e]. cosine: two images are near from here on."""

    name: str
    embed: Callable[[Image.Image], NDArray[np.float32]]
    cosine: float


@dataclass(frozen=True)
class NearSearch:
    """How near-duplicates are looked for (`find_leaks`). drop: leave out of train what looks like an image of val or test."""

    bits: int = NEAR
    clip: ClipLook | None = None
    drop: bool = False


@dataclass
class Leaks:
    """Image path -> the splits of its near-duplicates, its own among them, for images with one in another split.

    of: by everything; by: `hash` and `clip`, each by itself. report: counts by pair of splits, for the sidecar.
    """

    of: Splits = field(default_factory=dict)
    by: dict[str, Splits] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)

    def elsewhere(self, path: str, split: str) -> str:
        """The other splits that have an image like this one, as words; "" for none."""
        return " and ".join(sorted(self.of.get(path, set()) - {split}))

    def found_by(self, path: str, split: str) -> str:
        """What found that `split` has an image like this one; see `NEAR_TRAIN_BY`."""
        if split not in self.of.get(path, ()):
            return ""
        found = [name for name, splits in self.by.items() if split in splits.get(path, ())]
        return "both" if len(found) > 1 else found[0] if found else "chain"


def find_leaks(persons: Mapping[str, Mapping[str, int]], root: Path, bits: int, clip: ClipLook | None = None) -> Leaks:
    """Which images are near-duplicates of another split's.

    persons: image path -> split that uses it -> how many persons it has there. root: folder of the paths.
    bits: two images are near where their hashes differ in at most so many of 64; clip: or where their embeddings are similar.
    A chain of pairs is one group, and an image that several splits use is a leak of its own. Images that cannot be read are
    left out.
    """
    paths = sorted(persons)
    looks = list(in_threads(lambda path: _look(root, path, clip), paths, "comparing images"))
    read = [path for path, look in zip(paths, looks, strict=True) if look is not None]
    seen = [look for look in looks if look is not None]
    by = {"hash": near_groups([value for value, _ in seen], bits) if seen else np.empty(0, dtype=np.int64)}
    groups = by["hash"]
    if clip is not None and seen:
        by["clip"] = similar_groups(
            np.stack([embedding for _, embedding in seen if embedding is not None]), clip.cosine
        )
        groups = joined_groups(by["hash"], by["clip"])
    across = _across(groups, read, persons)
    out = Leaks(_splits(across, persons), {name: _splits(_across(g, read, persons), persons) for name, g in by.items()})
    counts: dict[str, Counter[str]] = {f"{a}/{b}": Counter() for a, b in combinations(SPLITS, 2)}
    for group in across:
        there = out.of[group[0]]
        for pair, found in counts.items():
            if set(pair.split("/")) <= there:
                found["groups"] += 1
                for path in group:
                    for split in set(pair.split("/")) & set(persons[path]):
                        found[f"{split}_images"] += 1
                        found[f"{split}_persons"] += persons[path][split]
    found_by = {path: out.found_by(path, _other(out.of[path], persons[path])) for path in out.of}
    out.report = {
        "bits": bits,
        "clip": None if clip is None else {"tower": clip.name, "cosine": clip.cosine},
        "images": len(read),
        "largest_group": int(np.bincount(groups).max(initial=0)),
        "pairs": {pair: dict(found) for pair, found in counts.items() if found},
        "images_found_by": dict(Counter(found_by.values())),
        "groups": [
            {path: {"splits": sorted(persons[path]), "found_by": found_by[path]} for path in group}
            for group in across[:_SHOWN]
        ],
    }
    return out


def _across(
    groups: NDArray[np.int64], paths: Sequence[str], persons: Mapping[str, Mapping[str, int]]
) -> list[list[str]]:
    """The groups with images of more than one split, as lists of paths."""
    members: dict[int, list[str]] = defaultdict(list)
    for group, path in zip(groups.tolist(), paths, strict=True):
        members[group].append(path)
    return [group for group in members.values() if len({s for path in group for s in persons[path]}) > 1]


def _splits(groups: Sequence[Sequence[str]], persons: Mapping[str, Mapping[str, int]]) -> Splits:
    """Path -> the splits of its group."""
    return {path: {s for other in group for s in persons[other]} for group in groups for path in group}


def _other(there: set[str], own: Mapping[str, int]) -> str:
    """A split of a group that is not the image's only one; train where there is a choice."""
    others = there - set(own) or there
    return min(others, key=SPLITS.index)


def _look(root: Path, path: str, clip: ClipLook | None) -> tuple[int, NDArray[np.float32] | None] | None:
    """Hash and embedding, or None for an image that cannot be read."""
    try:
        image = decode_image(image_path(root, path, follow_links=True))
    except ImageError:
        return None
    return perceptual_hash(image), None if clip is None else clip.embed(image)
