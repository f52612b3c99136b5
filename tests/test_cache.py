"""Cached crops: the same bits, noticed when stale or damaged, and fast."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_loaders import data, person  # noqa: F401 - `data` is a fixture

from cocoer.benchmark.throughput import measure_throughput
from cocoer.config import AugmentConfig, DataConfig
from cocoer.data.cache import CropCache, open_cache, persons_hash
from cocoer.data.index import read_index
from cocoer.data.loaders import PersonDataset, build_loader
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import CacheError, ImageError, IndexFileError

FLIP_AND_JITTER = AugmentConfig(flip=0.5, jitter=0.4)


@pytest.fixture
def cached(data: DataConfig, tmp_path: Path) -> DataConfig:  # noqa: F811
    return replace(data, cache=str(tmp_path / "cache"), augment=FLIP_AND_JITTER)


def open_for(config: DataConfig, split: str = "train") -> CropCache:
    assert config.cache is not None
    return open_cache(config.cache, split, read_index(config.index, split), Path(config.root), config.image_size)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_from_the_cache_are_those_from_the_files_bit_for_bit(
    cached: DataConfig, train: bool, workers: int
) -> None:
    fresh = build_loader(replace(cached, cache=None, workers=workers), "train", 4, seed=3, train=train)
    stored = build_loader(replace(cached, workers=workers), "train", 4, seed=3, train=train)
    for loader in (fresh, stored):
        loader.batch_sampler.set_state(2)  # type: ignore[union-attr]
    for first, second in zip(fresh, stored, strict=True):
        for name in ("head", "body", "context", "head_xyxy", "body_xyxy", "targets"):
            assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_finished_cache_is_used_again_and_a_stale_one_is_not(cached: DataConfig) -> None:
    first = open_for(cached)
    stamp = (first.folder / "pixels.npy").stat().st_mtime_ns
    assert (open_for(cached).folder / "pixels.npy").stat().st_mtime_ns == stamp
    records = read_index(cached.index, "train")
    moved = [replace(records[0], head=(16.0, 6.0, 30.0, 20.0)), *records[1:]]
    second = open_cache(str(cached.cache), "train", moved, Path(cached.root), cached.image_size)
    assert second.manifest["persons_hash"] != first.manifest["persons_hash"]
    assert (second[0].pixels[0] != first[0].pixels[0]).any() and (second[1].pixels[0] == first[1].pixels[0]).all()


def test_the_hash_depends_on_all_that_crops_depend_on() -> None:
    base = [person(0), person(1)]
    other = [
        [person(1), person(0)],
        [person(0, width=81), person(1)],
        [person(0, body=(5.0, 4.0, 45.0, 57.0)), person(1)],
        [person(0, image="b.jpg"), person(1)],
        base[:1],
    ]
    hashes = [persons_hash(records, 24) for records in (base, *other)] + [persons_hash(base, 32)]
    assert len(set(hashes)) == len(hashes)
    assert persons_hash([person(0, labels=("Fear",)), person(1)], 24) == hashes[0]
    assert hashes[0].startswith("bb89ff171e32239d")  # caches of the first version are used again


def test_a_half_written_or_damaged_cache_is_built_again_and_verify_sees_every_bit(cached: DataConfig) -> None:
    cache = open_for(cached)
    cache.verify()
    (cache.folder / "manifest.json").unlink()
    with pytest.raises(CacheError, match="not a finished crop cache"):
        CropCache(cache.folder)
    pixels = cache.folder / "pixels.npy"
    pixels.write_bytes(pixels.read_bytes()[:500])
    again = open_for(cached)
    again.verify()
    content = bytearray(pixels.read_bytes())
    content[-5] ^= 1
    pixels.write_bytes(content)
    with pytest.raises(CacheError, match=r"pixels\.npy: is not what the manifest says"):
        CropCache(cache.folder).verify()
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    (cache.folder / "manifest.json").write_text(json.dumps(manifest | {"image_size": 25}))
    with pytest.raises(CacheError, match="manifest says"):
        CropCache(cache.folder)


def test_a_broken_image_leaves_no_cache_behind(cached: DataConfig) -> None:
    (Path(cached.root) / "mscoco/images/train3.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"train3\.jpg"):
        open_for(cached)
    assert not (Path(str(cached.cache)) / "train-24").exists()


def test_a_full_disk_is_seen_before_it_is_full(cached: DataConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("cocoer.data.cache.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(CacheError, match=r"needs .* GB, the disk has"):
        open_for(cached)
    needed = 11 * 3 * 24 * 24 * 3 + 64 * 2**20  # 11 persons, three crops of 24 x 24 in three colours; 64 MB stay free
    usage.free = needed - 1  # type: ignore[attr-defined]
    with pytest.raises(CacheError, match=r"of 11 persons needs 0\.1 GB, the disk has 0\.1 GB"):
        open_for(cached)
    usage.free = needed  # type: ignore[attr-defined]
    manifest = (open_for(cached).folder / "manifest.json").read_text()
    assert manifest.startswith('{\n "layout": 1,\n "persons": 11,\n "image_size": 24,\n')


def test_a_cache_travels_to_workers_as_a_path(cached: DataConfig) -> None:
    cache = open_for(cached)
    copy = pickle.loads(pickle.dumps(cache))  # noqa: S301 - our own object
    assert len(pickle.dumps(cache)) < 5000
    np.testing.assert_array_equal(copy[3].pixels, cache[3].pixels)


def test_what_finished_crops_cannot_do_is_refused(cached: DataConfig) -> None:
    for augment in (AugmentConfig(crop=0.1), AugmentConfig(box_shift=0.1)):
        with pytest.raises(IndexFileError, match=r"set both to 0 .* or data\.cache to null"):
            build_loader(replace(cached, augment=augment), "train", 4, train=True)
        build_loader(replace(cached, augment=augment), "train", 4, train=False)
    with pytest.raises(IndexFileError, match="holds 11 persons, the index 3"):
        PersonDataset([person(i) for i in range(3)], cached.root, EMOTIC_CLASSES, 24, cache=open_for(cached))


def _open_many(config: DataConfig, times: int) -> None:
    for _ in range(times):
        open_for(config).verify()


def test_processes_that_start_together_build_one_cache(cached: DataConfig) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_open_many, args=(cached, 2)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [p.exitcode for p in processes] == [0, 0, 0]
    open_for(cached).verify()
    assert sorted(p.name for p in Path(str(cached.cache)).iterdir()) == ["train-24"]


def test_throughput_is_measured_and_the_cache_is_faster(tmp_path: Path) -> None:
    found = measure_throughput(tmp_path, persons=12, batch_size=6, repeats=3)
    assert (
        found.cached > found.decoding and found.decoding > 0
    )  # the figure itself is the benchmark's; here other work shares the cores
