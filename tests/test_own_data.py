"""The documented walk with own images and classes, run as it stands; and the same through COCO and Label Studio files."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from unittest import mock

import pytest
from own_people import CLASSES, FORMATS, make_images
from training_world import SETTINGS, TOWER

from cocoer.cli.main import main
from cocoer.model.checkpoint import read_metadata
from cocoer.model.vocabulary import VocabularyBranch

ROOT = Path(__file__).resolve().parents[1]


def documented(page: str, language: str) -> list[str]:
    """The lines of the page's first block of that language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    assert found is not None
    return found[1].splitlines()


def run_line(line: str) -> None:
    """One command of a block, in this process."""
    words = shlex.split(line)
    if words[0] == "python":
        with mock.patch.object(sys, "argv", words[1:]):
            runpy.run_path(words[1], run_name="__main__")
    else:
        assert words[0] == "cocoer"
        device = ["--device", "cpu"] if words[1] in ("train", "evaluate", "predict", "cases") else []
        assert main([*words[1:], *device]) == 0, line


@pytest.mark.slow
def test_the_documented_walk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("docs", "configs", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    lines = documented("own_data.md", "bash")
    for line in lines:
        run_line(line)
    said = capsys.readouterr()
    assert "heads.head.prediction: not loaded (other classes)" in said.err
    assert "5 classes, one a person: calm, fright, grief, joy, rage" in said.out
    assert read_metadata("own/run/best.safetensors")["classes"] == sorted(CLASSES)
    answers = json.loads(Path("own/answers/003.json").read_text())
    twin = json.loads(Path("own/answers_onnx/003.json").read_text())
    for found in (answers, twin):
        text = json.dumps(found)
        assert all(f'"{name}"' in text for name in CLASSES) and '"Engagement"' not in text
    assert (Path("own/evaluation") / "summary.json").is_file() or any(Path("own/evaluation").iterdir())
    page = next(Path("own/cases").rglob("*.html")).read_text()
    assert "fright" in page


@pytest.mark.parametrize("form", ["coco", "label-studio"])
def test_the_same_through_annotation_tools(form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    people = make_images(tmp_path / "photos")
    name, write, _ = FORMATS[form]
    write(people, tmp_path / name)
    index = tmp_path / "index"
    prepare = ["prepare", "table", str(tmp_path / name), "--root", str(tmp_path / "photos"), "--output", str(index)]
    assert main([*prepare, "--heads", "estimate"]) == 0
    assert main(["data", "check", str(index)]) == 0
    (tmp_path / "tower.json").write_text(json.dumps(TOWER))
    tree = json.loads(json.dumps(SETTINGS))
    tree["run"] = {"dir": str(tmp_path / "run"), "max_steps": 1}
    tree["data"] = {
        "dataset": str(index / "people.yaml"), "root": str(tmp_path / "photos"), "index": str(index), "image_size": 32,
        "workers": 0,
    }  # fmt: skip
    tree["model"]["vocabulary"] = {"tower": str(tmp_path / "tower.json"), "weights": None}
    (tmp_path / "c.yaml").write_text(json.dumps(tree))
    asked: list[int] = []
    real = VocabularyBranch.__init__

    def counted(self: VocabularyBranch, tower: object, text: object, *more: object, **named: object) -> None:
        asked.append(len(text))  # type: ignore[arg-type]
        real(self, tower, text, *more, **named)  # type: ignore[arg-type]

    with mock.patch.object(VocabularyBranch, "__init__", counted):
        assert main(["train", "--config", str(tmp_path / "c.yaml"), "--device", "cpu"]) == 0
    assert asked[0] == len(CLASSES), "one text embedding a class"
    weights, out = str(tmp_path / "run/best.safetensors"), str(tmp_path / "out")
    assert read_metadata(weights)["classes"] == list(CLASSES)
    given = ["--checkpoint", weights, "--device", "cpu"]
    assert main(["evaluate", *given, "--split", "test", "--output", str(tmp_path / "e")]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert main(["export", "--checkpoint", weights, "--output", str(tmp_path / "model.onnx")]) == 0
    photo, boxes = tmp_path / "photos" / people[3].file, tmp_path / "boxes.json"
    head = [people[3].body[0] + 6, people[3].body[1], people[3].body[0] + 18, people[3].body[1] + 10]
    boxes.write_text(json.dumps([{"body": list(people[3].body), "head": head}]))
    for number, made in enumerate((weights, str(tmp_path / "model.onnx"))):
        words = ["--checkpoint", made, "--boxes", str(boxes), "--output", f"{out}{number}", "--device", "cpu"]
        assert main(["predict", str(photo), *words]) == 0
    answers = [json.loads((tmp_path / f"out{n}" / "003.json").read_text())["persons"][0] for n in (0, 1)]
    first, twin = (person["probabilities"]["pred"] for person in answers)
    assert set(first) == set(CLASSES) and first == pytest.approx(twin, abs=1e-4)
    cases = [
        "cases",
        str(index),
        "--root",
        str(tmp_path / "photos"),
        *given,
        "--num",
        "2",
        "--output",
        str(tmp_path / "c"),
    ]
    assert main(cases) == 0
    page = (tmp_path / "c" / "case_studies.html").read_text()
    assert all(name in page for name in CLASSES)


def test_the_page_on_extending_shows_the_example_as_it_is() -> None:
    shown = "\n".join(documented("extend.md", "python")).strip()
    code = (ROOT / "docs/examples/lowest_confidence.py").read_text().partition('"""\n\n')[2].strip()
    assert shown == code
