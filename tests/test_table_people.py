"""Rows of a table become people: boxes in every convention and unit, what is suspected of a file, and splits, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cocoer.data.files import FileFacts
from cocoer.data.label_studio_boxes import read_label_studio
from cocoer.data.prepare.table.people import (
    Person,
    check_convention,
    find_classes,
    find_images,
    in_pixels,
    judge_boxes,
    judge_labels,
)
from cocoer.data.prepare.table.rows import Convention, Reading, Row, Unit
from cocoer.data.prepare.table.splits import empty_splits, joined_groups, shared_across, shared_report
from cocoer.errors import AnnotationError, BoxesError
from cocoer.names import ClassNames

FACTS = {"a.jpg": FileFacts(200, 100, "a"), "bad.jpg": FileFacts(0, 0, "", "broken")}


def person(image: str = "a.jpg", reason: str = "", **row: Any) -> Person:
    return Person(Row("row 1", image, **row), image, reason)


@pytest.mark.parametrize("unit", ["pixels", "fraction", "percent"])
@pytest.mark.parametrize(
    ("convention", "pixels"),
    [("xyxy", (40.0, 20.0, 120.0, 70.0)), ("xywh", (40.0, 20.0, 80.0, 50.0)), ("cxcywh", (80.0, 45.0, 80.0, 50.0))],
)
def test_every_convention_and_unit_is_the_same_box(
    convention: Convention, pixels: tuple[float, ...], unit: Unit
) -> None:
    scale = {"pixels": (1.0, 1.0), "fraction": (1 / 200, 1 / 100), "percent": (0.5, 1.0)}[unit]
    values = tuple(v * scale[i % 2] for i, v in enumerate(pixels))
    assert in_pixels(values, convention, unit, 200, 100) == pytest.approx((40, 20, 120, 70))


def test_boxes_are_cut_counted_and_refused_with_a_reason() -> None:
    people = [
        person(body=(10, 10, 50, 90), head=(20, 20, 30, 30)),
        person(body=(-5, 10, 50, 120), head=(20, 20, 30, 30)),
        person(body=(10, 10, 50, 90), head=(190, 90, 210, 110)),
        person(body=(199.5, 0, 300, 50)),
        person(body=(0, 99.5, 50, 300)),
        person(body=(199, 0, 300, 50)),
        person(body=(300, 0, 400, 50)),
        person(body=(50, 10, 10, 90)),
        person(body=(float("nan"), 0, 10, 10)),
        person(body=(1, 2, 3)),
        person("bad.jpg", body=(10, 10, 50, 90)),
        person(reason="known", body=(-10, 10, 50, 90)),
        person("unknown.jpg", body=(-10, 10, 50, 90)),
    ]
    assert judge_boxes(people, FACTS) == 3  # the second's body, the third's head, and the one that keeps a pixel
    assert [p.reason for p in people] == [
        "", "", "", "body box: under one pixel inside the image", "body box: under one pixel inside the image", "",
        "body box: outside the image", "body box: inverted or empty", "body box: NaN or infinite",
        people[9].reason, "broken", "known", "",
    ]  # fmt: skip
    assert people[9].reason.startswith("body box: ")
    assert (
        people[1].body == (0, 10, 50, 100)
        and people[2].head == (190, 90, 200, 100)
        and people[5].body == (199, 0, 200, 50)
    )
    assert people[11].body is None and people[12].body is None


def test_a_file_in_another_convention_is_suspected_and_what_the_caller_said_is_not() -> None:
    boxes = [(150.0, 10.0, 40.0, 80.0), (20.0, 10.0, 100.0, 60.0), (0.0, 0.0, 201.0, 101.0)]
    people = [person(body=box) for box in boxes]
    with pytest.raises(AnnotationError, match=r"1 of 3 boxes are none as x1, y1, x2, y2 .*--boxes xywh"):
        check_convention(people, FACTS, Reading(), said=False)
    check_convention(people, FACTS, Reading(), said=True)
    check_convention(people, FACTS, Reading(convention="xywh"), said=False)
    check_convention([*people, person(body=(100.0, 10.0, 102.0, 60.0))], FACTS, Reading(), said=False)  # fits neither
    check_convention([*people, person(body=(10.0, 50.0, 20.0, 52.0))], FACTS, Reading(), said=False)
    check_convention(people[1:], FACTS, Reading(), said=False)  # none inverted
    for inverted in ((50.0, 40.0, 50.0, 60.0), (50.0, 50.0, 60.0, 50.0)):
        with pytest.raises(AnnotationError, match="1 of 2 boxes"):
            check_convention([people[1], person(body=inverted)], FACTS, Reading(), said=False)
    for other in (person(body=boxes[0], convention="xywh"), person(body=boxes[0], unit="percent"),
                  person(reason="known", body=boxes[0]), person("bad.jpg", body=boxes[0]), person()):  # fmt: skip
        check_convention([people[1], other], FACTS, Reading(), said=False)
    small = [person(body=(0.1, 0.2, 0.5, 1.0)), Person(Row("row 2", "a.jpg", body=(0.0, 0.0, 1.0, 1.0)), "a.jpg", "")]
    with pytest.raises(
        AnnotationError, match=r"2 boxes have no number above 1 \(first row 1: \[0.1, 0.2, 0.5, 1.0\]\)"
    ):
        check_convention(small, FACTS, Reading(), said=False)
    check_convention([*small, person(body=(0.0, 0.0, 1.0, 1.5))], FACTS, Reading(), said=False)


def test_images_are_found_below_the_root_alone(tmp_path: Path) -> None:
    (tmp_path / "up").mkdir()
    for name in ("a.jpg", "up/b.jpg", "0123abcd-c.jpg"):
        (tmp_path / name).touch()
    names = ["a.jpg", "up//b.jpg", str(tmp_path.resolve() / "up/b.jpg"), "/elsewhere/a.jpg", "../a.jpg", "up/../a.jpg",
             "0123abcd-a.jpg", "up/deadbeef-b.jpg", "0123abcd-c.jpg", "0123abcd-none.jpg", "0123abc-a.jpg"]  # fmt: skip
    found = find_images([Row("", name) for name in names] + [Row("", "x", fault="no image")], tmp_path)
    assert [p.path for p in found if not p.reason] == [
        "a.jpg", "up/b.jpg", "up/b.jpg", "a.jpg", "up/b.jpg", "0123abcd-c.jpg", "0123abcd-none.jpg", "0123abc-a.jpg"
    ]  # fmt: skip
    assert [p.reason for p in found if p.reason] == ["image lies outside --root"] * 3 + ["no image"]


def test_classes_are_the_labels_and_their_kind_what_people_have() -> None:
    two = [
        person(labels=("sad",)),
        person(labels=("Joy",)),
        person(labels=("SAD",)),
        person(labels=("Sad",)),
        person(labels=("Sad",)),
    ]
    entry = find_classes(two, None, None, "mine")
    assert (entry.classes, entry.labels) == (("Joy", "Sad"), "single")
    assert find_classes([*two, person(labels=("Joy", "Sad"))], None, None, "mine").labels == "multi"
    assert find_classes([*two, person(reason="x", labels=("Joy", "Fear"))], None, None, "mine").labels == "single"
    assert find_classes(two, "multi", ("A", "B"), "mine").classes == ("A", "B")
    for few, count in (([person(labels=("sad",))], "1 \\(sad\\)"), ([], "0 \\(no label at all\\)")):
        with pytest.raises(AnnotationError, match=f"got {count}"):
            find_classes(few, None, None, "mine")


@pytest.mark.parametrize("multi", [True, False])
def test_labels_are_those_of_the_list_in_its_order(multi: bool) -> None:
    people = [
        person(labels=("sad", "JOY")),
        person(labels=("Joy",)),
        person(),
        person(labels=("Angr",)),
        person(reason="x", labels=("Joy",)),
    ]
    judge_labels(people, ClassNames(("Joy", "Sad", "Anger"), multi))
    assert people[0].labels == ("Joy", "Sad")
    assert people[0].reason == ("" if multi else "2 labels where one is wanted: Joy, Sad")
    assert (people[1].labels, people[1].reason) == (("Joy",), "") and people[2].reason == "no label"
    assert (
        "did you mean 'Anger'" in people[3].reason
        and "The classes are" not in people[3].reason
        and people[4].labels == ()
    )


def test_groups_are_joined_through_shared_keys() -> None:
    keys = [("a", "x"), ("b", ""), ("c", "x"), ("c", "y"), ("", ""), ("", ""), ("d", "b")]
    groups = joined_groups(keys).tolist()
    assert groups[0] == groups[2] == groups[3] and groups[1] == groups[6]
    assert len(groups) == 7 and len(set(groups)) == 4
    assert joined_groups([]).tolist() == []


def test_a_split_is_empty_where_nobody_is_in_it() -> None:
    assert empty_splits(["train", "test"]) == ["val"] and empty_splits(["val", "train", "test"]) == []


def test_what_splits_share_is_told_with_four_places() -> None:
    splits = ["train", "test", "val", "test", "train", "train", "test"]
    keys = ["k", "k", "", "", "m", "k", "k"]
    shared = shared_across(splits, keys)
    assert shared == {"train/test": {"k": [0, 1, 5, 6]}}
    assert shared_across(["train", "val", "test"], ["k"] * 3) == {
        "train/val": {"k": [0, 1]}, "train/test": {"k": [0, 2]}, "val/test": {"k": [1, 2]}
    }  # fmt: skip
    where = [f"row {i}" for i in range(9)]
    report = shared_report({"train/test": {"k": [0, 1, 5, 6, 7], "m": [2, 3]}}, where)
    assert report == {
        "train/test": {"shared": 2, "persons": 7, "first": "k", "first_at": ["row 0", "row 1", "row 5", "row 6"]}
    }


def rectangle(name: str, label: str, x: float, y: float, w: float, h: float) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": w, "height": h, "rectanglelabels": [label]}
    return {"id": name, "value": value, "original_width": 200, "original_height": 50, "type": "rectanglelabels"}


def test_label_studios_percent_are_pixels_and_a_relation_gives_a_body_its_head() -> None:
    parts = [rectangle("b", "person", 10, 20, 30, 40), rectangle("h", "Head", 15, 22, 5, 10),
             rectangle("c", "Joy", 50, 0, 50, 100), rectangle("lost", "face", 0, 0, 1, 1),
             {"type": "relation", "from_id": "h", "to_id": "b"}]  # fmt: skip
    task = {
        "data": {"image": "a.jpg"},
        "annotations": [{"was_cancelled": True, "result": []}, {"result": parts}, {"result": []}],
    }
    assert read_label_studio([task]) == {
        "a.jpg": {"persons": [{"body": [20, 10, 80, 30], "head": [30, 11, 40, 16]}, {"body": [100, 0, 200, 50]}]}
    }
    guessed = {"data": {"image": "b.jpg"}, "predictions": [{"result": parts[2:3]}]}
    assert read_label_studio([task, guessed])["b.jpg"] == {"persons": [{"body": [100, 0, 200, 50]}]}
    assert read_label_studio([{"data": {"image": "c.jpg"}}]) == {"c.jpg": {"persons": []}}
    for other in ([], "text", [1], [{"data": 1}], {"a.jpg": []}, [task, {"x": 1}]):
        assert read_label_studio(other) is other
    with pytest.raises(BoxesError, match="not whole as Label Studio's JSON"):
        read_label_studio([{"data": {"image": "a.jpg"}, "annotations": [{}]}])
