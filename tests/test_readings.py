"""The study of readings: differences are paired by seed, a result is of a whole training, and the page says what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import ROOT

from cocoer.cli.main import COMMANDS
from cocoer.config import load_config
from cocoer.errors import ConflictError
from cocoer.report.readings import page
from cocoer.runtime import Runtime
from cocoer.studies.readings import study as readings
from cocoer.studies.readings.study import IN_BOTH, READINGS, ReadingStudy, Sizes, run_study
from cocoer.studies.readings.summary import by_reading, loss_rows, rule_rows

HERE = Runtime(0, 1, torch.device("cpu"))


def result(dataset: str, reading: str, seed: int, score: float) -> dict[str, Any]:
    one = {
        "score": score,
        "on_contradicted": score - 0.1,
        "first_excluded": 0.5,
        "hier_loss_first": 2.0,
        "hier_loss_last": 1.0,
    }
    asked = {"training": one, "mean_bce": one | {"score": score - 0.02, "first_excluded": 0.6}}
    return {"dataset": dataset, "reading": reading, "seed": seed, "levels": {"late_fusion": 0.4}, "asked": asked}


def test_differences_are_paired_by_seed_and_missing_seeds_are_said() -> None:
    results = by_reading([
        result("emotic", "letter", 0, 0.70), result("emotic", "letter", 1, 0.80), result("emotic", "letter", 2, 0.10),
        result("emotic", "none", 1, 0.81), result("emotic", "none", 0, 0.71), result("caers", "letter", 0, 0.9),
    ])  # fmt: skip
    letter, none = rule_rows(results)
    assert letter[:4] == ("letter", "3", "53.33 ± 37.86", "") and none[:3] == ("none", "2", "76.00 ± 7.07")
    assert none[3] == "+1.00 [+1.00, +1.00]"  # seed 2 has no partner
    _, second, third, _ = loss_rows(results)
    assert second[:2] == ("emotic", "mean_bce, trained with training") and second[4].startswith("+10.00")
    assert second[6].startswith("-2.00") and third[0] == "caers"
    text = page(rule_rows(results), loss_rows(results), Sizes().to_dict(), "the command")
    assert "Of 5 seeds not all are done" in text and "`the command`" in text and "**Synthetic scenes**" in text


def test_every_reading_is_a_config_and_the_paper_configs_are_the_letter() -> None:
    study = ReadingStudy(Path("x"), Sizes(), ROOT / "configs")
    for reading in READINGS:
        config = study.config("emotic", reading, 3)
        assert config.run.seed == 3 and config.data.image_size == Sizes().image_size
    assert {study.config("caers", reading, 0).data.dataset for reading in IN_BOTH} == {"caers"}
    letter = study.config("emotic", "letter", 0)
    for name in ("emotic", "caers"):
        paper = load_config(ROOT / f"configs/{name}.yaml")
        assert (
            paper.model.coordination == letter.model.coordination
            and paper.loss.penalty == letter.loss.penalty == "mean"
        )
        assert (paper.model.coordination.step_rule, paper.model.coordination.step) == ("raw", 1.0)
    assert load_config(ROOT / "configs/studies/relative_step.yaml").model.coordination.step_rule == "relative"
    assert "readings" in COMMANDS


def test_a_small_study_runs_continues_and_refuses_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readings, "DATASETS", ("emotic",))
    monkeypatch.setattr(readings, "READINGS", {name: READINGS[name] for name in ("letter", "release")})
    sizes = Sizes(train=24, val=6, test=40, epochs=1, image_size=32, seeds=(0,))
    study = ReadingStudy(tmp_path, sizes, ROOT / "configs")
    results = run_study(study, HERE)
    assert [r["reading"] for r in results] == ["letter", "release"] and not list((tmp_path / "models").iterdir())
    for found in results:
        assert found["persons"] == 40 and 0 < found["contradicted"] < 40
        for values in found["asked"].values():
            assert values["first_head"] + values["first_body"] + values["first_context"] == pytest.approx(1)
            assert 0 <= values["first_excluded"] <= 1 and values["hier_loss_last"] <= values["hier_loss_first"]
    monkeypatch.setattr(readings, "fit", None)  # nothing is trained a second time
    assert run_study(study, HERE) == results
    (tmp_path / "results" / "emotic-letter-0.json").unlink()

    def stopped(*_: object) -> Any:
        return type("Stopped", (), {"stopped_by": "SIGTERM"})

    monkeypatch.setattr(readings, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, HERE)
    assert not (tmp_path / "results" / "emotic-letter-0.json").exists()
    settings = json.loads((tmp_path / "settings.json").read_text())
    (tmp_path / "settings.json").write_text(json.dumps(settings | {"sizes": {}}))
    with pytest.raises(ConflictError, match="was begun with other settings"):
        run_study(study, HERE)
