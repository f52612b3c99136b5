"""The data commands as a user types them: exit codes, files, and what they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from programs import load_program
from real_trees import NAN, image, person, save_annotations, save_caers, save_tree, small_splits

from cocoer.data.detect import DetectorInfo
from cocoer.data.index import data_root_of, read_index
from cocoer.data.people import Detections
from cocoer.data.prepare import detector_choice
from cocoer.data.prepare.detections import detect_all
from cocoer.datasets import EMOTIC_CLASSES


def run(name: str, *words: str | Path) -> int:
    try:
        return int(load_program(name).main([str(w) for w in words]))
    except SystemExit as stop:  # argparse
        return int(stop.code or 0)


@pytest.fixture
def emotic(tmp_path: Path) -> Path:
    return save_tree(tmp_path / "emotic", **small_splits())


@pytest.fixture
def caers(tmp_path: Path) -> Path:
    return save_caers(tmp_path / "caers", {"Angry": 3, "Happy": 3}, {"Anger": 2, "Happy": 2})


class SeesOnePerson:
    """Stands for the real detectors: a face at the top of a body in the middle of every image."""

    info = DetectorInfo("face.onnx", "person.onnx", "CPUExecutionProvider", "CPUExecutionProvider")
    calls = 0

    def __call__(self, image: np.ndarray) -> Detections:
        SeesOnePerson.calls += 1
        high, wide = image.shape[:2]
        body, face = [wide * 0.1, 0.0, wide * 0.9, high * 0.99], [wide * 0.3, high * 0.11, wide * 0.5, high * 0.3]
        return Detections(np.array([body]), np.array([0.9]), np.array([face]), np.array([0.8]))


@pytest.fixture
def detectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[SeesOnePerson]:
    weights = tmp_path / "weights.onnx"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(detector_choice, "build_detector", lambda config, device: SeesOnePerson())
    monkeypatch.setattr(detector_choice, "find_detector", lambda name, kind: weights)
    monkeypatch.setattr(SeesOnePerson, "calls", 0)
    return SeesOnePerson


def test_prepare_emotic_writes_an_index_that_training_reads(
    emotic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "index"
    assert run("prepare_emotic", "--root", emotic, "--output", out, "--heads", "estimate") == 0
    assert [len(read_index(out, split, EMOTIC_CLASSES)) for split in ("train", "val", "test")] == [3, 1, 1]
    sidecar = json.loads((out / "sidecar.json").read_text())
    assert sidecar["release"] == "pami" and sidecar["detector"] == {"heads": "estimate"}
    assert len(sidecar["annotations"]["sha256"]) == 64 and sidecar["heads"]["sources"]["val"]["estimated"]["share"] == 1
    said = capsys.readouterr()
    assert "train: 3 persons in 2 images, 0 left out" in said.out and f"data.root for a config: {emotic}" in said.out
    assert said.err == ""  # no progress bar outside a terminal
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert run("prepare_emotic", "--root", emotic, "--output", out, "--heads", "estimate") == 0
    assert before == {p.name: p.read_bytes() for p in out.iterdir()}  # the same input gives the same bytes


def test_prepare_emotic_exit_codes(emotic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = small_splits()
    splits["train"].append(image("a.jpg", [person((NAN, 1, 2, 3))]))
    save_annotations(emotic / "Annotations/Annotations.mat", **splits)
    common = ["--root", emotic, "--output", tmp_path / "index", "--heads", "estimate"]
    assert run("prepare_emotic", *common) == 1
    assert "left out: 1 x body box: NaN or infinite" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "index")
    assert run("prepare_emotic", *common, "--strict") == 1
    assert "person 2: body box: NaN" in capsys.readouterr().err and not (tmp_path / "index").exists()
    for words in (
        ["--root", tmp_path / "none", "--output", tmp_path / "i"],
        [*common[:4], "--heads", "boxes"],
        [*common[:4], "--heads", "guess"],
        [*common[:4], "--heads", "boxes", tmp_path / "none.csv"],
        [*common, "--release", "cvpr17"],
        [*common[:4], "--face-threshold", "2"],
        [],
    ):
        assert run("prepare_emotic", *words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_missing_detectors_are_named_with_the_way_out(
    emotic: Path, caers: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = ["--face-detector", tmp_path / "no.onnx"]
    assert run("prepare_emotic", "--root", emotic, "--output", tmp_path / "i", *missing) == 2
    assert "--heads estimate" in capsys.readouterr().err
    assert run("prepare_caers", "--root", caers, "--output", tmp_path / "i", *missing) == 2
    assert "--boxes estimate" in capsys.readouterr().err


def test_detections_are_kept_and_used_again(emotic: Path, tmp_path: Path, detectors: type[SeesOnePerson]) -> None:
    out = tmp_path / "index"
    assert run("prepare_emotic", "--root", emotic, "--output", out) == 0
    assert detectors.calls == 4
    records = read_index(out, "train")
    assert sorted(r.head_source for r in records) == ["detected", "detected", "estimated"]  # two bodies, one face
    assert json.loads((out / "sidecar.json").read_text())["detector"]["face"] == "face.onnx"
    lines = (out / "detections.jsonl").read_text().splitlines()
    (out / "detections.jsonl").write_text(
        "\n".join(lines[:3]) + '\n{"image": "emo'
    )  # interrupted in the middle of a line
    assert run("prepare_emotic", "--root", emotic, "--output", out) == 0
    assert detectors.calls == 4 + 2 and read_index(out, "train") == records
    assert run("prepare_emotic", "--root", emotic, "--output", out, "--rule", "published") == 0
    assert detectors.calls == 6  # another rule needs no new look


def test_kept_detections_belong_to_detector_and_content(emotic: Path, tmp_path: Path) -> None:
    images = {"emotic/mscoco/images/a.jpg": "1", "emotic/mscoco/images/c.jpg": "2"}
    detector, store = SeesOnePerson(), tmp_path / "kept.jsonl"
    for change, fresh in ((({"face": "a"}, images), 2), (({"face": "a"}, images | {"emotic/mscoco/images/c.jpg": "3"}), 1),
                          (({"face": "b"}, images), 2)):  # fmt: skip
        before = SeesOnePerson.calls
        found, errors = detect_all(detector, change[0], emotic, change[1], store)
        assert SeesOnePerson.calls - before == fresh and set(found) == set(images) and not errors
    found, errors = detect_all(detector, {"face": "b"}, emotic, images | {"nowhere.jpg": ""}, store)
    assert "no such file" in errors["nowhere.jpg"] and len(found) == 2


@pytest.mark.parametrize("split", ["original", "disjoint"])
def test_prepare_caers_with_and_without_detectors(
    caers: Path, tmp_path: Path, detectors: type[SeesOnePerson], split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "index"
    assert run("prepare_caers", "--root", caers, "--output", out, "--split", split) == 0
    records = [r for path in out.glob("*.jsonl") if path.stem != "detections" for r in read_index(path, path.stem)]
    assert len(records) == 10 == detectors.calls and {r.head_source for r in records} == {"detected"}
    assert run("prepare_caers", "--root", caers, "--output", out, "--split", split, "--boxes", "estimate") == 0
    said = capsys.readouterr()
    assert "heads: detected 100.0%" in said.out and "heads: estimated 100.0%" in said.out and said.err == ""
    assert run("prepare_caers", "--root", caers, "--output", out, "--boxes", "estimate", "--split", "community") == 2
    assert run("prepare_caers", "--root", caers, "--output", out, "--near", "99") == 2
    cut = caers / "train/Happy/0001.png"
    cut.write_bytes(cut.read_bytes()[:200])
    assert run("prepare_caers", "--root", caers, "--output", out, "--split", split, "--boxes", "estimate") == 1
    assert (
        run("prepare_caers", "--root", caers, "--output", out, "--split", split, "--boxes", "estimate", "--strict") == 1
    )


def test_data_check_names_every_broken_image(emotic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "index"
    run("prepare_emotic", "--root", emotic, "--output", out, "--heads", "estimate")
    assert run("data", "check", out, "--root", emotic) == 0
    path = emotic / "emotic/mscoco/images/a.jpg"
    path.write_bytes(path.read_bytes()[:-300])
    Image.new("RGB", (5, 5)).save(emotic / "emotic/ade20k/images/d.jpg")
    capsys.readouterr()
    assert run("data", "check", out, "--root", emotic) == 1
    said = capsys.readouterr()
    assert "mscoco/images/a.jpg (2 persons)" in said.err and "wanted 80x100 pixels as in the index, got 5x5" in said.err
    assert "4 images with 5 persons read; 2 images with 3 persons are broken" in said.out
    assert run("data", "check", out, "--root", emotic, "--split", "val") == 0
    assert run("data", "check", out / "val.jsonl", "--root", emotic) == 0
    for words in (
        ["check", tmp_path / "none", "--root", emotic],
        ["check", out, "--root", tmp_path / "none"],
        ["look"],
    ):
        assert run("data", *words) == 2


def test_data_show_draws_boxes_also_around_broken_images(emotic: Path, tmp_path: Path) -> None:
    out, sheet = tmp_path / "index", tmp_path / "new/sheet.png"
    run("prepare_emotic", "--root", emotic, "--output", out, "--heads", "estimate")
    assert run("data", "show", out, "--root", emotic, "--output", sheet) == 0
    first = np.asarray(Image.open(sheet))
    for colour in ((255, 80, 80), (255, 170, 40)):
        assert ((first == colour).all(-1)).sum() > 100  # body and estimated head of five persons
    assert not ((first == (60, 220, 90)).all(-1)).any()
    (emotic / "emotic/mscoco/images/a.jpg").unlink()
    assert run("data", "show", out, "--root", emotic, "--output", sheet, "--persons", "3", "--split", "train") == 0
    assert ((np.asarray(Image.open(sheet)) == (80, 80, 80)).all(-1)).sum() > 2 * 200 * 200
    assert run("data", "show", out, "--root", emotic, "--output", sheet, "--persons", "0") == 2


def test_data_convert_and_the_check_of_a_crop_cache(
    emotic: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "train.csv"
    table.write_text(
        "Index,Folder,Filename,Image Size,BBox,Categorical_Labels,Continuous_Labels,Gender,Age\n"
        '0,mscoco/images,a.jpg,"[80, 100]","[10, 10, 50, 70]","[\'Fear\']","[5, 5, 5]",Male,Adult\n'
        '1,mscoco/images,none.jpg,"[80, 100]","[10, 10, 50, 70]","[\'Fear\']","[5, 5, 5]",Male,Adult\n'
    )
    out = tmp_path / "index"
    assert run("data", "convert", table, "--format", "tandon-csv", "--root", emotic, "--output", out) == 1
    assert "train.csv row 3" in capsys.readouterr().err
    assert [r.image for r in read_index(out, "train")] == ["emotic/mscoco/images/a.jpg"]
    (tmp_path / "val_info.pkl").write_bytes(b"\x80\x04N.")
    assert run("data", "convert", tmp_path / "val_info.pkl", "--format", "coco", "--root", emotic, "--output", out) == 2
    assert "unpack_release_pickles.py" in capsys.readouterr().err

    from cocoer.data.cache import open_cache

    cache = open_cache(tmp_path / "cache", "train", read_index(out, "train"), emotic, 16)
    assert run("data", "check", out, "--root", emotic, "--split", "train", "--cache", tmp_path / "cache") == 0
    pixels = cache.folder / "pixels.npy"
    content = bytearray(pixels.read_bytes())
    content[-1] ^= 255
    pixels.write_bytes(content)
    assert run("data", "check", out, "--root", emotic, "--split", "train", "--cache", tmp_path / "cache") == 1


def test_root_of_an_index_is_the_sidecars_or_the_folder_above(tmp_path: Path) -> None:
    index = tmp_path / "world" / "index"
    index.mkdir(parents=True)
    assert data_root_of(index) == tmp_path / "world"
    assert data_root_of(index / "train.jsonl") == tmp_path / "world"
    (index / "sidecar.json").write_text('{"data_root": "images"}', encoding="utf-8")
    assert data_root_of(index) == Path("images")
    (index / "sidecar.json").write_text("half", encoding="utf-8")
    assert data_root_of(index) == tmp_path / "world"
