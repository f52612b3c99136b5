"""Annotated images: labels never collide, nothing is hidden that should show, the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from cocoer.boxes import Box
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.outputs import ImageResult, PersonBoxes, PersonPrediction
from cocoer.report import canvas
from cocoer.report.draw import LARGEST_SIDE, SMALLEST_SIDE, Plan, draw_result, plan_result
from cocoer.report.layout import Plate, flow, flow_below, place_plates
from cocoer.report.sheet import contact_sheet


def scored(
    index: int, boxes: PersonBoxes | None, count: int = 3, status: str = "ok", message: str = ""
) -> PersonPrediction:
    """A person with `count` labels, or with none and a message where the status is `error`."""
    if status == "error":
        return PersonPrediction(index, {}, {}, None, boxes, status, message)
    names = [EMOTIC_CLASSES[(7 * index + 3 * i) % 26] for i in range(count)]
    by_name = {name: 0.95 - 0.1 * i for i, name in enumerate(names)}
    return PersonPrediction(index, {"pred": tuple(names)}, {"pred": by_name}, None, boxes, status, message)


def crowd(width: int, height: int, count: int, seed: int = 0) -> ImageResult:
    """An image with people anywhere in it, of any size, overlapping as they like; some failed, some without a face."""
    rng = np.random.default_rng(seed)
    persons = []
    for i in range(count):
        x1, x2 = np.sort(rng.uniform(0, width, 2))
        y1, y2 = np.sort(rng.uniform(0, height, 2))
        head = (x1 + 0.3 * (x2 - x1), y1, x1 + 0.7 * (x2 - x1), y1 + 0.2 * (y2 - y1))
        boxes = PersonBoxes((x1, y1, x2, y2), head, track=f"t{i}" if i % 5 == 2 else None)
        status = "error" if i % 7 == 6 else "no_face_estimated" if i % 3 == 1 else "ok"
        persons.append(scored(i, boxes, 1 + i % 8, status, "wanted a box, got nothing" if status == "error" else ""))
    return ImageResult("crowd.png", width, height, tuple(persons))


def shared_area(first: Plate, second: Plate) -> int:
    """Pixels that two rectangles have in common."""
    wide = min(first[2], second[2]) - max(first[0], second[0])
    high = min(first[3], second[3]) - max(first[1], second[1])
    return max(0, wide) * max(0, high)


def assert_apart_and_inside(plates: Sequence[Plate | None], bounds: Plate) -> None:
    there = [p for p in plates if p is not None]
    for x1, y1, x2, y2 in there:
        assert bounds[0] <= x1 < x2 <= bounds[2] and bounds[1] <= y1 < y2 <= bounds[3]
    for first, second in combinations(there, 2):
        assert shared_area(first, second) == 0, (first, second)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def photo(width: int, height: int) -> Image.Image:
    """A smooth grey-blue image: none of the colours that are drawn."""
    x, y = np.meshgrid(np.linspace(0, 60, width), np.linspace(0, 60, height))
    return Image.fromarray(np.stack([90 + x, 90 + y, 120 + 0 * x], -1).astype(np.uint8))


def count_near(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((np.asarray(image) == np.array(colour)).all(-1).sum())


SIDE = st.integers(4, 260)
SPOT = st.floats(-50, 650, width=32)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[tuple[int, int], Box, Box]:
    """A plate size with a body and a head, also partly outside a 600 x 400 canvas."""
    x, y, w, h = draw(SPOT), draw(SPOT), draw(st.floats(1, 500, width=32)), draw(st.floats(1, 400, width=32))
    return (draw(SIDE), draw(SIDE)), (x, y, x + w, y + h), (x + 0.3 * w, y, x + 0.7 * w, y + 0.3 * h)


@given(st.lists(labelled(), max_size=64), st.booleans())
@settings(max_examples=40)
def test_plates_never_overlap_and_never_leave_the_canvas(
    people: list[tuple[tuple[int, int], Box, Box]], anywhere: bool
) -> None:
    sizes, bodies, heads = ([p[i] for p in people] for i in range(3))
    plates = place_plates(sizes, bodies, heads, (0, 0, 600, 400), anywhere=anywhere)
    assert len(plates) == len(people)
    assert_apart_and_inside(plates, (0, 0, 600, 400))
    for plate, (w, h) in zip(plates, sizes, strict=True):
        assert plate is None or (plate[2] - plate[0], plate[3] - plate[1]) == (w, h)


def test_a_lone_plate_stands_at_its_person_and_off_the_head() -> None:
    body, head = (200.0, 100.0, 300.0, 380.0), (230.0, 105.0, 270.0, 150.0)
    (plate,) = place_plates([(120, 40)], [body], [head], (0, 0, 600, 400))
    assert plate is not None
    assert shared_area(plate, (230, 105, 270, 150)) == 0
    assert plate[2] >= 200 - 5 and plate[0] <= 300 + 5 and plate[3] >= 100 - 5 and plate[1] <= 380 + 5


def test_a_plate_that_must_hide_a_head_is_only_set_as_a_last_resort() -> None:
    body, head = (0.0, 0.0, 600.0, 400.0), (10.0, 10.0, 590.0, 390.0)
    assert place_plates([(300, 200)], [body], [head], (0, 0, 600, 400)) == [None]
    assert place_plates([(300, 200)], [body], [head], (0, 0, 600, 400), anywhere=True) == [None]
    assert place_plates([(300, 200)], [body], [head], (0, 0, 600, 400), anywhere=True, last_resort=True) != [None]


def test_a_plate_larger_than_the_canvas_has_no_place() -> None:
    box = (0.0, 0.0, 10.0, 10.0)
    assert place_plates([(700, 20)], [box], [box], (0, 0, 600, 400), anywhere=True) == [None]


@given(st.lists(st.tuples(SIDE, SIDE), max_size=40), st.integers(60, 900), st.integers(0, 12))
@settings(max_examples=40)
def test_cards_in_columns_keep_apart_and_keep_to_their_height_or_width(
    sizes: list[tuple[int, int]], limit: int, gap: int
) -> None:
    plates, whole = flow(sizes, limit, gap)
    assert_apart_and_inside(plates, (0, 0, *whole))
    assert whole[1] <= max([limit, *(h for _, h in sizes)])
    plates, whole = flow_below(sizes, limit, gap)
    assert_apart_and_inside(plates, (0, 0, *whole))
    assert whole[0] <= max([limit, *(w for w, _ in sizes)])


SIZES = [(1, 1), (100, 75), (640, 480), (4000, 3000), (20000, 30), (30, 20000), (20000, 15000)]


def all_plates(plan: Plan) -> list[Plate | None]:
    return [*plan.plates, *plan.panel]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("count", [0, 1, 2, 6, 40, 64])
def test_every_person_has_a_label_in_a_place_of_its_own(size: tuple[int, int], count: int) -> None:
    result = crowd(*size, count, seed=count)
    plan = plan_result(*size, result)
    assert_apart_and_inside(all_plates(plan), (0, 0, *plan.size))
    assert_apart_and_inside(plan.plates, plan.stage)
    assert SMALLEST_SIDE <= max(plan.image[2] - plan.image[0], plan.image[3] - plan.image[1]) <= LARGEST_SIDE
    where = plan.plates if plan.inline else plan.panel
    assert len(where) == len(plan.cards) == count
    assert all(place is not None for place in where)
    if count > 1:
        assert all(place is not None for place in plan.plates), "everybody carries a number"
        assert [card.number for card in plan.cards] == [str(i) for i in range(count)]
    for place in plan.panel:
        assert place is None or shared_area(place, plan.stage) == 0
    assert (plan.notes_top < plan.size[1]) == bool(plan.notes) == (count == 0)


def test_no_head_is_hidden_by_a_label_beside_it() -> None:
    for seed in range(12):
        result = crowd(900, 700, 3, seed)
        plan = plan_result(900, 700, result)
        if not plan.inline:
            continue
        for person in result.persons:
            assert person.boxes is not None
            x1, y1, x2, y2 = (round(v) for v in person.boxes.head)
            hidden = sum(shared_area(plate, (x1, y1, x2, y2)) for plate in plan.plates if plate)
            assert hidden <= (x2 - x1) + (y2 - y1), "no more than the rounding of a box's edge"


def test_a_label_goes_farther_off_before_it_covers_a_face_and_a_line_ties_it() -> None:
    """A face fills the body, and another person stands where the label would be: the far corner is free."""
    first = PersonBoxes((300.0, 100.0, 420.0, 500.0), (302.0, 102.0, 418.0, 498.0))
    others = [
        PersonBoxes((x, y, x + 100, y + 160), (x + 2, y + 2, x + 98, y + 158))
        for x, y in ((190, 100), (190, 300), (430, 100), (430, 300))
    ]
    result = ImageResult("a", 800, 600, tuple(scored(i, b, 2) for i, b in enumerate([first, *others])))
    plan = plan_result(800, 600, result)
    assert plan.inline
    for person in result.persons:
        assert person.boxes is not None
        head = tuple(round(v) for v in person.boxes.head)
        assert all(shared_area(plate, head) == 0 for plate in plan.plates if plate)  # type: ignore[arg-type]


def test_bold_is_a_typeface_of_its_own() -> None:
    assert canvas.typeface(20, bold=True).getname()[1] == "Bold" != canvas.typeface(20).getname()[1]
    assert canvas.text_width("Happiness", 20, bold=True) > canvas.text_width("Happiness", 20)


@pytest.mark.parametrize("size", [(1, 1), (100, 75), (640, 480), (20000, 30)], ids=str)
@pytest.mark.parametrize("count", [0, 1, 6, 40])
def test_the_drawing_has_the_planned_size_and_the_same_bytes_twice(size: tuple[int, int], count: int) -> None:
    image, result = photo(*size), crowd(*size, count)
    before = image.tobytes()
    first, second = draw_result(image, result), draw_result(image, result)
    assert first.size == plan_result(*size, result).size
    assert png(first) == png(second)
    assert image.tobytes() == before


def one_person(**changes: str) -> ImageResult:
    boxes = PersonBoxes((300.0, 100.0, 500.0, 560.0), (360.0, 120.0, 430.0, 200.0))
    boxes = replace(boxes, **changes)  # type: ignore[arg-type]
    return ImageResult("one.png", 800, 600, (scored(0, boxes),))


def test_a_lone_person_has_the_published_colours_on_its_boxes() -> None:
    pixels = np.asarray(draw_result(photo(800, 600), one_person()))
    assert tuple(pixels[300, 301]) == canvas.BODY_GREEN
    assert tuple(pixels[558, 400]) == canvas.BODY_GREEN
    assert tuple(pixels[160, 361]) == canvas.HEAD_YELLOW
    assert tuple(pixels[121, 400]) == canvas.HEAD_YELLOW


def test_outside_boxes_and_plates_the_image_stays_as_it_was() -> None:
    image, result = photo(800, 600), one_person()
    plan = plan_result(800, 600, result)
    assert plan.inline and plan.size == (800, 600)
    touched = (np.asarray(draw_result(image, result)) != np.asarray(image)).any(-1)
    for x1, y1, x2, y2 in [(300, 100, 500, 560), (360, 120, 430, 200)]:
        touched[y1 - 8 : y2 + 8, x1 - 8 : x1 + 8] = touched[y1 - 8 : y2 + 8, x2 - 8 : x2 + 8] = False
        touched[y1 - 8 : y1 + 8, x1 - 8 : x2 + 8] = touched[y2 - 8 : y2 + 8, x1 - 8 : x2 + 8] = False
    for plate in plan.plates:
        assert plate is not None
        touched[plate[1] : plate[3], plate[0] : plate[2]] = False
    assert not touched.any()


def test_an_estimated_box_is_dashed() -> None:
    image = photo(800, 600)
    whole = draw_result(image, one_person())
    body, head = (draw_result(image, one_person(**{key: "estimated"})) for key in ("body_source", "head_source"))
    assert 0 < count_near(body, canvas.BODY_GREEN) < 0.8 * count_near(whole, canvas.BODY_GREEN)
    assert 0 < count_near(head, canvas.HEAD_YELLOW) < 0.8 * count_near(whole, canvas.HEAD_YELLOW)


def test_boxes_follow_a_reduced_copy_of_the_image() -> None:
    result = one_person()
    large = replace(result, width=1600, height=1200, persons=(
        scored(0, PersonBoxes((600.0, 200.0, 1000.0, 1120.0), (720.0, 240.0, 860.0, 400.0))),
    ))  # fmt: skip
    assert png(draw_result(photo(800, 600), large)) == png(draw_result(photo(800, 600), result))


def difference(first: Image.Image, second: Image.Image) -> NDArray[np.bool_]:
    return (np.asarray(first) != np.asarray(second)).any(-1)


def test_every_status_shows() -> None:
    image, boxes = photo(800, 600), PersonBoxes((300.0, 100.0, 500.0, 560.0), (360.0, 120.0, 430.0, 200.0))
    by_status = {
        "ok": scored(0, boxes),
        "no_face_estimated": scored(0, boxes, status="no_face_estimated"),
        "error": scored(0, boxes, status="error", message="the crop is empty"),
        "nothing": replace(scored(0, boxes), labels={"pred": ()}),
    }
    cards = {n: plan_result(800, 600, ImageResult("a", 800, 600, (p,))).cards[0] for n, p in by_status.items()}
    assert cards["ok"].remarks == () and not cards["ok"].alarm
    assert cards["no_face_estimated"].remarks == ("no face: head estimated",)
    assert cards["error"].alarm and "the crop is empty" in cards["error"].remarks
    assert cards["nothing"].rows == (("no label", None),)
    images = {n: draw_result(image, ImageResult("a", 800, 600, (p,))) for n, p in by_status.items()}
    assert len({png(p) for p in images.values()}) == len(images)
    assert count_near(images["error"], canvas.RED) > 500 > count_near(images["ok"], canvas.RED) == 0


def test_a_person_without_boxes_and_a_image_without_persons_are_said_below_or_beside() -> None:
    image = photo(800, 600)
    lost = ImageResult("a", 800, 600, (scored(0, None, status="error", message="no body box"),))
    for result in (
        lost,
        ImageResult("a", 800, 600, ()),
        ImageResult("a", 800, 600, (), "error", "cannot be read " * 20),
    ):
        drawn = draw_result(image, result)
        assert drawn.width * drawn.height > 800 * 600
        assert not difference(drawn.crop((0, 0, 800, 600)), image).any()
    assert count_near(drawn, canvas.RED) > 100


def test_more_labels_than_fit_are_counted() -> None:
    boxes = PersonBoxes((300.0, 100.0, 500.0, 560.0), (360.0, 120.0, 430.0, 200.0))
    plan = plan_result(800, 600, ImageResult("a", 800, 600, (scored(0, boxes, 8),)))
    names = [name for name, _ in plan.cards[0].rows]
    assert names[-1] == f"+{8 - (len(names) - 1)} more"
    shown = [p for _, p in plan.cards[0].rows if p is not None]
    assert shown == sorted(shown, reverse=True)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_any_mode_is_drawn_in_colour(mode: str) -> None:
    drawn = draw_result(photo(700, 500).convert(mode), crowd(700, 500, 2))
    assert drawn.mode == "RGB"


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_printable_text_is_ascii_and_stays_as_it_is(text: str) -> None:
    plain = canvas.printable(text)
    assert all(" " <= c <= "~" for c in plain)
    assert canvas.printable(plain) == plain


def test_printable_spells_out_what_the_typeface_lacks() -> None:
    assert canvas.printable("déjà → λ×2\n漢") == "deja -> lambdax2 ?"


@settings(max_examples=40)
@given(st.text("abc WM,.éß", max_size=80), st.integers(40, 300), st.integers(10, 30))
def test_shortened_and_wrapped_text_fits(text: str, width: int, size: int) -> None:
    short = canvas.shorten(text, size, width)
    assert canvas.text_width(short, size) <= width
    lines = canvas.wrap(text, size, width)
    assert len(lines) <= 3
    assert all(canvas.text_width(line, size) <= width for line in lines)


def test_wrapping_keeps_every_word_where_there_is_room() -> None:
    text = "the body box is empty; wanted x1 < x2"
    assert " ".join(canvas.wrap(text, 12, 120)) == text


def test_numbers_are_readable_on_every_colour() -> None:
    for colour in (*canvas.PERSON_COLOURS, canvas.RED, canvas.HEAD_YELLOW):
        assert canvas.contrast(canvas.readable_on(colour), colour) >= 4
    assert canvas.contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert len(set(canvas.PERSON_COLOURS)) == len(canvas.PERSON_COLOURS)


def test_a_contact_sheet_shows_every_image_once() -> None:
    colours = [(250, 10 * i, 0) for i in range(7)]
    cells = [(Image.new("RGB", (40 + 30 * i, 60), c), [f"image {i}", "caption"]) for i, c in enumerate(colours)]
    sheet = contact_sheet(cells, columns=3, cell=96, title="seven")
    assert sheet.width < 4 * 96 + 60
    for i, colour in enumerate(colours):
        scale = 96 / max(40 + 30 * i, 60)
        assert count_near(sheet, colour) == round((40 + 30 * i) * scale) * round(60 * scale)
    assert png(sheet) == png(contact_sheet(cells, columns=3, cell=96, title="seven"))


def test_a_contact_sheet_says_what_it_wants() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])
    with pytest.raises(ValueError, match="columns 0"):
        contact_sheet([(photo(10, 10), [])], columns=0)
