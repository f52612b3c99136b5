"""Index and files in, batches out: the same persons look the same whatever the workers, batches and processes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cocoer.config import AugmentConfig, DataConfig
from cocoer.data.batch import Batch, PersonRecord
from cocoer.data.decode import decode_image
from cocoer.data.index import SIDECAR, read_index, write_index
from cocoer.data.loaders import PersonDataset, build_dataset, build_loader, collate, load_level_crops
from cocoer.data.transforms import crop_levels, normalise
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES
from cocoer.errors import ImageError, IndexFileError

AUGMENT = AugmentConfig(flip=0.5, crop=0.2, jitter=0.4, box_shift=0.05)


def person(number: int, split: str = "train", **changes: object) -> PersonRecord:
    record = PersonRecord(
        image=f"mscoco/images/{split}{number // 2}.jpg",
        width=80,
        height=60,
        person=number % 2,
        body=(5.0 + number % 2 * 30, 4.0, 45.0 + number % 2 * 30, 58.0),
        head=(15.0 + number % 2 * 30, 6.0, 30.0 + number % 2 * 30, 20.0),
        head_source="detected",
        labels=(EMOTIC_CLASSES[number % 26], "Engagement"),
        vad=(5.0, 3.0, 7.0),
        split=split,
        extra={"head_score": 0.9},
    )
    return replace(record, **changes)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    rng = np.random.default_rng(0)
    records = [person(i, split) for split in ("train", "val") for i in range(11)]
    for record in records:
        path = tmp_path / "root" / record.image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    write_index(tmp_path / "index", records, {"counts": {}})
    return DataConfig(
        root=str(tmp_path / "root"), index=str(tmp_path / "index"), image_size=24, workers=0, augment=AUGMENT
    )


def all_batches(data: DataConfig, workers: int, train: bool = True, batch_size: int = 4, epoch: int = 0) -> list[Batch]:
    loader = build_loader(replace(data, workers=workers), "train", batch_size, seed=7, train=train)
    loader.batch_sampler.set_state(epoch)  # type: ignore[union-attr]
    return list(loader)  # type: ignore[arg-type]


def test_an_index_comes_back_as_it_was_written(tmp_path: Path) -> None:
    records = [person(i, split) for split in ("val", "train") for i in range(3)]
    paths = write_index(tmp_path, records, {"counts": {"train": 3}})
    assert set(paths) == {"train", "val", "sidecar"}
    assert read_index(tmp_path, "train") == records[3:] and read_index(paths["val"], "val") == records[:3]
    assert json.loads((tmp_path / SIDECAR).read_text())["counts"] == {"train": 3}
    write_index(tmp_path, records[:3], {})
    assert not (tmp_path / "train.jsonl").exists()  # an old split never survives under a new sidecar
    assert not list(tmp_path.glob("*.part"))


def test_labels_come_back_in_the_listed_spelling(tmp_path: Path) -> None:
    write_index(tmp_path, [person(0, labels=("doubt / confusion",))], {})
    assert read_index(tmp_path, "train", EMOTIC_CLASSES)[0].labels == ("Doubt/Confusion",)


def test_faulty_rows_are_named_one_by_one(tmp_path: Path) -> None:
    good = person(0).to_line()
    raw = json.loads(good)
    faults = [
        ("not json", "row 2: wanted a JSON object"),
        (json.dumps({k: v for k, v in raw.items() if k != "head"}), "row 3: .*'head'"),
        (json.dumps(raw | {"body": [0, 0, 999, 9], "person": 5}), "row 4: body .* leaves the image"),
        (json.dumps(raw | {"labels": ["Joy"], "person": 6}), "row 5: unknown class 'Joy'"),
        (good, "row 6: person .* is already in row 1"),
        (json.dumps(raw | {"width": 0, "person": 7}), "row 7: wanted an image"),
        (json.dumps(raw | {"body": 3, "person": 8}), "row 8: body: wanted four"),
        (json.dumps(raw | {"labels": 3, "person": 9}), "row 9"),
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("\n".join([good, *(line for line, _ in faults), ""]))
    with pytest.raises(IndexFileError, match="8 faulty rows") as caught:
        read_index(tmp_path, "train", EMOTIC_CLASSES)
    for _, text in faults:
        assert re.search(text, str(caught.value))


def test_no_file_no_person_no_text(tmp_path: Path) -> None:
    with pytest.raises(IndexFileError, match=r"cocoer prepare emotic"):
        read_index(tmp_path, "train")
    write_index(tmp_path, [person(0)], {})
    with pytest.raises(IndexFileError, match="'val', got none"):
        read_index(tmp_path / "train.jsonl", "val")
    (tmp_path / "val.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IndexFileError, match="cannot be read"):
        read_index(tmp_path, "val")


def test_evaluation_shows_every_person_once_exactly_as_cropped(data: DataConfig) -> None:
    records = read_index(data.index, "train")
    batches = all_batches(data, workers=0, train=False)
    assert [len(b) for b in batches] == [4, 4, 3]
    assert [k for b in batches for k in b.keys] == [r.key for r in records]
    for i, record in enumerate(records):
        crops = crop_levels(decode_image(Path(data.root) / record.image), record.body, record.head, 24)
        batch, row = batches[i // 4], i % 4
        assert torch.equal(batch.head[row], normalise(crops.pixels[0])) and torch.equal(
            batch.body[row], normalise(crops.pixels[1])
        )
        assert torch.equal(batch.head_xyxy[row], torch.from_numpy(crops.head_xyxy))
        assert batch.targets is not None
        assert {EMOTIC_CLASSES[j] for j in batch.targets[row].nonzero()[:, 0]} == set(record.labels)


def by_key(batches: list[Batch]) -> dict[str, tuple[torch.Tensor, ...]]:
    return {
        key: (b.head[i], b.body[i], b.context[i], b.head_xyxy[i], b.body_xyxy[i])
        for b in batches
        for i, key in enumerate(b.keys)
    }


def test_training_is_the_same_for_any_number_of_workers_and_any_batch_size(data: DataConfig) -> None:
    alone = all_batches(data, workers=0)
    for workers in (1, 2):
        for first, second in zip(alone, all_batches(data, workers), strict=True):
            assert first.keys == second.keys
            for name in ("head", "body", "context", "head_xyxy", "body_xyxy", "targets"):
                assert torch.equal(getattr(first, name), getattr(second, name))
    other = by_key(all_batches(data, workers=0, batch_size=3))
    for key, tensors in by_key(alone).items():
        assert all(torch.equal(a, b) for a, b in zip(tensors, other[key], strict=True))


def test_every_epoch_looks_different_also_with_workers_that_stay(data: DataConfig) -> None:
    loader = build_loader(replace(data, workers=1), "train", 11, seed=7, train=True)
    seen = []
    for epoch in (0, 1, 0):
        loader.batch_sampler.set_state(epoch)  # type: ignore[union-attr]
        seen.append(by_key(list(loader)))  # type: ignore[arg-type]
    keys = list(seen[0])
    assert all(torch.equal(seen[0][k][0], seen[2][k][0]) for k in keys)
    assert sum(not torch.equal(seen[0][k][0], seen[1][k][0]) for k in keys) == len(keys)


def test_a_broken_image_is_named_also_from_a_worker(data: DataConfig) -> None:
    victim = Path(data.root) / "mscoco/images/train2.jpg"
    victim.write_bytes(victim.read_bytes()[:900])
    for workers in (0, 1):
        with pytest.raises(ImageError, match=r"train2\.jpg") as fault:
            all_batches(data, workers)
        assert "Traceback" not in str(fault.value) and "\n" not in str(fault.value)


def test_a_image_of_another_size_than_in_the_index_is_refused(data: DataConfig) -> None:
    Image.new("RGB", (60, 80)).save(Path(data.root) / "mscoco/images/train0.jpg")
    with pytest.raises(ImageError, match="80x60 pixels as in the index, got 60x80"):
        all_batches(data, workers=0)


def test_targets_none_without_labels_and_one_per_row_for_caers() -> None:
    assert PersonDataset([person(0, labels=())], ".", EMOTIC_CLASSES, 24).targets is None
    targets = PersonDataset([person(0, labels=("angry",)), person(1, labels=("Sad",))], ".", CAERS_CLASSES, 24).targets
    assert targets is not None and targets.argmax(1).tolist() == [0, 5] and targets.sum() == 2
    with pytest.raises(IndexFileError, match="exactly one label"):
        PersonDataset([person(0, labels=("Sad", "Happy"))], ".", CAERS_CLASSES, 24)


def test_collate_without_targets(data: DataConfig) -> None:
    records = [replace(r, labels=()) for r in read_index(data.index, "val")]
    dataset = PersonDataset(records, data.root, EMOTIC_CLASSES, 24)
    assert collate([dataset[0], dataset[3]]).targets is None and len(dataset) == 11


def test_a_mixed_batch_has_no_targets_and_a_plain_number_is_of_epoch_nought(data: DataConfig) -> None:
    records = read_index(data.index, "val")
    dataset = PersonDataset(records, data.root, EMOTIC_CLASSES, 24, AUGMENT)
    assert dataset.seed == 0
    np.testing.assert_array_equal(dataset[3].crops.pixels, dataset[0, 3].crops.pixels)
    assert (dataset[3].crops.pixels != dataset[1, 3].crops.pixels).any()
    silent = PersonDataset([replace(r, labels=()) for r in records], data.root, EMOTIC_CLASSES, 24)
    assert collate([dataset[0], silent[1]]).targets is None and collate([dataset[0], dataset[1]]).targets is not None


def test_a_loader_starts_from_seed_nought_with_all_persons_and_keeps_its_workers(data: DataConfig) -> None:
    alone = build_loader(replace(data, workers=0), "train", 4, train=True)
    assert alone.batch_sampler.seed == alone.dataset.seed == 0  # type: ignore[union-attr,attr-defined]
    assert len(alone.batch_sampler) == 3 and not alone.persistent_workers and alone.prefetch_factor is None  # type: ignore[arg-type]
    one = build_loader(replace(data, workers=1), "train", 4)
    assert one.persistent_workers and one.prefetch_factor == 2 and one.num_workers == 1
    assert build_loader(replace(data, workers=9), "train", 11).num_workers == 1  # one batch, one worker
    assert build_dataset(data, "train").seed == 0


def test_crops_in_memory_are_those_of_every_person(data: DataConfig) -> None:
    records = read_index(data.index, "train")
    crops = load_level_crops(records, data.root, 24)
    assert crops.shape == (len(records), 3, 24, 24, 3) and crops.dtype == np.uint8
    for made, record in zip(crops, records, strict=True):
        image = decode_image(Path(data.root) / record.image)
        np.testing.assert_array_equal(made, crop_levels(image, record.body, record.head, 24).pixels)
