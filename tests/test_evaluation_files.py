"""What an evaluation leaves in its folder, file by file, from a few persons; and the file that says how it was made."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cocoer.config import load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.index import data_lines
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.files import compared, person_line, write_evaluation
from cocoer.evaluation.protocol import result_of, settings_id

CONFIG = load_config(Path(__file__).resolve().parents[1] / "configs/emotic.yaml", [])
CLASSES = CONFIG.classes
KEYS = ("a.png#0", "b.png#0", "b.png#1")


def three_persons() -> Evaluation:
    """Persons 0 and 1 have the first class, person 2 the second; levels competed, of person 2 without a pseudo label."""
    targets = np.zeros((3, 26), np.float32)
    targets[[0, 1, 2], [0, 0, 1]] = 1
    scores = np.tile(np.linspace(0.123456789, 0.9, 26, dtype=np.float32), (3, 1))
    scores[2, 0] = 0.05
    order = np.array([[2, 0, 1], [1, 0, 2], [-1, -1, -1]])
    losses = np.array([[1.23456789, 2, 3]] * 3, np.float32)
    return Evaluation(KEYS, targets, {"pred": scores, "head": scores / 2}, losses, None, order, None, None)


def weights(thresholds: dict[str, float], **more: Any) -> Any:
    return SimpleNamespace(config=CONFIG, thresholds={"classes": thresholds}, **more)


def test_every_file_says_what_was_measured(tmp_path: Path) -> None:
    result = three_persons()
    ap = dict.fromkeys(CLASSES) | {CLASSES[0]: 1.0, CLASSES[1]: 1 / 3}
    persons = tmp_path / "persons.jsonl"
    write_evaluation(tmp_path, "the text", {"ap": ap}, result, weights({CLASSES[1]: 0.25}), str(persons))
    assert (tmp_path / "evaluation.txt").read_text() == "the text\n"
    told = (tmp_path / "evaluation.json").read_text()
    assert json.loads(told) == {"ap": ap} and told.startswith('{\n "ap"') and told.endswith("}\n")
    with open(tmp_path / "evaluation.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["class", "positives", "ap", "threshold", "break_even_here"] and len(rows) == 26
    even = (scores := result.probabilities["pred"])[0, 0] / 2 + np.float64(
        scores[2, 0]
    ) / 2  # between the class's two scores
    assert rows[0][:4] == [CLASSES[0], "2", "1.0", ""] and float(rows[0][4]) == pytest.approx(even)
    assert rows[1][1] == "1" and rows[1][3] == "0.25"
    assert rows[2][1:] == ["0", "", "", ""]  # nobody has the class
    with np.load(tmp_path / "scores.npz") as stored:
        assert set(stored) == {"keys", "targets", "pred", "head"} and stored["keys"].tolist() == list(KEYS)
        np.testing.assert_array_equal(stored["pred"], scores)
    lines = [json.loads(line) for line in persons.read_text().splitlines()]
    assert [line["key"] for line in lines] == list(KEYS) and persons.read_text().endswith("}\n")
    assert [line["labels"] for line in lines] == [[CLASSES[0]], [CLASSES[0]], [CLASSES[1]]]


def test_a_person_is_told_to_a_millionth_with_the_levels_in_their_order_of_leaving() -> None:
    result = three_persons()
    first, last = (person_line(result, i, KEYS[i], CLASSES) for i in (0, 2))
    assert (
        first["probabilities"]["pred"][CLASSES[0]] == 0.123457
        and first["probabilities"]["head"][CLASSES[0]] == 0.061728
    )
    assert first["emo_process"] == ["context", "head", "body"] and last["emo_process"] == []
    assert first["losses"] == {"head": 1.234568, "body": 2.0, "context": 3.0}
    for without in ("exclusion", "losses"):
        assert "emo_process" not in person_line(replace(result, **{without: None}), 0, KEYS[0], CLASSES)


def test_another_evaluations_scores_are_compared_person_by_person(tmp_path: Path) -> None:
    result = three_persons()
    other = tmp_path / "scores.npz"
    turned = result.probabilities["pred"].copy()
    turned[2, 0] = 0.9  # before the two that have the class, who are equal: its average precision falls from 1 to 2/3
    np.savez(other, keys=np.array(KEYS), pred=turned)
    found = compared(result, other, True, 50)
    assert found["file"] == other.as_posix()
    assert found["difference"]["value"] == pytest.approx((1 - 2 / 3) / 2)  # the mean over two classes
    for content, said in (
        ({"keys": np.array(KEYS[::-1]), "pred": turned}, "holds 3 persons that are not these 3 in this order"),
        ({"keys": np.array(KEYS), "pred": np.array([["a"] * 26] * 3)}, "truncated or no scores of cocoer evaluate"),
        ({"keys": np.array(KEYS)}, "truncated or no scores of cocoer evaluate"),
        ({"keys": np.array(KEYS), "pred": turned * np.nan}, "wanted a finite number"),
    ):
        np.savez(other, **content)
        with pytest.raises(ValueError, match=said):
            compared(result, other, True, 50)


def people(folder: Path | None, **extra: Any) -> Any:
    records = [
        PersonRecord(key[:5], 9, 9, int(key[-1]), (0, 0, 9, 9), (0, 0, 4, 4), "annotated", (), None, "test", extra)
        for key in KEYS
    ]
    for name in ("a.png", "b.png") if folder else ():
        (folder / name).write_bytes(b"12345")
    return SimpleNamespace(records=records, root=folder, allow_outside=False, cache=None if folder else "crops")


def test_a_result_names_what_was_measured_of_what_and_how(tmp_path: Path) -> None:
    numbers = {"split": "test", "weights": {"selected_on": "val mAP"}, "mAP": 0.5}
    loaded = weights({}, path=tmp_path / "none", metadata={})
    for folder, synthetic in ((tmp_path, False), (None, True)):
        persons = people(folder, **({"synthetic": {}} if synthetic else {}))
        found = result_of(numbers, loaded, persons, "row", "cocoer evaluate", 400)
        assert (found["format"], found["synthetic"]) == (1, synthetic)  # a reader of format 1 refuses another
        assert found["data"]["persons"] == 3 and found["data"]["images"] == 2 and found["data"]["split"] == "test"
        lines = (
            data_lines(persons.records, folder, False)
            if folder
            else [record.to_line().encode() for record in persons.records]  # a crop cache stands for the images
        )
        assert found["data"]["sha256"] == hashlib.sha256(b"".join(lines)).hexdigest()
        assert found["interval"] == {"level": 0.95, "kind": "bootstrap", "resamples": 400, "seed": 0}
        assert found["numbers"] == numbers and found["model"]["sha256"] is None


def test_settings_have_one_name_wherever_the_files_lie_and_whatever_the_seed() -> None:
    own = settings_id(CONFIG)
    assert len(own) == 16 and int(own, 16) >= 0
    elsewhere = replace(
        CONFIG, data=replace(CONFIG.data, root="/elsewhere", workers=7), run=replace(CONFIG.run, seed=5)
    )
    assert settings_id(elsewhere) == own
    assert settings_id(replace(CONFIG, data=replace(CONFIG.data, image_size=192))) != own
    assert settings_id(replace(CONFIG, optim=replace(CONFIG.optim, batch_size=3))) != own
