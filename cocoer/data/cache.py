"""A crop cache on disk, so that an epoch neither decodes nor resizes images: one memory-mapped uint8 file per split.

    <folder>/<split>-<S>/pixels.npy     uint8 [N, 3, S, S, 3], levels in `names.LEVELS` order
    <folder>/<split>-<S>/boxes.npy      float32 [N, 2, 4]: head and body, xyxy in the S x S frame
    <folder>/<split>-<S>/manifest.json  size, count, hash of the persons, checksums

Size: 452 kB a person at S = 224 (15 GB for EMOTIC). A cache belongs to one index: another box or image makes another
hash, and the cache is built again. Crops are bit for bit what `crop_levels` gives.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.data.array_file import map_array
from cocoer.data.batch import PersonRecord
from cocoer.data.decode import decode_record
from cocoer.data.files import in_threads
from cocoer.data.transforms import LevelCrops, crop_levels
from cocoer.errors import CacheError
from cocoer.files import file_sha256, put_in_place, read_json, wait_for

LAYOUT = 1
"""Raised whenever crops or files change their meaning; caches of another layout are built again."""

_SPARE = 64 * 1024**2  # bytes that must stay free on the disk


class CropCache:
    """A finished cache, opened for reading. Workers may share it: pages come from the file, and it travels as a path.

    Raises CacheError for a missing or half-written folder, and for one whose files do not fit its manifest.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.manifest: dict[str, Any] = read_json(self.folder / "manifest.json")
            self._boxes: NDArray[np.float32] = np.array(map_array(self.folder / "boxes.npy"))
            self._pixels = self._open()
        except (OSError, ValueError) as err:
            raise CacheError(
                f"{folder}: is not a finished crop cache ({err}); delete it, and it will be built again"
            ) from None
        wanted = (self.manifest.get("persons"), 3, *[self.manifest.get("image_size")] * 2, 3)
        if self._pixels.shape != wanted or self._pixels.dtype != np.uint8 or len(self._boxes) != len(self._pixels):
            raise CacheError(
                f"{folder}: manifest says {wanted}, pixels.npy holds {self._pixels.shape}; delete it, and it will be built again"
            )

    def _open(self) -> NDArray[np.uint8]:
        return map_array(self.folder / "pixels.npy")

    def __len__(self) -> int:
        return len(self._boxes)

    def __getitem__(self, index: int) -> LevelCrops:
        """The crops of one person; the pixels are a read-only view of the file."""
        return LevelCrops(self._pixels[index], self._boxes[index, 0], self._boxes[index, 1])

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pixels = self._open()

    def verify(self) -> None:
        """Read everything and compare with the manifest's checksums. Raises CacheError that names the changed file."""
        for name, checksum in self.manifest["sha256"].items():
            if file_sha256(self.folder / name) != checksum:
                raise CacheError(
                    f"{self.folder / name}: is not what the manifest says; delete the folder, it will be built again"
                )


def persons_hash(records: Sequence[PersonRecord], image_size: int) -> str:
    """Names all that the crops depend on: images, sizes, boxes, their order and S."""
    digest = hashlib.sha256(f"{LAYOUT} {image_size}\n".encode())
    for r in records:
        digest.update(f"{r.image} {r.width} {r.height} {r.body} {r.head}\n".encode())
    return digest.hexdigest()


def open_cache(
    folder: str | Path,
    split: str,
    records: Sequence[PersonRecord],
    root: Path,
    image_size: int,
    allow_outside: bool = False,
) -> CropCache:
    """The cache of one split, built first where there is none for these persons.

    One process builds, others on the machine wait for it. Raises CacheError where the disk is too small, ImageError for a
    image that is broken or not as the index says.
    """
    target = _target(Path(folder), split, image_size)
    target.parent.mkdir(parents=True, exist_ok=True)
    wanted = persons_hash(records, image_size)
    with wait_for(target.with_suffix(".lock")):
        if not _is_current(target, wanted):
            _build(Path(folder), split, records, root, image_size, allow_outside)
    return CropCache(target)


def _is_current(target: Path, wanted: str) -> bool:
    try:
        return bool(CropCache(target).manifest["persons_hash"] == wanted)
    except (CacheError, KeyError):
        return False


def _build(
    folder: Path, split: str, records: Sequence[PersonRecord], root: Path, size: int, allow_outside: bool
) -> None:
    """Decode every image once, for all persons in it, in threads."""
    by_image: dict[str, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        by_image[record.image].append(index)

    def fill(pixels: NDArray[np.uint8], boxes: NDArray[np.float32]) -> None:
        def crop(indices: list[int]) -> None:
            image = decode_record(records[indices[0]], root, allow_outside)
            for i in indices:
                crops = crop_levels(image, records[i].body, records[i].head, size)
                pixels[i], boxes[i, 0], boxes[i, 1] = crops.pixels, crops.head_xyxy, crops.body_xyxy

        for _ in in_threads(crop, list(by_image.values()), f"crop cache {split}"):
            pass

    write_cache(folder, split, records, size, fill)


def write_cache(
    folder: Path,
    split: str,
    records: Sequence[PersonRecord],
    size: int,
    fill: Callable[[NDArray[np.uint8], NDArray[np.float32]], None],
) -> Path:
    """Make the cache of one split; `fill` writes pixels uint8 [N, 3, S, S, 3] and boxes float32 [N, 2, 4] in place.

    Everything is written to a folder beside the target and moved there when it is complete. Returns the target.
    """
    target = _target(folder, split, size)
    unfinished = target.with_name(target.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    _check_space(unfinished, len(records), size)
    shape = (len(records), 3, size, size, 3)
    pixels = np.lib.format.open_memmap(unfinished / "pixels.npy", mode="w+", dtype=np.uint8, shape=shape)
    boxes = np.zeros((len(records), 2, 4), dtype=np.float32)
    fill(pixels, boxes)
    pixels.flush()
    np.save(unfinished / "boxes.npy", boxes)
    manifest = {
        "layout": LAYOUT,
        "persons": len(records),
        "image_size": size,
        "persons_hash": persons_hash(records, size),
        "sha256": {name: file_sha256(unfinished / name) for name in ("pixels.npy", "boxes.npy")},
    }
    (unfinished / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    put_in_place(unfinished, target)
    return target


def _target(folder: Path, split: str, size: int) -> Path:
    return folder / f"{split}-{size}"


def _check_space(folder: Path, persons: int, size: int) -> None:
    needed, free = persons * 9 * size * size + _SPARE, shutil.disk_usage(folder).free
    if needed > free:
        raise CacheError(
            f"{folder}: a crop cache of {persons} persons needs {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB; "
            "name another folder in data.cache, or set it to null"
        )
