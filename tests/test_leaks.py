"""Near-duplicates across EMOTIC's splits: found where they were planted, dropped from train alone, marked in val and test."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from programs import load_program
from real_trees import image, person, save_annotations
from small_images import rough_image

from cocoer.data.prepare import near_duplicates
from cocoer.data.prepare.leaks import ClipLook, find_leaks

ROOT = Path(__file__).resolve().parents[1]


def again(picture: Image.Image) -> Image.Image:
    """The same picture, smaller, lighter and compressed anew: other bytes, the same look."""
    file = io.BytesIO()
    picture.resize((120, 90)).point(lambda v: min(255, v + 6)).save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


def test_near_duplicates_are_counted_by_hand(tmp_path: Path) -> None:
    looks = {
        "a": rough_image(0),
        "b": rough_image(1),
        "c": rough_image(2),
        "a_again": again(rough_image(0)),
        "b_again": again(rough_image(1)),
    }
    for name, picture in looks.items():
        picture.save(tmp_path / f"{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    persons = {
        "a.png": {"train": 3}, "a_again.png": {"test": 2}, "b.png": {"val": 1}, "b_again.png": {"val": 5},
        "c.png": {"train": 1, "test": 4}, "broken.png": {"test": 1},
    }  # fmt: skip
    found = find_leaks(persons, tmp_path, 6)
    assert found.report["pairs"] == {
        "train/test": {
            "train_images": 2,
            "train_persons": 4,
            "train_images_by_hash": 2,
            "test_images": 2,
            "test_persons": 6,
            "test_images_by_hash": 2,
        }
    }
    assert found.report["images"] == 5 and found.report["largest_group"] == 2
    assert found.elsewhere("a.png", "train") == "test" and found.elsewhere("c.png", "train") == "test"
    assert found.elsewhere("b.png", "val") == "" and found.elsewhere("broken.png", "test") == ""
    none = find_leaks({"a.png": {"train": 1}, "b.png": {"val": 1}}, tmp_path, 6)
    assert none.report["pairs"] == {} and none.of == {}
    assert find_leaks({}, tmp_path, 6).report["largest_group"] == 0


def colour(picture: Image.Image) -> NDArray[np.float32]:
    """A stand-in for CLIP: the mean colour, brought to unit norm."""
    mean = np.asarray(picture, dtype=np.float32).mean((0, 1))
    return mean / np.linalg.norm(mean)


def test_clip_finds_what_the_hash_does_not_and_each_pair_says_who_found_it(tmp_path: Path) -> None:
    """Red, red upside down (by CLIP), the same look in blue (by the hash), a copy (by both), green (by none)."""
    shape = rough_image(0).convert("L")

    def painted(picture: Image.Image, wanted: tuple[int, int, int]) -> Image.Image:
        return Image.merge("RGB", [picture.point(lambda v, c=c: v * c // 255) for c in wanted])

    other = rough_image(5).convert("L")
    made = {
        "a_red": painted(shape, (255, 60, 60)), "b_turned": painted(shape.transpose(Image.Transpose.ROTATE_90), (255, 60, 60)),
        "c_copy": again(painted(shape, (255, 60, 60))), "d_blue": painted(shape, (40, 40, 255)),
        "e_green": painted(other, (10, 255, 10)),
    }  # fmt: skip
    for name, picture in made.items():
        picture.save(tmp_path / f"{name}.png")
    persons = {"a_red.png": {"train": 2}} | {f"{name}.png": {"test": 1} for name in list(made)[1:]}
    clip = ClipLook("colour", colour, 0.999)
    found = find_leaks(persons, tmp_path, 6, clip)
    by = {path: found.found_by(path, "train") for path in persons}
    assert by == {
        "a_red.png": "",
        "b_turned.png": "clip",
        "c_copy.png": "both",
        "d_blue.png": "hash",
        "e_green.png": "",
    } | {
        "a_red.png": "both"  # its own split is among those of its near-duplicates
    }
    assert found.report["pairs"]["train/test"] == {
        "train_images": 1, "train_persons": 2, "train_images_by_both": 1, "test_images": 3, "test_persons": 3,
        "test_images_by_clip": 1, "test_images_by_both": 1, "test_images_by_hash": 1,
    }  # fmt: skip
    assert found.report["clip"] == {"tower": "colour", "cosine": 0.999}
    assert {frozenset(pair["images"]) for pair in found.report["nearest_by_clip"]} == {
        frozenset(("a_red.png", "b_turned.png")), frozenset(("a_red.png", "c_copy.png")),
    }  # fmt: skip
    assert "e_green.png" not in found.of and set(found.of) == set(persons) - {"e_green.png"}
    assert find_leaks(persons, tmp_path, 6).found_by("b_turned.png", "train") == ""
    assert find_leaks({}, tmp_path, 6, clip).report["pairs"] == {}


def test_twenty_pairs_are_listed_the_most_similar_first(tmp_path: Path) -> None:
    for i in range(24):
        Image.new("RGB", (8, 8), (200, i * i * 2 // 5, 0)).save(
            tmp_path / f"{i:02d}.png"
        )  # ever further from the one before
    persons = {f"{i:02d}.png": {"train" if i % 2 else "test": 1} for i in range(24)}
    report = find_leaks(persons, tmp_path, 0, ClipLook("colour", colour, 0.9)).report
    cosines = [pair["cosine"] for pair in report["nearest_by_clip"]]
    assert len(cosines) == 20 and cosines == sorted(cosines, reverse=True) and cosines[0] > cosines[-1]
    assert cosines == [round(c, 4) for c in cosines]
    assert report["pairs"]["train/test"]["train_images"] == 12


@pytest.mark.parametrize("cosine", [0.5, 0.9])
def test_similar_images_are_those_of_a_loop_over_pairs(cosine: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK", 7)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    splits = np.eye(3, dtype=bool)[rng.integers(0, 3, 40)]
    splits[3] = [True, False, True]
    reached, nearest, best = near_duplicates.similar_elsewhere(vectors, splits, cosine)
    for i in range(40):
        like = [j for j in range(40) if vectors[i] @ vectors[j] >= cosine or i == j]
        assert reached[i].tolist() == splits[like].any(0).tolist()
        others = {j: float(vectors[i] @ vectors[j]) for j in range(40) if (splits[j] & ~splits[i]).any()}
        assert nearest[i] == max(others, key=others.__getitem__) and best[i] == pytest.approx(max(others.values()))


def test_images_are_alike_from_the_cosine_itself_on(tmp_path: Path) -> None:
    """Two equal embeddings of one axis have a cosine of exactly 1."""
    axis, splits = np.array([[1, 0], [1, 0], [0, 1]], np.float32), np.array([[1, 0], [0, 1], [0, 1]], bool)
    reached, _, _ = near_duplicates.similar_elsewhere(axis, splits, 1.0)
    assert reached.tolist() == [[True, True], [True, True], [False, True]]
    for i in range(2):
        Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / f"{i}.png")
    clip = ClipLook("axis", lambda _: np.array([1, 0], np.float32), 1.0)
    found = find_leaks({"0.png": {"train": 1}, "1.png": {"test": 1}}, tmp_path, 0, clip)
    assert [pair["cosine"] for pair in found.report["nearest_by_clip"]] == [1.0, 1.0]
    assert near_duplicates.COSINE == 0.99


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Three images of train, one of val, two of test; the first of test is the first of train, made again."""
    looks = {
        "0.jpg": rough_image(0),
        "1.jpg": rough_image(1),
        "2.jpg": rough_image(2),
        "v.jpg": rough_image(3),
        "t.jpg": again(rough_image(0)),
        "u.jpg": rough_image(4),
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


def test_clip_looks_where_its_weights_are_at_hand_and_what_looked_is_said(
    tree: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, common = (
        load_program("prepare_emotic").main,
        ["--root", str(tree), "--heads", "estimate", "--near", "--output"],
    )
    monkeypatch.setenv("COCOER_HOME", str(tree / "empty"))
    monkeypatch.chdir(tree)
    assert prepare([*common, str(tree / "hash")]) == 0
    said = capsys.readouterr().out
    assert "near-duplicates by perceptual hash alone: no weights of CLIP RN50 at hand" in said and "by CLIP" not in said
    demo = f"{ROOT}/configs/demo_clip.json={ROOT}/checkpoints/demo/clip.safetensors"
    assert prepare([*common, str(tree / "clip"), "--clip", demo]) == 0
    said = capsys.readouterr().out
    assert "1 images with 1 persons of test (0 by the hash alone, 0 by CLIP alone, 1 by both)" in said
    assert [(x["near_train"], x["near_train_by"]) for x in lines(tree / "clip", "test")] == [
        (True, "both"),
        (False, "nothing"),
    ]
    assert [x["near_train_by"] for x in lines(tree / "hash", "test")] == ["hash", "nothing"]
    near = json.loads((tree / "clip/sidecar.json").read_text())["near_duplicates"]
    assert near["clip"] == {"tower": "demo_clip", "cosine": 0.99} and len(near["nearest_by_clip"]) == 2
    assert prepare([*common, str(tree / "none"), "--clip", "none"]) == 0
    assert "CLIP" not in capsys.readouterr().out
    assert prepare([*common, str(tree / "x"), "--clip", "RN50=nothing.pt"]) == 2
    assert "CLIP RN50: wanted its weights at" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        prepare([*common, str(tree / "x"), "--cosine", "1.5"])
    assert "wanted a number above 0 and up to 1, got 1.5" in capsys.readouterr().err


def lines(index: Path, split: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (index / f"{split}.jsonl").read_text().splitlines()]


def test_the_command_drops_them_from_train_and_marks_them_in_test(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare, common = load_program("prepare_emotic").main, ["--root", str(tree), "--heads", "estimate", "--output"]
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
