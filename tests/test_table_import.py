"""`cocoer prepare table`: every format gives the same index, and what is left out is named with row and count."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from own_people import (
    CLASSES,
    FORMATS,
    HEIGHT,
    WIDTH,
    Annotated,
    make_images,
    write_coco,
    write_csv,
    write_label_studio,
)
from PIL import Image

from cocoer.cli import prepare_table
from cocoer.cli.main import main
from cocoer.config import config_from_dict
from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_records
from cocoer.data.prepare.near_duplicates import SHARES, stratified_split
from cocoer.data.prepare.table.bold import read_bold
from cocoer.data.prepare.table.people import in_pixels
from cocoer.data.prepare.table.rows import CONVENTIONS, UNITS, box_in, labels_in
from cocoer.data.prepare.table.splits import joined_groups, shared_across
from cocoer.datasets import find_dataset


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Annotated]]:
    root = tmp_path_factory.mktemp("own") / "photos"
    return root, make_images(root)


def prepare(source: Path | None, root: Path, out: Path, *more: str) -> int:
    words = [] if source is None else [str(source)]
    heads = [] if "--heads" in more else ["--heads", "estimate"]
    return prepare_table.main([*words, "--root", str(root), "--output", str(out), *heads, *more])


def records_of(out: Path) -> list[PersonRecord]:
    return [r for path in sorted(out.glob("*.jsonl")) if path.stem != "detections" for r in read_records(path)]


def sidecar_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "sidecar.json").read_text())
    return found


# ---- formats ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("several", [False, True], ids=["one label", "several labels"])
def test_every_format_gives_the_same_index(
    form: str, several: bool, photos: tuple[Path, list[Annotated]], tmp_path: Path
) -> None:
    root, people = photos
    if several:
        people = [replace(p, labels=tuple(sorted({*p.labels, "joy"}))) for p in people]
    name, write, columns = FORMATS[form]
    write(people, tmp_path / name)
    assert prepare(tmp_path / name, root, tmp_path / "index", "--columns", *columns) == 0
    found = {r.image: r for r in records_of(tmp_path / "index")}
    assert found.keys() == {p.file for p in people}
    for p in people:
        record = found[p.file]
        assert record.body == pytest.approx(p.body, abs=0.01)
        assert (record.labels, record.split, record.extra["group"]) == (p.labels, p.split, p.video)
        assert (record.width, record.height, record.head_source) == (WIDTH, HEIGHT, "estimated")
    said = sidecar_of(tmp_path / "index")
    assert said["data"]["classes"] == list(CLASSES) and said["data"]["labels"] == ("multi" if several else "single")
    assert said["skipped"] == []
    for split, counts in said["labels"].items():
        assert counts == {name: sum(p.split == split and name in p.labels for p in people) for name in CLASSES}
        here = {p.file for p in people if p.split == split}
        assert said["counts"][split] == {"persons": sum(p.split == split for p in people), "images": len(here)}
    assert said["classes_without_train"] == [
        n for n in CLASSES if not any(p.split == "train" and n in p.labels for p in people)
    ]


def test_a_folder_per_class(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    for p in people:
        target = tmp_path / "tree" / p.split / p.labels[0] / p.file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / p.file, target)
    Image.new("RGB", (20, 20)).save(tmp_path / "tree" / "train" / "stray.png")
    assert prepare(None, tmp_path / "tree", tmp_path / "index", "--folder", str(tmp_path / "tree")) == 1
    found = records_of(tmp_path / "index")
    assert {(r.labels[0], r.split, Path(r.image).name) for r in found} == {
        (p.labels[0], p.split, p.file) for p in people
    }
    assert {r.extra["body_source"] for r in found} == {"estimated"} and found[0].body == (0, 0, WIDTH, HEIGHT)
    assert [(s["image"], s["reason"]) for s in sidecar_of(tmp_path / "index")["skipped"]] == [
        ("train/stray.png", "is not in a class folder")
    ]


def test_usual_column_names_need_no_columns(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    rows = [{"filename": p.file, "BBox": list(p.body), "Emotion": p.labels[0], "subset": p.split} for p in people]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert prepare(tmp_path / "p.jsonl", root, tmp_path / "index") == 0
    assert Counter(r.split for r in records_of(tmp_path / "index")) == Counter(p.split for p in people)


def test_the_config_takes_what_was_prepared(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    write_csv(people, tmp_path / "feelings.csv")
    columns = ["image=file", "labels=feeling", "split=part"]
    assert prepare(tmp_path / "feelings.csv", root, tmp_path / "index", "--columns", *columns) == 0
    config = config_from_dict({"data": {"dataset": str(tmp_path / "index" / "feelings.yaml")}})
    assert (config.classes, config.multi_label, config.data.dataset) == (CLASSES, False, "feelings")


@given(st.lists(st.floats(1, 20), min_size=4, max_size=4), st.sampled_from(CONVENTIONS), st.sampled_from(UNITS))
def test_conventions_and_units_mean_the_same_box(numbers: list[float], convention: Any, unit: Any) -> None:
    x1, y1, w, h = numbers
    as_written = {
        "xyxy": (x1, y1, x1 + w, y1 + h), "xywh": (x1, y1, w, h), "cxcywh": (x1 + w / 2, y1 + h / 2, w, h),
    }[convention]  # fmt: skip
    scale = {"pixels": (1, 1), "fraction": (1 / 40, 1 / 80), "percent": (100 / 40, 100 / 80)}[unit]
    written = [v * s for v, s in zip(as_written, scale * 2, strict=True)]
    assert in_pixels(written, convention, unit, 40, 80) == pytest.approx((x1, y1, x1 + w, y1 + h))


@pytest.mark.parametrize(
    ("value", "labels"),
    [
        ("joy|rage", ("joy", "rage")), ("joy; rage", ("joy", "rage")), ('["joy", "rage"]', ("joy", "rage")),
        ("['joy', 'so la la']", ("joy", "so la la")), (["joy", "joy"], ("joy",)), (np.array(["joy"]), ("joy",)), ("", ()),
        (float("nan"), ()), (None, ()), ("a, b", ("a, b",)),
    ],
)  # fmt: skip
def test_labels_in_every_spelling(value: Any, labels: tuple[str, ...]) -> None:
    assert labels_in(value) == labels


@pytest.mark.parametrize("value", ["1,2,3,4", "[1, 2, 3, 4]", "1 2 3 4", "1;2;3;4", [1, 2, 3, 4], ["1", "2", "3", "4"]])
def test_boxes_in_every_spelling(value: Any) -> None:
    assert box_in(value, "body") == (1, 2, 3, 4)


@pytest.mark.parametrize("value", ["", None, float("nan"), "0,0,0,0", [None] * 4, "None"])
def test_no_box_in_every_spelling(value: Any) -> None:
    assert box_in(value, "body") is None


# ---- splits ----------------------------------------------------------------------------------------------------------


def test_made_splits_cut_no_group_and_hold_every_class(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    people = [replace(p, video=f"subject {i // 2}") for i, p in enumerate(people)]
    write_csv(people, tmp_path / "p.csv")
    words = ["--columns", "image=file", "labels=feeling", "group=film", "--near", "0"]
    assert prepare(tmp_path / "p.csv", root, tmp_path / "a", *words) == 0
    assert prepare(tmp_path / "p.csv", root, tmp_path / "b", *words) == 0
    found = records_of(tmp_path / "a")
    assert found == records_of(tmp_path / "b"), "the same input gives the same splits"
    assert shared_across([r.split for r in found], [str(r.extra["group"]) for r in found]) == {}
    assert {r.split for r in found} == {"train", "val", "test"}
    assert {label for r in found if r.split == "train" for label in r.labels} == set(CLASSES)


def test_made_splits_keep_copies_of_an_image_together(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    shutil.copytree(root, tmp_path / "photos")
    copies = []
    for p in people[:10]:
        Image.open(root / p.file).convert("RGB").save(tmp_path / "photos" / f"copy-{p.file[:3]}.jpg", quality=90)
        copies.append(replace(p, file=f"copy-{p.file[:3]}.jpg"))
    write_csv([*people, *copies], tmp_path / "p.csv")
    assert (
        prepare(tmp_path / "p.csv", tmp_path / "photos", tmp_path / "out", "--columns", "image=file", "labels=feeling")
        == 0
    )
    split = {r.image: r.split for r in records_of(tmp_path / "out")}
    assert all(split[c.file] == split[p.file] for c, p in zip(copies, people, strict=False))


@settings(max_examples=40)
@given(
    st.lists(st.sets(st.sampled_from("abcd"), min_size=1, max_size=2).map(sorted), min_size=40, max_size=120),
    st.integers(0, 9),
)
def test_stratified_splits_are_near_the_shares(labels: list[list[str]], seed: int) -> None:
    splits = stratified_split(labels, list(range(len(labels))), seed)
    for name in {label for found in labels for label in found}:
        mine = [split for split, found in zip(splits, labels, strict=True) if name in found]
        for split, share in SHARES.items():
            assert abs(mine.count(split) - share * len(mine)) <= 4, (name, split, len(mine))


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "c", "d", "e"]), max_size=3), max_size=12))
def test_joined_groups_against_a_slow_search(keys: list[list[str]]) -> None:
    found = joined_groups(keys) if keys else []
    slow = list(range(len(keys)))
    for _ in keys:
        for i, a in enumerate(keys):
            for j, b in enumerate(keys):
                if set(a) & set(b) - {""}:
                    slow[i] = slow[j] = min(slow[i], slow[j])
    same = [[x == y for y in found] for x in found]
    assert same == [[x == y for y in slow] for x in slow]


def test_everything_tied_together_is_said(photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any) -> None:
    root, people = photos
    write_csv([replace(p, video="one") for p in people], tmp_path / "p.csv")
    assert (
        prepare(tmp_path / "p.csv", root, tmp_path / "out", "--columns", "image=file", "labels=feeling", "group=film")
        == 2
    )
    assert "no person is left for val, test: 40 of 40 persons are tied together" in capsys.readouterr().err


# ---- bad input: named with row and count; --strict refuses -----------------------------------------------------------


def broken_table(root: Path, people: list[Annotated], folder: Path) -> Path:
    """A table in which some rows are wrong, each in its own way."""
    (folder / "photos").mkdir()
    for p in people:
        shutil.copy(root / p.file, folder / "photos")
    (folder / "photos" / "torn.png").write_bytes((root / people[0].file).read_bytes()[:200])
    good = list(people)
    good[3] = replace(good[3], labels=("rge",))
    good[4] = replace(good[4], body=(30.0, 20.0, 10.0, 40.0))
    good[5] = replace(good[5], body=(100.0, 5.0, 140.0, 20.0))
    good[6] = replace(good[6], file="nowhere.png")
    good[7] = replace(good[7], file="torn.png")
    good[8] = replace(good[8], file="../outside.png")
    good[9] = replace(good[9], split="tarin")
    good[10] = replace(good[10], labels=())
    good.append(good[11])
    write_csv(good, folder / "p.csv")
    return folder / "p.csv"


REASONS = {
    "unknown class 'rge', did you mean 'rage'?": "row 5",
    "body box: inverted or empty": "row 6",
    "body box: outside the image": "row 7",
    "missing file": "row 8",
    "unreadable image": "row 9",
    "image lies outside --root": "row 10",
    "unknown split 'tarin', did you mean 'train'?": "row 11",
    "no label": "row 12",
    "the same person": "row 42",
}


def test_every_faulty_row_is_named(photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any) -> None:
    table = broken_table(*photos, tmp_path)
    words = [
        "--columns",
        "image=file",
        "labels=feeling",
        "split=part",
        "--classes",
        ",".join(CLASSES),
        "--boxes",
        "xyxy",
    ]
    assert prepare(table, tmp_path / "photos", tmp_path / "out", *words) == 1
    said = capsys.readouterr().err
    skipped = {row["where"]: row["reason"] for row in sidecar_of(tmp_path / "out")["skipped"]}
    for reason, where in REASONS.items():
        assert skipped[where].startswith(reason), skipped
        assert f"left out: 1 x {reason}" in said and f"(first: {where})" in said
    assert len(skipped) == len(REASONS) and len(records_of(tmp_path / "out")) == 41 - len(REASONS)
    assert prepare(table, tmp_path / "photos", tmp_path / "strict", *words, "--strict") == 1
    said = capsys.readouterr().err
    assert "--strict: 8 persons would be left out" in said and "row 5: 003.png: unknown class 'rge'" in said
    assert not (tmp_path / "strict").exists()


def test_splits_that_share_a_group_or_an_image(
    photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    root, people = photos
    twice = [*people, replace(people[0], body=(1.0, 1.0, 30.0, 40.0), split="test")]
    write_csv(twice, tmp_path / "p.csv")
    words = ["--columns", "image=file", "labels=feeling", "split=part", "group=film"]
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", *words) == 0
    said = capsys.readouterr().err
    assert "SHARED: train/test share 1 images with 2 persons" in said and "(row 2, row 42)" in said
    assert "SHARED: train/val share" in said and "groups with" in said
    assert prepare(tmp_path / "p.csv", root, tmp_path / "strict", *words, "--strict") == 1
    assert "train/test share 1 images" in capsys.readouterr().err
    assert prepare(tmp_path / "p.csv", root, tmp_path / "apart", *words, "--drop-overlap") in (0, 1)
    found = records_of(tmp_path / "apart")
    assert not any(
        pair.startswith("train") for pair in shared_across([r.split for r in found], [r.image for r in found])
    )


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["labels=feelin"], "no column 'feelin'; did you mean 'feeling'"),
        (["body=x1,y1,x2,y3"], "no column 'y3'"),
        (["imge=file"], "did you mean image="),
        (["image=file", "image=film"], "image is given twice"),
        (["image=file"], "wanted columns for labels"),
    ],
)
def test_columns_that_are_not_there(
    columns: list[str], message: str, photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    root, people = photos
    write_csv(people, tmp_path / "p.csv")
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", "--columns", *columns) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("form", FORMATS)
def test_an_unknown_column_is_said_in_every_format(
    form: str, photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    root, people = photos
    name, write, columns = FORMATS[form]
    write(people, tmp_path / name)
    changed = [c if not c.startswith("group=") else "group=flm" for c in columns]
    assert prepare(tmp_path / name, root, tmp_path / "index", "--columns", *changed) == 2
    said = capsys.readouterr().err
    assert "flm" in said and "did you mean 'film'?" in said and not (tmp_path / "index").exists()


def test_another_box_convention_is_noticed(photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any) -> None:
    root, people = photos
    moved = [replace(p, body=(p.body[0], p.body[1], 24.0, 32.0)) for p in people]  # x, y, width, height
    moved[2] = replace(moved[2], body=(30.0, 2.0, 24.0, 32.0))
    write_csv(moved, tmp_path / "p.csv")
    words = ["--columns", "image=file", "labels=feeling", "split=part"]
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert "1 of 40 boxes are none as x1, y1, x2, y2 (first row 4" in said and "--boxes xywh" in said
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", *words, "--boxes", "xywh") == 0
    assert records_of(tmp_path / "out")[0].body[2] - records_of(tmp_path / "out")[0].body[0] == 24
    small = [replace(p, body=(0.1, 0.1, 0.5, 0.9)) for p in people]
    write_csv(small, tmp_path / "p.csv")
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out2", *words) == 2
    assert "--unit fraction" in capsys.readouterr().err
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out2", *words, "--unit", "fraction") == 0
    assert records_of(tmp_path / "out2")[0].body == pytest.approx((6.4, 4.8, 32, 43.2))


def test_one_class_only(photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any) -> None:
    root, people = photos
    write_csv([replace(p, labels=("person",)) for p in people], tmp_path / "p.csv")
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", "--columns", "image=file", "labels=feeling") == 2
    assert "wanted two classes or more, got 1 (person)" in capsys.readouterr().err


def test_coco_names_the_attribute_that_may_be_meant(
    photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    root, people = photos
    write_coco(people, tmp_path / "p.json")
    content = json.loads((tmp_path / "p.json").read_text())
    for annotation in content["annotations"]:
        annotation["attributes"] = {"feeling": content["categories"][annotation["category_id"]]["name"]}
        annotation["category_id"] = 0
    (tmp_path / "p.json").write_text(json.dumps(content))
    assert prepare(tmp_path / "p.json", root, tmp_path / "out") == 2
    assert "--columns labels=NAME; the attributes are feeling" in capsys.readouterr().err
    assert prepare(tmp_path / "p.json", root, tmp_path / "out", "--columns", "labels=feeling") == 0
    assert sidecar_of(tmp_path / "out")["data"]["classes"] == list(CLASSES)


def test_label_studio_choices_for_a_whole_image(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    write_label_studio(people, tmp_path / "p.json")
    tasks = json.loads((tmp_path / "p.json").read_text())
    for task, p in zip(tasks, people, strict=True):
        choice = {
            "id": "c",
            "type": "choices",
            "from_name": "mood",
            "to_name": "image",
            "value": {"choices": list(p.labels)},
        }
        task["annotations"] = [{"was_cancelled": True, "result": []}, {"result": [choice]}]
    tasks[5]["annotations"] = []
    (tmp_path / "p.json").write_text(json.dumps(tasks))
    assert prepare(tmp_path / "p.json", root, tmp_path / "out", "--columns", "labels=mood", "split=part") == 1
    found = {r.image: r for r in records_of(tmp_path / "out")}
    assert all(found[p.file].labels == p.labels for i, p in enumerate(people) if i != 5)
    assert found[people[0].file].extra["body_source"] == "estimated"
    assert [s["reason"] for s in sidecar_of(tmp_path / "out")["skipped"]] == ["no annotation"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.xml", "<annotations><track/></annotations>", "CVAT for video"),
        ("p.xml", "<!DOCTYPE x [<!ENTITY a 'b'>]><annotations>&a;</annotations>", "EntitiesForbidden"),
        ("p.xml", "<nothing/>", "wanted CVAT's XML"),
        ("p.json", "[1, 2]", "wanted Label Studio's JSON export"),
        ("p.json", "{}", "wanted COCO JSON"),
        ("p.json", "{", "cannot be read as JSON"),
        ("p.jsonl", "\n", "one JSON object a line"),
        ("p.parquet", "no", "cannot be read as Parquet"),
        ("p.txt", "a", "names no format"),
        ("p.csv", "a\xff", "no column|wanted columns"),
    ],
)
def test_files_of_another_kind(name: str, text: str, message: str, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert prepare(tmp_path / name, tmp_path, tmp_path / "out") == 2
    import re

    assert re.search(message, capsys.readouterr().err)


def test_bold_as_its_readers_describe_it(tmp_path: Path) -> None:
    """Made up after the description: there was no real file of BoLD to look at."""
    joints = np.zeros((4, 56))
    joints[:, 0], joints[:, 1] = [7, 8, 8, 9], [0, 0, 1, 0]
    joints[1, 2:].reshape(18, 3)[:3] = [[10, 5, 0.9], [30, 45, 0.8], [99, 99, 0.01]]
    for folder in ("annotations", "joints/003/film.mp4", "frames/003/film.mp4/0114", "videos"):
        (tmp_path / folder).mkdir(parents=True)
    np.save(tmp_path / "joints/003/film.mp4/0114.npy", joints)
    Image.new("RGB", (80, 60)).save(tmp_path / "frames/003/film.mp4/0114/00001.png")
    shares = ["0.0"] * 26
    shares[0], shares[19] = "0.5", "0.75"
    row = ["003/film.mp4/0114.mp4", "0", "0", "2", *shares, "5", "5", "5", "Male", "Adult", "White", "0.9"]
    (tmp_path / "annotations/train.csv").write_text(",".join(row) + "\n" + ",".join(row[:7]) + "\n")
    first, second = read_bold(tmp_path)
    assert first.fault == "" and first.labels == ("Peace", "Anger") and first.group == "film.mp4"
    assert first.image == "frames/003/film.mp4/0114/00001.png" and first.split == "train"
    assert first.body == pytest.approx((8, 1, 32, 49))
    assert second.fault == "7 values for the 37 columns of BoLD"


@pytest.mark.parametrize("images", ["Data", "Images"])
def test_heco_as_its_readers_describe_it(
    images: str, photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    """Made up after the description: there was no real file of HECO to look at."""
    root, people = photos
    folder = tmp_path / "HECO"
    (folder / "Labels").mkdir(parents=True)
    shutil.copytree(root, folder / images)
    feelings = dict(zip(CLASSES, ("Peace", "Fear", "Sadness", "Happiness", "Anger"), strict=True))
    lines = ["Image,xmin,ymin,xmax,ymax,Category,Valence,Arousal,Dominance,Label_SA,Label_CA"]
    lines += [f"{p.file},{','.join(f'{v:.0f}' for v in p.body)},{feelings[p.labels[0]]},5,6,5,high,low" for p in people]
    joys = [i for i, line in enumerate(lines) if ",Happiness," in line]
    lines[joys[1]] = lines[joys[1]].replace("Happiness", "Happinesst")
    lines.append(f"{people[0].file},40,2,60,40,Disgust,5,6,5,high,low")  # a second person of the first image
    lines.append(f"{people[1].file},40,2,60,40,Bliss,5,6,5,high,low")
    (folder / "Labels" / "HECO_Labels.csv").write_text("\n".join(lines) + "\n")
    assert prepare(folder, folder, tmp_path / "out", "--format", "heco") == 1
    assert "unknown class 'Bliss'" in capsys.readouterr().err
    found = records_of(tmp_path / "out")
    assert len(found) == len(people) + 1
    by_image = {r.image: r for r in found if r.person == 0}
    for p in people:
        assert by_image[f"{images}/{p.file}"].labels == (feelings[p.labels[0]],)
        assert by_image[f"{images}/{p.file}"].body == p.body
    both = [r for r in found if r.image.endswith(people[0].file)]
    assert [r.labels for r in both] == [("Peace",), ("Disgust",)] and len({r.split for r in both}) == 1
    assert {r.split for r in found} == {"train", "val", "test"}


def test_a_folder_that_is_not_heco(tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "Labels").mkdir()
    (tmp_path / "Labels" / "HECO_Labels.csv").write_text("Image\n")
    assert prepare(tmp_path, tmp_path, tmp_path / "out", "--format", "heco") == 2
    assert "wanted HECO's Labels/HECO_Labels.csv and its images" in capsys.readouterr().err


def test_emoset_as_folders(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    """Whole images in a folder per class; made up after the description."""
    root, people = photos
    for p in people:
        feeling = {"calm": "contentment", "fright": "fear", "grief": "sadness", "joy": "amusement", "rage": "anger"}[
            p.labels[0]
        ]
        (tmp_path / "image" / feeling).mkdir(parents=True, exist_ok=True)
        shutil.copy(root / p.file, tmp_path / "image" / feeling / p.file)
    words = ["--folder", str(tmp_path / "image"), "--dataset", "emoset", "--heads", "estimate"]
    assert prepare_table.main([*words, "--output", str(tmp_path / "out")]) == 0
    found = records_of(tmp_path / "out")
    assert len(found) == len(people) and {r.labels[0] for r in found} <= set(find_dataset("emoset").classes)


def test_a_dataset_of_its_own_file(photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any) -> None:
    root, people = photos
    entry = {"labels": "single", "classes": list(reversed(CLASSES)), "aliases": {"glad": "joy"}}
    entry["published"] = {"paper": {"counts": {"persons": {"train": 32}}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(entry))
    write_csv([replace(p, labels=("glad",)) if p.labels == ("joy",) else p for p in people], tmp_path / "p.csv")
    words = ["--columns", "image=file", "labels=feeling", "split=part", "--dataset", str(tmp_path / "mine.yaml")]
    assert prepare(tmp_path / "p.csv", root, tmp_path / "out", *words) == 0
    assert {r.labels[0] for r in records_of(tmp_path / "out")} == set(CLASSES)
    said = sidecar_of(tmp_path / "out")["against_published"]["paper"]["persons"]["train"]
    assert said == {"published": 32, "here": 30, "difference": -2}
    assert f"data.dataset: {tmp_path / 'mine.yaml'}" in capsys.readouterr().out


# ---- files and names of anybody --------------------------------------------------------------------------------------


def test_a_line_break_inside_a_cell_is_part_of_it_and_other_breaks_end_no_row(
    photos: tuple[Path, list[Annotated]], tmp_path: Path
) -> None:
    r"""Rows end at \n, \r or \r\n outside quotes; U+0085, U+2028 and a break in quotes belong to the cell."""
    root, people = photos
    labels = ("calm\nlake", "odd\u2028line\u0085", "plain")
    rows = [f'{p.file},"{labels[i % 3]}"' for i, p in enumerate(people)]
    (tmp_path / "a.csv").write_text("\n".join(["image,labels", *rows]), encoding="utf-8", newline="")
    assert prepare(tmp_path / "a.csv", root, tmp_path / "index") in (0, 1)
    said = sidecar_of(tmp_path / "index")
    assert len(records_of(tmp_path / "index")) + len(said["skipped"]) == len(people)
    assert {" ".join(name.split()) for name in said["data"]["classes"]} == {" ".join(name.split()) for name in labels}


def bold_folder(folder: Path, video: str) -> None:
    """One annotated clip under a name of choice, its joints where that name leads to."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "joints").mkdir()
    (folder / "videos").mkdir()
    values = [video, "0", "0", "2", *["1.0"] * 26, *["5"] * 3, "", "", "", ""]
    (folder / "annotations" / "train.csv").write_text(",".join(values) + "\n")
    joints = np.zeros((3, 56))
    joints[:, 0], joints[:, 2:] = range(3), np.tile([10.0, 20.0, 1.0, 30.0, 50.0, 1.0], 9)
    place = folder / "joints" / Path(video).with_suffix(".npy")
    place.parent.mkdir(parents=True, exist_ok=True)
    np.save(place, joints)


@pytest.mark.parametrize("video", ["../../outside/001/a.mp4", "../stolen.mp4"])
def test_a_clip_that_leads_out_of_its_folder_is_neither_read_nor_written(video: str, tmp_path: Path) -> None:
    bold_folder(tmp_path / "a" / "bold", video)
    before = sorted(tmp_path.rglob("*"))
    (row,) = read_bold(tmp_path / "a" / "bold")
    assert "leads out of the images' folder" in row.fault
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_devices_and_deep_json_end_as_rows_or_one_line(
    photos: tuple[Path, list[Annotated]], tmp_path: Path, capsys: Any
) -> None:
    """A pipe waits for ever and a device never ends: neither is opened as an image, and a device not as annotations."""
    root, people = photos
    mine = tmp_path / "photos"
    shutil.copytree(root, mine)
    os.mkfifo(mine / "pipe.jpg")
    (mine / "zero.jpg").symlink_to("/dev/zero")
    rows = [f"{name},{label}" for name in ("pipe.jpg", "zero.jpg", *(p.file for p in people)) for label in CLASSES[:1]]
    rows[3:] = [f"{p.file},{CLASSES[i % 2]}" for i, p in enumerate(people)]
    (tmp_path / "a.csv").write_text("\n".join(["image,labels", *rows]))
    assert prepare(tmp_path / "a.csv", mine, tmp_path / "index") == 1
    faults = {row["where"]: row["reason"] for row in sidecar_of(tmp_path / "index")["skipped"]}
    assert sum("pipe" in reason for reason in faults.values()) == 2, faults
    for name in ("a.json", "b.jsonl", "c.csv"):
        (tmp_path / name).symlink_to("/dev/zero")
        assert main(["prepare", "table", str(tmp_path / name), "--root", str(mine), "--output", str(tmp_path / "i"),
                     "--heads", "estimate"]) in (1, 2)  # fmt: skip
        said = capsys.readouterr().err
        assert ("device" in said or "more than" in said) and "shows where" not in said, said
    texts = {
        "d.json": "[" * 100_000,
        "e.jsonl": "[" * 100_000,
        "f.json": '{"a":' * 100_000,
        "g.jsonl": "\udcff",
        "h.csv": "\udcff",
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
        assert main(["prepare", "table", str(tmp_path / name), "--root", str(mine), "--output", str(tmp_path / "i"),
                     "--heads", "estimate"]) in (1, 2)  # fmt: skip
        said = capsys.readouterr().err
        assert "shows where" not in said and name in said, said


@pytest.mark.skipif(sys.platform == "darwin", reason="names are Unicode here")
def test_a_name_that_is_no_utf_8_is_a_person_of_the_index(photos: tuple[Path, list[Annotated]], tmp_path: Path) -> None:
    root, people = photos
    for i, p in enumerate(people):
        target = os.fsencode(tmp_path / "tree" / CLASSES[i % 2]) + b"/" + os.fsencode(Path(p.file).stem) + b"\xff.png"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(root / p.file, target)
    assert (
        prepare_table.main(
            ["--folder", str(tmp_path / "tree"), "--output", str(tmp_path / "index"), "--heads", "estimate"]
        )
        == 0
    )
    found = records_of(tmp_path / "index")
    assert len(found) == len(people) and all((tmp_path / "tree" / record.image).is_file() for record in found)
    assert main(["data", "check", str(tmp_path / "index"), "--root", str(tmp_path / "tree")]) == 0
