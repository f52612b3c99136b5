"""Class names, their spellings, and the hints in error messages."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES, find_dataset
from cocoer.names import BODY, CONTEXT, HEAD, LEVELS, canonical_class, nearest

ANY_CLASS = st.sampled_from([(name, classes) for classes in (EMOTIC_CLASSES, CAERS_CLASSES) for name in classes])


def test_level_order_is_head_body_context() -> None:
    assert (LEVELS[HEAD], LEVELS[BODY], LEVELS[CONTEXT]) == ("head", "body", "context")


@pytest.mark.parametrize(("dataset", "count"), [("emotic", 26), ("caers", 7)])
def test_classes_are_as_many_as_the_data_set_has_distinct_and_alphabetical(dataset: str, count: int) -> None:
    classes = find_dataset(dataset).class_names
    assert len(classes) == len(set(classes)) == count
    assert list(classes) == sorted(classes)


@given(ANY_CLASS, st.data())
def test_case_and_spaces_do_not_change_a_class(pair: tuple[str, tuple[str, ...]], data: st.DataObject) -> None:
    name, classes = pair
    letters = [data.draw(st.sampled_from([c.lower(), c.upper()])) for c in name]
    spaced = "".join(data.draw(st.sampled_from(["", " ", "  "])) + c for c in letters)
    assert canonical_class(spaced, classes) == name


def test_caers_spellings_belong_to_caers_only() -> None:
    assert canonical_class("Angry", CAERS_CLASSES) == "Anger"
    assert canonical_class("SADNESS", CAERS_CLASSES) == "Sad"
    with pytest.raises(ValueError, match="did you mean 'Anger'"):
        canonical_class("Angry", EMOTIC_CLASSES)


@given(ANY_CLASS, st.integers(0, 100))
def test_a_dropped_letter_is_refused_with_the_name_meant(pair: tuple[str, tuple[str, ...]], where: int) -> None:
    name, classes = pair
    where %= len(name)
    with pytest.raises(ValueError, match=f"did you mean '{name}'") as caught:
        canonical_class(name[:where] + name[where + 1 :], classes)
    assert all(c in str(caught.value) for c in classes)


@given(st.text(string.ascii_letters, max_size=12))
def test_nearest_is_a_choice_or_nothing(word: str) -> None:
    assert nearest(word, EMOTIC_CLASSES) in (None, *EMOTIC_CLASSES)


def test_nothing_is_near_to_nonsense() -> None:
    assert nearest("qqqq", EMOTIC_CLASSES) is None
    assert nearest("fear", []) is None
    with pytest.raises(ValueError, match="unknown class 'qqqq'. The classes are"):
        canonical_class("qqqq", CAERS_CLASSES)
