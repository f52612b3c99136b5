"""Group near-duplicate images by perceptual hash, and split a dataset without separating a group."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cocoer.data.decode import decode_image, image_path
from cocoer.data.files import in_threads
from cocoer.errors import ImageError
from cocoer.names import SPLITS

BITS = 64
NEAR = 6
"""Two images whose hashes differ in at most this many of 64 bits count as nearly the same."""

COSINE = 0.99
"""Two images whose CLIP embeddings have at least this cosine count as nearly the same."""

SHARES: dict[str, float] = {"train": 0.7, "val": 0.1, "test": 0.2}
"""Of each class; what the papers on CAER-S state."""

_BLOCK = 512  # rows compared at once, so that a bucket of many equal-looking images stays small in memory


def perceptual_hash(image: Image.Image) -> int:
    """64 bits of the coarse look, ImageHash's `phash`: signs of the 8x8 lowest frequencies against their median.

    Resizing, recompression and small changes of light flip few bits. (The DCT hash of C. Zauner's thesis, 2010.)
    """
    return int(str(imagehash.phash(image)), 16)


def look_hashes(root: Path, paths: Sequence[str]) -> dict[str, int | str]:
    """`perceptual_hash` of each image by its path below `root`, or why it cannot be read; with a progress bar."""

    def of(path: str) -> int | str:
        try:
            return perceptual_hash(decode_image(image_path(root, path, follow_links=True)))
        except ImageError as err:
            return str(err)

    return dict(zip(paths, in_threads(of, paths, "comparing images"), strict=True))


def near_groups(hashes: Sequence[int], distance: int = NEAR) -> NDArray[np.int64]:
    """A group number [N] for each hash; a chain of pairs within `distance` bits is one group.

    Exact: hashes that differ in at most d bits agree in at least one of d + 1 bands of bits (pigeonhole), so only images
    that share a band are compared.
    """
    if not 0 <= distance < BITS:
        raise ValueError(f"wanted a distance of 0..{BITS - 1} bits, got {distance}")
    values, where = np.unique(np.array(hashes, dtype=np.uint64), return_inverse=True)
    group = np.arange(len(values))
    edges = np.linspace(0, BITS, distance + 2).astype(int)
    for low, high in pairwise(edges):
        band = (values >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.diff(band[order])) + 1
        pairs = [_near_pairs(values, bucket, distance, group) for bucket in np.split(order, starts) if len(bucket) > 1]
        group = _merged(group, np.concatenate(pairs, axis=1)) if pairs else group
    return np.unique(group, return_inverse=True)[1][where].astype(np.int64)


def similar_elsewhere(
    embeddings: NDArray[np.float32], splits: NDArray[np.bool_], cosine: float
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float32]]:
    """Which splits have an image like each one: bool [N, splits], its own included; and the nearest image of another split.

    embeddings: unit norm [N, e]. splits: which of them use each image, [N, splits]. Two images are alike from this cosine on;
    no chains. The nearest image that some split uses and this one's do not: its number [N] and its cosine [N], -inf for none.
    """
    reached, nearest, best = np.zeros_like(splits), np.zeros(len(splits), np.int64), np.zeros(len(splits), np.float32)
    for start in range(0, len(embeddings), _BLOCK):
        rows = slice(start, start + _BLOCK)
        similar = embeddings[rows] @ embeddings.T  # [block, N]
        reached[rows] = (similar >= cosine).astype(np.float32) @ splits.astype(np.float32) > 0
        elsewhere = (~splits[rows]).astype(np.float32) @ splits.T.astype(np.float32) > 0
        similar = np.where(elsewhere, similar, -np.inf)
        nearest[rows], best[rows] = similar.argmax(1), similar.max(1)
    return reached | splits, nearest, best


def _near_pairs(
    values: NDArray[np.uint64], bucket: NDArray[np.int64], distance: int, group: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Groups [2, P] that pairs of the bucket within `distance` bits connect."""
    found = []
    for start in range(0, len(bucket), _BLOCK):
        rows = bucket[start : start + _BLOCK]
        near = np.bitwise_count(values[rows][:, None] ^ values[bucket][None]) <= distance
        near &= group[rows][:, None] < group[bucket][None]  # each pair once, and none that is connected already
        i, j = np.nonzero(near)
        found.append(np.unique(np.stack([group[rows[i]], group[bucket[j]]]), axis=1))
    return np.concatenate(found, axis=1)


def _merged(group: NDArray[np.int64], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The groups [N] after the pairs [2, P] of groups have become one each."""
    count = len(group)
    graph = coo_array((np.ones(pairs.shape[1], dtype=bool), (pairs[0], pairs[1])), shape=(count, count))
    return connected_components(graph, directed=False)[1][group].astype(np.int64)


def stratified_split(
    labels: Sequence[Sequence[str]], groups: Sequence[int] | NDArray[np.int64], seed: int = 0
) -> list[str]:
    """A split for each of N items with one label or several: whole groups only, every class as near to `SHARES` as groups allow.

    Large groups are placed first; each goes where its classes lack most, in units of what they should have. Depends on the
    order of items and the seed alone.
    """
    members: dict[int, list[int]] = {}
    for i, group in enumerate(np.asarray(groups).tolist()):
        members.setdefault(group, []).append(i)
    classes = {c: i for i, c in enumerate(sorted({label for found in labels for label in found}))}

    def count(items: Sequence[int]) -> NDArray[np.int64]:
        return np.bincount([classes[c] for i in items for c in labels[i]], minlength=len(classes))

    totals = count(range(len(labels))).astype(float)
    wanted = np.array([SHARES[s] for s in SPLITS])[:, None] * totals[None]  # [splits, classes]
    lacking = wanted.copy()
    order = np.random.default_rng(seed).permutation(len(members))
    keys = sorted(members)
    out = [""] * len(labels)
    for place in sorted(order.tolist(), key=lambda p: -len(members[keys[p]])):
        group = members[keys[place]]
        counts = count(group)
        gain = (lacking / wanted * counts[None]).sum(1)
        best = int(gain.argmax())
        lacking[best] -= counts
        for i in group:
            out[i] = SPLITS[best]
    return out
