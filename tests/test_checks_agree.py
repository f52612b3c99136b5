"""`cocoer data check` and `cocoer train` refuse and take the same indexes, for the same reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_world import make_world, read, train

from cocoer.cli import data as data_command

CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any] | None, str]] = {
    "as it is": (None, ""),
    "a class that is none": (lambda row: row.update(labels=["Rage"]), "unknown class 'Rage', did you mean"),
    "another spelling": (lambda row: row.update(labels=[row["labels"][0].upper()]), ""),
    "two labels": (lambda row: row.update(labels=["Happy", "Sad"]), "have not exactly one label"),
    "no label": (lambda row: row.update(labels=[]), "have not exactly one label"),
    "a box outside": (lambda row: row.update(body=[10, 10, 500, 30]), "leaves the image"),
    "no such image": (lambda row: row.update(image="nowhere.png"), "nowhere.png"),
    "no such split": (lambda row: row.update(split="dev"), "split one of train, val, test"),
    "a missing key": (lambda row: row.pop("head"), "a person needs the keys"),
}


def outcome(config: Path) -> tuple[bool, bool]:
    """Whether the check passes the config's index, and whether training takes it."""
    data = read(config).data
    passed = data_command.main(["check", data.index, "--root", data.root, "--config", str(config)]) == 0
    return passed, train(config, "--overwrite", settings=["run.max_steps=1"]) == 0


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize("name", CHANGES)
def test_the_check_and_training_agree(
    name: str, split: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_world(tmp_path, "caers", train=8, other=4)
    change, message = CHANGES[name]
    file = Path(read(config).data.index) / f"{split}.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    if change is not None:
        change(rows[1])
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    passed, trained = outcome(config)
    assert passed == trained == (message == ""), name
    if message:
        assert capsys.readouterr().err.count(message) >= 2, "both say it"


@pytest.mark.parametrize("dataset", ["emotic", "caers"])
def test_an_index_without_a_label(dataset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, dataset, train=8, other=4)
    for split in ("train", "val"):
        file = Path(read(config).data.index) / f"{split}.jsonl"
        rows = [json.loads(line) | {"labels": []} for line in file.read_text().splitlines()]
        file.write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert outcome(config) == (False, False)
    assert capsys.readouterr().err.count("not one label") == 2


def test_a_split_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, train=8, other=4)
    (Path(read(config).data.index) / "val.jsonl").unlink()
    assert outcome(config) == (False, False)
    tree = yaml.safe_load(config.read_text())
    tree["data"]["select_split"] = "test"
    config.write_text(yaml.safe_dump(tree))
    assert outcome(config) == (True, True)


def test_which_data_set_it_is_has_to_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_world(tmp_path, "caers", train=8, other=4)
    data = read(config).data
    (Path(data.index) / "sidecar.json").unlink(missing_ok=True)
    words = ["check", data.index, "--root", data.root]
    assert data_command.main(words) == 1 and "--dataset or --config" in capsys.readouterr().err
    assert data_command.main([*words, "--dataset", "caers"]) == 0
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"labels": "single", "classes": ["Rage", "Joy"]}))
    assert data_command.main([*words, "--dataset", str(tmp_path / "mine.yaml")]) == 1
    assert "unknown class" in capsys.readouterr().err
