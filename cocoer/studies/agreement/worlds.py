"""The scenes of the agreement study, drawn from their own seeds, and the damage applied to their crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cocoer.data.batch import PersonRecord
from cocoer.data.damage import BLUR, COVERED, blurred, covered
from cocoer.data.index import read_index
from cocoer.data.synthetic.emotions import ARCHETYPES
from cocoer.data.transforms import LevelCrops
from cocoer.datasets import EMOTIC_CLASSES, find_dataset
from cocoer.names import LEVELS
from cocoer.studies.conflict.world import TRAINED_SHARE, Tree, plan_pools

_SEEDS = {"train": 9101, "fresh": 9707, "pools": 9404, "caers_train": 9111, "caers_fresh": 9717}


@dataclass(frozen=True)
class Sizes:
    """Persons. train: of the long trainings, short: the first of them, of the short ones; fresh, pool: tested, of each pool."""

    train: int = 6000
    short: int = 2400
    val: int = 600
    fresh: int = 3000
    pool: int = 750


QUICK = Sizes(train=160, short=120, val=40, fresh=120, pool=60)
"""A size that shows that everything runs; its figures mean nothing."""


@dataclass(frozen=True)
class Scenes:
    """train: train and val split. fresh: the persons of the headline, share 0.35.

    pools: as the conflict benchmark's; none in CAER-S's format.
    """

    train: Tree
    fresh: Tree
    pools: Mapping[str, Tree]


def plan_scenes(folder: Path, sizes: Sizes) -> Scenes:
    """Where everything lies and what it is; nothing is drawn."""
    pools = plan_pools(folder, sizes.pool, _SEEDS["pools"])
    return Scenes(
        Tree(folder / "train", {"train": sizes.train, "val": sizes.val}, _SEEDS["train"], TRAINED_SHARE),
        Tree(folder / "fresh", {"test": sizes.fresh}, _SEEDS["fresh"], TRAINED_SHARE),
        pools,
    )


def plan_caers(folder: Path, sizes: Sizes) -> Scenes:
    """The same in CAER-S's format, for short trainings; nothing is drawn."""
    counts = {"train": sizes.short, "val": sizes.val}
    train = Tree(folder / "caers_train", counts, _SEEDS["caers_train"], TRAINED_SHARE, dataset="caers")
    fresh = {"test": sizes.fresh}
    return Scenes(train, Tree(folder / "caers_fresh", fresh, _SEEDS["caers_fresh"], TRAINED_SHARE, dataset="caers"), {})


def persons_of(tree: Tree, split: str) -> list[PersonRecord]:
    """The persons of a split, in order."""
    return read_index(tree.root / "index", split, find_dataset(tree.dataset).class_names)


def contradicted(records: Sequence[PersonRecord]) -> NDArray[np.int64]:
    """Index of each person's contradicting level, -1 for none, [n]."""
    return np.array([-1 if (level := r.contradicted_level) is None else LEVELS.index(level) for r in records])


def minority_labels(records: Sequence[PersonRecord]) -> NDArray[np.float32]:
    """Labels [n, k] as if the one level that stands alone were right and the two that agree were wrong.

    The core labels of what the contradicting level shows; of persons without one, of what all show.
    """
    out = np.zeros((len(records), len(EMOTIC_CLASSES)), np.float32)
    for i, record in enumerate(records):
        made = record.extra["synthetic"]
        core = ARCHETYPES[made["archetypes"][made["contradicted_level"] or LEVELS[0]]].core
        out[i, [EMOTIC_CLASSES.index(label) for label in core]] = 1.0
    return out


DAMAGES: tuple[str, ...] = ("blurred", "occluded")


def damaged(crops: LevelCrops, level: int, damage: str) -> LevelCrops:
    """The crops with one level blurred (radius an eighth of the side) or its middle covered by grey (70 % of each side)."""
    pixels = crops.pixels.copy()
    if damage == "blurred":
        pixels[level] = blurred(pixels[level], BLUR[-1])
    elif damage == "occluded":
        pixels[level] = covered(pixels[level], COVERED[2])
    else:
        raise ValueError(f"damage: wanted one of {', '.join(DAMAGES)}, got {damage!r}")
    return LevelCrops(pixels, crops.head_xyxy, crops.body_xyxy)


def random_levels(persons: int, seed: int) -> Tensor:
    """A level index for each person, for the controls, [n]."""
    return torch.randint(len(LEVELS), (persons,), generator=torch.Generator().manual_seed(seed))
