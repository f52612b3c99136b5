"""One line of an index and one batch: what is written, what is read back, and what a wrong line is told."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cocoer.data.batch import Batch, PersonRecord, targets_of

PERSON = PersonRecord(
    "a.jpg", 90, 60, 1, (0.123456, 5.0, 80.987654, 60.0), (10.004, 5.556, 20.123, 15.0), "detected", ("Peace",),
    (1.0, 2.5, 10.0), "test", {"head_score": 0.9},
)  # fmt: skip


def line(**changes: Any) -> str:
    return json.dumps(json.loads(PERSON.to_line()) | changes)


def test_a_line_has_boxes_of_two_decimals_and_everything_else_as_it_is() -> None:
    raw = json.loads(PERSON.to_line())
    assert raw["body"] == [0.12, 5.0, 80.99, 60.0] and raw["head"] == [10.0, 5.56, 20.12, 15.0]
    read = PersonRecord.from_line(PERSON.to_line())
    assert read == replace(PERSON, body=tuple(raw["body"]), head=tuple(raw["head"])) and read.key == "a.jpg#1"
    assert PersonRecord.from_line(line(vad=None)).vad is None and PersonRecord.from_line(line(vad=[])).vad is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"head_source": "guessed"}, "got 'guessed', 'test'"), ({"split": "dev"}, "got 'detected', 'dev'"),
        ({"image": 3}, "image: wanted a path, got 3"), ({"image": ""}, "image: wanted a path, got ''"),
        ({"width": "90"}, "width: wanted a whole number, got '90'"), ({"height": 60.5}, "height: wanted a whole number"),
        ({"person": True}, "person: wanted a whole number, got True"), ({"person": -10_000_000}, "wanted a whole number"),
        ({"labels": "Peace"}, "labels: wanted a list"), ({"labels": [1]}, "labels: wanted a list"),
        ({"synthetic": 3}, "synthetic: wanted what the demo world writes"),
        ({"synthetic": {"contradicted_level": "feet"}}, "with a level or null"),
        ({"vad": 5}, "vad: wanted three numbers or null, got 5"), ({"vad": "123"}, "vad: wanted three"),
        ({"vad": [1, 2]}, "vad: wanted three"), ({"vad": [1, 2, 3, 4]}, "vad: wanted three"),
        ({"vad": [1, 2, "3"]}, "vad: wanted three"), ({"vad": [1, 2, 10_000_000]}, "vad: wanted three"),
    ],
)  # fmt: skip
def test_a_wrong_line_says_which_key_is_wrong(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PersonRecord.from_line(line(**changes))


def test_what_is_quoted_of_a_line_has_sixty_letters() -> None:
    with pytest.raises(ValueError, match="wanted a JSON object a line, got") as told:
        PersonRecord.from_line("x" * 80)
    assert f"got {'x' * 60!r} (" in str(told.value)
    with pytest.raises(ValueError, match="missing: all"):
        PersonRecord.from_line("[]")


def test_the_level_that_a_drawn_scene_contradicts_is_known() -> None:
    assert PERSON.contradicted_level is None
    for level in ("body", None):
        drawn = PersonRecord.from_line(line(synthetic={"contradicted_level": level}))
        assert drawn.contradicted_level == level


def batch(targets: torch.Tensor | None) -> Batch:
    images = [torch.full((5, 3, 4, 4), float(i)) for i in range(3)]
    return Batch(*images, torch.zeros(5, 4), torch.ones(5, 4), targets, tuple("abcde"))


def test_a_batch_moves_as_a_whole_and_images_alone_change_their_layout() -> None:
    moved = batch(torch.eye(5)).to("cpu", channels_last=True)
    assert len(moved) == 5 and moved.keys == tuple("abcde")
    for i, image in enumerate((moved.head, moved.body, moved.context)):
        assert image.is_contiguous(memory_format=torch.channels_last) and not image.is_contiguous()
        np.testing.assert_array_equal(image.numpy(), np.full((5, 3, 4, 4), i))
    assert moved.body_xyxy.is_contiguous() and moved.targets is not None and torch.equal(moved.targets, torch.eye(5))
    assert batch(None).to("cpu").targets is None


def test_a_batch_without_labels_names_three_of_its_persons() -> None:
    assert torch.equal(targets_of(batch(torch.eye(5))), torch.eye(5))
    with pytest.raises(ValueError, match=r"none in the index for a, b, c \.\.\.;"):
        targets_of(batch(None))
