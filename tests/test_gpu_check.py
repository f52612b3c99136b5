"""The checks of a GPU, with a CPU in its place: they agree with themselves, and they see what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_recognizer import tiny_config

from cocoer.benchmark import gpu_check as g
from cocoer.benchmark.model import Row, random_model
from cocoer.benchmark.variants import person_batch
from cocoer.cli.main import main
from cocoer.config import change_config
from cocoer.inference.recognizer import Recognizer


@pytest.fixture
def bench(tmp_path: Path) -> g.Bench:
    config = tiny_config(tmp_path)
    return g.Bench(g.CPU, {"paper": config}, (1, 2), persons=2, train_persons=2, steps=3, seconds=0.0, compiled=False)


def states(lines: list[g.Line]) -> dict[str, str]:
    return {line.check: line.state for line in lines}


def test_the_same_device_gives_the_same_answers_and_graphs_are_skipped(bench: g.Bench) -> None:
    found = states(list(g.check_answers(bench)))
    assert found == {
        "answers, paper, fp32": "pass", "answers, paper, as it comes": "pass",
        "answers, paper, TF32": "pass", "answers, paper, bf16": "pass",
        "answers, paper, graph": "skip", "answers, paper, graph, bf16": "skip",
    }  # fmt: skip


def test_answers_that_are_off_or_not_numbers_fail(bench: g.Bench) -> None:
    config = bench.configs["paper"]
    run = Recognizer(random_model(config, g.CPU), config, g.CPU)
    wanted = run.predict_tensors(person_batch(config, 2, g.CPU))
    assert g.compared("x", wanted, wanted, g.FP32, True).state == "pass"
    off = replace(wanted, level_logits=wanted.level_logits + 0.01)
    assert g.compared("x", off, wanted, g.FP32, True).state == "FAIL"
    assert g.compared("x", off, wanted, g.BF16, False).state == "pass"
    broken = replace(wanted, logits=wanted.logits * float("nan"))
    assert g.compared("x", broken, wanted, g.BF16, False).state == "FAIL"
    assert wanted.competition is not None
    order = replace(wanted.competition, exclusion=wanted.competition.exclusion.flip(-1))
    turned = replace(wanted, competition=order)
    assert g.compared("x", turned, wanted, g.FP32, True).state == "FAIL"
    assert "0 of 2" in g.compared("x", turned, wanted, g.FP32, False).measured


def test_a_training_that_goes_another_way_fails(bench: g.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {line.state for line in g.check_training(bench)} == {"pass"}
    curve = g.loss_curve

    def wrong(config: object, device: torch.device, persons: int, steps: int) -> list[float]:
        calls.append(1)
        return [x * (1.0 if len(calls) == 1 else 1.2) for x in curve(bench.configs["paper"], device, persons, steps)]

    calls: list[int] = []
    monkeypatch.setattr(g, "loss_curve", wrong)
    assert {line.state for line in g.check_training(bench)} == {"FAIL"}


@pytest.mark.timeout(300)
def test_two_processes_hold_equal_weights_after_a_step(bench: g.Bench) -> None:
    (line,) = g.check_distributed(replace(bench, processes=2))
    assert line.state == "pass" and "weights equal (gloo)" in line.measured and line.ms is not None


def test_a_missing_provider_names_its_command(bench: g.Bench) -> None:
    (line,) = g.check_onnx(bench)
    assert line.state == "pass" and line.persons_per_s is not None
    (gpu,) = g.check_onnx(replace(bench, device=torch.device("cuda", 0)))
    assert (
        gpu.state == "FAIL"
        and gpu.measured == "no CUDAExecutionProvider"
        and ("onnxruntime-gpu" in gpu.wanted or gpu.wanted == "make gpu")
    )


def test_speed_has_a_line_for_every_way_and_size(bench: g.Bench) -> None:
    lines = list(g.check_speed(bench))
    timed = [line for line in lines if line.ms is not None]
    assert len(timed) >= 6 and all(line.floor_share and line.persons_per_s for line in timed)
    assert not [line for line in lines if line.check.startswith("target")]  # the targets are a GPU's
    trained = list(g.check_training_speed(bench))
    assert {line.state for line in trained} == {"pass"} and len(trained) >= 4


def test_memory_that_grows_faster_than_persons_fails() -> None:
    def rows(*peaks: tuple[int, float]) -> list[Row]:
        return [Row("model", "way", "paper", "cuda", "float32", n, peak_mb=mb) for n, mb in peaks]

    assert [line.state for line in g.memory_lines(rows((1, 900.0), (8, 1000.0), (64, 2000.0)))] == ["pass"]
    assert [line.state for line in g.memory_lines(rows((1, 100.0), (8, 1600.0)))] == ["FAIL"]
    assert list(g.memory_lines(rows((1, 900.0)))) == []


def test_a_check_that_raises_is_a_line_and_late_ones_are_skipped(bench: g.Bench) -> None:
    def broken(_: g.Bench) -> Iterator[g.Line]:
        yield g.Line("first half", "pass")
        raise RuntimeError("CUDA error: device-side assert\nmore")

    def good(_: g.Bench) -> Iterator[g.Line]:
        yield g.Line("good", "pass")

    lines = list(g.run_checks(bench, 1.0, {"broken": broken, "good": good}))
    assert states(lines) == {"first half": "pass", "broken": "FAIL", "good": "pass"}
    assert lines[1].measured == "RuntimeError: CUDA error: device-side assert"
    assert states(list(g.run_checks(bench, -1.0, {"good": good}))) == {"good": "skip"}


def test_without_cuda_the_command_says_what_it_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert main(["doctor", "--gpu"]) == 2
    said = capsys.readouterr().out
    assert "no GPU" in said and all(name in said for name in g.CHECKS)


def test_with_a_gpu_the_command_prints_one_table(
    bench: g.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = g.Line("answers", "FAIL", "probabilities differ by 1", "at most 1e-04", 1.5, 2000.0, 1.01)
    monkeypatch.setattr(g, "run_checks", lambda bench, minutes: iter([line, g.Line("graph", "skip", "later")]))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "NVIDIA Example")
    assert main(["doctor", "--gpu"]) == 1
    said = capsys.readouterr().out
    assert "NVIDIA Example" in said and "FAIL" in said and "2000" in said and "1 failed" in said
    assert main(["doctor", "--gpu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["lines"][0] == line.to_dict()


def test_curves_start_alike_whatever_the_settings(bench: g.Bench) -> None:
    config = bench.configs["paper"]
    first = g.loss_curve(config, g.CPU, 2, 2)
    assert first == g.loss_curve(config, g.CPU, 2, 2) and first[0] != first[1]
    low = g.loss_curve(change_config(config, ["optim.precision=bf16"]), g.CPU, 2, 1)
    assert low[0] == pytest.approx(first[0], rel=0.1)
