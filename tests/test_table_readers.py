"""Each reader of annotations by itself: one small file, the rows in it, and what is said of those that are none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cocoer.data.prepare.table.bold import read_bold
from cocoer.data.prepare.table.coco import read_coco
from cocoer.data.prepare.table.cvat import read_cvat
from cocoer.data.prepare.table.delimited import read_delimited
from cocoer.data.prepare.table.folders import read_folders
from cocoer.data.prepare.table.heco import read_heco
from cocoer.data.prepare.table.json_lines import read_json_lines
from cocoer.data.prepare.table.label_studio import read_label_studio
from cocoer.data.prepare.table.parquet import read_parquet
from cocoer.data.prepare.table.read import read_rows
from cocoer.data.prepare.table.rows import (
    Reading,
    Row,
    box_in,
    chosen_columns,
    is_empty,
    known_column,
    labels_in,
    parse_columns,
    table_rows,
)
from cocoer.errors import AnnotationError

BOTH = Reading({"image": "file", "labels": "mood"})
IMAGE, FILE = {"image": "a.jpg", "labels": "joy"}, Path("x.json")


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


# ---------------------------------------------------------------------------------------------------- values and columns


def test_columns_are_named_once_each_with_a_key_and_a_name() -> None:
    assert parse_columns(["image=file", "body=x1,y1,x2,y2"]) == {"image": "file", "body": "x1,y1,x2,y2"}
    for word in ("imge=file", "image", "image=", "=file"):
        with pytest.raises(AnnotationError, match=f"got '{word}'") as told:
            parse_columns([word])
        assert ("did you mean image=?" in str(told.value)) == word.startswith("im")
    with pytest.raises(AnnotationError, match="labels is given twice: a and b"):
        parse_columns(["labels=a", "labels=b"])


def test_columns_that_are_not_named_are_recognised_by_their_usual_names() -> None:
    names = ["FILE", "x1", "y1", "X2", "y2", "Emotion", "clip", "other"]
    assert chosen_columns({}, names, "t") == {
        "image": "FILE",
        "body": "x1,y1,X2,y2",
        "labels": "Emotion",
        "group": "clip",
    }
    assert chosen_columns({"labels": "other"}, names, "t")["labels"] == "other"
    assert chosen_columns({"body": "x1,x1,x1,x1"}, names, "t")["body"] == "x1,x1,x1,x1"
    assert chosen_columns({"body": "x1,y1"}, [*names, "x1,y1"], "t")["body"] == "x1,y1"  # a name may hold a comma
    with pytest.raises(AnnotationError, match=r"t: wanted columns for image and labels: say --columns image=NAME"):
        chosen_columns({}, ["x", "y"], "t")
    with pytest.raises(AnnotationError, match=r"wanted columns for labels: say --columns labels=NAME"):
        chosen_columns({}, ["file"], "t")
    with pytest.raises(
        AnnotationError, match=r"t: --columns body=x1,y9: no column 'y9'; did you mean 'y[12]'\? The columns are"
    ):
        chosen_columns({"body": "x1,y9"}, names, "t")
    with pytest.raises(AnnotationError, match="w: fault All are: none"):
        known_column("w", "a", [], "fault", "All are")


def test_a_value_is_empty_where_nothing_is_said() -> None:
    assert [is_empty(v) for v in (None, float("nan"), "", "  ", "NaN", "None", "null", "[]")] == [True] * 8
    assert [is_empty(v) for v in (0, 0.0, 1.5, "0", "nothing", [], False)] == [False] * 7


def test_labels_and_boxes_of_odd_values() -> None:
    assert labels_in(5) == ("5",) and labels_in(("a", None, "b")) == ("a", "b") and labels_in("[]") == ()
    assert (
        box_in(None, "body") is None and box_in(float("nan"), "body") is None and box_in([0, 0, 0, 0], "body") is None
    )
    for value, said in (([1, 2, 3], "body box: 3 values instead of 4"), ([1, 2, 3, 4, 5], "5 values"), (7.5, "wanted|iter"),
                        ([1, 2, float("inf"), 4], "NaN or infinite"), (["a"] * 4, "wanted four numbers")):  # fmt: skip
        with pytest.raises((ValueError, TypeError), match=said):
            box_in(value, "body")


def test_a_row_has_what_its_columns_say_and_a_fault_where_they_do_not() -> None:
    columns = {"image": "i", "labels": "l", "body": "x,y,w,h", "head": "f", "split": "s", "group": "g"}
    values = {"i": "a\\b.jpg", "l": "joy|rage", "x": 1, "y": 2, "w": 3, "h": 4, "f": [5, 6, 7, 8], "s": "val", "g": 9}
    reading = Reading(columns, "xywh", "percent")
    (row,) = table_rows([("row 7", values)], columns, reading)
    assert row == Row("row 7", "a/b.jpg", ("joy", "rage"), (1, 2, 3, 4), (5, 6, 7, 8), "val", "9", "xywh", "percent")
    (plain,) = table_rows([("row 8", values)], {"image": "i", "labels": "l"}, Reading())
    assert plain == Row("row 8", "a/b.jpg", ("joy", "rage"))
    (wrong,) = table_rows([("row 9", values | {"x": "one"})], columns, reading)
    assert wrong.image.endswith("b.jpg") and wrong.fault.startswith("body box: wanted four numbers")


# ------------------------------------------------------------------------------------------------------------ tables


def test_a_separated_file_is_read_by_its_header_and_its_ending(tmp_path: Path) -> None:
    for name, text in (("a.csv", "file,mood\na.jpg,joy\n\nb.jpg\n"), ("b.csv", "file;mood\na.jpg;joy\n\nb.jpg\n"),
                       ("c.tsv", "file\tmood\na.jpg\tjoy\n\nb.jpg\n")):  # fmt: skip
        found = list(read_delimited(written(tmp_path, name, text), BOTH))
        assert found == [Row("row 2", "a.jpg", ("joy",)), Row("row 4", fault="1 values for 2 columns")]
    commas = written(tmp_path, "d.tsv", "file\tmood, in words, or not\na,b.jpg\tjoy\n")
    reading = Reading({"image": "file", "labels": "mood, in words, or not"})
    assert list(read_delimited(commas, reading)) == [Row("row 2", "a,b.jpg", ("joy",))]


def test_lines_of_json_are_objects(tmp_path: Path) -> None:
    long = json.dumps(["x" * 60])
    text = "\n".join([json.dumps({"file": "a.jpg", "mood": "joy"}), "", long, "{"])
    found = list(read_json_lines(written(tmp_path, "a.jsonl", text), BOTH))
    assert found[:2] == [Row("row 1", "a.jpg", ("joy",)), Row("row 3", fault=f"wanted an object, got {long[:40]!r}")]
    assert found[2].where == "row 4" and found[2].fault.startswith("no JSON (") and len(found) == 3


def test_parquet_rows_are_numbered_through_all_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = {"file": [f"{i}.jpg" for i in range(5)], "mood": ["joy"] * 5, "x1": [1] * 5, "y1": [2] * 5, "w": [3] * 5,
             "h": [4] * 5, "box,x": [[5, 6, 7, 8]] * 5}  # fmt: skip
    parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
    batches = parquet.ParquetFile.iter_batches
    monkeypatch.setattr(parquet.ParquetFile, "iter_batches", lambda file, columns: batches(file, 2, columns=columns))
    columns = {"image": "file", "labels": "mood", "body": "x1,y1,w,h", "head": "box,x"}
    found = list(read_parquet(tmp_path / "a.parquet", Reading(columns)))
    assert found == [Row(f"row {i + 1}", f"{i}.jpg", ("joy",), (1, 2, 3, 4), (5, 6, 7, 8)) for i in range(5)]


def test_folders_are_classes_below_splits_or_without(tmp_path: Path) -> None:
    for name in ("a/train/joy/x.jpg", "a/train/joy/deep/y.png", "a/test/rage/z.jpg", "a/test/stray.jpg", "a/top.jpg",
                 "b/joy/x.jpg", "b/train/y.jpg", "b/joy/notes.txt"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert list(read_folders(tmp_path / "a")) == [
        Row("test/rage/z.jpg", "test/rage/z.jpg", ("rage",), split="test"),
        Row("test/stray.jpg", "test/stray.jpg", fault="is not in a class folder"),
        Row("top.jpg", "top.jpg", fault="is not in a class folder"),
        Row("train/joy/deep/y.png", "train/joy/deep/y.png", ("joy",), split="train"),
        Row("train/joy/x.jpg", "train/joy/x.jpg", ("joy",), split="train"),
    ]
    # `train` beside a class is a class, as odd as that may be.
    assert [(r.image, r.labels, r.split) for r in read_folders(tmp_path / "b")] == [
        ("joy/x.jpg", ("joy",), ""), ("train/y.jpg", ("train",), ""),
    ]  # fmt: skip
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/x.jpg").touch()
    assert [r.fault for r in read_folders(tmp_path / "flat")] == ["is not in a class folder"]
    (tmp_path / "none").mkdir()
    for folder in ("none", "absent"):
        with pytest.raises(AnnotationError, match="--folder"):
            list(read_folders(tmp_path / folder))


# ------------------------------------------------------------------------------------------------------------- COCO


def coco(*annotations: Any, categories: tuple[str, ...] = ("joy", "rage")) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.jpg", "subset": "val", "film": "f"}, {"id": 2, "file_name": "b.jpg"}]
    named = [{"id": i, "name": name} for i, name in enumerate(categories)]
    return {"images": images, "annotations": list(annotations), "categories": named}


def entry(category: Any = 0, image: Any = 1, **more: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": [1, 2, 3, 4]} | more


def test_coco_annotations_are_rows_and_what_they_lack_is_said() -> None:
    content = coco(entry(id=70, head_bbox=[1, 2, 1, 1]), entry(1, 2, split="test"), entry(9), entry(0, 9), 5,
                   entry(bbox=[1, 2, 3]), {"category_id": 0})  # fmt: skip
    found = {row.where: row for row in read_coco(FILE, content, Reading())}
    assert found["annotation 70"] == Row(
        "annotation 70", "a.jpg", ("joy",), (1, 2, 3, 4), (1, 2, 1, 1), "val", "", "xywh"
    )
    assert found["annotation 2"] == Row("annotation 2", "b.jpg", ("rage",), (1, 2, 3, 4), None, "", "", "xywh")
    assert found["annotation 3"].fault == "category_id 9 is not among the categories"
    assert found["annotation 4"].fault == "image_id 9 is not among the images"
    assert found["annotation 6"].fault == "body box: 3 values instead of 4"
    assert found["annotation 7"].fault == "not a COCO annotation (KeyError: 'image_id')"
    assert found["annotation 5"].fault.startswith("not a COCO annotation (TypeError")


def test_coco_annotations_of_one_box_are_one_person() -> None:
    content = coco(entry(0, id=1), entry(1, id=2), entry(0, id=3), entry(0, 2, id=4), entry(1, id=5, bbox=[9, 9, 9, 9]))
    found = [(row.where, row.image, row.labels) for row in read_coco(FILE, content, Reading())]
    assert found == [("annotation 1", "a.jpg", ("joy", "rage")), ("annotation 4", "b.jpg", ("joy",)),
                     ("annotation 5", "a.jpg", ("rage",))]  # fmt: skip


def test_coco_values_are_looked_up_in_the_annotation_its_attributes_and_its_image() -> None:
    first = entry(0, mood="calm", attributes={"mood": "rage", "who": 3})
    second = entry(0, 2, attributes={"mood": ["rage", "joy"], "part": "test"})
    third = entry(0, bbox=[5, 5, 5, 5], attributes=None, mood="joy", who=1, part="train")
    reading = Reading({"labels": "mood", "group": "who", "split": "part"})
    found = [(r.labels, r.group, r.split) for r in read_coco(FILE, coco(first, second, third), reading)]
    assert found == [(("calm",), "3", ""), (("rage", "joy"), "", "test"), (("joy",), "1", "train")]
    films = [r.group for r in read_coco(FILE, coco(entry(), entry(1, 2)), Reading({"group": "film"}))]
    assert films == ["f", ""]


def test_a_coco_file_of_one_category_asks_for_the_attribute_and_unknown_keys_are_named() -> None:
    people = [entry(0, attributes={"mood": "joy", "age": 3}), entry(0, 2, attributes=7)]
    with pytest.raises(AnnotationError, match="every annotation is 'person', .*; the attributes are age, mood"):
        list(read_coco(FILE, coco(*people, categories=("person",)), Reading()))
    assert len(list(read_coco(FILE, coco(*people, categories=("person",)), Reading({"labels": "mood"})))) == 2
    assert len(list(read_coco(FILE, coco(*people, entry(1)), Reading()))) == 2
    assert len(list(read_coco(FILE, coco(entry(), categories=("person",)), Reading()))) == 1
    with pytest.raises(AnnotationError, match="leave --columns image= out"):
        list(read_coco(FILE, coco(entry()), Reading({"image": "file_name"})))
    with pytest.raises(AnnotationError, match="--columns labels=moot: no annotation has that key; did you mean 'mood'"):
        list(read_coco(FILE, coco(*people), Reading({"labels": "moot"})))
    with pytest.raises(AnnotationError, match="wanted COCO JSON"):
        list(read_coco(FILE, {"images": []}, Reading()))


# ------------------------------------------------------------------------------------------------------------- CVAT

CVAT = """<annotations><meta/>
<image name="a.jpg" subset="Train">
 <box label="joy" xtl="1" ytl="2" xbr="30" ybr="40"><attribute name="mood">rage</attribute><attribute name="who"/></box>
 <box label="rage" xtl="1" ytl="2" xbr="30" ybr="40" rotation="0.0"><attribute name="who">Eve</attribute></box>
 <box label="rage" xtl="1" ytl="2" xbr="30" ybr="40" rotation="0.5"/>
 <tag label="calm"/>
</image>
<image name="b.jpg" subset="default"><tag label="calm"><attribute name="mood">joy</attribute></tag></image>
<image><box label="joy" xtl="1" ytl="2" xbr="30" ybr="40"/></image>
</annotations>"""


def test_cvat_boxes_are_people_and_tags_are_of_images_without_a_box(tmp_path: Path) -> None:
    path = written(tmp_path, "a.xml", CVAT)
    box = (1, 2, 30, 40)
    assert list(read_cvat(path, Reading())) == [
        Row("image a.jpg box 1", "a.jpg", ("joy",), box, None, "Train"),
        Row("image a.jpg box 2", "a.jpg", ("rage",), box, None, "Train"),
        Row("image a.jpg box 3", "a.jpg", fault="the box is turned by 0.5 degrees"),
        Row("image b.jpg tag 1", "b.jpg", ("calm",)),
        Row("image  box 1", fault="image: no path"),
    ]
    found = list(read_cvat(path, Reading({"labels": "mood", "group": "who"})))
    assert [(r.labels, r.group) for r in found[:2]] == [(("rage",), ""), ((), "Eve")] and found[3].labels == ("joy",)
    with pytest.raises(AnnotationError, match="no such attribute; did you mean 'mood'"):
        list(read_cvat(path, Reading({"labels": "moot"})))
    with pytest.raises(AnnotationError, match="leave --columns split= out"):
        list(read_cvat(path, Reading({"split": "mood"})))
    for text, said in (("<annotations><track/></annotations>", "CVAT for video"), ("<x/>", "got <x>")):
        with pytest.raises(AnnotationError, match=said):
            list(read_cvat(written(tmp_path, "b.xml", text), Reading()))


# ----------------------------------------------------------------------------------------------------- Label Studio


def region(name: str, label: str | None = None, **value: Any) -> dict[str, Any]:
    labels = {} if label is None else {"rectanglelabels": [label]}
    return {"id": name, "from_name": "box", "value": {"x": 10, "y": 20, "width": 30, "height": 40} | labels | value}


def choice(where: str, control: str, *chosen: str) -> dict[str, Any]:
    return {"id": where, "from_name": control, "value": {"choices": list(chosen)}}


def task(*result: dict[str, Any], data: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {
        "id": 5,
        "data": {"image": "/data/upload/1/0123abcd-a.jpg"} | (data or {}),
        "annotations": [{"result": [*result]}],
    } | more


def rows_of(*tasks: Any, **columns: str) -> list[Row]:
    return list(read_label_studio(FILE, list(tasks), Reading(columns)))


def test_label_studios_regions_have_a_choice_else_a_label_else_the_images_choice() -> None:
    found = rows_of(task(
        region("r1", "joy"), choice("r1", "mood", "rage", "calm"), region("r2", "joy"), region("r3"),
        choice("whole", "mood", "fright"), region("r4", rotation=90), {"id": "k", "from_name": "key", "value": {"x": 1}},
    ))  # fmt: skip
    box = (10, 20, 30, 40)
    kind = {"convention": "xywh", "unit": "percent"}
    assert found == [
        Row("task 5 region r1", "0123abcd-a.jpg", ("rage", "calm"), box, **kind),
        Row("task 5 region r2", "0123abcd-a.jpg", ("joy",), box, **kind),
        Row("task 5 region r3", "0123abcd-a.jpg", ("fright",), box, **kind),
        Row(
            "task 5 region r4",
            "0123abcd-a.jpg",
            ("fright",),
            box,
            fault="the rectangle is turned by 90 degrees",
            **kind,
        ),
    ]
    assert rows_of(task(choice("whole", "mood", "joy", "joy"))) == [Row("task 5", "0123abcd-a.jpg", ("joy",))]
    two = task(choice("w", "mood", "joy"), choice("w", "other", "rage"))
    assert rows_of(two)[0].labels == ("joy", "rage") and rows_of(two, labels="other")[0].labels == ("rage",)


def test_label_studios_truth_counts_first_and_what_was_cancelled_not_at_all() -> None:
    first, second = {"result": [choice("w", "mood", "joy")]}, {"result": [choice("w", "mood", "rage")]}
    for made, wanted in (([first, second], "joy"), ([first, second | {"ground_truth": True}], "rage"),
                                ([first | {"was_cancelled": True}, second], "rage")):  # fmt: skip
        assert rows_of(task(annotations=made))[0].labels == (wanted,)
    assert rows_of(task(annotations=[])) == [Row("task 5", "0123abcd-a.jpg", fault="no annotation")]
    assert rows_of({"data": {"image": "a.jpg"}, "annotations": []}, {"data": {"image": "a.jpg"}})[1].where == "task 2"
    assert rows_of(task(3))[0].fault.startswith("not a Label Studio task (TypeError")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "key", "wanted"),
    [
        ({"image": "/data/upload/1/a%20b.jpg"}, None, "a b.jpg"), ({"image": "https://x.org/p/c.JPG?sign=1"}, None, "c.JPG"),
        ({"image": "/data/local-files/?d=deep/d%20e.jpg"}, None, "deep/d e.jpg"), ({"image": "deep/f.png"}, None, "deep/f.png"),
        ({"text": "words", "image": "g.jpg"}, None, "g.jpg"), ({"a": "h.jpg", "image": "i.jpg"}, "image", "i.jpg"),
        ({"image": "noending"}, "image", "noending"),
    ],
)  # fmt: skip
def test_label_studios_image_is_a_path_or_the_name_of_an_upload(
    data: dict[str, Any], key: str | None, wanted: str
) -> None:
    given = {"data": data, "annotations": [{"result": [choice("w", "mood", "joy")]}]}
    assert rows_of(given, **({} if key is None else {"image": key}))[0].image == wanted


def test_label_studios_columns_are_keys_and_controls() -> None:
    silent = {"data": {"text": "words", "n": 3}, "annotations": [{"result": [choice("w", "mood", "joy")]}]}
    assert rows_of(silent)[0].fault.startswith("no image in the task's data")
    both = [task(choice("w", "mood", "joy"), data={"part": "test", "film": 3, "split": "val", "group": "g"}), silent]
    assert [(r.split, r.group) for r in rows_of(both[0])] == [("val", "g")]
    assert [(r.split, r.group) for r in rows_of(both[0], split="part", group="film")] == [("test", "3")]
    assert rows_of(*both, image="image")[1].fault.startswith(
        "--columns image=image: the task's data has the keys text, n"
    )
    empty = {"data": {"image": "a.jpg"}, "annotations": None}
    for columns, said in (({"body": "x"}, "leave --columns body= out"), ({"head": "x"}, "leave --columns head= out"),
                          ({"labels": "moo"}, "no such control; did you mean 'mood'"),
                          ({"split": "parts"}, "no such key of the tasks' data; did you mean 'part'")):  # fmt: skip
        with pytest.raises(AnnotationError, match=said):
            rows_of(*both, empty, {"data": {}, "annotations": [{"result": None}]}, **columns)
    for wrong in (3, {"data": 3}, {}):
        with pytest.raises(AnnotationError, match="wanted Label Studio's JSON export"):
            rows_of(both[0], wrong)


# --------------------------------------------------------------------------------------------------- BoLD and HECO


def bold(folder: Path, *rows: list[str], joints: Any, video: str = "clip.avi") -> list[Row]:
    for name in ("annotations", "joints", "videos"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "annotations/val.csv").write_text("".join(",".join(row) + "\n" for row in rows))
    np.save((folder / "joints" / video).with_suffix(".npy"), joints)
    return list(read_bold(folder))


def clip(person: int = 1, first: int = 2, last: int = 5, video: str = "clip.avi") -> list[str]:
    return [video, str(person), str(first), str(last), "0.75", *["0.0"] * 25, *["5"] * 3, "", "", "", "0.9"]


def seen(frame: int, person: int, *points: tuple[float, float, float]) -> np.ndarray:
    row = np.zeros(56)
    row[:2] = frame, person
    row[2 : 2 + 3 * len(points)] = np.array(points).ravel()
    return row


def test_bolds_clip_is_its_middle_frame_and_its_body_the_joints_that_are_sure(tmp_path: Path) -> None:
    """Frames 2 to 5: the third of the clip. The joints count from 10. A confidence of 0.1 is enough."""
    (tmp_path / "videos").mkdir()
    writer = cv2.VideoWriter(str(tmp_path / "videos/clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for n in range(6):
        writer.write(np.full((48, 64, 3), 40 * n, dtype=np.uint8))
    writer.release()
    joints = np.stack([
        seen(10, 1, (0, 0, 1), (9, 9, 1)), seen(13, 0, (1, 1, 1), (2, 2, 1)),
        seen(13, 1, (10, 20, 0.1), (30, 40, 0.9), (63, 47, 0.09)), seen(14, 1, (5, 5, 1), (6, 6, 1)),
    ])  # fmt: skip
    (row,) = bold(tmp_path, clip(), joints=joints)
    assert row == Row("val.csv row 1", "frames/clip/00003.png", ("Peace",), row.body, None, "val", "clip")
    assert row.body == pytest.approx((8, 18, 32, 42))  # a tenth of 20 pixels more on each side
    for video, film in (("film/clip.avi", "film"), ("a/film/clip.avi", "film")):  # the folder that the clip lies in
        image = tmp_path / "frames" / video.removesuffix(".avi") / "00003.png"
        image.parent.mkdir(parents=True)
        image.touch()
        (tmp_path / "joints" / video).parent.mkdir(parents=True)
        (other,) = bold(tmp_path, clip(video=video), joints=joints, video=video)
        assert (other.image, other.group) == (image.relative_to(tmp_path).as_posix(), film)
    frame = cv2.imread(str(tmp_path / row.image))
    assert frame.shape == (48, 64, 3) and abs(float(frame.mean()) - 120) < 4
    (tmp_path / row.image).unlink()
    late = np.stack([seen(0, 1), seen(40, 1, (1, 1, 1), (9, 9, 1))])
    (gone,) = bold(tmp_path, clip(1, 40, 40), joints=late)
    assert gone.image == "clip.avi" and gone.fault == "videos/clip.avi: frame 40 cannot be read"


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        (np.zeros((2, 56, 1)), r"wanted joints \[n, 56\], got \(2, 56, 1\)"), (np.zeros((2, 55)), r"got \(2, 55\)"),
        (np.zeros((2, 56), "S3"), "wanted joints"), (np.zeros((0, 56)), "wanted joints"),
        (np.stack([seen(0, 1), seen(3, 1, (1, 1, 1))]), "frame 3 shows no joints of person 1"),
    ],
)  # fmt: skip
def test_bolds_joints_that_are_none_are_a_fault_of_the_row(tmp_path: Path, joints: Any, said: str) -> None:
    (first, second) = bold(tmp_path, clip(), clip()[:9], joints=joints)
    assert re.search(said, first.fault) and first.where == "val.csv row 1"
    assert second == Row("val.csv row 2", fault="9 values for the 37 columns of BoLD")


def test_heco_wants_its_labels_and_a_folder_of_images(tmp_path: Path) -> None:
    (tmp_path / "Labels").mkdir()
    lines = "Image,xmin,ymin,xmax,ymax,Category\na.jpg,1,2,30,40,Peace\n,1,2,30,40,Fear\n"
    written(tmp_path / "Labels", "HECO_Labels.csv", lines)
    with pytest.raises(AnnotationError, match="wanted HECO's"):
        list(read_heco(tmp_path))
    (tmp_path / "Images").mkdir()
    first, second = read_heco(tmp_path)
    assert first == Row("row 2", "Images/a.jpg", ("Peace",), (1, 2, 30, 40)) and second.fault == "image: no path"
    (tmp_path / "Labels/HECO_Labels.csv").unlink()
    with pytest.raises(AnnotationError, match="wanted HECO's"):
        list(read_heco(tmp_path))


# ---------------------------------------------------------------------------------------------------- which reader it is


def test_the_reader_is_chosen_by_the_format_the_ending_and_the_content(tmp_path: Path) -> None:
    studio, boxes = json.dumps([task(choice("w", "mood", "joy"))]), json.dumps(coco(entry()))
    for name, text, form in (("a.json", studio, None), ("a.json", studio, "label-studio"), ("a.txt", studio, "label-studio"),
                             ("b.JSON", boxes, None), ("b.json", boxes, "coco"), ("b.txt", boxes, "coco"),
                             ("c.xml", CVAT, None), ("c.txt", CVAT, "cvat"), ("d.CSV", "image,label\na.jpg,joy\n", None),
                             ("d.json", "image,label\na.jpg,joy\n", "csv"), ("e.ndjson", json.dumps(IMAGE), None),
                             ("e.json", json.dumps(IMAGE), "jsonl")):  # fmt: skip
        found = read_rows(written(tmp_path, name, text), Reading(), form)
        assert found[0].labels == ("joy",) and not found[0].fault, (name, form)
    for name, text, form, said in (("a.json", studio, "coco", "got a list"), ("b.json", boxes, "label-studio", "got an object"),
                                   ("a.txt", "x", None, "names no format"), ("none.csv", None, None, "no such file"),
                                   ("x.json", "{", None, "cannot be read as JSON")):  # fmt: skip
        path = tmp_path / name if text is None else written(tmp_path, name, text)
        with pytest.raises(AnnotationError, match=said):
            read_rows(path, Reading(), form)
    for form in (None, "csv"):
        with pytest.raises(AnnotationError, match="is a folder; for one folder per class say --folder"):
            read_rows(tmp_path, Reading(), form)
    for form in ("bold", "heco"):
        with pytest.raises(AnnotationError, match="wanted"):
            read_rows(tmp_path, Reading(), form)
