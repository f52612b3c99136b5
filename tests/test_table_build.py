"""From rows to an index by hand: who is whom, where boxes come from, which split, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from real_trees import save_image

from cocoer.data.people import Detections
from cocoer.data.prepare.emotic_index import HeadSource
from cocoer.data.prepare.heads import Candidate
from cocoer.data.prepare.table.build import TableIndex, TableOptions, build_table_index, shared_lines
from cocoer.data.prepare.table.rows import Row
from cocoer.errors import AnnotationError, StrictError

BODY, HEAD = (10.0, 10.0, 70.0, 90.0), (30.0, 12.0, 50.0, 30.0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(6):
        save_image(tmp_path / f"{i}.jpg", seed=i)  # 80 x 100
    return tmp_path


def row(number: int, image: int = 0, label: str = "joy", split: str = "train", **more: Any) -> Row:
    return replace(Row(f"row {number}", f"{image}.jpg", (label,), split=split), **more)


def build(root: Path, *rows: Row, **options: Any) -> TableIndex:
    others = [row(98, 5, "rage", "val"), row(99, 4, "rage", "test")]
    return build_table_index([*rows, *others], root, TableOptions(**options))


def reasons(index: TableIndex) -> dict[str, str]:
    return {said["where"]: said["reason"] for said in index.sidecar["skipped"]}


def test_the_same_body_or_head_or_bare_image_is_the_same_person(root: Path) -> None:
    other = (12.0, 12.0, 60.0, 80.0)
    index = build(
        root,
        row(1, body=BODY), row(2, body=BODY), row(3, body=BODY, label="rage"), row(4, body=other),
        row(5, 1, head=HEAD), row(6, 1, head=HEAD), row(7, 1, head=(32.0, 12.0, 50.0, 30.0)),
        row(8, 2), row(9, 2), row(10, 2, body=BODY),
        row(11, 3, body=BODY, head=HEAD), row(12, 3, body=other, head=HEAD), row(13, 3, body=BODY, head=(20.0, 12.0, 40.0, 30.0)),
    )  # fmt: skip
    assert reasons(index) == {
        "row 2": "the same person as row 1", "row 3": "the same person as row 1, with other labels",
        "row 6": "the same person as row 5", "row 9": "the same image without a box as row 8",
        "row 13": "the same person as row 11",
    }  # fmt: skip
    assert [r.person for r in index.records if r.image == "0.jpg"] == [0, 1]
    assert index.sidecar["skipped_because"][0] == "3 x the same person (first: row 2)"  # the most frequent first


def test_boxes_come_from_the_row_else_a_detector_else_the_image(root: Path) -> None:
    face = (25.0, 14.0, 45.0, 32.0)
    found = Detections(np.array([BODY]), np.array([0.8]), np.array([face]), np.array([0.76543]))
    asked: list[str] = []

    def detect(images: Any) -> tuple[dict[str, Detections], dict[str, str]]:
        asked.extend(images)
        return dict.fromkeys(("0.jpg", "1.jpg", "2.jpg", "3.jpg"), found), {"4.jpg": "torn", "nowhere.jpg": "?"}

    rows = [row(1, 0, body=BODY, head=HEAD), row(2, 1, body=BODY), row(3, 2, head=HEAD), row(4, 3, group="g")]
    index = build(root, *rows, heads=HeadSource(detect=detect))
    got = {r.image: (r.body, r.head, r.head_source, dict(r.extra)) for r in index.records}
    assert got == {
        "0.jpg": (BODY, HEAD, "annotated", {"body_source": "annotated"}),
        "1.jpg": (BODY, face, "detected", {"body_source": "annotated", "head_score": 0.7654}),
        "2.jpg": (BODY, HEAD, "annotated", {"body_source": "detected"}),
        "3.jpg": (BODY, face, "detected", {"body_source": "detected", "head_score": 0.7654, "group": "g"}),
        "5.jpg": ((0, 0, 80, 100), got["5.jpg"][1], "estimated", {"body_source": "estimated"}),
    }
    assert reasons(index) == {"row 99": "unreadable image: torn"} and sorted(asked) == [f"{i}.jpg" for i in range(6)]
    assert index.sidecar["bodies"]["train"]["annotated"] == {"persons": 2, "share": 0.5}


def test_heads_of_a_file_are_for_people_without_their_own(root: Path) -> None:
    given = {("0.jpg", 1): Candidate(HEAD, "annotated", 0.5), ("1.jpg", 0): Candidate(HEAD, "annotated")}
    own = (20.0, 20.0, 40.0, 40.0)
    rows = [row(1, body=BODY), row(2, body=(5.0, 5.0, 60.0, 95.0)), row(3, 1, body=BODY, head=own), row(4, 2)]
    index = build(root, *rows, heads=HeadSource(given=given))
    heads = [(r.image, r.person, r.head_source, r.extra.get("head_score")) for r in index.records]
    assert heads[:4] == [("0.jpg", 0, "estimated", None), ("0.jpg", 1, "annotated", 0.5), ("1.jpg", 0, "annotated", None),
                         ("2.jpg", 0, "estimated", None)]  # fmt: skip
    assert index.records[1].head == HEAD and index.records[2].head == own


def test_given_splits_are_taken_and_may_leave_one_out(root: Path) -> None:
    rows = [row(1, 0, split="Training"), row(2, 1, "rage", "dev"), row(3, 2, split="tset"), row(4, 3, split="")]
    index = build_table_index(rows, root, TableOptions())
    assert [r.split for r in index.records] == ["train", "val"] and index.sidecar["split"]["splits"] == "given"
    assert reasons(index) == {
        "row 3": "unknown split 'tset', did you mean 'test'?",
        "row 4": "no split, while other rows have one",
    }
    assert index.sidecar["classes_without_train"] == ["rage"]


def test_what_train_shares_is_dropped_from_train_alone(root: Path) -> None:
    rows = [row(1, 0, group="a"), row(2, 1, "rage", "test", group="a"), row(3, 2, body=BODY), row(4, 2, split="val"),
            row(5, 3, split="val", group="b"), row(6, 3, "rage", "test", group="b", body=BODY), row(7, 1, body=BODY)]  # fmt: skip
    shared = build(root, *rows).sidecar["split"]
    assert shared_lines(shared) == [
        "train/test share 1 groups with 2 persons, first 'a' (row 1, row 2)",
        "val/test share 1 groups with 2 persons, first 'b' (row 5, row 6)",
        *(line for line in shared_lines(shared) if " images " in line),
    ]
    index = build(root, *rows, drop_overlap=True)
    assert reasons(index) == {
        "row 1": "overlap with test (groups)", "row 3": "overlap with val (images)", "row 7": "overlap with test (images)",
    }  # fmt: skip


def test_made_splits_say_how(root: Path) -> None:
    for i in range(6, 30):
        save_image(root / f"{i}.jpg", seed=i)
    rows = [row(i, i, ("joy", "rage")[i % 2], "", group="g" if i < 3 else "") for i in range(30)]
    index = build_table_index(rows, root, TableOptions())
    assert index.sidecar["split"] == {"splits": "made", "near": 6, "seed": 0, "groups": 28, "largest_group": 3}
    assert len({r.split for r in index.records[:3]}) == 1
    with pytest.raises(AnnotationError, match=r"no person is left for val, test: 2 of 2 persons are tied together"):
        build_table_index([row(1, 0, "joy", "", group="a"), row(2, 1, "rage", "", group="a")], root, TableOptions())


def test_strict_lists_twenty_faults_and_no_rule_of_the_selection(root: Path) -> None:
    rows = [row(i, body=(50.0, 0.0, 40.0, 10.0)) for i in range(21)]
    silent = row(30, 1, labels=())
    build(root, silent, row(31, 2), strict=True)
    with pytest.raises(StrictError, match="--strict: 21 persons would be left out") as told:
        build(root, *rows, silent, row(31, 2), strict=True, said=True)
    assert str(told.value).count("inverted or empty") == 20 and "and 1 more" in str(told.value)
    assert reasons(build(root, silent, row(31, 2))) == {"row 30": "no label"}
    lost = [row(1, image=9), row(2, image=8, label="rage"), row(3, body=(90.0, 0.0, 99.0, 10.0))]
    with pytest.raises(AnnotationError) as nobody:
        build_table_index(lost, root, TableOptions())
    assert str(nobody.value) == (
        "no person could be used:\n  2 x missing file (first: row 1)\n  1 x body box: outside the image (first: row 3)"
    )
