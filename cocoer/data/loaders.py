"""Load batches from a person index. Augmentation depends on (seed, epoch, person), never on worker, batch or process."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from cocoer.config import AugmentConfig, DataConfig
from cocoer.data.batch import Batch, PersonRecord
from cocoer.data.cache import CropCache, open_cache
from cocoer.data.damage import Damage, damage_crops, damage_image
from cocoer.data.decode import decode_record
from cocoer.data.files import available_cores
from cocoer.data.sampler import PersonBatchSampler, PersonDraw
from cocoer.data.transforms import (
    LevelCrops,
    augment_crops,
    augment_image,
    crop_levels,
    make_batch,
    person_generator,
)
from cocoer.data.validate import checked_people
from cocoer.datasets import dataset_of
from cocoer.errors import CocoerError, IndexFileError
from cocoer.names import canonical_class
from cocoer.weights import places


@dataclass(frozen=True)
class Sample:
    """One person out of a dataset. target: float32 [k], or None where the data set has no labels."""

    crops: LevelCrops
    target: Tensor | None
    key: str


def target_matrix(records: Sequence[PersonRecord], classes: Sequence[str]) -> Tensor | None:
    """Labels as float32 [N, k] of 0 and 1, or None where no person has a label.

    Where a person has exactly one label (CAER-S), there is one 1 a row; another count is an IndexFileError that names the person.
    """
    if not any(r.labels for r in records):
        return None
    column = {name: i for i, name in enumerate(classes)}
    targets = torch.zeros(len(records), len(classes))
    for row, record in enumerate(records):
        for label in record.labels:
            targets[row, column[canonical_class(label, classes)]] = 1.0
        if not getattr(classes, "multi_label", True) and targets[row].sum() != 1:
            raise IndexFileError(f"{record.key}: wanted exactly one label a person, got {list(record.labels)}")
    return targets


class PersonDataset(Dataset[Sample]):
    """Persons of an index, cropped, and augmented where `augment` is given.

    root: folder to which the image paths are relative. classes: the k class names. image_size: S, pixels.
    Asked for a `PersonDraw` (epoch, index), or for a plain index (epoch 0). Raises ImageError for an image that is broken
    or has another size than the index says: its boxes would mean other pixels.
    allow_outside: read images that lie outside root (`decode.image_path`).
    cache: finished crops of these persons, in place of the files; gives the same bits. IndexFileError for one that does not fit.
    """

    def __init__(
        self,
        records: Sequence[PersonRecord],
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        cache: CropCache | None = None,
        allow_outside: bool = False,
    ) -> None:
        if cache is not None and augment is not None and (augment.crop > 0 or augment.box_shift > 0):
            raise IndexFileError(
                "the crop cache holds finished crops, which data.augment.crop and data.augment.box_shift cannot change any more: "
                f"set both to 0 (got {augment.crop} and {augment.box_shift}), or data.cache to null"
            )
        if cache is not None and len(cache) != len(records):
            raise IndexFileError(
                f"{cache.folder}: holds {len(cache)} persons, the index {len(records)}; use `open_cache`"
            )
        self.cache, self.allow_outside = cache, allow_outside
        self.records, self.root, self.image_size = list(records), Path(root), image_size
        self.augment, self.seed = augment, seed
        self.damage: Damage | None = None
        self.targets = target_matrix(self.records, classes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: PersonDraw | int) -> Sample:
        epoch, index = draw if isinstance(draw, tuple) else (0, draw)
        target = None if self.targets is None else self.targets[index]
        try:
            return Sample(self._crops(epoch, index), target, self.records[index].key)
        except CocoerError as err:
            if get_worker_info() is None:
                raise
            return cast("Sample", _Told(err))  # to `PersonLoader`

    def damaged(self, damage: Damage) -> PersonDataset:
        """The same persons, not augmented, seen damaged.

        Raises IndexFileError where the images would have to be damaged and a crop cache takes their place.
        """
        if self.cache is not None and damage.where == "image":
            raise IndexFileError(
                "the crop cache holds finished crops, so images cannot be damaged: set data.cache=null"
            )
        other = copy(self)
        other.damage, other.augment = damage, None
        return other

    def _crops(self, epoch: int, index: int) -> LevelCrops:
        """The person's crops, augmented by the numbers of (seed, epoch, index)."""
        record, augment, damage = self.records[index], self.augment, self.damage
        if self.cache is not None:
            crops = self.cache[index]
        else:
            image, body, head = decode_record(record, self.root, self.allow_outside), record.body, record.head
            if damage is not None and damage.where == "image":
                image = damage_image(image, head, damage, record.image)
            if augment is not None:
                rng = person_generator(self.seed, epoch, index, "image")
                image, body, head = augment_image(image, body, head, augment, rng)
            crops = crop_levels(image, body, head, self.image_size)
        if damage is not None and damage.where != "image":
            crops = damage_crops(crops, damage, record.key)
        if augment is None:
            return crops
        return augment_crops(crops, augment, person_generator(self.seed, epoch, index, "crops"))


def load_level_crops(records: Sequence[PersonRecord], root: str | Path, size: int) -> NDArray[np.uint8]:
    """Every person's crops in memory, for a small training that reads them many times: uint8 [P, 3, size, size, 3].

    Levels in `names.LEVELS` order, RGB. Raises ImageError as `decode_record` does.
    """
    crops = np.empty((len(records), 3, size, size, 3), dtype=np.uint8)
    for i, record in enumerate(tqdm(records, desc="images", disable=None)):
        crops[i] = crop_levels(decode_record(record, Path(root)), record.body, record.head, size).pixels
    return crops


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples -> `Batch`; targets are None where any sample has none."""
    targets = [s.target for s in samples if s.target is not None]
    return make_batch(
        [s.crops for s in samples],
        [s.key for s in samples],
        torch.stack(targets) if len(targets) == len(samples) else None,
    )


class _Told:
    """A fault of one person on its way from a worker: torch would put the worker's whole traceback into its text."""

    def __init__(self, fault: CocoerError) -> None:
        self.fault = fault


def _collate(samples: Sequence[Sample]) -> Any:
    """`collate`, or the first fault."""
    return next((sample for sample in samples if isinstance(sample, _Told)), None) or collate(samples)


class PersonLoader(DataLoader[Sample]):
    """A loader that raises a person's fault as it was raised, in whatever process."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            if isinstance(batch, _Told):
                raise batch.fault
            yield batch


def build_dataset(data: DataConfig, split: str, seed: int = 0, train: bool = False) -> PersonDataset:
    """The persons of one split as `data` says; augmented when `train`, from the crop cache (built first) with `data.cache`."""
    classes = dataset_of(data).class_names
    records = checked_people(data, split)
    root, size, outside = places.given(data.root), data.image_size, data.allow_outside
    cache = open_cache(data.cache, split, records, root, size, outside) if data.cache else None
    return PersonDataset(records, root, classes, size, data.augment if train else None, seed, cache, outside)


def build_loader(
    data: DataConfig,
    split: str,
    batch_size: int,
    seed: int = 0,
    train: bool = False,
    drop_last: bool = False,
    share: tuple[int, int] = (0, 1),
    dataset: PersonDataset | None = None,
) -> DataLoader[Sample]:
    """A loader whose batches are `Batch`; its `batch_sampler` is a `PersonBatchSampler` (set_state, state_after).

    train: shuffled by (seed, epoch) and augmented; otherwise the order of the index, every person exactly once.
    batch_size: persons a step and process. share: (rank, processes). dataset: use this one in place of reading the index again.
    More workers than cores or batches are not started. Raises IndexFileError for an index that cannot be used.
    """
    dataset = build_dataset(data, split, seed, train) if dataset is None else dataset
    sampler = PersonBatchSampler(len(dataset), batch_size, seed, train, drop_last, *share)
    workers = min(data.workers, len(sampler), available_cores())
    return PersonLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
    )
