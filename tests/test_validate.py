"""What training and evaluation want of an index, and what they say where it is not so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from cocoer.config import DataConfig
from cocoer.data.batch import PersonRecord
from cocoer.data.index import SIDECAR, write_index
from cocoer.data.validate import checked_people, data_of_index, labelled_people, splits_to_check
from cocoer.errors import IndexFileError


def person(number: int, split: str, labels: tuple[str, ...]) -> PersonRecord:
    return PersonRecord(
        f"{split}.png", 40, 30, number, (0, 0, 40, 30), (10, 0, 20, 10), "estimated", labels, None, split
    )


def make(root: Path, *splits: str, labels: tuple[tuple[str, ...], ...] = (("Anger",),)) -> DataConfig:
    people = [person(i, split, named) for split in splits for i, named in enumerate(labels)]
    for split in splits:
        Image.new("RGB", (40, 30)).save(root / f"{split}.png")
    write_index(root / "index", people, {"dataset": "caers"})
    return DataConfig(dataset="caers", root=str(root), index=str(root / "index"))


def test_images_must_be_there_unless_a_cache_or_the_caller_does_without(tmp_path: Path) -> None:
    data = make(tmp_path, "train")
    assert len(checked_people(data, "train")) == 1
    (tmp_path / "train.png").unlink()
    with pytest.raises(IndexFileError, match=r"1 images are not below .*; is data.root right\?\n  train.png"):
        checked_people(data, "train")
    assert len(checked_people(data, "train", images=False)) == 1
    cached = DataConfig(dataset="caers", root=data.root, index=data.index, cache=str(tmp_path / "cache"))
    assert len(checked_people(cached, "train")) == 1


def test_a_person_of_a_single_label_data_set_has_one_label_or_nobody_has_any(tmp_path: Path) -> None:
    data = make(tmp_path, "train", labels=(("Anger",), (), ("Anger", "Fear"), ("Sad", "Sad")))
    with pytest.raises(IndexFileError) as told:
        checked_people(data, "train")
    assert str(told.value).endswith(
        "2 persons have not exactly one label:\n  train.png#1: none\n  train.png#2: Anger, Fear"
    )
    several = DataConfig(dataset="emotic", root=data.root, index=data.index)
    make(tmp_path, "train", labels=(("Anger",), (), ("Anger", "Fear")))
    assert len(checked_people(several, "train")) == 3
    nobody = make(tmp_path, "train", labels=((), ()))
    assert len(checked_people(nobody, "train")) == 2
    with pytest.raises(IndexFileError, match="2 persons and not one label"):
        labelled_people(nobody, "train")


def test_splits_that_training_needs_are_there(tmp_path: Path) -> None:
    def there(*splits: str, data: DataConfig | None = None) -> tuple[list[str], str]:
        made = make(tmp_path, *splits)
        return splits_to_check(Path(made.index), data)

    assert there("train", "val", "test") == (["train", "val", "test"], "")
    assert there("train", "val") == (["train", "val"], "")
    found, remark = there("train", "test")
    assert found == ["train", "test"] and remark.startswith("no val.jsonl: training selects on test here")
    with pytest.raises(IndexFileError, match="neither val.jsonl nor test.jsonl"):
        there("train")
    with pytest.raises(IndexFileError, match="no train.jsonl, and training needs one; found val, test"):
        there("val", "test")
    with pytest.raises(IndexFileError, match="found no split"):
        splits_to_check(tmp_path / "nowhere", None)
    config = DataConfig(dataset="caers", index=str(tmp_path / "index"), select_split="test")
    found, remark = there("train", "val", "test", data=config)
    assert found == ["train", "test"] and remark.endswith("does not read it: val (--split)")
    assert there("train", "test", data=config) == (["train", "test"], "")
    same = DataConfig(dataset="caers", index=str(tmp_path / "index"), train_split="val", select_split="val")
    assert there("val", data=same) == (["val"], "")
    with pytest.raises(IndexFileError, match="no test.jsonl, and training needs one; found train, val"):
        there("train", "val", data=config)


def test_the_data_set_is_the_one_named_else_the_one_that_the_sidecar_says(tmp_path: Path) -> None:
    index = Path(make(tmp_path, "train").index)
    for place in (index, index / "train.jsonl"):
        found = data_of_index(place, tmp_path)
        assert (found.dataset, found.index, found.root) == ("caers", str(place), str(tmp_path))
    assert data_of_index(index, tmp_path, "emotic").dataset == "emotic"
    (index / SIDECAR).write_text(json.dumps({"data": {"dataset": "custom", "classes": ["a", "b"], "labels": "single"}}))
    assert data_of_index(index, tmp_path).classes == ("a", "b")
    own = tmp_path / "own.yaml"
    own.write_text("name: own\nlabels: single\nclasses: [x, y]\n")
    assert data_of_index(index, tmp_path, str(own)).classes == ("x", "y")
    for said in ({"dataset": 7}, {"data": {"classes": 3}}):
        (index / SIDECAR).write_text(json.dumps(said))
        with pytest.raises(IndexFileError, match=f"{index / SIDECAR}: does not say which data set this is"):
            data_of_index(index, tmp_path)
    (index / SIDECAR).write_text("[]")
    with pytest.raises(IndexFileError, match="labels cannot be checked; say it with --dataset or --config"):
        data_of_index(index, tmp_path)
