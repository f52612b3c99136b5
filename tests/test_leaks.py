"""Near-duplicates across EMOTIC's splits: found where they were planted, dropped from train alone, marked in val and test."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from real_trees import image, person, save_annotations
from training_world import script

from cocoer.data.prepare.leaks import find_leaks


def look(seed: int, width: int = 160, height: int = 120) -> Image.Image:
    """A coarse random look, smooth as a photograph is."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC)


def again(picture: Image.Image) -> Image.Image:
    """The same picture, smaller, lighter and compressed anew: other bytes, the same look."""
    file = io.BytesIO()
    picture.resize((120, 90)).point(lambda v: min(255, v + 6)).save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def test_near_duplicates_are_counted_by_hand(tmp_path: Path) -> None:
    looks = {"a": look(0), "b": look(1), "c": look(2), "a_again": again(look(0)), "b_again": again(look(1))}
    for name, picture in looks.items():
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    persons = {
        "a.png": {"train": 3}, "a_again.png": {"test": 2}, "b.png": {"val": 1}, "b_again.png": {"val": 5},
        "c.png": {"train": 1, "test": 4}, "broken.png": {"test": 1},
    }  # fmt: skip
    found = find_leaks(persons, tmp_path, 6)
    assert found.report["pairs"] == {
        "train/test": {"groups": 2, "train_images": 2, "train_persons": 4, "test_images": 2, "test_persons": 6}
    }
    assert found.report["images"] == 5 and found.report["largest_group"] == 2
    assert found.elsewhere("a.png", "train") == "test" and found.elsewhere("c.png", "train") == "test"
    assert found.elsewhere("b.png", "val") == "" and found.elsewhere("broken.png", "test") == ""
    none = find_leaks({"a.png": {"train": 1}, "b.png": {"val": 1}}, tmp_path, 6)
    assert none.report["pairs"] == {} and none.of == {}
    assert find_leaks({}, tmp_path, 6).report["largest_group"] == 0


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images of train, one of val, two of test; the first of test is the first of train, made again."""
    looks = {
        "0.jpg": look(0),
        "1.jpg": look(1),
        "2.jpg": look(2),
        "v.jpg": look(3),
        "t.jpg": again(look(0)),
        "u.jpg": look(4),
    }
    where = {"train": ["0.jpg", "1.jpg", "2.jpg"], "val": ["v.jpg"], "test": ["t.jpg", "u.jpg"]}
    folder = tmp_path / "emotic/mscoco/images"
    folder.mkdir(parents=True)
    for name, picture in looks.items():
        picture.save(folder / name, quality=92)
    (tmp_path / "Annotations").mkdir()
    rows = {
        split: [image(name, [person((5, 5, 60, 80), split=split, combined=["Peace"])]) for name in names]
        for split, names in where.items()
    }
    save_annotations(tmp_path / "Annotations/Annotations.mat", **rows)
    return tmp_path


def lines(index: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (index / f"{split}.jsonl").read_text().splitlines()]


def test_the_command_drops_them_from_train_and_marks_them_in_test(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, common = script("prepare_emotic").main, ["--root", str(tree), "--heads", "estimate", "--output"]
    assert prepare([*common, str(tree / "plain")]) == 0
    assert len(lines(tree / "plain", "train")) == 3 and all(
        "near_train" not in x for x in lines(tree / "plain", "test")
    )
    assert prepare([*common, str(tree / "marked"), "--near"]) == 0
    assert (
        "near-duplicates train/test: 1 images with 1 persons of train and 1 images with 1 persons of test"
        in capsys.readouterr().out
    )
    assert len(lines(tree / "marked", "train")) == 3
    assert [x["near_train"] for x in lines(tree / "marked", "test")] == [True, False]
    assert [x["near_train"] for x in lines(tree / "marked", "val")] == [False]
    assert prepare([*common, str(tree / "dropped"), "--drop", "near"]) == 0
    kept = [str(x["image"]).rsplit("/", 1)[-1] for x in lines(tree / "dropped", "train")]
    assert kept == ["1.jpg", "2.jpg"] and lines(tree / "dropped", "test") == lines(tree / "marked", "test")
    sidecar = json.loads((tree / "dropped/sidecar.json").read_text())
    assert sidecar["skipped_because"] == {"near-duplicate in test": 1} and sidecar["options"]["drop_near"] is True
    assert (
        prepare([*common, str(tree / "bytes"), "--drop", "overlap"]) == 0 and len(lines(tree / "bytes", "train")) == 3
    )
    with pytest.raises(SystemExit, match="2"):
        prepare([*common, str(tree / "x"), "--near", "40"])
    assert "wanted 0..31 bits, got 40" in capsys.readouterr().err
