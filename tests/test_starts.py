"""A training that cannot start leaves its folder as it was; one that has started holds it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from training_world import make_world

from cocoer.cli import train
from cocoer.files import hold_folder
from cocoer.weights import places


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_world(tmp_path)


FAULTS: dict[str, list[str]] = {
    "no index": ["--set", "data.index=absent/index"],
    "no selection split": [],
    "no weights": ["--set", "model.backbone.weights=absent.pth"],
    "no vocabulary": ["--stage", "recognition"],
    "no state": ["--resume", "absent"],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_start_that_fails_leaves_no_folder(config: Path, tmp_path: Path, fault: str, capsys: Any) -> None:
    run = tmp_path / "deep" / "run"
    if fault == "no selection split":
        (tmp_path / "index" / "val.jsonl").unlink()
    words = ["--config", str(config), "--device", "cpu", *FAULTS[fault], "--set", f"run.dir={run}"]
    assert train.main(words) == 1
    assert not run.parent.exists(), list(run.parent.rglob("*"))
    assert capsys.readouterr().err.count("cocoer train: ") == 1


@pytest.mark.parametrize("fault", ["no index", "no weights"])
def test_overwriting_that_cannot_start_removes_nothing(config: Path, tmp_path: Path, fault: str) -> None:
    run = tmp_path / "run"
    (run / "states" / "step-00000007").mkdir(parents=True)
    (run / "states" / "step-00000007" / "model.safetensors").write_bytes(b"hours of work")
    (run / "log.jsonl").write_text('{"kind": "step"}\n')
    before = snapshot(run)
    words = ["--config", str(config), "--device", "cpu", "--overwrite", *FAULTS[fault], "--set", f"run.dir={run}"]
    assert train.main(words) == 1
    assert snapshot(run) == before


def test_a_second_training_in_a_folder_is_refused(config: Path, tmp_path: Path, capsys: Any) -> None:
    run = tmp_path / "run"
    with hold_folder(run):
        assert train.main(["--config", str(config), "--device", "cpu", "--set", f"run.dir={run}"]) == 1
    assert f"process {os.getpid()} on" in capsys.readouterr().err and not run.exists()


def test_training_from_another_folder_runs_on_what_the_project_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Relative names of a config mean the working folder first, then the project: weights, towers and data alike."""
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    config = make_world(project, train=4, other=2, optim={"epochs": 1})
    text = config.read_text().replace(f"{project}/", "")
    config.write_text(text)
    assert str(project) not in text
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(places, "CLONE", project)
    assert train.main(["--config", str(config), "--device", "cpu"]) == 0, capsys.readouterr().err
    assert (elsewhere / "run" / "best.safetensors").is_file() and not (project / "run").exists()
