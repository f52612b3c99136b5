"""Faces and bodies: one-to-one assignment against brute force, the published rule, estimates, boxes files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoer.boxes import Box, relative_box
from cocoer.data.boxes_file import GivenBoxes, person_from, persons_for, read_boxes_file
from cocoer.data.coco_boxes import coco_person, is_coco_entry, number_in, read_coco
from cocoer.data.people import (
    HEAD_IN_BODY,
    Detections,
    assign_one_to_one,
    assign_published,
    body_from_head,
    complete_boxes,
    fit_scores,
    head_from_body,
    people_from_detections,
)
from cocoer.errors import BoxesError
from cocoer.outputs import PersonBoxes

W, H = 640, 480


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


@st.composite
def box(draw: st.DrawFn) -> Box:
    x, y = draw(numbers(0, W - 20)), draw(numbers(0, H - 20))
    return x, y, draw(numbers(x + 4, W)), draw(numbers(y + 4, H))


@st.composite
def head_of(draw: st.DrawFn, body: Box) -> Box:
    """A face somewhere in the upper part of a body."""
    w, h = body[2] - body[0], body[3] - body[1]
    x, y = body[0] + draw(numbers(0, 0.6)) * w, body[1] + draw(numbers(0, 0.3)) * h
    return x, y, x + 0.3 * w, y + 0.25 * h


@st.composite
def crowd(draw: st.DrawFn) -> tuple[list[Box], list[Box]]:
    bodies = draw(st.lists(box(), max_size=4))
    faces = [draw(head_of(b)) for b in bodies if draw(st.booleans())] + draw(st.lists(box(), max_size=2))
    return bodies, faces


@given(crowd())
def test_one_to_one_is_the_best_of_all_assignments(people: tuple[list[Box], list[Box]]) -> None:
    bodies, faces = people
    scores = fit_scores(bodies, faces)

    def value(choice: tuple[int | None, ...]) -> tuple[int, float]:
        total = [scores[b, f] for b, f in enumerate(choice) if f is not None]
        return (len(total), float(np.sum(total))) if np.isfinite(total).all() else (-1, 0.0)

    options = itertools.product([None, *range(len(faces))], repeat=len(bodies))
    legal = [c for c in options if len({f for f in c if f is not None}) == sum(f is not None for f in c)]
    chosen = value(tuple(assign_one_to_one(bodies, faces)))
    best = max(map(value, legal))
    assert chosen[0] == best[0]
    assert chosen[1] == pytest.approx(best[1])


@given(crowd())
def test_no_face_is_shared_and_every_face_lies_in_its_body(people: tuple[list[Box], list[Box]]) -> None:
    bodies, faces = people
    chosen = assign_one_to_one(bodies, faces)
    used = [f for f in chosen if f is not None]
    assert len(used) == len(set(used))
    for body, face in zip(bodies, chosen, strict=True):
        if face is not None:
            x, y, _, _ = relative_box((*faces[face][:2], *faces[face][:2]), body)
            middle = relative_box(faces[face], body)
            assert 0 <= (middle[0] + middle[2]) / 2 <= 1 and 0 <= (middle[1] + middle[3]) / 2 <= 1, (x, y)


@given(crowd(), st.randoms())
def test_order_of_detections_changes_nobody(people: tuple[list[Box], list[Box]], random: Any) -> None:
    bodies, faces = people
    order = list(range(len(faces)))
    random.shuffle(order)
    a = assign_one_to_one(bodies, faces)
    b = assign_one_to_one(bodies, [faces[i] for i in order])
    scores = fit_scores(bodies, faces)

    def total(choice: list[int | None]) -> float:
        return float(sum(scores[i, f] for i, f in enumerate(choice) if f is not None))

    assert total(a) == pytest.approx(total([None if f is None else order[f] for f in b]))


def test_two_people_side_by_side_keep_their_own_faces_where_the_published_rule_shares_one() -> None:
    # The front body's x range holds both faces; the face behind was found first.
    back, front = (100, 40, 300, 470), (150, 100, 420, 470)
    face_back, face_front = (170, 60, 230, 120), (250, 130, 320, 210)
    assert assign_one_to_one([back, front], [face_back, face_front]) == [0, 1]
    assert assign_published([back, front], [face_back, face_front]) == [0, 0]


def test_published_rule_ignores_height_and_wants_the_whole_x_range() -> None:
    body = (100, 100, 200, 400)
    assert assign_published([body], [(90, 110, 140, 150), (120, 900, 180, 950)]) == [1]
    assert assign_published([body], [(90, 110, 140, 150)]) == [None]
    assert assign_published([], [(0, 0, 1, 1)]) == []
    assert assign_published([body], []) == [None]


@given(box())
def test_estimated_head_lies_in_the_body_and_the_body_can_be_had_back(body: Box) -> None:
    head = head_from_body(body, W, H)
    assert 0 <= head[0] < head[2] <= W and 0 <= head[1] < head[3] <= H
    if body[2] - body[0] > 8 and body[3] - body[1] > 10:
        assert relative_box(head, body) == pytest.approx(HEAD_IN_BODY, abs=1e-4)
        back = body_from_head(head, W, H)
        assert back == pytest.approx(body, abs=0.05)


@given(box())
def test_estimated_body_holds_the_head_inside_the_image(head: Box) -> None:
    body = body_from_head(head, W, H)
    assert body[0] <= head[0] and body[1] <= head[1] and body[2] >= head[2] and body[3] >= head[3]
    assert body[0] >= 0 and body[1] >= 0 and body[2] <= W and body[3] <= H


@given(crowd())
def test_everybody_detected_is_somebody_once(people: tuple[list[Box], list[Box]]) -> None:
    bodies, faces = people
    found = Detections(np.array(bodies).reshape(-1, 4), np.full(len(bodies), 0.9),
                       np.array(faces).reshape(-1, 4), np.full(len(faces), 0.8))  # fmt: skip
    people_ = people_from_detections(found, W, H)
    assert sum(p.body_source == "detected" for p in people_) == len(bodies)
    heads = [p.head for p in people_ if p.head_source == "detected"]
    assert len(heads) == len(set(heads)) <= len(faces)
    assert all(p.head_source == "detected" or p.body_source == "detected" for p in people_)
    assert [p.body[0] + p.body[2] for p in people_] == sorted(p.body[0] + p.body[2] for p in people_)


def test_a_body_without_a_face_and_a_face_without_a_body_are_both_scored() -> None:
    found = Detections(
        np.array([[10, 10, 110, 310]]), np.array([0.7]), np.array([[400, 50, 440, 100]]), np.array([0.6])
    )
    first, second = people_from_detections(found, W, H)
    assert (first.body_source, first.head_source, first.head_score) == ("detected", "estimated", None)
    assert (second.body_source, second.head_source, second.head_score) == ("estimated", "detected", 0.6)
    assert len(people_from_detections(found, W, H, keep_bare_faces=False)) == 1


def test_useless_detections_are_left_out_and_a_repeated_face_counts_once() -> None:
    nan = float("nan")
    found = Detections(
        np.array([[nan, 0, 10, 10], [50, 50, 20, 90], [-90, -90, -10, -10]]), np.ones(3),
        np.array([[400, 50, 440, 100], [401, 51, 441, 101]]), np.array([0.9, 0.8]),
    )  # fmt: skip
    assert [p.head for p in people_from_detections(found, W, H)] == [(400, 50, 440, 100)]
    with pytest.raises(ValueError, match="one_to_one, published"):
        people_from_detections(found, W, H, rule="nearest")


def test_a_person_needs_a_box() -> None:
    with pytest.raises(ValueError, match="neither"):
        complete_boxes(None, None, W, H)


def test_boxes_are_cut_at_the_border_and_track_ids_go_through() -> None:
    person = person_from({"body": [-20, 10, 700, 480], "head": [5, 5, 50, 60], "id": "t7"}, W, H)
    assert person == PersonBoxes((0, 10, W, 480), (5, 5, 50, 60), track="t7")
    assert person_from({"bbox": [10, 10, 60, 200], "track_id": 3}, W, H).head_source == "estimated"
    assert person_from({"face": [30, 30, 60, 70]}, W, H).body_source == "estimated"
    given_ = PersonBoxes((1, 1, 50, 90), (5, 5, 20, 30), head_source="detected", head_score=0.5, track=4)
    assert person_from(given_, W, H) == given_


def test_a_written_result_is_read_back_and_its_estimates_are_made_again() -> None:
    boxes = PersonBoxes((10, 10, 110, 310), (48.2, 31.6, 71.7, 82.0), head_source="estimated", track="a").to_dict()
    person = person_from({"person": 0, "pred": ["Peace"], "track": "a", "boxes": boxes}, W, H)
    assert (person.body, person.head_source, person.track) == ((10, 10, 110, 310), "estimated", "a")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"body": [700, 10, 800, 90]}, "outside"),
        ({"body": [90, 10, 10, 90]}, "swapped"),
        ({"body": [float("nan"), 10, 10, 90]}, "finite"),
        ({"body": [1, 2, 3]}, "got 3"),
        ({"body": []}, "got 0"),
        ({"body": "1,2,3,4"}, "four numbers"),
        ({"body": [1, "x", 3, 4]}, "four numbers"),
        ({"body": {"x1": 1}}, "four numbers"),
        ({"body": [1, 2, 10**400, 4]}, "four numbers|too large|overflow|int too"),
        ({"head": [5, 5, 5, 60]}, "empty"),
        ({"body": True}, "four numbers"),
        ({}, r"\(none\)"),
        ({"boxes": [1, 2, 3, 4]}, "boxes"),
        ({"body": [1, 1, 9, 9], "id": [3]}, "'id'"),
        ([1, 2, 3, 4], "object"),
        (None, "object"),
        ("person", "object"),
    ],
)
def test_wrong_boxes_say_what_is_wrong(raw: Any, said: str) -> None:
    with pytest.raises(BoxesError, match=said):
        person_from(raw, W, H)


def test_boxes_of_many_images_are_found_by_name_path_or_stem(tmp_path: Path) -> None:
    person = {"body": [1, 1, 9, 9]}
    tree = {"in/a.jpg": {"persons": [person]}, "b.jpg": [person, person], "c": [], "v.mp4#8": [person]}
    assert persons_for(tree, "in/a.jpg") == [person]
    assert persons_for(tree, "deep/b.jpg", tmp_path / "b.jpg") == [person, person]
    assert persons_for(tree, "c.png", tmp_path / "c.png") == []
    assert persons_for(tree, "v.mp4", tmp_path / "v.mp4", frame=8) == [person]
    assert persons_for(tree, "d.jpg") is None
    assert persons_for({"persons": [person]}, "any.jpg") == [person]
    for broken in ({"persons": 3}, {"a.jpg": {"persons": {}}}, {"a.jpg": 3}, 7):
        with pytest.raises(BoxesError):
            persons_for(broken, "a.jpg")


def test_given_boxes_come_from_the_file_then_from_beside_the_image(tmp_path: Path) -> None:
    image, other = tmp_path / "a.jpg", tmp_path / "b.jpg"
    (tmp_path / "a.boxes.json").write_text(json.dumps({"persons": [{"body": [1, 1, 5, 5]}]}))
    boxes = tmp_path / "all.json"
    boxes.write_text(json.dumps({"b.jpg": [{"body": [2, 2, 5, 5]}]}))
    given_ = GivenBoxes(boxes, single=False)
    assert given_(str(image), image) == [{"body": [1, 1, 5, 5]}]
    assert given_(str(other), other) == [{"body": [2, 2, 5, 5]}]
    assert given_("c.jpg", tmp_path / "c.jpg") is None
    assert GivenBoxes(None, single=True)("x", None) is None
    (tmp_path / "c.boxes.json").write_text("{]")
    with pytest.raises(BoxesError, match=r"c\.boxes\.json.*not JSON"):
        given_("c.jpg", tmp_path / "c.jpg")


def test_bare_persons_serve_one_image_only(tmp_path: Path) -> None:
    boxes = tmp_path / "one.json"
    boxes.write_text(json.dumps({"persons": [{"body": [1, 1, 5, 5]}]}))
    assert GivenBoxes(boxes, single=True)("a.jpg", None) == [{"body": [1, 1, 5, 5]}]
    with pytest.raises(BoxesError, match="under the image's name"):
        GivenBoxes(boxes, single=False)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 200_000, b"3"])
def test_a_boxes_file_that_is_none_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(BoxesError, match=r"b\.json"):
        GivenBoxes(path, single=True)
    with pytest.raises(BoxesError, match="no such file"):
        read_boxes_file(tmp_path / "absent.json")
    with pytest.raises(BoxesError, match="cannot be read"):
        read_boxes_file(tmp_path)


def test_the_score_of_a_face_is_its_covered_share_less_how_far_it_is_from_where_heads_are() -> None:
    body = (100.0, 50.0, 300.0, 450.0)  # 200 wide, 400 high; heads are at 0.156 of the height
    top = 50 + 0.156 * 400

    def face(x: float, y: float, w: float = 40.0, h: float = 50.0) -> Box:
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2

    for x, y, wanted in (
        (200, top, 1.0), (240, top, 1 - 40 / 200), (160, top, 1 - 40 / 200), (200, top + 100, 1 - 0.75 * 0.25),
        (260, top + 40, 1 - 0.3 - 0.75 * 0.1), (200, 50, 0.5), (200, 450, None), (110, top, None), (290, top, None),
        (115, top, 35 / 40 - 85 / 200), (500, top, None), (108, top, 28 / 40 - 92 / 200),
    ):  # fmt: skip
        (found,) = fit_scores([body], [face(x, y)])[0]
        if wanted is None or (x, y) == (200, 50):
            covered = {(110.0, top): 30 / 40, (290.0, top): 30 / 40}.get((x, y))
            if covered is None:
                assert found == -np.inf  # half of it, or nothing, lies in the body
            else:
                assert found == pytest.approx(covered - 90 / 200)
        else:
            assert found == pytest.approx(wanted)
    exact = (180.0, 50.0 - 16.0, 220.0, 50.0 + 24.0)  # 60 % covered, its centre just inside
    assert fit_scores([body], [exact])[0, 0] == pytest.approx(0.6 - 0.75 * abs(4 / 400 - 0.156))
    for outside in (
        (96.0, 100.0, 100.0, 110.0),
        (300.0, 100.0, 310.0, 110.0),
        (200.0, 46.0, 210.0, 50.0),
        (200.0, 450.0, 210.0, 460.0),
    ):
        assert fit_scores([body], [outside])[0, 0] == -np.inf
    assert fit_scores([body, body], np.empty((0, 4))).shape == (2, 0) and fit_scores([], [body]).shape == (0, 1)


def test_a_face_and_a_body_may_be_smaller_than_a_pixel() -> None:
    """Shares are of the box itself, however small."""
    body, face = (10.0, 20.0, 10.5, 20.4), (10.25, 20.05, 10.35, 20.09)
    (found,) = fit_scores([body], [face])[0]
    assert found == pytest.approx(1 - abs(0.6 - 0.5) - 0.75 * abs(0.07 / 0.4 - 0.156))


def test_as_many_bodies_as_possible_get_a_face_whatever_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first three could have their own faces at 1.0; then the last would have none."""
    no = -np.inf
    scores = np.array([[1, -0.5, no, no], [no, 1, -0.5, no], [no, no, 1, -0.5], [1, no, no, no]])
    monkeypatch.setattr("cocoer.data.people.fit_scores", lambda bodies, faces: scores)
    assert assign_one_to_one([], []) == [1, 2, 3, 0]


def test_an_estimated_head_is_a_pixel_at_least_and_inside_the_image() -> None:
    assert head_from_body((100, 50, 300, 450), 640, 480) == pytest.approx((176.4, 78.8, 223.4, 146.0))
    assert head_from_body((100, 50, 300, 450), 640, 480, (0.25, 0.0, 0.75, 0.5)) == (150, 50, 250, 250)
    tiny = head_from_body((10, 20, 12, 23), 640, 480)  # 0.47 x 0.504 pixels about (10.999, 20.468)
    assert tiny == pytest.approx((10.499, 19.968, 11.499, 20.968))
    assert head_from_body((0, 0, 1, 1), 640, 480) == pytest.approx((0, 0, 1, 1), abs=1e-3)
    assert head_from_body((639, 479, 640, 480), 640, 480) == pytest.approx((638.9995, 478.656, 639.9995, 479.656))
    assert head_from_body((0, 0, 1, 1), 1, 1) == (0, 0, 1, 1)
    assert head_from_body((0, 0, 1, 1), 1, 1, (0.8, 0.8, 1.0, 1.0)) == (0, 0, 1, 1)  # moved back into the only pixel


def test_an_estimated_body_is_cut_at_the_border() -> None:
    inside = body_from_head((176.4, 78.8, 223.4, 146.0), 640, 480)
    assert inside == pytest.approx((100, 50, 300, 450))
    assert body_from_head((176.4, 78.8, 223.4, 146.0), 250, 400) == pytest.approx((100, 50, 250, 400))
    assert body_from_head((0, 0, 47, 67.2), 640, 480) == pytest.approx((0, 0, 123.6, 371.2))


@pytest.mark.parametrize("rule", ["one_to_one", "published"])
def test_people_are_made_from_what_lies_in_the_image_left_to_right(rule: str) -> None:
    nan = float("nan")
    found = Detections(
        bodies=np.array([
            [300.0, 10, 400, 300], [20, 10, 120, 300], [nan, 0, 5, 5], [50, 50, 50, 90], [50, 90, 60, 90],
            [-20, 5, 0, 50], [5, -20, 50, 0], [640, 5, 700, 50], [5, 480, 50, 500],
        ]),
        body_scores=np.array([0.98765, 0.9, *[0.5] * 7]),
        faces=np.array([[330.0, 30, 370, 70], [331, 31, 371, 71], [500, 30, 540, 80], [500, 30, 540, 55.0]]),
        face_scores=np.array([0.91119, 0.8, 0.7, 0.6]),
    )  # fmt: skip
    people = people_from_detections(found, W, H, rule)
    assert [p.body[:3] for p in people[:2]] == [(20, 10, 120), (300, 10, 400)] and len(people) == 4
    left, right, *bare = people
    assert (left.head_source, left.body_source, left.head_score, left.body_score) == (
        "estimated",
        "detected",
        None,
        0.9,
    )
    assert (right.head_source, right.head_score, right.body_score) == ("detected", 0.9112, 0.9877)
    assert right.head == (330, 30, 370, 70)
    assert [p.body_source for p in bare] == ["estimated"] * 2 and [p.head_score for p in bare] == [
        0.7,
        0.6,
    ]  # by the body's top
    assert len(people_from_detections(found, W, H, rule, keep_bare_faces=False)) == 2
    with pytest.raises(ValueError, match="unknown rule 'x'"):
        people_from_detections(found, W, H, "x")


def test_a_second_box_of_a_face_is_the_same_face_from_half_an_overlap_on() -> None:
    faces = np.array([[0.0, 0, 40, 40], [0, 0, 40, 20], [0, 0, 40, 20.5], [100, 0, 140, 40], [101, 0, 141, 40]])
    found = Detections(faces=faces, face_scores=np.array([0.9, 0.8, 0.7, 0.6, 0.5]))
    kept = {p.head_score for p in people_from_detections(found, W, H)}
    assert kept == {0.9, 0.8, 0.6}  # exactly half: another face; the third covers more than half of the first


def test_people_who_stand_alike_are_ordered_by_height_then_head() -> None:
    def of(*boxes: tuple[float, float, float, float]) -> list[Box]:
        found = Detections(bodies=np.array(boxes), body_scores=np.full(len(boxes), 0.5))
        return [p.body for p in people_from_detections(found, W, H)]

    first, second, third = (10.0, 50.0, 110.0, 300.0), (20.0, 20.0, 100.0, 200.0), (0.0, 90.0, 130.0, 100.0)
    assert of(third, first, second) == [second, first, third]  # centres 120, 120, 130; y decides between equals


def test_two_heads_of_one_body_are_ordered_from_left_to_right() -> None:
    body, left, right = (10.0, 10.0, 110.0, 300.0), (40.0, 60.0, 60.0, 90.0), (70.0, 20.0, 90.0, 50.0)
    found = Detections(np.array([body, body]), np.array([0.9, 0.8]), np.array([right, left]), np.array([0.9, 0.8]))
    assert [p.head for p in people_from_detections(found, W, H)] == [left, right]


def test_what_reaches_half_a_pixel_into_the_image_is_seen() -> None:
    bodies = np.array([[-50.0, 5, 0.5, 90], [5, -50, 90, 0.5], [639.5, 5, 700, 90], [5, 479.5, 90, 500]])
    assert len(people_from_detections(Detections(bodies, np.full(4, 0.9)), W, H)) == 4


def test_a_person_of_given_boxes_is_cut_and_marked() -> None:
    person = complete_boxes((-5, -5, 700, 100), (10, 5, 30, 25), W, H)
    assert (person.body, person.head) == ((0, 0, 640, 100), (10, 5, 30, 25))
    assert (person.body_source, person.head_source) == ("annotated", "annotated")
    assert complete_boxes(None, (10, 5, 30, 25), W, H).body_source == "estimated"
    assert complete_boxes((0, 0, 50, 100), None, W, H, source="detected").head_source == "estimated"
    for body, head, said in (
        (None, None, "got neither"),
        ((700, 0, 800, 10), None, "body"),
        (None, (0, 500, 9, 510), "head"),
    ):
        with pytest.raises(ValueError, match=said):
            complete_boxes(body, head, W, H)


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((0, 0, 1, 1), "shares of the image"), ((0.2, 0.1, 0.9, 0.8), "shares of the image"), ((0, 0, 1.5, 1), None),
        ((0, 0, 1, 1.5), None), ((5, 5, 5.5, 50), "under one pixel"), ((5, 5, 50, 5.9), "under one pixel"),
        ((5, 5, 6, 50), None), ((-50, 10, 50, 90), None), ((-51, 10, 50, 90), "most of"), ((10, -50, 90, 50), None),
        ((10, -51, 90, 50), "most of"), ((590, 10, 690, 90), None), ((591, 10, 691, 90), "most of"), ((10, 430, 90, 530), None),
        ((10, 431, 90, 531), "most of"), ((700, 10, 800, 90), "lies outside the image"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["body", "head"])
def test_a_given_box_is_pixels_and_half_of_it_inside_at_least(name: str, box: Box, said: str | None) -> None:
    if said is None:
        person = person_from({name: list(box)}, W, H)
        assert getattr(person, name) == (max(0, box[0]), max(0, box[1]), min(W, box[2]), min(H, box[3]))
        assert min(box[2], box[3]) < 10 or person_from(person, W, H) == person
    else:
        with pytest.raises(BoxesError, match=said):
            person_from({name: list(box)}, W, H)


def test_an_image_of_one_pixel_has_a_box_of_one_pixel() -> None:
    assert person_from({"body": [0, 0, 1, 1]}, 1, 1).body == (0, 0, 1, 1)
    for width, height in ((2, 1), (1, 2)):
        with pytest.raises(BoxesError, match="shares of the image"):
            person_from({"body": [0, 0, 1, 1]}, width, height)


def test_nothing_seen_is_nobody() -> None:
    nothing = Detections()
    shapes = [x.shape for x in (nothing.bodies, nothing.body_scores, nothing.faces, nothing.face_scores)]
    assert shapes == [(0, 4), (0,), (0, 4), (0,)] and people_from_detections(nothing, W, H) == []


@pytest.mark.parametrize(
    ("bbox", "said"),
    [
        ("1234", "four numbers"), ({1: 0, 2: 0, 3: 0, 4: 0}, "four numbers"),
        ("abcd", "four numbers"), ({"x": 1, "y": 2, "w": 3, "h": 4}, "four numbers"), ([1, 2, 3], "four numbers"),
        ([1, 2, 3, 4, 5], "four numbers"), (7, "four numbers"), ([1, 2, "x", 4], "four numbers"),
        ([1, 2, None, 4], "four numbers"),
        ([1, 2, 0, 4], "above 0"), ([1, 2, 4, 0], "above 0"), ([1, 2, -3, 4], "above 0"), ([1, 2, float("nan"), 4], "above 0"),
    ],
)  # fmt: skip
def test_a_box_of_coco_is_four_numbers_with_a_size(bbox: Any, said: str) -> None:
    with pytest.raises(BoxesError, match=said):
        coco_person({"bbox": bbox, "iscrowd": 0, "image_id": 1})


def test_an_entry_of_coco_is_a_person_in_corners() -> None:
    entry = {"bbox": [10, 20, 30, 40], "head_bbox": [15, 22, 5, 6], "image_id": 1, "id": 9, "iscrowd": 0, "track": "a"}
    assert is_coco_entry(entry) and not is_coco_entry({"bbox": [1, 2, 3, 4]}) and not is_coco_entry({"image_id": 1})
    assert coco_person(entry) == {"body": [10, 20, 40, 60], "head": [15, 22, 20, 28], "track": "a"}
    guessed = entry | {"attributes": {"head_source": "estimated", "body_source": "detected"}}
    assert "head" not in coco_person(guessed) and coco_person(guessed)["body"] == [10, 20, 40, 60]


def test_what_coco_files_may_hold_besides_and_what_is_quoted_of_them() -> None:
    assert coco_person({"bbox": [1, 2, 0.5, 0.25], "iscrowd": 0}) == {"body": [1, 2, 1.5, 2.25]}  # less than a pixel
    entry = {"image_id": 1, "bbox": [1, 2, 30, 40]}
    found = read_coco(
        coco([entry | {"category_id": c} for c in (0, 1, 0)], 5), "f"
    )  # no list of categories: 1 is person
    assert found is not None and len(found.people["a.jpg"]) == 1 and found.left_out == {"not people": 2}
    with pytest.raises(BoxesError, match="annotations: wanted a list of objects"):
        read_coco(coco([entry, 3]), "f")  # type: ignore[list-item]
    long = "y" * 300
    for bbox, quoted in ((long, long[:60]), ([1, 2, long, 4], str([1, 2, long, 4])[:60])):
        with pytest.raises(BoxesError) as told:
            coco_person({"bbox": bbox, "iscrowd": 0})
        assert str(told.value).endswith(f"height], got {quoted}")
    with pytest.raises(BoxesError, match=f"called person, got {'y' * 200}; leave"):
        read_coco(coco([entry], [{"id": 1, "name": long}, {"id": 2, "name": "z"}]), "f")
    with pytest.raises(BoxesError, match=f"category_id {'y' * 100}: none"):
        read_coco(coco([entry | {"category_id": c} for c in (long, "z")]), "f")


@pytest.mark.parametrize(
    ("stem", "number"),
    [
        ("COCO_val2014_000000000042", "42"), ("a1b", None), ("7", "7"), ("x" + "9" * 18, "9" * 18), ("x" + "9" * 19, None),
        ("", None), ("a000", "0"),
    ],
)  # fmt: skip
def test_the_number_at_the_end_of_a_name(stem: str, number: str | None) -> None:
    assert number_in(stem) == number


def coco(entries: list[dict[str, Any]], categories: Any = None) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    return {"images": images, "annotations": entries} | ({} if categories is None else {"categories": categories})


def test_who_of_a_coco_file_is_a_person() -> None:
    def entry(category: Any = 1, image: Any = 1, **more: Any) -> dict[str, Any]:
        return {"image_id": image, "bbox": [1, 2, 30, 40], "category_id": category} | more

    found = read_coco(
        coco(
            [entry(), entry(3), entry(iscrowd=1), {"image_id": 1, "category_id": 1}, entry(image=9), entry(image=[1])]
        ),
        "f",
    )
    assert found is not None and not found.numbered
    assert {name: len(people) for name, people in found.people.items()} == {"a.jpg": 1, "b.jpg": 0}
    assert found.left_out == {"not people": 1, "crowds": 1, "without a bbox": 1, "of no image in `images`": 2}
    named = [{"id": 5, "name": "Person"}, {"id": 1, "name": "dog"}]
    kept = read_coco(coco([entry(5), entry(1)], named), "f")
    assert kept is not None and [len(p) for p in kept.people.values()] == [1, 0] and kept.left_out == {"not people": 1}
    alone = read_coco(coco([entry(7), entry(7)], [{"id": 7, "name": "face"}]), "f")
    assert alone is not None and len(alone.people["a.jpg"]) == 2
    with pytest.raises(BoxesError, match="category_id 2, 3: none of them is 1"):
        read_coco(coco([entry(2), entry(3)]), "f")
    with pytest.raises(BoxesError, match="wanted a category called person, got cat, dog"):
        read_coco(coco([entry()], [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]), "f")
    numbered = read_coco([entry(image=42), entry(image=7)], "f")
    assert numbered is not None and numbered.numbered and list(numbered.people) == ["42", "7"]
    by_name = read_coco([entry(image="a.jpg")], "f")
    assert by_name is not None and not by_name.numbered
    assert (
        read_coco([], "f") is None and read_coco({"images": []}, "f") is None and read_coco([{"bbox": 1}], "f") is None
    )
