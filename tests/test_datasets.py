"""Data sets as files: EMOTIC, CAER-S and anybody's own go through the same mechanism, from the config to the question."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from cocoer.boxes import Box
from cocoer.config import Config, change_config, config_from_dict, config_to_dict, load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import target_matrix
from cocoer.data.prepare.published_counts import (
    CAERS_COUNTS,
    EMOTIC_COUNTS,
    EMOTIC_LABELS,
    compare_counts,
    label_counts,
)
from cocoer.datasets import find_dataset, read_dataset, shipped_datasets
from cocoer.errors import ConfigError, DatasetError, IndexFileError
from cocoer.names import ClassNames, canonical_class, spoken
from cocoer.outputs import PersonBoxes, PersonPrediction
from cocoer.vlm.parse import parse_labels
from cocoer.vlm.prompts import questions, read_wordings

MINE: dict[str, Any] = {
    "classes": ["joy", "rage", "so la la"],
    "labels": "single",
    "words": {"joy": "pure joy"},
    "aliases": {"angry": "rage"},
}
BODY: Box = (1.0, 2.0, 30.0, 28.0)


def written(folder: Path, changes: dict[str, Any] | None = None, name: str = "mine.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(MINE | (changes or {})), encoding="utf-8")
    return path


def person(*labels: str) -> PersonRecord:
    return PersonRecord("a.png", 40, 30, 0, BODY, (4.0, 3.0, 12.0, 12.0), "annotated", labels, None, "train")


# ---- the two data sets of the paper ----------------------------------------------------------------------------------


def test_emotic_and_caers_are_entries_like_any_other() -> None:
    emotic, caers = find_dataset("emotic"), find_dataset("caers")
    assert {"emotic", "caers"} <= set(shipped_datasets())
    assert (len(emotic.classes), emotic.labels, emotic.metric) == (26, "multi", "mAP")
    assert (len(caers.classes), caers.labels, caers.metric) == (7, "single", "accuracy")
    assert spoken(emotic.class_names) == list(emotic.classes), "the paper's prompts use the class names themselves"


def test_counts_are_held_against_the_published_ones() -> None:
    published = {"persons": {"train": 10, "val": 4}, "images": {"test": 7}}
    assert compare_counts(published, {"persons": {"train": 12}, "other": {"train": 1}}) == {
        "persons": {
            "train": {"published": 10, "here": 12, "difference": 2},
            "val": {"published": 4, "here": 0, "difference": -4},
        }
    }
    labels = {"val": {"Peace": 5, "Fear": 3}}
    assert compare_counts(labels, {"val": {"Peace": 8}, "test": {"Peace": 1}}) == {
        "val": {
            "Peace": {"published": 5, "here": 8, "difference": 3},
            "Fear": {"published": 3, "here": 0, "difference": -3},
        }
    }


def test_labels_are_counted_by_split_and_class() -> None:
    people = [person("joy", "rage"), person("joy"), replace(person("rage"), split="test"), person()]
    assert label_counts(people, ("joy", "rage")) == {
        "train": {"joy": 2, "rage": 1}, "val": {"joy": 0, "rage": 0}, "test": {"joy": 0, "rage": 1},
    }  # fmt: skip


def test_published_counts_come_from_the_files() -> None:
    persons = EMOTIC_COUNTS["pami"]["persons in the annotations"]
    assert sum(persons.values()) == 34320
    assert EMOTIC_LABELS["pami"]["train"]["Engagement"] == 12814 and EMOTIC_LABELS["cvpr17"]["test"]["Yearning"] == 417
    assert sum(CAERS_COUNTS["original"].values()) == 69999


@pytest.mark.parametrize("name", shipped_datasets())
def test_every_shipped_data_set_can_be_named_in_a_config(name: str) -> None:
    config = config_from_dict({"data": {"dataset": name}})
    assert config.classes == find_dataset(name).classes
    assert config_from_dict(config_to_dict(config)) == config


# ---- own classes -----------------------------------------------------------------------------------------------------


def test_a_yaml_file_and_keys_in_the_config_say_the_same(tmp_path: Path) -> None:
    from_file = config_from_dict({"data": {"dataset": str(written(tmp_path))}})
    from_keys = config_from_dict({"data": MINE | {"dataset": "mine"}})
    assert from_file == from_keys
    assert from_file.classes == ("joy", "rage", "so la la") and not from_file.multi_label
    assert (
        from_file.metric == "accuracy"
        and replace(from_file, data=replace(from_file.data, labels="multi")).metric == "mAP"
    )


def test_a_resolved_config_needs_no_file_any_more(tmp_path: Path) -> None:
    path = written(tmp_path)
    config = config_from_dict({"data": {"dataset": str(path)}})
    stored = config_to_dict(config)
    path.unlink()
    assert config_from_dict(stored).classes == config.classes
    assert config_from_dict(stored).classes.aliases == {"angry": "rage"}


def test_classes_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("# mine\njoy\n\n rage \n", encoding="utf-8")
    (tmp_path / "c.yaml").write_text(
        f"data: {{dataset: custom, labels: multi, classes: {tmp_path / 'names.txt'}}}", encoding="utf-8"
    )
    assert load_config(tmp_path / "c.yaml").classes == ("joy", "rage")
    beside = written(tmp_path, {"classes": "names.txt", "words": {}, "aliases": {}}, "set.yaml")
    assert read_dataset(beside).classes == ("joy", "rage"), "a file that a data set names lies beside it"


def test_own_classes_can_be_set_on_the_command_line() -> None:
    changes = ["data.dataset=custom", "data.classes=[calm, storm]", "data.labels=multi"]
    config = change_config(Config(), changes)
    assert (config.classes, config.multi_label) == (("calm", "storm"), True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"dataset": "emotik"}, "unknown data set 'emotik', did you mean 'emotic'"),
        ({"dataset": "custom"}, "data.classes: .*needs the class names"),
        ({"dataset": "custom", "classes": ["a", "b"]}, "data.labels: own classes want `multi`"),
        ({"dataset": "custom", "classes": ["a"], "labels": "multi"}, "wanted two or more, got \\['a'\\]"),
        ({"dataset": "custom", "classes": ["joy", "J oy"], "labels": "multi"}, "'joy' and 'J oy' differ in case"),
        ({"dataset": "custom", "classes": ["joy", " "], "labels": "multi"}, "printable names"),
        ({"dataset": "custom", "classes": ["joy", 1], "labels": "multi"}, "data.classes.1: wanted .*string, got 1"),
        ({"dataset": "emotic", "classes": ["joy", "rage"], "labels": "multi"}, "these are not emotic's"),
        ({"dataset": "emotic", "labels": "single"}, "data.labels: belongs to own classes"),
        ({"dataset": "nowhere.yaml"}, "nowhere.yaml: cannot be read as a data set"),
        (MINE | {"dataset": "m", "words": {"jo": "pure joy"}}, "words: 'jo' is no class, did you mean 'joy'"),
        (MINE | {"dataset": "m", "aliases": {"Joy": "rage"}}, "'Joy' stands for 'joy' and for 'rage'"),
    ],
)
def test_what_a_config_cannot_mean_is_said(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_from_dict({"data": data})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": "some"}, "labels: wanted 'multi' or 'single', got 'some'"),
        ({"lables": "multi"}, "lables: unknown key, did you mean 'labels'"),
        ({"classes": [True, "no"]}, "classes.0: wanted .*quote names that YAML takes"),
        ({"metric": "mAP"}, "metric: labels: single is measured by accuracy, got mAP"),
        ({"published": {"a": {"labels": {"train": [1, 2]}}}}, "wanted 3 numbers, one a class, got 2"),
        ({"published": {"a": {"counts": {"persons": {"dev": 1}}}}}, "wanted splits train, val, test, got 'dev'"),
    ],
)
def test_what_a_file_cannot_mean_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_dataset(written(tmp_path, changes))


# ---- what follows ----------------------------------------------------------------------------------------------------


def test_class_names_equal_a_tuple_and_keep_what_belongs_to_them() -> None:
    names = ClassNames(("a", "b"), False, {"a": "alpha"}, {"x": "b"})
    assert names == ("a", "b") and names[1:] == ("b",)
    again = pickle.loads(pickle.dumps(names))  # noqa: S301 - loader processes get them so
    assert (again, again.multi_label, again.words, again.aliases) == (names, False, {"a": "alpha"}, {"x": "b"})


def test_words_and_aliases_are_understood_and_names_come_first() -> None:
    classes = config_from_dict({"data": MINE | {"dataset": "mine"}}).classes
    assert [canonical_class(said, classes) for said in ("JOY", "Pure Joy", "Angry", "solala")] == [
        "joy", "joy", "rage", "so la la",
    ]  # fmt: skip


def test_one_label_a_person_is_a_matter_of_the_label_kind() -> None:
    single, multi = ClassNames(("a", "b"), False), ClassNames(("a", "b"), True)
    assert torch.equal(target_matrix([person("a", "b")], multi), torch.ones(1, 2))  # type: ignore[arg-type]
    for labels in (("a", "b"), ()):
        with pytest.raises(IndexFileError, match="exactly one label"):
            target_matrix([person("b"), person(*labels)], single)


def test_a_question_uses_the_words_and_an_answer_in_them_is_understood() -> None:
    classes = config_from_dict({"data": MINE | {"dataset": "mine"}}).classes
    boxes = PersonBoxes(BODY, (4.0, 3.0, 12.0, 12.0))
    seen = PersonPrediction(0, {}, {}, None, boxes)
    asked = questions(Image.new("RGB", (40, 30)), seen, read_wordings(), classes, False)
    assert "pure joy, rage, so la la" in asked["prompt"].text
    assert parse_labels("It is pure joy.", classes, False).labels == ("joy",)
    assert parse_labels('["so la la"]', classes, False).labels == ("so la la",)
    assert parse_labels("the \u0130mage shows \u0130rage", ClassNames(("image", "irage")), True).status == "no_label"
