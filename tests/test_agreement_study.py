"""The agreement study: variants, shared trainings, figures and page, and one complete run of almost no size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from programs import load_program
from tiny_models import ROOT, tiny_config, tiny_model

from cocoer.data.batch import PersonRecord
from cocoer.data.transforms import LevelCrops
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import ConflictError
from cocoer.evaluation.metrics import average_precision, mean_over_classes
from cocoer.model.level_head import LevelStack
from cocoer.names import LEVELS
from cocoer.outputs import StudyPoint
from cocoer.report.agreement import as_markdown, finding, write_agreement
from cocoer.report.agreement_tables import Table
from cocoer.runtime import start_runtime
from cocoer.studies.agreement import measuring, study
from cocoer.studies.agreement.measuring import mean_ap
from cocoer.studies.agreement.study import (
    Study,
    adopt_figures,
    facts_of,
    publish_figures,
    run_study,
    shipped_evaluations,
    stored,
)
from cocoer.studies.agreement.summary import over_trainings
from cocoer.studies.agreement.training import Trained
from cocoer.studies.agreement.variants import VARIANTS, LearnedGate, Parts, Settings, without
from cocoer.studies.agreement.worlds import Sizes, damaged, minority_labels
from cocoer.weights import places

CLASSES, FEATURES = 26, 16


def parts(persons: int = 5, seed: int = 0) -> Parts:
    """Made-up levels of the tiny model's sizes; the head reads unlike the others in the first person."""
    rng = torch.Generator().manual_seed(seed)
    model = tiny_model()
    z = torch.randn(persons, 3, FEATURES, generator=rng).requires_grad_()
    heads = model.head_parameters()
    levels = LevelStack(torch.ones(persons, 3), torch.randn(persons, 3, FEATURES, generator=rng), z, heads.logits(z))
    readings = 0.2 * torch.randn(persons, 3, CLASSES, generator=rng)
    readings[0] = 0.0
    readings[0, 0, 3], readings[0, 1:, 7] = 1.0, 1.0
    targets = (torch.rand(persons, CLASSES, generator=rng) < 0.2).float()
    marks = torch.tensor([0, -1, 2, 1, -1])[:persons]
    z_t, logits_t = torch.randn(persons, FEATURES, generator=rng), torch.randn(persons, CLASSES, generator=rng)
    return Parts(
        levels, z_t, logits_t, {"shipped": readings}, heads, targets, marks, torch.tensor([2, 0, 1, 1, 0])[:persons]
    )


SETTINGS = Settings(tiny_config(), LearnedGate())


def test_what_a_fusion_head_sees_under_each_variant() -> None:
    given = parts()
    seen = {name: variant(SETTINGS, given) for name, variant in VARIANTS.items()}
    z = given.levels.z
    assert torch.equal(seen["all"], z) and all(x.shape == z.shape for x in seen.values())
    torch.testing.assert_close(seen["exclude"][0], torch.stack([0 * z[0, 0], 1.5 * z[0, 1], 1.5 * z[0, 2]]))
    torch.testing.assert_close(seen["gate"][0], seen["exclude"][0], rtol=0, atol=0.02)
    torch.testing.assert_close(seen["gate_learned"], seen["gate"])
    torch.testing.assert_close(seen["exclude_truth"][1], z[1])  # nothing contradicts there
    for person, level in ((0, 0), (2, 2), (3, 1)):
        assert (seen["exclude_truth"][person, level] == 0).all()
    for person, level in enumerate(given.chance.tolist()):
        assert (seen["exclude_random"][person, level] == 0).all()
    # the control of the gate is as strong as the gate, on another level
    share = (seen["gate"] / z).mean(-1).sort(-1).values
    torch.testing.assert_close((seen["gate_random"] / z).mean(-1).sort(-1).values, share)
    moved = {name for name in VARIANTS if (seen[name] != z).any()}
    assert moved == set(VARIANTS) - {"all"}
    torch.testing.assert_close(without(torch.tensor([-1])), torch.full((1, 3), 1 / 3))


def test_a_head_gets_its_own_gradient_and_the_levels_get_the_mean() -> None:
    model = tiny_model()

    def made() -> Trained:
        torch.manual_seed(0)
        heads = torch.nn.ModuleDict({name: tiny_model().fusion for name in VARIANTS})
        return Trained(model, heads, SETTINGS, {})

    given = parts()
    shared = made()
    sum(logits.square().sum() for logits in shared.logits(given).values()).backward(retain_graph=True)
    together = given.levels.z.grad.clone()
    expected = torch.zeros_like(together)
    for name, variant in VARIANTS.items():
        alone = tiny_model().fusion
        logits = alone(torch.cat([variant(SETTINGS, given).flatten(1), given.z_t], dim=1))
        grads = torch.autograd.grad(logits.square().sum(), [given.levels.z, *alone.parameters()], retain_graph=True)
        expected += grads[0] / len(VARIANTS)
        for own, wanted in zip(shared.heads[name].parameters(), grads[1:], strict=True):
            torch.testing.assert_close(own.grad, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, expected, rtol=1e-4, atol=1e-5)


def test_mean_average_precision_is_that_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    for persons, digits in ((60, None), (200, 1), (30, 0)):
        scores = rng.random((persons, 7)).astype(np.float32)
        scores = scores if digits is None else scores.round(digits)
        targets = (rng.random((persons, 7)) < 0.2).astype(np.float32)
        targets[:, 6] = 0  # a class without anybody
        assert mean_ap(scores, targets) == pytest.approx(
            mean_over_classes(average_precision(scores, targets)), abs=1e-12
        )


def test_damage_touches_one_level() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
    crops = LevelCrops(pixels, np.zeros(4, np.float32), np.zeros(4, np.float32))
    for m in range(3):
        covered, soft = damaged(crops, m, "occluded"), damaged(crops, m, "blurred")
        assert (covered.pixels[m, 6:34, 6:34] == 128).all() and (covered.pixels[m, :6] == pixels[m, :6]).all()
        assert soft.pixels[m].std() < pixels[m].std() / 2
        others = [i for i in range(3) if i != m]
        assert (covered.pixels[others] == pixels[others]).all() and (soft.pixels[others] == pixels[others]).all()
    with pytest.raises(ValueError, match="wanted one of blurred, occluded, got 'bent'"):
        damaged(crops, 0, "bent")


def test_the_minority_is_right_when_it_is_said_to_be() -> None:
    shown = {"head": "anger", "body": "calm", "context": "calm"}
    record = PersonRecord("a.jpg", 9, 9, 0, (0, 0, 9, 9), (0, 0, 3, 3), "annotated", ("Peace",), None, "test")
    told = [
        replace(record, extra={"synthetic": {"contradicted_level": level, "archetypes": shown}})
        for level in ("head", None)
    ]
    labels = [{EMOTIC_CLASSES[j] for j in np.flatnonzero(row)} for row in minority_labels(told)]
    assert labels == [{"Anger", "Annoyance"}, {"Anger", "Annoyance"}]


def row(test: str, what: str, value: float, condition: str = "all", share: float | None = None) -> dict[str, Any]:
    return {"test": test, "what": what, "condition": condition, "share": share, "value": value, "persons": 10}


def training(seed: int, gate: float, setting: str = "short") -> dict[str, Any]:
    rows = [row("fresh", "all", 0.8), row("fresh", "gate", gate), row("fresh", "gate_random", 0.79)]
    rows += [
        row("fresh", name, value, "contradicted")
        for name, value in (("all", 0.7), ("gate", gate - 0.05), ("gate_random", 0.68))
    ]
    rows += [row("fresh_first_excluded", who, 0.88 if who == "shipped" else 0.6, "any") for who in ("shipped", "paper")]
    return {
        "setting": setting,
        "seed": seed,
        "rows": rows,
        "commit": "abc",
        "clips": {},
        "seconds": {"all": 60.0},
        "gate": {"slope": 4.0, "threshold": 1.0},
    }


def test_gains_are_paired_by_training() -> None:
    found = Table.of(over_trainings([training(0, 0.83), training(1, 0.81), training(2, 0.82)]))
    gain, control = found("short", "fresh_gain", "gate", "all"), found("short", "fresh_control", "gate", "all")
    assert gain is not None and control is not None and gain.interval is not None
    assert gain.values == pytest.approx((3.0, 1.0, 2.0)) and gain.mean == pytest.approx(2.0)
    assert gain.interval == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-5)
    assert control.mean == pytest.approx(3.0)
    with pytest.raises(ConflictError, match="short-1: holds other rows"):
        broken = training(1, 0.8)
        over_trainings([training(0, 0.8), broken | {"rows": broken["rows"][1:]}])
    with pytest.raises(ConflictError, match=r"short-0: .*wanted a finite number"):
        over_trainings([training(0, float("nan"))])


def test_the_page_says_what_is_reached_missed_and_not_measured() -> None:
    results = [training(0, 0.83), training(1, 0.81), training(2, 0.82)]
    table = Table.of(over_trainings(results))
    page = as_markdown(table, facts_of(results), "cocoer agreement")
    assert page.splitlines()[4] == finding(
        table
    ) and "88 % of the contradicted persons (the paper's rule: 60 %;" in finding(table)
    lines = {
        tuple(c.strip() for c in line.split("|")[1:3]): line for line in page.splitlines() if line.startswith("| ")
    }
    assert "| reached, of 5 trainings 3" in lines["contradicting level excluded first, %", "short training"]
    assert "not measured yet" in lines["contradicting level excluded first, %", "long training"]
    assert (
        "| missed, of 5 trainings 3" in lines["gate, mAP of all", "short training"]
    )  # 2.0, but the interval reaches below 0
    assert "2 of 5 short trainings; 5 of 5 long trainings; 5 of 5 caers trainings; " in page


def test_the_page_says_why_long_trainings_gain_little_once_both_are_there() -> None:
    results = [training(seed, gate, setting) for setting in ("short", "long") for seed, gate in ((0, 0.83), (1, 0.81))]
    page = as_markdown(Table.of(over_trainings(results)), facts_of(results), "cocoer agreement")
    assert "After long training the gate" in page and "- long training, 2 trainings: mAP by" in page
    assert "After long training the gate" not in as_markdown(
        Table.of(over_trainings(results[:2])), facts_of(results[:2]), "cocoer agreement"
    )


def test_a_whole_run_and_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = Sizes(train=20, short=16, val=2, fresh=16, pool=8)
    clip = (("early", ROOT / "checkpoints" / "demo" / "clip.safetensors"),)
    tiny = Study(tmp_path / "study", sizes, ROOT / "configs" / "demo_emotic.yaml", (3,), ("short", "caers"), clip)
    with mock.patch.dict(study.EPOCHS, {"short": 1, "caers": 1}), mock.patch.object(measuring, "_DAMAGED", 4):
        with start_runtime("cpu") as runtime:
            results = run_study(tiny, runtime)
        with (
            mock.patch.object(study, "train", side_effect=AssertionError("trained again")),
            start_runtime("cpu") as runtime,
        ):
            assert run_study(tiny, runtime) == results == stored(tiny.folder)
            (tiny.folder / "short-3.json").unlink()  # the weights are there: measured again, the same figures
            again = run_study(tiny, runtime)
    assert again[0]["rows"] == results[0]["rows"]
    tests = {r["test"] for r in results[0]["rows"]}
    assert tests >= {"fresh", "pool", "minority", "blurred", "occluded", "strength", "fresh_first_excluded"}
    whats = {r["what"] for r in results[0]["rows"] if r["test"] == "fresh"}
    assert whats == set(VARIANTS) | set(measuring.LATE) | {"gate_early"}
    assert {r["test"] for r in results[1]["rows"]} == {"fresh", "fresh_first_excluded"} and results[1]["clips"] == {}
    with np.load(tiny.folder / "short-3.npz") as kept:
        assert kept["score/gate"].shape == (16, 26) and set(kept["contradicted"]) <= {-1, 0, 1, 2}
    program = load_program("agreement")
    docs = tmp_path / "docs"
    publish_figures(results, {"none": {"headline": {}}}, tmp_path / "figures.json")
    adopt_figures(tmp_path / "figures.json", tmp_path / "other", sizes)
    assert stored(tmp_path / "other") == results and shipped_evaluations(tmp_path / "other") == {
        "none": {"headline": {}}
    }
    adopt_figures(tmp_path / "figures.json", tmp_path / "larger", Sizes())
    assert not stored(tmp_path / "larger")
    monkeypatch.setattr(places, "CLONE", None)  # whose published figures are no part of this
    assert program.main(["--page-only", "--output", str(tiny.folder), "--publish", str(docs)]) == 0
    names = {path.relative_to(docs).as_posix() for path in docs.rglob("*.*")}
    assert names == {"agreement.md", "agreement.json", "images/agreement_strength.png", "images/agreement_strength.pdf"}
    page = (docs / "agreement.md").read_text()
    assert "| early " in page and "accuracy, all" in page and "by training instead of noise" not in page
    capsys.readouterr()
    assert program.main(["--page-only", "--output", str(tiny.folder)]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert [path.name for path in written] == [
        "agreement.md", "agreement.csv", "agreement_strength.png", "agreement_strength.pdf"
    ]  # fmt: skip
    assert "synthetic" in written[0].read_text() and all(level in written[1].read_text() for level in LEVELS)
    (tiny.folder / "short-3.json").write_text("{")
    assert program.main(["--page-only", "--output", str(tiny.folder)]) == 1
    assert "delete it and run the same command again" in capsys.readouterr().err


def test_accuracy_is_the_share_of_persons_whose_top_class_is_theirs() -> None:
    scores = np.array([[0.2, 0.8, 0.0], [0.5, 0.1, 0.4], [0.1, 0.2, 0.7]], np.float32)
    assert measuring.accuracy(scores, np.eye(3, dtype=np.float32)[[1, 2, 2]]) == pytest.approx(2 / 3)


def test_trainings_in_one_world_alone_have_a_page(tmp_path: Path) -> None:
    results = [training(0, 0.85, "caers"), training(1, 0.86, "caers")]
    paths = write_agreement(over_trainings(results), facts_of(results), tmp_path, "cocoer agreement")
    assert [path.name for path in paths] == ["agreement.md", "agreement.csv"]
    assert "How accurate CLIP must be" not in paths[0].read_text() and "CAER-S's world" in paths[0].read_text()


def test_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "CLONE", None)
    program = load_program("agreement")
    for argv in (["--settings", "middle"], ["--quick", "--publish", "docs"], ["--clip", "early"]):
        with pytest.raises(SystemExit) as stop:
            program.main(argv)
        assert stop.value.code == 2
    assert program.main(["--page-only", "--output", str(tmp_path)]) == 1
    assert "no training was measured" in capsys.readouterr().err


def test_a_point_without_interval_is_shown_as_one_training() -> None:
    results = [training(0, 0.85)]
    assert json.loads(json.dumps(results)) == results
    points = over_trainings(results)
    assert all(isinstance(p, StudyPoint) and p.deviation is None and p.interval is None for p in points)
    assert "(one training)" in as_markdown(Table.of(points), facts_of(results), "cocoer agreement")


def test_what_was_measured_beside_the_trainings_has_its_sections() -> None:
    whole = {"value": 0.5, "low": 0.4, "high": 0.6}
    evaluation = {
        "persons": 40, "headline": whole, "against": {"difference": {"value": 0.01, "low": -0.01, "high": 0.02}},
        "contradiction": {"first_excluded": whole, "persons": 9},
        "on_contradicted": dict.fromkeys(("pred", "ctx", "late_fusion", "VI"), whole),
        "sources": {"ctx": 0.4, "late_fusion": 0.5, "pred": 0.6, "VI": 0.7},
    }  # fmt: skip
    results = [training(0, 0.85)]
    facts = facts_of(results) | {"shipped": {"agreement": evaluation, "zero_shot_caers": evaluation}}
    page = as_markdown(Table.of(over_trainings(results)), facts, "cocoer agreement")
    assert (
        "| `rule: agreement` | 50.00 [40.00, 60.00]" in page and "1.00 [-1.00, 2.00]" in page and "40 persons" in page
    )
    without = as_markdown(Table.of(over_trainings(results)), facts_of(results), "cocoer agreement")
    assert "The shipped weights" not in without and "CLIP alone in CAER-S's world" not in without
