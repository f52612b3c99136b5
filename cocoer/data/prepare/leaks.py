"""Find near-duplicates across splits by perceptual hash and CLIP embedding; comparing bytes misses them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cocoer.data.batch import PersonRecord
from cocoer.data.decode import decode_image, image_path
from cocoer.data.files import in_threads
from cocoer.data.prepare.near_duplicates import NEAR, near_groups, perceptual_hash, similar_elsewhere
from cocoer.errors import ImageError
from cocoer.names import SPLITS

NEAR_TRAIN = "near_train"
"""Key of an index line: whether the person's image, of val or test, looks like one of train."""

NEAR_TRAIN_BY = "near_train_by"
"""Key of an index line: what found that, of `WAYS`."""

WAYS = ("nothing", "hash", "clip", "both")
"""What `NEAR_TRAIN_BY` can be."""

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
        """What found that `split` has an image like this one: `hash`, `clip`, `both`, or "" for nothing."""
        found = [name for name, splits in self.by.items() if split in splits.get(path, ())]
        return "both" if len(found) > 1 else "".join(found)

    def marks(self, path: str, split: str) -> dict[str, Any]:
        """What a line of the index says of it: `near_train` and `near_train_by` for val and test, nothing for train."""
        by = self.found_by(path, "train")
        return {} if split == "train" else {NEAR_TRAIN: bool(by), NEAR_TRAIN_BY: by or "nothing"}


def mark_near(records: Sequence[PersonRecord], root: Path, search: NearSearch) -> tuple[list[PersonRecord], Leaks]:
    """The persons of all splits of an index, those of val and test with `near_train` and `near_train_by`; and what was found.

    root: folder of the images. Where `search.drop`, the persons of train whose image looks like one of val or test are left out.
    Raises ImageError where no image at all can be read.
    """
    persons: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        persons[record.image][record.split] += 1
    leaks = find_leaks(persons, root, search.bits, search.clip)
    if persons and not leaks.report["images"]:
        raise ImageError(
            f"wanted the images of the index below {root}, found none of {len(persons)}, as {min(persons)}; give their folder"
        )
    kept = [r for r in records if not (search.drop and r.split == "train" and leaks.elsewhere(r.image, "train"))]
    return [replace(r, extra={**r.extra, **leaks.marks(r.image, r.split)}) for r in kept], leaks


def find_leaks(persons: Mapping[str, Mapping[str, int]], root: Path, bits: int, clip: ClipLook | None = None) -> Leaks:
    """Which images are near-duplicates of another split's.

    persons: image path -> split that uses it -> how many persons it has there. root: folder of the paths.
    bits: two images are near where their hashes differ in at most so many of 64, and a chain of pairs is one group.
    clip: or where their embeddings are similar; no chains, because alike in what they show is no chain of copies.
    An image that several splits use is a leak of its own. Images that cannot be read are left out.
    """
    paths = sorted(persons)
    looks = list(in_threads(lambda path: _look(root, path, clip), paths, "comparing images"))
    seen = {path: look for path, look in zip(paths, looks, strict=True) if look is not None}
    by_hash, largest = _by_hash({path: look[0] for path, look in seen.items()}, persons, bits)
    out = Leaks(by={"hash": by_hash})
    nearest: list[dict[str, Any]] = []
    if clip is not None and seen:
        embeddings = {path: look[1] for path, look in seen.items() if look[1] is not None}
        out.by["clip"], nearest = _by_clip(embeddings, persons, clip.cosine)
    for splits in out.by.values():
        for path, there in splits.items():
            out.of[path] = out.of.get(path, set()) | there
    counts = {f"{a}/{b}": _counts(out, persons, a, b) for a, b in combinations(SPLITS, 2)}
    out.report = {
        "bits": bits,
        "clip": None if clip is None else {"tower": clip.name, "cosine": clip.cosine},
        "images": len(seen),
        "unreadable": len(paths) - len(seen),
        "largest_group": largest,
        "pairs": {pair: found for pair, found in counts.items() if any(found.values())},
        "nearest_by_clip": nearest[:_SHOWN],
    }
    return out


def _by_hash(hashes: Mapping[str, int], persons: Mapping[str, Mapping[str, int]], bits: int) -> tuple[Splits, int]:
    """Path -> the splits of its group, for groups across splits; and the size of the largest group."""
    members: dict[int, list[str]] = defaultdict(list)
    groups = near_groups(list(hashes.values()), bits).tolist() if hashes else []
    for group, path in zip(groups, hashes, strict=True):
        members[group].append(path)
    found: Splits = {}
    for group in members.values():
        there = {split for path in group for split in persons[path]}
        found |= dict.fromkeys(group, there) if len(there) > 1 else {}
    return found, max(map(len, members.values()), default=0)


def _by_clip(
    embeddings: Mapping[str, NDArray[np.float32]], persons: Mapping[str, Mapping[str, int]], cosine: float
) -> tuple[Splits, list[dict[str, Any]]]:
    """Path -> the splits of the images like it, where another one is among them; and the pairs, most similar first."""
    paths = list(embeddings)
    splits = np.array([[split in persons[path] for split in SPLITS] for path in paths])
    reached, nearest, best = similar_elsewhere(np.stack(list(embeddings.values())), splits, cosine)
    leaked = [i for i in np.argsort(-best, kind="stable").tolist() if reached[i].sum() > 1]
    found = {paths[i]: {split for split, there in zip(SPLITS, reached[i], strict=True) if there} for i in leaked}
    pairs = [
        {"images": [paths[i], paths[nearest[i]]], "cosine": round(float(best[i]), 4)}
        for i in leaked
        if best[i] >= cosine
    ]
    return found, pairs


def _counts(leaks: Leaks, persons: Mapping[str, Mapping[str, int]], first: str, second: str) -> dict[str, int]:
    """Images and persons of either split with a near-duplicate in the other, and how many of these images each way found."""
    counts = Counter({f"{split}_{what}": 0 for split in (first, second) for what in ("images", "persons")})
    for path in leaks.of:
        for split, other in ((first, second), (second, first)):
            if split in persons[path] and (by := leaks.found_by(path, other)):
                counts[f"{split}_images"] += 1
                counts[f"{split}_persons"] += persons[path][split]
                counts[f"{split}_images_by_{by}"] += 1
    return dict(counts)


def _look(root: Path, path: str, clip: ClipLook | None) -> tuple[int, NDArray[np.float32] | None] | None:
    """Hash and embedding, or None for an image that cannot be read."""
    try:
        image = decode_image(image_path(root, path, follow_links=True))
    except ImageError:
        return None
    return perceptual_hash(image), None if clip is None else clip.embed(image)
