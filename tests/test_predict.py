"""The recogniser as a library: shapes of calls, independence from batch size and order, faults as rows, no side effects."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from small_images import rough_image
from tiny_recognizer import FixedDetector, tiny_checkpoint

from cocoer import Recognizer
from cocoer.config import change_config
from cocoer.data.inputs import InputItem
from cocoer.data.transforms import crop_levels, make_batch
from cocoer.datasets import CAERS_CLASSES, EMOTIC_CLASSES
from cocoer.errors import BoxesError, CheckpointError, ConfigError, ImageError, MissingWeights
from cocoer.inference.pipeline import predict_many
from cocoer.inference.predictions import LabelRule, Scores, answers_of, placed
from cocoer.names import LEVELS
from cocoer.outputs import SOURCES, PersonBoxes, PersonPrediction

BOXES = [
    {"body": [10, 5, 60, 90], "head": [25, 8, 45, 30]},
    {"body": [50, 0, 118, 88], "head": [70, 4, 95, 36], "id": "b"},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def recognizer(checkpoint: Path) -> Recognizer:
    return Recognizer.from_checkpoint(checkpoint, device="cpu")


def noise_image(seed: int, width: int = 120, height: int = 96) -> NDArray[np.uint8]:
    return np.asarray(rough_image(seed, width, height))


def test_an_empty_pseudo_label_gives_no_exclusion_sequence() -> None:
    rule = LabelRule(("A", "B"), True, 0.5, 0.5, 0.5)
    found = {
        "losses": np.array([[0.1, 0.2, 0.3]] * 2), "weights": np.zeros((2, 2, 3)), "exclusion": np.array([[2, 1, 0]] * 2),
        "distance": np.zeros(2),
    }  # fmt: skip
    by_source = {source: np.full((2, 2), 0.4, np.float32) for source in SOURCES}
    judged, silent = answers_of(Scores(by_source, np.array([[0.0, 1.0], [0.0, 0.0]]), found), rule)
    boxes = PersonBoxes((0, 0, 9, 9), (1, 1, 3, 3))
    first, second = placed(judged, 0, boxes, {}), placed(silent, 1, boxes, {})
    assert first.competition is not None and first.competition.exclusion == ("context", "body", "head")
    assert (first.status, first.message) == ("ok", "")
    assert (
        second.competition is not None and second.competition.exclusion == () and second.to_dict()["emo_process"] == []
    )
    assert second.status == "no_pseudo_label" and "the pseudo label is empty" in second.message
    assert second.competition.losses == first.competition.losses  # they are still told


def scores(person: PersonPrediction) -> NDArray[np.float64]:
    return np.array([[person.probabilities[s][n] for n in EMOTIC_CLASSES] for s in SOURCES])


def test_a_person_is_scored_from_every_source(recognizer: Recognizer) -> None:
    first, second = recognizer(noise_image(0), BOXES)
    for person in (first, second):
        assert person.status == "ok" and person.message == ""
        assert set(person.probabilities) == set(SOURCES) == set(person.labels)
        assert scores(person).shape == (5, 26) and ((scores(person) >= 0) & (scores(person) <= 1)).all()
        assert person.competition is not None
        assert sorted(person.competition.exclusion) == sorted(LEVELS)
        assert np.allclose(np.array(person.competition.weights).sum(1), 1, atol=1e-5)
        for source in SOURCES:
            over = tuple(n for n, p in person.probabilities[source].items() if p > 0.5)
            assert person.labels[source] == over
    assert second.boxes is not None and second.boxes.track == "b"
    assert np.abs(scores(first) - scores(second)).max() > 1e-3  # so that 1e-5 below means something
    json.dumps(first.to_dict(), allow_nan=False)


def test_a_file_a_pil_image_and_an_array_are_the_same_image(recognizer: Recognizer, tmp_path: Path) -> None:
    pixels = noise_image(1)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    answers = [
        recognizer(p, BOXES)[0] for p in (pixels, Image.fromarray(pixels), tmp_path / "a.png", str(tmp_path / "a.png"))
    ]
    for other in answers[1:]:
        np.testing.assert_array_equal(scores(answers[0]), scores(other))


def test_a_list_gives_a_list_for_each(recognizer: Recognizer) -> None:
    one, two = recognizer([noise_image(0), noise_image(1)], [BOXES, []])
    assert len(one) == 2 and two == []
    assert recognizer([], []) == []
    with pytest.raises(ValueError, match="one entry for each"):
        recognizer([noise_image(0)], [BOXES, BOXES])


def test_answers_do_not_depend_on_batch_size_order_or_neighbours(recognizer: Recognizer, checkpoint: Path) -> None:
    images = [noise_image(i, 100 + 7 * i, 90 + 5 * i) for i in range(5)]
    persons = [[BOXES[j % 2] for j in range(i + 1)] for i in range(5)]
    alone = [[scores(recognizer(p, [who])[0]) for who in boxes] for p, boxes in zip(images, persons, strict=True)]
    order = list(range(5))
    random.Random(3).shuffle(order)
    for size in (1, 2, 3, 64):
        other = Recognizer.from_checkpoint(checkpoint, "cpu", [f"inference.batch_size={size}"])
        found = other([images[i] for i in order], [persons[i] for i in order])
        for i, row in zip(order, found, strict=True):
            np.testing.assert_allclose([scores(p) for p in row], alone[i], atol=1e-5)


def test_two_runs_are_bit_for_bit_the_same(recognizer: Recognizer, checkpoint: Path) -> None:
    again = Recognizer.from_checkpoint(checkpoint, device="cpu")
    assert recognizer(noise_image(2), BOXES) == again(noise_image(2), BOXES)


def test_the_inside_door_gives_what_the_outside_door_says(recognizer: Recognizer) -> None:
    image = Image.fromarray(noise_image(3))
    crops = [crop_levels(image, tuple(b["body"]), tuple(b["head"]), 32) for b in BOXES]
    output = recognizer.predict_tensors(make_batch(crops, ["a", "b"]))
    assert output.logits.shape == (2, 26) and not output.logits.requires_grad
    outside = np.array([[p.probabilities["pred"][n] for n in EMOTIC_CLASSES] for p in recognizer(image, BOXES)])
    np.testing.assert_allclose(torch.sigmoid(output.logits).numpy(), outside, atol=1e-6)


def test_wrong_boxes_are_rows_and_the_others_are_scored(recognizer: Recognizer) -> None:
    persons: list[Any] = [BOXES[0], {"body": [500, 500, 600, 600]}, {"body": [9, 9, 1, 1]}, None, BOXES[1]]
    found = recognizer(noise_image(0), persons)
    assert [p.status for p in found] == ["ok", "error", "error", "error", "ok"]
    assert [p.person for p in found] == list(range(5))
    assert "outside" in found[1].message and found[1].labels == {} and found[1].boxes is None
    np.testing.assert_allclose(scores(found[4]), scores(recognizer(noise_image(0), BOXES)[1]), atol=1e-5)
    json.dumps(found[1].to_dict(), allow_nan=False)


def test_an_estimated_head_is_said(recognizer: Recognizer) -> None:
    (person,) = recognizer(noise_image(0), [{"body": [10, 5, 60, 90]}])
    assert person.status == "no_face_estimated"
    assert person.boxes is not None and person.boxes.head_source == "estimated"


def test_people_are_detected_where_nobody_gives_boxes(checkpoint: Path) -> None:
    detector = FixedDetector([[0.1, 0.1, 0.5, 0.9], [0.6, 0.0, 1.0, 1.0]], [[0.25, 0.15, 0.35, 0.3]])
    recognizer = Recognizer.from_checkpoint(checkpoint, "cpu", detector=detector)  # type: ignore[arg-type]
    found = recognizer(noise_image(0))
    assert [p.status for p in found] == ["ok", "no_face_estimated"]
    assert found[0].boxes is not None and found[0].boxes.body_score == 0.9
    recognizer(noise_image(0), BOXES)
    assert detector.calls == 1
    nobody = Recognizer.from_checkpoint(checkpoint, "cpu", detector=FixedDetector([], []))  # type: ignore[arg-type]
    assert nobody(noise_image(0)) == []


def test_the_published_rule_for_faces_can_be_chosen(checkpoint: Path) -> None:
    # Both bodies' columns hold the one face; only the first body holds it in height too.
    detector = FixedDetector([[0.1, 0.0, 0.6, 0.4], [0.1, 0.5, 0.6, 1.0]], [[0.3, 0.1, 0.4, 0.3]])
    statuses = []
    for rule in ("one_to_one", "published"):
        change = [f"inference.detector.faces_to_bodies={rule}"]
        chosen = Recognizer.from_checkpoint(checkpoint, "cpu", change, detector=detector)  # type: ignore[arg-type]
        statuses.append([p.status for p in chosen(noise_image(0))])
    assert statuses == [["ok", "no_face_estimated"], ["ok", "ok"]]


def test_detectors_are_built_when_needed_and_missing_ones_are_named(checkpoint: Path) -> None:
    recognizer = Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.detector.face=absent.onnx"])
    recognizer(noise_image(0), BOXES)
    with pytest.raises(MissingWeights, match=r"absent\.onnx"):
        recognizer(noise_image(0))


def test_channel_order_is_an_option_and_recorded(checkpoint: Path, recognizer: Recognizer) -> None:
    bgr = Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.channel_order=bgr"])
    pixels = noise_image(4)
    swapped = bgr(np.ascontiguousarray(pixels[..., ::-1]), BOXES)
    np.testing.assert_array_equal(scores(swapped[0]), scores(recognizer(pixels, BOXES)[0]))
    assert swapped[0].preprocess["channel_order"] == "bgr"
    assert recognizer(pixels, BOXES)[0].preprocess["channel_order"] == "rgb"


def test_labels_follow_thresholds_fitted_ones_first(recognizer: Recognizer) -> None:
    rule = LabelRule.of(recognizer.config, {"Anger": 0.0, "Peace": 1.0})
    batch = make_batch([crop_levels(Image.fromarray(noise_image(0)), (10, 5, 60, 90), (25, 8, 45, 30), 32)], ["a"])
    (answer,) = answers_of(Scores.of_output(recognizer.predict_tensors(batch), recognizer.config.multi_label), rule)
    assert "Anger" in answer.labels["pred"] and "Peace" not in answer.labels["pred"]
    strict = replace(rule, fitted={}, fused=1.0, levels=1.0)
    (answer,) = answers_of(Scores.of_output(recognizer.predict_tensors(batch), recognizer.config.multi_label), strict)
    assert answer.labels["pred"] == answer.labels["head"] == ()


def test_single_label_gives_one_label_and_probabilities_that_add_up(tmp_path: Path) -> None:
    recognizer = Recognizer.from_checkpoint(tiny_checkpoint(tmp_path, "caers"), "cpu")
    (person,) = recognizer(noise_image(0), BOXES[:1])
    for source in SOURCES:
        by_name = person.probabilities[source]
        assert tuple(by_name) == CAERS_CLASSES and sum(by_name.values()) == pytest.approx(1, abs=1e-5)
        assert person.labels[source] == (max(by_name, key=lambda n: by_name[n]),)


def test_scores_that_are_no_numbers_make_an_error_and_not_an_answer(checkpoint: Path) -> None:
    broken = Recognizer.from_checkpoint(checkpoint, "cpu")
    with torch.no_grad():
        broken.model.fusion.layers[-1].bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    (person,) = broken(noise_image(0), BOXES[:1])
    assert person.status == "error" and "finite" in person.message and person.probabilities == {}


@pytest.mark.parametrize(
    "bad",
    [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8), 3, b"x"],
)
def test_what_is_no_image_is_refused(recognizer: Recognizer, bad: Any) -> None:
    with pytest.raises(ImageError, match="wanted"):
        recognizer(bad, BOXES)


def test_wrong_use_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        Recognizer.from_checkpoint(tmp_path / "absent.safetensors")
    with pytest.raises(ValueError, match="turbo"):
        Recognizer.from_checkpoint(checkpoint, device="turbo")
    with pytest.raises(ConfigError, match="batch_size"):
        Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.batch_size=0"])
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        Recognizer.from_checkpoint(checkpoint, "cpu", ["inference.batchsize=2"])


def test_a_config_file_and_weights_go_together(checkpoint: Path, tmp_path: Path, recognizer: Recognizer) -> None:
    from cocoer.config import save_config

    save_config(change_config(recognizer.config, ["inference.thresholds.fused=1.0"]), tmp_path / "c.yaml")
    other = Recognizer.from_config(tmp_path / "c.yaml", checkpoint, "cpu", ["inference.batch_size=2"])
    assert other.config.inference.batch_size == 2
    assert other(noise_image(0), BOXES)[0].labels["pred"] == ()
    save_config(change_config(recognizer.config, ["model.level_head.feature_size=6"]), tmp_path / "d.yaml")
    with pytest.raises(CheckpointError, match="misshapen"):
        Recognizer.from_config(tmp_path / "d.yaml", checkpoint, "cpu")


def items(count: int) -> list[InputItem]:
    return [InputItem(i, f"p{i}", f"p{i}", pixels=Image.fromarray(noise_image(i))) for i in range(count)]


def test_many_images_come_back_in_order_with_the_same_answers(recognizer: Recognizer) -> None:
    persons: dict[str, list[Any]] = {f"p{i}": [BOXES[j % 2] for j in range(i % 4)] for i in range(9)}
    found = list(predict_many(recognizer, items(9), lambda item: persons[item.name], keep_side=50))
    assert [result.image for result, _, _ in found] == [f"p{i}" for i in range(9)]
    for i, (result, item, image) in enumerate(found):
        assert image is not None and max(image.size) == 50 and (result.width, result.height) == (120, 96)
        assert item.pixels is None and len(result.persons) == i % 4
        expected = recognizer(noise_image(i), persons[f"p{i}"])
        for mine, other in zip(result.persons, expected, strict=True):
            np.testing.assert_allclose(scores(mine), scores(other), atol=1e-5)


def test_a_fault_stays_with_its_image(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"nothing")

    def persons_of(item: InputItem) -> list[Any]:
        if item.name == "p2":
            raise BoxesError("no such box")
        return BOXES

    mixed = [
        *items(3),
        InputItem(3, "bad.jpg", "bad", source=tmp_path / "bad.jpg"),
        InputItem(4, "gone", "gone", fault="gone: no"),
    ]
    found = [result for result, _, _ in predict_many(recognizer, mixed, persons_of)]
    assert [r.status for r in found] == ["ok", "ok", "error", "error", "error"]
    assert [bool(r.message) for r in found] == [False, False, True, True, True]


def test_what_the_reader_raises_reaches_the_caller_and_the_thread_ends(recognizer: Recognizer) -> None:
    import threading

    def broken() -> Any:
        yield items(1)[0]
        raise RuntimeError("the disk went away")

    with pytest.raises(RuntimeError, match="disk went away"):
        list(predict_many(recognizer, broken(), lambda item: BOXES))
    stream = predict_many(recognizer, items(50), lambda item: BOXES)
    next(stream)
    stream.close()
    assert not [t for t in threading.enumerate() if t.name == "cocoer-reader" and t.is_alive()]


def test_using_the_library_prints_nothing_and_changes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    code = (
        "import os, random, sys; import numpy as np, torch\n"
        "from cocoer import Recognizer\n"
        "state = (os.getcwd(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),\n"
        "         torch.is_grad_enabled(), torch.get_default_dtype())\n"
        f"r = Recognizer.from_checkpoint({str(checkpoint)!r}, device='cpu')\n"
        "r(np.zeros((60, 80, 3), np.uint8), [{'body': [1, 1, 50, 50]}])\n"
        "now = (os.getcwd(), random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist(),\n"
        "       torch.is_grad_enabled(), torch.get_default_dtype())\n"
        "sys.exit(0 if state[:3] == now[:3] and state[4:] == now[4:] else 1)\n"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert os.listdir(tmp_path) == []


def test_person_boxes_are_taken_as_they_are(recognizer: Recognizer) -> None:
    boxes = PersonBoxes((10, 5, 60, 90), (25, 8, 45, 30), head_source="detected", head_score=0.7, track=12)
    (person,) = recognizer(noise_image(0), [boxes])
    assert person.boxes == boxes
