"""Box maths against slow and obvious counting, and the round trips between frames."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoer.boxes import (
    Box,
    area,
    as_box,
    clip_box,
    intersections,
    iou,
    place_relative,
    relative_box,
    scale_box,
    touched_pixels,
)

COORDINATE = st.floats(-2000, 2000, allow_nan=False, width=32)
SIDE = st.floats(0.5, 1500, width=32)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Boxes with sides of half a pixel and more, partly outside any image."""
    x, y, w, h = draw(COORDINATE), draw(COORDINATE), draw(SIDE), draw(SIDE)
    return x, y, x + w, y + h


@st.composite
def whole_boxes(draw: st.DrawFn) -> Box:
    """Boxes on whole pixels of a 12 x 12 image, so that pixels can be counted."""
    x1, y1 = draw(st.integers(0, 11)), draw(st.integers(0, 11))
    return float(x1), float(y1), float(draw(st.integers(x1 + 1, 12))), float(draw(st.integers(y1 + 1, 12)))


def pixels(box: Box) -> set[tuple[int, int]]:
    """The pixels that a box on whole pixels covers."""
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


@given(boxes())
def test_as_box_takes_any_four_numbers_and_changes_none(box: Box) -> None:
    for given_as in (list(box), np.array(box), np.array(box).reshape(2, 2), [str(v) for v in box]):
        assert as_box(given_as) == box
    assert all(type(v) is float for v in as_box(np.array(box)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, 3], "wanted four numbers [x1, y1, x2, y2], got 3"),
        ([], "got 0"),
        ([[1, 2, 3, 4], [1, 2, 3, 4]], "got 8"),
        (["a", 2, 3, 4], "wanted four numbers"),
        ([[1, 2], [3]], "wanted four numbers"),
        (None, "wanted four numbers"),
        ([1, 2, math.nan, 4], "wanted finite numbers"),
        ([1, 2, math.inf, 4], "wanted finite numbers"),
        ([5, 2, 3, 4], "corners are swapped"),
        ([1, 2, 3, 2], "the box is empty"),
    ],
)
def test_as_box_refuses_and_names_the_box(values: object, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        as_box(values, "head of person 3")  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert str(caught.value).startswith("head of person 3: ")


@given(boxes(), st.integers(1, 3000), st.integers(1, 3000))
def test_clipping_stays_inside_image_and_box_and_is_done_once(box: Box, width: int, height: int) -> None:
    overlaps = box[0] < width and box[1] < height and box[2] > 0 and box[3] > 0
    if not overlaps:
        with pytest.raises(ValueError, match=f"outside the image .{width}x{height} pixels"):
            clip_box(box, width, height)
        return
    x1, y1, x2, y2 = clipped = clip_box(box, width, height)
    assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
    assert x1 >= box[0] and y1 >= box[1] and x2 <= box[2] and y2 <= box[3]
    assert clip_box(clipped, width, height) == clipped
    assert area([clipped])[0] == intersections([box], [[0, 0, width, height]])[0, 0]


def test_a_box_that_only_touches_the_edge_is_outside() -> None:
    with pytest.raises(ValueError, match="body: .* lies outside"):
        clip_box((100.0, 0.0, 120.0, 50.0), 100, 80, "body")


@given(boxes(), st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 512))
def test_scaling_there_and_back(box: Box, width: int, height: int, size: int) -> None:
    scaled = scale_box(box, width, height, size)
    assert scale_box(scaled, size, size, 1) == pytest.approx(scale_box(box, width, height, 1), rel=1e-9, abs=1e-12)
    back = (scaled[0] * width / size, scaled[1] * height / size, scaled[2] * width / size, scaled[3] * height / size)
    assert back == pytest.approx(box, rel=1e-9, abs=1e-9)


def test_scaling_maps_the_image_onto_the_frame() -> None:
    """Width goes with x and height with y: a wide image shows a mix-up."""
    assert scale_box((0.0, 0.0, 640.0, 480.0), 640, 480, 224) == (0.0, 0.0, 224.0, 224.0)
    assert scale_box((320.0, 120.0, 640.0, 480.0), 640, 480, 224) == (112.0, 56.0, 224.0, 224.0)


@given(st.lists(whole_boxes(), max_size=4), st.lists(whole_boxes(), max_size=4))
def test_areas_and_overlaps_are_what_counting_pixels_gives(first: list[Box], second: list[Box]) -> None:
    assert area(first).tolist() == [len(pixels(a)) for a in first]
    shared, ratio = intersections(first, second), iou(first, second)
    assert shared.shape == ratio.shape == (len(first), len(second))
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            assert shared[i, j] == len(pixels(a) & pixels(b))
            assert ratio[i, j] == pytest.approx(len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)))


@given(boxes(), boxes())
def test_iou_is_symmetric_bounded_and_one_only_with_itself(a: Box, b: Box) -> None:
    ratio = iou([a], [b])[0, 0]
    assert 0 <= ratio <= 1
    assert ratio == iou([b], [a])[0, 0]
    assert iou([a], [a])[0, 0] == 1


def test_iou_of_empty_boxes_is_zero() -> None:
    assert iou([[3, 3, 3, 3]], [[3, 3, 3, 3]]).tolist() == [[0.0]]


@given(boxes(), boxes())
def test_relative_boxes_come_back(inner: Box, outer: Box) -> None:
    there = relative_box(inner, outer)
    # Units of a half-pixel box blow up a distance of 4000 pixels, and rounding with it.
    assert place_relative(there, outer) == pytest.approx(inner, rel=1e-9, abs=1e-8)


@given(boxes())
def test_a_box_is_the_unit_square_of_itself(box: Box) -> None:
    assert relative_box(box, box) == (0, 0, 1, 1)
    assert place_relative((0.0, 0.0, 1.0, 1.0), box) == pytest.approx(box)


def test_relative_box_keeps_x_and_y_apart() -> None:
    assert relative_box((10.0, 20.0, 20.0, 60.0), (10.0, 20.0, 30.0, 100.0)) == (0, 0, 0.5, 0.5)
    assert place_relative((0.25, 0.5, 0.5, 1.0), (10.0, 20.0, 30.0, 100.0)) == (15, 60, 20, 100)


@given(st.tuples(*[st.floats(-20, 60)] * 4))
def test_touched_pixels_are_those_that_the_box_overlaps_and_at_least_one(corners: Box) -> None:
    x1, x2, y1, y2 = *sorted(corners[:2]), *sorted(corners[2:])
    left, top, right, bottom = touched_pixels((x1, y1, x2, y2), 31, 17)
    assert 0 <= left < right <= 31 and 0 <= top < bottom <= 17
    columns = [x for x in range(31) if x < x2 and x + 1 > x1]
    rows = [y for y in range(17) if y < y2 and y + 1 > y1]
    if columns and rows and x1 < x2 and y1 < y2:
        assert (left, right, top, bottom) == (columns[0], columns[-1] + 1, rows[0], rows[-1] + 1)
