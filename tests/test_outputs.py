"""Result types: what is written as JSON, under the release's keys, and what follows from it."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoer.datasets import CAERS_CLASSES
from cocoer.names import LEVELS
from cocoer.outputs import (
    LEVEL_SOURCES,
    SOURCES,
    CompetitionRecord,
    ImageResult,
    PersonBoxes,
    PersonPrediction,
)

UNIT = st.floats(0, 1)
LABELS = st.lists(st.sampled_from(CAERS_CLASSES), unique=True).map(tuple)
TRIPLE = st.tuples(UNIT, UNIT, UNIT)
PIXEL_BOX = st.tuples(*[st.floats(0, 4000)] * 4)


@st.composite
def predictions(draw: st.DrawFn) -> PersonPrediction:
    """Any person a recogniser could speak of, failed ones and missing branches included."""
    source = st.sampled_from(SOURCES)
    score = st.none() | UNIT
    boxes = st.builds(
        PersonBoxes, PIXEL_BOX, PIXEL_BOX, head_score=score, body_score=score, track=st.none() | st.integers()
    )
    record = st.builds(
        CompetitionRecord,
        TRIPLE,
        st.lists(TRIPLE, max_size=2).map(tuple),
        st.permutations(LEVELS).map(tuple),
        st.floats(0, 1e6),
    )
    return PersonPrediction(
        person=draw(st.integers(0, 99)),
        labels=draw(st.dictionaries(source, LABELS)),
        probabilities=draw(st.dictionaries(source, st.dictionaries(st.sampled_from(CAERS_CLASSES), UNIT))),
        competition=draw(st.none() | record),
        boxes=draw(st.none() | boxes),
        pseudo_label=draw(LABELS),
    )


@given(predictions())
def test_a_result_is_plain_json_and_comes_back_the_same(prediction: PersonPrediction) -> None:
    written = prediction.to_dict()
    assert json.loads(json.dumps(written, allow_nan=False)) == written


@given(predictions())
def test_the_release_s_keys_are_always_there(prediction: PersonPrediction) -> None:
    written = prediction.to_dict()
    for source in SOURCES:
        assert written[source] == list(prediction.labels.get(source, ()))
    record = prediction.competition
    assert written["emo_process"] == (list(record.exclusion) if record else [])


@given(predictions())
def test_level_values_are_written_under_their_own_level(prediction: PersonPrediction) -> None:
    record, written = prediction.competition, prediction.to_dict()
    if record is None:
        assert written["losses"] == {} and written["lambda"] == [] and written["delta_norm"] is None
        return
    assert list(written["losses"]) == list(LEVELS)
    assert list(written["losses"].values()) == pytest.approx(record.losses, abs=5e-7)
    for row, weights in zip(written["lambda"], record.weights, strict=True):
        assert [row[level] for level in LEVELS] == pytest.approx(weights, abs=5e-7)


@given(predictions())
def test_inconsistent_labels_are_just_those_that_answer_and_pseudo_label_lack(prediction: PersonPrediction) -> None:
    final = (*prediction.labels.get("pred", ()), *prediction.pseudo_label)
    assert set(prediction.inconsistent) == set(LEVEL_SOURCES.values())
    for source, struck in prediction.inconsistent.items():
        kept = [name for name in prediction.labels.get(source, ()) if name in final]
        assert not set(struck) & set(final)
        assert sorted([*kept, *struck]) == sorted(prediction.labels.get(source, ()))


@given(predictions())
def test_the_caller_s_track_is_handed_through_and_only_then_written(prediction: PersonPrediction) -> None:
    track = prediction.boxes.track if prediction.boxes else None
    assert prediction.to_dict().get("track") == track
    assert ("track" in prediction.to_dict()) == (track is not None)


def test_a_source_of_every_level_is_a_source_of_results() -> None:
    assert tuple(LEVEL_SOURCES) == LEVELS
    assert set(LEVEL_SOURCES.values()) < set(SOURCES)


def test_boxes_are_written_to_a_hundredth_of_a_pixel() -> None:
    boxes = PersonBoxes(body=(1.23456, 2.0, 30.5, 40.0), head=(5.0, 6.0, 7.0, 8.005), head_source="estimated")
    written = boxes.to_dict()
    assert written["body"] == [1.23, 2.0, 30.5, 40.0]
    assert written["head_source"] == "estimated" and written["body_source"] == "annotated"


@pytest.mark.parametrize("frame", [None, 0, 17])
def test_a_image_without_persons_is_a_result(frame: int | None) -> None:
    written = ImageResult("street.jpg", 640, 480, (), frame=frame).to_dict()
    assert written["persons"] == [] and written["status"] == "ok"
    assert (written["width"], written["height"]) == (640, 480)
    assert ("frame" in written) == (frame is not None)


@given(st.lists(predictions(), max_size=3))
def test_a_image_holds_its_persons_in_order(persons: list[PersonPrediction]) -> None:
    written = ImageResult("street.jpg", 640, 480, tuple(persons)).to_dict()
    assert written["persons"] == [p.to_dict() for p in persons]


@given(predictions())
def test_results_cannot_be_changed(prediction: PersonPrediction) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        prediction.status = "error"  # type: ignore[misc]
