"""A person index -> batches. What a person looks like depends on (seed, epoch, person), never on worker, batch or process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cocoer.config import AugmentConfig, DataConfig
from cocoer.data.batch import Batch, PersonRecord
from cocoer.data.decode import ImageError, decode_image
from cocoer.data.index import IndexFileError, read_index
from cocoer.data.sampler import PersonBatchSampler, PersonDraw
from cocoer.data.transforms import (
    LevelCrops,
    augment_crops,
    augment_picture,
    crop_levels,
    make_batch,
    person_generator,
)
from cocoer.names import CAERS_CLASSES, CLASSES, canonical_class


@dataclass(frozen=True)
class Sample:
    """One person out of a dataset. target: float32 [k], or None where the data set has no labels."""

    crops: LevelCrops
    target: Tensor | None
    key: str


def target_matrix(records: Sequence[PersonRecord], classes: Sequence[str]) -> Tensor | None:
    """Labels as float32 [N, k] of 0 and 1, or None where nobody has a label.

    CAER-S is single-label: exactly one 1 a row. Raises IndexFileError that names the person for another count there.
    """
    if not any(r.labels for r in records):
        return None
    column = {name: i for i, name in enumerate(classes)}
    targets = torch.zeros(len(records), len(classes))
    for row, record in enumerate(records):
        for label in record.labels:
            targets[row, column[canonical_class(label, classes)]] = 1.0
        if tuple(classes) == CAERS_CLASSES and len(set(record.labels)) != 1:
            raise IndexFileError(f"{record.key}: CAER-S wants exactly one label a person, got {list(record.labels)}")
    return targets


class PersonDataset(Dataset[Sample]):
    """Persons of an index, cropped, and augmented where `augment` is given.

    root: folder to which the image paths are relative. classes: the k class names. image_size: S, pixels.
    Asked for a `PersonDraw` (epoch, index), or for a plain index (epoch 0). Raises ImageError for a picture that is broken
    or has another size than the index says: its boxes would mean other pixels.
    """

    def __init__(
        self,
        records: Sequence[PersonRecord],
        root: str | Path,
        classes: Sequence[str],
        image_size: int,
        augment: AugmentConfig | None = None,
        seed: int = 0,
    ) -> None:
        self.records, self.root, self.image_size = list(records), Path(root), image_size
        self.augment, self.seed = augment, seed
        self.targets = target_matrix(self.records, classes)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, draw: PersonDraw | int) -> Sample:
        epoch, index = draw if isinstance(draw, tuple) else (0, draw)
        target = None if self.targets is None else self.targets[index]
        return Sample(self._crops(epoch, index), target, self.records[index].key)

    def _crops(self, epoch: int, index: int) -> LevelCrops:
        """The person's crops, augmented by the numbers of (seed, epoch, index)."""
        record = self.records[index]
        image, body, head = decode_record(record, self.root), record.body, record.head
        if self.augment is None:
            return crop_levels(image, body, head, self.image_size)
        rng = person_generator(self.seed, epoch, index)
        image, body, head = augment_picture(image, body, head, self.augment, rng)
        return augment_crops(crop_levels(image, body, head, self.image_size), self.augment, rng)


def decode_record(record: PersonRecord, root: Path) -> Image.Image:
    """The person's picture, RGB, of the size that the index says; ImageError otherwise."""
    image = decode_image(root / record.image)
    if image.size != (record.width, record.height):
        raise ImageError(
            f"{root / record.image}: wanted {record.width}x{record.height} pixels as in the index, got "
            f"{image.width}x{image.height}; the file has changed, prepare the index again"
        )
    return image


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples -> `Batch`; targets are None where any sample has none."""
    targets = [s.target for s in samples if s.target is not None]
    return make_batch(
        [s.crops for s in samples],
        [s.key for s in samples],
        torch.stack(targets) if len(targets) == len(samples) else None,
    )


def available_cores() -> int:
    """Cores that this process may use: in a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def build_dataset(data: DataConfig, split: str, seed: int = 0, train: bool = False) -> PersonDataset:
    """The persons of one split as `data` says; augmented when `train`."""
    classes = CLASSES[data.dataset]
    records = read_index(data.index, split, classes)
    return PersonDataset(records, data.root, classes, data.image_size, data.augment if train else None, seed)


def build_loader(
    data: DataConfig,
    split: str,
    batch_size: int,
    seed: int = 0,
    train: bool = False,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
    dataset: PersonDataset | None = None,
) -> DataLoader[Sample]:
    """A loader whose batches are `Batch`; its `batch_sampler` is a `PersonBatchSampler` (set_state, state_after).

    train: shuffled by (seed, epoch) and augmented; otherwise the order of the index, every person exactly once.
    batch_size: persons a step and process. dataset: use this one in place of reading the index again.
    More workers than cores or batches are not started. Raises IndexFileError for an index that cannot be used.
    """
    dataset = build_dataset(data, split, seed, train) if dataset is None else dataset
    sampler = PersonBatchSampler(len(dataset), batch_size, seed, train, drop_last, rank, world_size)
    workers = min(data.workers, len(sampler), available_cores())
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        prefetch_factor=2 if workers else None,
    )
