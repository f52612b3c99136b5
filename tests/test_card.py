"""The model card is written from results, and the shipped one says what the last evaluation of the shipped weights said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from cocoer.cli import describe
from cocoer.files import file_sha256
from cocoer.report.leaderboard import read_result

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "checkpoints/demo"
WEIGHTS, RESULT, CARD = DEMO / "demo_emotic.safetensors", DEMO / "result.json", DEMO / "CARD.md"


def test_the_shipped_card_is_that_of_the_last_evaluation_of_the_shipped_weights(tmp_path: Path) -> None:
    assert describe.main(["--card", str(WEIGHTS), "--from", str(RESULT), "--output", str(tmp_path / "c.md")]) == 0
    assert (tmp_path / "c.md").read_text() == CARD.read_text(), (
        "cocoer describe --card checkpoints/demo/demo_emotic.safetensors --from checkpoints/demo/result.json --output"
        " checkpoints/demo/CARD.md writes it anew"
    )
    result = read_result(RESULT)
    assert (
        result["model"]["sha256"] == file_sha256(WEIGHTS)
        and result["synthetic"]
        and not result["revision"].endswith("changes")
    )


def test_a_card_holds_the_numbers_of_its_results(capsys: pytest.CaptureFixture[str]) -> None:
    assert describe.main(["--card", str(WEIGHTS), "--from", str(RESULT)]) == 0
    start, header, text = capsys.readouterr().out.split("---\n", 2)
    about, result = yaml.safe_load(header), read_result(RESULT)
    trained, evaluated = about["model-index"][0]["results"]
    headline = result["numbers"]["headline"]
    assert start == "" and trained["dataset"]["split"] == "val" and evaluated["dataset"]["split"] == "test"
    assert evaluated["metrics"][0]["value"] == round(headline["value"], 4)
    assert evaluated["dataset"]["args"]["sha256"] == result["data"]["sha256"]
    assert "SYNTHETIC DATA" in text and f"{100 * headline['value']:.2f} [" in text and result["command"] in text
    (female,) = [line for line in text.splitlines() if line.startswith("| Female |")]
    assert f"{100 * result['numbers']['groups']['gender']['groups']['Female']['mAP']['value']:.2f} [" in female
    assert "Not for decisions about people" in text


def test_what_is_of_other_weights_or_no_result_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = read_result(RESULT)
    other["model"]["sha256"] = "00"
    (tmp_path / "other.json").write_text(json.dumps(other))
    assert describe.main(["--card", str(WEIGHTS), "--from", str(tmp_path / "other.json")]) == 1
    assert "is of other weights than" in capsys.readouterr().err
    assert describe.main(["--card", str(tmp_path / "none.safetensors")]) == 1
    assert "none.safetensors" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        describe.main(["--from", str(RESULT)])
    assert "name its weights with --card" in capsys.readouterr().err
