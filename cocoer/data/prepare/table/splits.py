"""Splits of a table: taken from its rows, or made so that no group is divided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cocoer.names import SPLITS

_WORDS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val", "test": "test",
    "testing": "test",
}  # fmt: skip


def split_named(text: str) -> str | None:
    """The split that a word means (`Training`, `valid`, `dev` ...), or None."""
    return _WORDS.get(text.strip().casefold())


def joined_groups(keys: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """A group number [N] for each of N persons: two that share a key are one group, and chains of them too.

    keys: for each person what ties it to others (its image, its content, its video); empty texts tie nothing.
    """
    places: dict[str, int] = {}
    pairs = [(person, places.setdefault(key, len(places))) for person, found in enumerate(keys) for key in found if key]
    size = len(keys) + len(places)
    rows, columns = ([p for p, _ in pairs], [len(keys) + k for _, k in pairs])
    graph = coo_array((np.ones(len(pairs), dtype=bool), (rows, columns)), shape=(size, size))
    return connected_components(graph, directed=False)[1][: len(keys)].astype(np.int64)


def shared_across(splits: Sequence[str], keys: Sequence[str]) -> dict[str, dict[str, list[int]]]:
    """What two splits share: `train/test` -> key -> the persons (by number) that have it in either."""
    by_key: dict[str, list[int]] = defaultdict(list)
    for i, key in enumerate(keys):
        if key:
            by_key[key].append(i)
    out: dict[str, dict[str, list[int]]] = {}
    for first, second in (("train", "val"), ("train", "test"), ("val", "test")):
        found = {
            key: [i for i in members if splits[i] in (first, second)]
            for key, members in by_key.items()
            if {first, second} <= {splits[i] for i in members}
        }
        if found:
            out[f"{first}/{second}"] = found
    return out


def shared_report(shared: Mapping[str, Mapping[str, Sequence[int]]], where: Sequence[str]) -> dict[str, Any]:
    """For the sidecar: how many keys and persons each pair of splits shares, and one of them by name and place."""
    return {
        pair: {
            "shared": len(found),
            "persons": sum(map(len, found.values())),
            "first": next(iter(found)),
            "first_at": [where[i] for i in next(iter(found.values()))[:4]],
        }
        for pair, found in shared.items()
    }


def empty_splits(splits: Sequence[str]) -> list[str]:
    """Splits without a person."""
    return [split for split in SPLITS if split not in splits]
