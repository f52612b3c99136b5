"""Boxes of other conventions are read by their keys or refused, and nothing of a boxes file is passed over without a word."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from programs import load_program
from tiny_recognizer import tiny_checkpoint

from cocoer.data import boxes_file
from cocoer.data.boxes_file import GivenBoxes, person_from, persons_for, persons_of_one, read_boxes_file
from cocoer.errors import BoxesError
from cocoer.outputs import PersonBoxes

W, H = 640, 480
PEOPLE = {"a.jpg": [[10, 20, 60, 90], [100, 20, 180, 200]], "b.jpg": [[5, 6, 50, 80]], "c.jpg": []}


def instances(folder: str = "") -> dict[str, Any]:
    """An instances file whose image ids are not their order; with a dog and a crowd in it."""
    ids = {"a.jpg": 900, "b.jpg": 17, "c.jpg": 4}
    entries = [
        {
            "id": 1000 + i,
            "image_id": ids[name],
            "category_id": 3,
            "iscrowd": 0,
            "area": 5.0,
            "bbox": [x, y, x2 - x, y2 - y],
        }
        for name, boxes in PEOPLE.items()
        for i, (x, y, x2, y2) in enumerate(boxes)
    ]
    entries.append({"id": 1, "image_id": 17, "category_id": 18, "bbox": [1, 1, 90, 90]})
    entries.append({"id": 2, "image_id": 4, "category_id": 3, "iscrowd": 1, "bbox": [1, 1, 90, 90]})
    images = [{"id": number, "file_name": folder + name, "width": W, "height": H} for name, number in ids.items()]
    return {
        "images": images,
        "annotations": entries,
        "categories": [{"id": 18, "name": "dog"}, {"id": 3, "name": "Person"}],
    }


def given(tmp_path: Path, tree: Any, names: list[str]) -> tuple[GivenBoxes, str]:
    path = tmp_path / "boxes.json"
    path.write_text(json.dumps(tree))
    boxes = GivenBoxes(path, single=len(names) == 1)
    for name in names:
        boxes.expect(name, Path(name))
    return boxes, boxes.check_used()


def bodies(boxes: GivenBoxes, name: str) -> list[list[float]]:
    return [list(person_from(raw, W, H).body) for raw in boxes(name, Path(name)) or []]


@pytest.mark.parametrize("folder", ["", "train2017/"])
def test_an_instances_file_gives_every_image_its_own_people_from_xywh(tmp_path: Path, folder: str) -> None:
    names = [f"photos/{folder}{name}" for name in PEOPLE]
    boxes, said = given(tmp_path, instances(folder), names)
    for name, wanted in zip(names, PEOPLE.values(), strict=True):
        assert bodies(boxes, name) == wanted
        assert boxes(name, Path(name)) is not None  # c.jpg is known to show nobody; nothing is detected
    assert "1 entries not people" in said and "1 entries crowds" in said


def test_a_result_list_finds_images_by_the_number_in_their_name(tmp_path: Path) -> None:
    results = [
        {"image_id": number, "category_id": category, "score": 0.9, "bbox": [x, y, x2 - x, y2 - y]}
        for number, name in ((42, "a.jpg"), (7, "b.jpg"))
        for x, y, x2, y2 in PEOPLE[name]
        for category in (1, 18)
    ]
    names = ["COCO_val2014_000000000042.jpg", "x/000000000007.jpg"]
    boxes, said = given(tmp_path, results, names)
    assert [bodies(boxes, name) for name in names] == [PEOPLE["a.jpg"], PEOPLE["b.jpg"]]
    assert "3 entries not people" in said
    by_name = [{"image_id": "b.jpg", "category_id": 0, "bbox": [5, 6, 45, 74], "score": 1}]
    assert bodies(given(tmp_path, by_name, ["in/b.jpg"])[0], "in/b.jpg") == PEOPLE["b.jpg"]


def test_annotations_under_an_images_name_are_xywh_and_a_plain_bbox_is_not(tmp_path: Path) -> None:
    tree = {"a.jpg": [{"bbox": [10, 20, 50, 70], "category_id": 1, "id": 5}], "b.jpg": [{"bbox": [5, 6, 50, 80]}]}
    boxes, _ = given(tmp_path, tree, ["a.jpg", "b.jpg"])
    assert bodies(boxes, "a.jpg") == [[10, 20, 60, 90]] and bodies(boxes, "b.jpg") == PEOPLE["b.jpg"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda tree: tree | {"categories": [{"id": 1, "name": "face"}, {"id": 2, "name": "dog"}]},
            "a category called person",
        ),
        (lambda tree: tree | {"images": [{"id": 1}]}, "id and file_name"),
        (lambda tree: tree | {"annotations": {"a": 1}}, "a list of objects"),
        (lambda tree: tree | {"annotations": [{"image_id": 900, "category_id": 3, "bbox": [1, 2, -3, 4]}]}, "above 0"),
        (lambda tree: tree | {"annotations": [{"image_id": 900, "category_id": 3, "bbox": [1, 2, 3]}]}, "four numbers"),
        (lambda tree: [{"image_id": 1, "category_id": c, "bbox": [1, 2, 3, 4]} for c in (5, 6)], "none of them is 1"),
    ],
)
def test_a_coco_file_that_cannot_be_used_is_refused(tmp_path: Path, change: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(BoxesError, match=words):
        given(tmp_path, change(instances()), ["a.jpg", "b.jpg"])


def test_a_file_that_names_none_of_the_images_is_an_error_and_some_are_counted(tmp_path: Path) -> None:
    tree = {f"{n}.jpg": [{"body": [1, 1, 9, 9]}] for n in "abcde"}
    with pytest.raises(BoxesError, match=r"none of its 5 entries \(a.jpg, b.jpg, c.jpg, ...\) names an image"):
        given(tmp_path, tree, ["x.jpg", "y.jpg"])
    assert (
        "4 of 5 entries name no image of the input (b.jpg, c.jpg, d.jpg, ...)"
        in given(tmp_path, tree, ["a.jpg", "y.jpg"])[1]
    )
    assert given(tmp_path, {"a.jpg": [], "b": []}, ["in/a.jpg", "in/b.png"])[1] == ""
    assert given(tmp_path, {"v.mp4#8": [], "v.mp4#9": []}, ["v.mp4", "b.png"])[1] == ""
    with pytest.raises(BoxesError, match="has no entry"):
        given(tmp_path, {}, ["a.jpg"])
    with pytest.raises(BoxesError, match="does not mention a.jpg"):
        path = tmp_path / "boxes.json"
        path.write_text(json.dumps({"b.jpg": []}))
        GivenBoxes(path, single=True)("a.jpg", None)


def test_unused_entries_are_named_up_to_three(tmp_path: Path) -> None:
    tree = {f"{n}.jpg": [] for n in "abcd"}
    assert given(tmp_path, tree, ["a.jpg", "y.jpg"])[1].endswith("of the input (b.jpg, c.jpg, d.jpg)")
    with pytest.raises(BoxesError, match=r"does not mention z.jpg, only a.jpg, b.jpg, c.jpg, ..."):
        GivenBoxes(tmp_path / "boxes.json", single=True)("z.jpg", None)
    (tmp_path / "boxes.json").write_text("{}")
    with pytest.raises(BoxesError, match=r"does not mention z.jpg, only nothing"):
        GivenBoxes(tmp_path / "boxes.json", single=True)("z.jpg", None)


@pytest.mark.parametrize("tree", [[{"body": [1, 1, 9, 9]}], {"persons": [{"body": [1, 1, 9, 9]}]}])
def test_bare_persons_are_all_used(tmp_path: Path, tree: Any) -> None:
    boxes, said = given(tmp_path, tree, ["a.jpg"])
    assert said == "" and bodies(boxes, "a.jpg") == [[1, 1, 9, 9]]


def test_a_video_takes_its_frames_by_any_name_and_no_other_entry(tmp_path: Path) -> None:
    tree = {"v.mp4#8": [], "v#9": [], "v.mp4": [], "10": [], "c.jpg": []}
    assert given(tmp_path, tree, ["in/v.mp4", "x.png"])[1].endswith("1 of 5 entries name no image of the input (c.jpg)")


def test_an_image_takes_the_entry_that_names_it_best_and_leaves_the_rest(tmp_path: Path) -> None:
    tree = {"a.jpg": [{"body": [1, 1, 9, 9]}], "a": [{"body": [2, 2, 9, 9]}]}
    boxes, said = given(tmp_path, tree, ["in/a.jpg", "in/a.png"])
    assert said == "" and [bodies(boxes, f"in/a.{end}") for end in ("jpg", "png")] == [[[1, 1, 9, 9]], [[2, 2, 9, 9]]]
    boxes.expect("./in/a.jpg", Path("./in/a.jpg"))  # the same image by another name


def test_a_coco_file_beside_an_image_is_read_by_the_images_name() -> None:
    found = persons_of_one(instances(), "in/a.jpg", Path("in/a.jpg"), "boxes file a.boxes.json")
    assert [list(person_from(raw, W, H).body) for raw in found] == PEOPLE["a.jpg"]


def test_an_entry_that_is_no_list_of_persons_is_refused() -> None:
    with pytest.raises(BoxesError, match="boxes of a.jpg: wanted a list of persons, got dict"):
        persons_for({"a.jpg": {"body": [1, 1, 9, 9]}}, "a.jpg")


def test_what_is_quoted_of_a_wrong_value_has_sixty_letters() -> None:
    long = "y" * 80
    for raw, said in ((long, f"str: {long[:60]}"), ({"body": [1, 1, 9, 9], "id": [long]}, f"got {str([long])[:60]!r}"),
                      ({"body": [1, 1, 9, 9], "id": "\ud800" + long}, f"in it: {ascii(chr(0xD800) + long)[:60]}")):  # fmt: skip
        with pytest.raises(BoxesError) as caught:
            person_from(raw, W, H)
        assert str(caught.value).endswith(said)


def test_a_boxes_file_has_a_limit_and_a_fault_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert boxes_file.LARGEST_FILE == 536_870_912  # 512 MB: millions of people
    (tmp_path / "b.json").write_text("[" + " " * 100 + "]")
    monkeypatch.setattr(boxes_file, "LARGEST_FILE", 50)
    with pytest.raises(BoxesError, match=r"b\.json"):
        read_boxes_file(tmp_path / "b.json")
    with pytest.raises(BoxesError) as caught:
        read_boxes_file(tmp_path)
    assert str(caught.value).endswith("cannot be read: Is a directory")


def test_an_entry_that_names_two_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BoxesError, match=r"'a.jpg' names two images, x/a.jpg and y/a.jpg"):
        given(tmp_path, {"a.jpg": []}, ["x/a.jpg", "y/a.jpg"])
    boxes, _ = given(tmp_path, {"x/a.jpg": [{"body": [1, 1, 9, 9]}], "y/a.jpg": []}, ["in/x/a.jpg", "in/y/a.jpg"])
    assert len(boxes("in/x/a.jpg", Path("in/x/a.jpg")) or []) == 1 and boxes("in/y/a.jpg", Path("in/y/a.jpg")) == []


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([0.1, 0.2, 0.5, 0.9], "shares of the image"),
        ([0, 0, 1, 1], "shares of the image"),
        ([10, 10, 10.4, 90], "under one pixel"),
        ([10, 10, 90, 10.5], "under one pixel"),
        ([100, 200, 900, 950], "most of .* outside"),  # of 1000
        ([500, 100, 900, 300], "most of .* outside"),  # x, y, width, height
        ([-300, 10, 200, 90], "most of .* outside"),
        ([60, 90, 10, 20], "swapped"),
    ],
)
@pytest.mark.parametrize("name", ["body", "head"])
def test_boxes_that_are_not_pixels_of_this_image_are_refused(box: list[float], words: str, name: str) -> None:
    with pytest.raises(BoxesError, match=f"{name}: .*{words}"):
        person_from({name: box}, W, H)
    whole = (10.0, 10.0, 90.0, 200.0)
    boxes = {"body": whole, "head": whole} | {name: tuple(box)}
    with pytest.raises(BoxesError, match=words):
        person_from(PersonBoxes(boxes["body"], boxes["head"]), W, H)


def test_boxes_that_go_a_little_over_the_border_are_cut_as_before() -> None:
    assert person_from({"body": [-20, -5, 600, 520]}, W, H).body == (0, 0, 600, 480)
    assert person_from({"body": [0, 0, 1, 1]}, 1, 1).body == (0, 0, 1, 1)
    for box, words in (
        ([0, 0, 1, 1], "looks like shares"), ([639.5, 10, 700, 11.5], "most of"), ([10, 500, 90, 600], "lies outside"),
        ([700, 10, 800, 90], "lies outside"),
    ):  # fmt: skip
        with pytest.raises(BoxesError, match=words) as told:
            person_from({"body": box}, *((2, 2) if "shares" in words else (W, H)))
        assert ("most of" in str(told.value)) == (words == "most of")


WHOLE = (
    7, 7.0, np.int64(7), np.float32(7), np.array(7), np.array([7]), torch.tensor(7), torch.tensor([7]), Fraction(7), np.uint8(7),
)  # fmt: skip


@pytest.mark.parametrize("track", WHOLE)
@pytest.mark.parametrize("key", ["id", "track", "track_id"])
def test_a_whole_number_of_any_type_is_an_id(track: Any, key: str) -> None:
    person = person_from({"body": [1, 1, 90, 90], key: track}, W, H)
    assert person.track == 7 and type(person.track) is int
    json.dumps(person.to_dict())


@pytest.mark.parametrize(
    "track",
    [7.5, float("nan"), float("inf"), True, [7], {"id": 7}, np.array([1, 2]), torch.tensor([1, 2]), 1j, b"7", "\ud800"],
)
def test_what_is_no_id_is_refused(track: Any) -> None:
    with pytest.raises(BoxesError, match="'id' wants"):
        person_from({"body": [1, 1, 90, 90], "id": track}, W, H)


def test_the_command_says_what_it_did_not_use_and_stops_where_that_is_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in PEOPLE:
        Image.new("RGB", (W, H), "gray").save(tmp_path / name)
    checkpoint = tiny_checkpoint(tmp_path / "weights")
    (tmp_path / "coco.json").write_text(json.dumps(instances()))
    (tmp_path / "other.json").write_text(json.dumps({"z.jpg": [], "y.jpg": []}))
    words = [
        "--input",
        str(tmp_path),
        "--checkpoint",
        str(checkpoint),
        "--device",
        "cpu",
        "--output",
        str(tmp_path / "out"),
    ]
    program = load_program("predict")
    assert program.main([*words, "--boxes", str(tmp_path / "other.json")]) == 2
    assert "none of its 2 entries" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert program.main([*words, "--boxes", str(tmp_path / "coco.json")]) == 0
    assert "not used: 1 entries not people; 1 entries crowds" in capsys.readouterr().err
    rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().split("\n")[:-1]]
    assert [[p["boxes"]["body"] for p in row["persons"]] for row in rows] == list(PEOPLE.values())
