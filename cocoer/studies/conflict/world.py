"""The scenes of the conflict benchmark: persons to train on, and test persons with and without a contradicting level.

The test pools `none`, `head`, `body` and `context` come from one seed. A person has the same key in each of them, stands in
the same kind of scene and, but for what contradicts, is drawn by the same rules; so a share of contradicted persons is made by
taking that share of the persons from a contradicted pool and the rest from `none`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_index
from cocoer.data.synthetic.drawn import remove_drawn
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.export import write_caers, write_emotic
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import ConflictError
from cocoer.files import read_json
from cocoer.names import LEVELS, SPLITS

POOLS: tuple[str, ...] = ("none", *LEVELS)
CONDITIONS: tuple[str, ...] = ("any", *LEVELS)
"""Which level contradicts: each equally often, or always the named one."""

SHARES: tuple[float, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
TRAINED_SHARE = 0.35
"""Share of contradicted persons in the scenes that are trained on."""

_SEEDS = {"train": 8101, "refit": 8202, "pools": 8303}


@dataclass(frozen=True)
class Sizes:
    """How large the benchmark is. pool: persons of each test pool; refit: persons on whom fusion heads are retrained.

    seeds: one recognition model is trained per seed.
    """

    train: int = 4000
    val: int = 400
    refit: int = 2000
    pool: int = 600
    epochs: int = 5
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON gives them back."""
        return asdict(self) | {"seeds": list(self.seeds)}


QUICK = Sizes(train=240, val=40, refit=120, pool=60, epochs=1, seeds=(0, 1))
"""A size that shows that everything runs; its figures mean nothing."""


@dataclass(frozen=True)
class Tree:
    """One demo tree, drawn where it is absent. counts: persons a split. dataset: whose format, emotic or caers."""

    root: Path
    counts: Mapping[str, int]
    seed: int
    share: float
    level: str | None = None
    dataset: str = "emotic"

    def draw(self, workers: int) -> None:
        """Write it, unless it is there complete and just so; a half-written one is made again."""
        sidecar = self.root / "index" / "sidecar.json"
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):  # none, or one of somebody else
            if self._is_this(read_json(sidecar)):
                return
        remove_drawn(self.root)
        write = write_emotic if self.dataset == "emotic" else write_caers
        write(self.root, self.counts, self.seed, WorldOptions(self.share, self.level), workers=workers)

    def _is_this(self, made: Mapping[str, Any]) -> bool:
        found = {split: made["splits"][split]["persons"] for split in SPLITS}
        wanted = {split: self.counts.get(split, 0) for split in SPLITS}
        settings = (made["dataset"], made["seed"], made["contradicted_share"], made["conflict_level"])
        return found == wanted and settings == (self.dataset, self.seed, self.share, self.level)


@dataclass(frozen=True)
class Scenes:
    """All trees of one benchmark: train (train and val split), refit (test split), and the test pools (test split)."""

    train: Tree
    refit: Tree
    pools: Mapping[str, Tree]


def plan_pools(folder: Path, persons: int, seed: int) -> dict[str, Tree]:
    """Test pools of one seed by name: no person contradicted, or all persons at the level that names the pool."""
    return {
        name: Tree(
            folder / f"test_{name}", {"test": persons}, seed,
            share=float(name != "none"), level=None if name == "none" else name,
        )
        for name in POOLS
    }  # fmt: skip


def plan_scenes(folder: Path, sizes: Sizes) -> Scenes:
    """Where everything lies and what it is; nothing is drawn."""
    pools = plan_pools(folder, sizes.pool, _SEEDS["pools"])
    counts = {"train": sizes.train, "val": sizes.val}
    return Scenes(
        Tree(folder / "train", counts, _SEEDS["train"], TRAINED_SHARE),
        Tree(folder / "refit", {"test": sizes.refit}, _SEEDS["refit"], TRAINED_SHARE),
        pools,
    )


def read_pools(scenes: Scenes) -> dict[str, list[PersonRecord]]:
    """The test persons of each pool, in one order. Raises ConflictError unless the pools hold the same persons."""
    pools = {name: read_index(tree.root / "index", "test", EMOTIC_CLASSES) for name, tree in scenes.pools.items()}
    wanted = [r.key for r in pools["none"]]
    for name, records in pools.items():
        if [r.key for r in records] != wanted:
            raise ConflictError(
                f"{scenes.pools[name].root}: wanted the {len(wanted)} persons of {scenes.pools['none'].root}, got"
                f" {len(records)} others; delete both folders, the benchmark draws them anew"
            )
        wrong = [r.key for r in records if r.contradicted_level != (None if name == "none" else name)]
        if wrong:
            raise ConflictError(
                f"{scenes.pools[name].root}: wanted persons with contradiction at {name}, {wrong[0]} is not one;"
                " delete the folder, the benchmark draws it anew"
            )
    return pools


@dataclass(frozen=True)
class Mixing:
    """From which pool each of n persons comes at a share; nested: contradicted at one share, so at every higher one.

    threshold: [n] uniform in [0, 1). level: [n] index into LEVELS for the condition `any`.
    """

    threshold: NDArray[np.float64]
    level: NDArray[np.int64]

    @classmethod
    def of(cls, persons: int, seed: int = 0) -> Mixing:
        """Drawn once for all models, rules and shares, so that differences between them are paired."""
        rng = np.random.default_rng(seed)
        return cls(rng.random(persons), rng.permutation(np.arange(persons) % len(LEVELS)))

    def pool(self, condition: str, share: float) -> NDArray[np.int64]:
        """Index into POOLS of every person, [n]: 0 for those without contradiction."""
        level = self.level if condition == "any" else np.full_like(self.level, LEVELS.index(condition))
        return np.where(self.threshold < share, 1 + level, 0)
