"""How fast the loader is: persons a second and core, decoding every time and from the crop cache."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cocoer.config import AugmentConfig
from cocoer.data.batch import PersonRecord
from cocoer.data.cache import open_cache
from cocoer.data.loaders import PersonDataset, collate
from cocoer.datasets import EMOTIC_CLASSES


@dataclass(frozen=True)
class Throughput:
    """Persons per second of one core, from file to normalised batch."""

    decoding: float
    cached: float


def measure_throughput(
    folder: Path, persons: int = 128, image_size: int = 224, batch_size: int = 16, repeats: int = 3
) -> Throughput:
    """Loader speed on one core, over JPEGs of 640 x 480 pixels with one person each, with flip and colour jitter.

    The JPEGs and the cache are written to `folder`, which the caller removes. One pass over all persons warms both paths up,
    then `repeats` passes are timed and the fastest counts: other work on the machine can only slow a pass down.
    """
    records = write_images(folder, persons, (640, 480))
    augment = AugmentConfig(flip=0.5, jitter=0.4)
    cache = open_cache(folder / "cache", "train", records, folder, image_size)
    rates = []
    for source in (None, cache):
        dataset = PersonDataset(records, folder, EMOTIC_CLASSES, image_size, augment, cache=source)
        _pass(dataset, batch_size)
        rates.append(persons / min(_pass(dataset, batch_size) for _ in range(repeats)))
    return Throughput(*rates)


def _pass(dataset: PersonDataset, batch_size: int) -> float:
    """Seconds for one pass in this process, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        for first in range(0, len(dataset), batch_size):
            collate([dataset[(0, i)] for i in range(first, min(first + batch_size, len(dataset)))])
        return time.perf_counter() - start
    finally:
        torch.set_num_threads(threads)


def write_images(scratch: Path, persons: int, image: tuple[int, int]) -> Sequence[PersonRecord]:
    """JPEGs with the detail of photographs (smooth shapes and fine grain, about 100 kB at 640x480), one record each."""
    rng = np.random.default_rng(0)
    width, height = image
    (scratch / "images").mkdir(parents=True, exist_ok=True)
    records = []
    for i in range(persons):
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            image, Image.Resampling.BICUBIC
        )
        pixels = np.asarray(coarse).astype(np.int16) + rng.normal(0, 8, (height, width, 1)).astype(np.int16)
        name = f"images/{i:05d}.jpg"
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(scratch / name, quality=90)
        body = (width * 0.2, height * 0.1, width * 0.6, height * 0.95)
        head = (width * 0.33, height * 0.12, width * 0.47, height * 0.35)
        records.append(
            PersonRecord(name, width, height, 0, body, head, "annotated", (EMOTIC_CLASSES[i % 26],), None, "train")
        )
    return records
