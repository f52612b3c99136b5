"""The benchmark measures what it says: turns, medians, the floor's work, rows with every key; run at the demonstration's size."""

from __future__ import annotations

import gc
import json
import math
import mmap
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from programs import load_program
from tiny_models import tiny_config

from cocoer.benchmark import archives
from cocoer.benchmark.agreement import measure_agreement
from cocoer.benchmark.backbones import as_one, measure_backbones, one_after_another
from cocoer.benchmark.model import Floor, Row, random_model, workspace_task
from cocoer.benchmark.profile import arithmetic, costliest, measure_profile
from cocoer.benchmark.scaling import classes_task, measure_memory, measure_persons, measure_workspace
from cocoer.benchmark.targets import Verdict, row_of, verdicts
from cocoer.benchmark.timing import Timings, memory_mb, peak_mb, straightness, take_turns
from cocoer.benchmark.training import floor_task, measure_train
from cocoer.benchmark.variants import COMPILED, DEFAULT, InferenceVariant, due, person_batch, usable, variants, ways_on
from cocoer.inference.recognizer import Recognizer
from cocoer.names import LEVELS

CPU = torch.device("cpu")
KEYS = {
    "mode", "device", "dtype", "batch", "floor_ms", "total_ms", "ratio", "workspace_ms", "persons_per_s", "peak_mb", "variant",
}  # fmt: skip


@pytest.fixture(scope="module")
def program() -> ModuleType:
    return load_program("benchmark")


def test_tasks_take_turns_and_none_always_comes_first() -> None:
    calls: list[str] = []
    tasks = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    timings = take_turns(tasks, seconds=0.0, device=CPU, least=4)
    measured = calls[6:]  # after two calls of each to warm up
    assert timings.count == 4 and sorted(calls[:6]) == list("aabbcc")
    rounds = [measured[i : i + 3] for i in range(0, 12, 3)]
    assert [r[0] for r in rounds] == ["a", "b", "c", "a"] and all(sorted(r) == ["a", "b", "c"] for r in rounds)


def test_times_are_milliseconds_and_rounds_end_with_the_time() -> None:
    start = time.perf_counter()
    timings = take_turns({"sleep": lambda: time.sleep(0.02)}, seconds=0.1, device=CPU, least=2)
    assert 20 <= timings.median("sleep") < 2000 and time.perf_counter() - start > 0.1
    assert 2 <= timings.count <= 8


def test_ratio_pairs_tasks_of_the_same_round() -> None:
    drifting = np.array([1.0, 10.0, 100.0, 1000.0, 10000.0])
    timings = Timings({"floor": drifting.tolist(), "total": (1.25 * drifting[::1]).tolist()})
    assert timings.ratio("total", "floor") == pytest.approx(1.25)
    assert timings.median("total") == 125.0 and timings.quartiles("floor") == (10.0, 1000.0)


def test_straightness_finds_the_exponent() -> None:
    sizes = [1, 2, 8, 64]
    for power in (0.0, 1.0, 2.0):
        assert straightness(sizes, [3 * s**power for s in sizes]) == pytest.approx(power, abs=1e-9)
    with pytest.raises(ValueError, match="two or more"):
        straightness([4], [1.0])


def test_peak_sees_memory_that_is_given_back() -> None:
    def task() -> None:
        with mmap.mmap(
            -1, 80_000_000
        ) as pages:  # fresh pages: an array could come out of memory that tests before freed
            pages[:] = bytes(len(pages))

    gc.collect()
    before = memory_mb()
    peak = peak_mb(task, CPU)
    assert 70 <= peak - before < 400
    assert not math.isnan(peak)


def test_the_floor_is_the_plain_backbones_and_tower_and_survives_fusing() -> None:
    model = random_model(tiny_config(), CPU)
    floor = Floor(model).eval()
    norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in floor.modules())
    seen: list[int] = []
    for network in (*floor.backbones, floor.tower):
        network.register_forward_hook(lambda _module, args, _out: seen.append(args[0].shape[0]))
    batch = person_batch(tiny_config(), 3, CPU)
    floor(batch.head, batch.body, batch.context)
    assert seen == [3, 3, 3, 3]
    model.fold()
    assert sum(isinstance(m, torch.nn.BatchNorm2d) for m in floor.modules()) == norms > 0
    with torch.no_grad():
        plain = floor.backbones[0](batch.head)
        assert torch.allclose(plain, model.backbones[LEVELS[0]](batch.head), atol=1e-4)
    with pytest.raises(ValueError, match="vocabulary branch"):
        Floor(random_model(tiny_config("model.vocabulary.enabled=false"), CPU))


def test_a_variant_that_cannot_run_is_named_and_left_out() -> None:
    class Broken(torch.nn.Module):
        def forward(self, *_: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no compiler\nlong story")

    config, said = tiny_config(), []
    recognizer = Recognizer(random_model(config, CPU), config)
    batch = person_batch(config, 2, CPU)
    task = usable(InferenceVariant("folded", recognizer), batch, said.append)
    assert task is not None and not said
    answers = task()
    assert isinstance(answers, list) and len(answers) == 2, "the total ends at answers, not at tensors"
    broken = InferenceVariant("compiled", recognizer)
    recognizer._forward = Broken()
    assert usable(broken, batch, said.append) is None
    assert said == ["compiled: cannot run here: no compiler"]


def test_workspace_tasks_have_the_size_that_they_say() -> None:
    model = random_model(tiny_config(), CPU)
    refined, competition = workspace_task(model, 7, CPU)()  # type: ignore[misc]
    assert refined.shape[:2] == (7, 3) and competition.exclusion.shape == (7, 3)
    assert classes_task(300, 16, 5, CPU)().shape == (5, 3, 16)  # type: ignore[attr-defined]


def test_training_rows_measure_gradients_step_and_bare_networks() -> None:
    wide = "model.backbone.widths=[16, 16, 16, 16]"  # narrower ones are not laid out channels-last
    rows = list(measure_train(tiny_config(wide), CPU, [2, 3], 0.0))
    names = ["forward and backward", "whole step", "backbones and tower alone"]
    assert [(row.variant, row.batch) for row in rows] == [(f"{n}, channels_last", b) for b in (2, 3) for n in names]
    for row in rows:
        assert row.ratio is not None and row.floor_ms is not None and row.floor_ms > 0
    plain = list(measure_train(tiny_config(wide, "optim.channels_last=false", "optim.precision=bf16"), CPU, [2], 0.0))
    assert [row.variant for row in plain] == [f"{name}, bf16" for name in names[:2]]
    assert all(row.dtype == "bfloat16" and row.eager_ratio != row.ratio for row in plain)


def test_the_floor_of_training_is_every_backbone_both_ways_and_the_tower_forward() -> None:
    floor = Floor(random_model(tiny_config(), CPU))
    floor_task(floor, person_batch(tiny_config(), 2, CPU), CPU, "fp32")()
    assert all(p.grad is not None for p in floor.backbones.parameters())
    assert all(p.grad is None for p in floor.tower.parameters())


def test_every_way_to_run_the_model_is_another_one(tmp_path: Path) -> None:
    config, said = tiny_config(), []
    ways = {way.name: way for way in variants(config, random_model(config, CPU), CPU, tmp_path, said.append, True)}
    assert list(ways) == ["unfolded", "folded", "folded, channels_last", DEFAULT, f"{DEFAULT}, bf16"] and not said
    assert [way.recognizer.model.folded for way in ways.values()] == [False, True, True, True, True]
    assert [way.floor for way in ways.values()] == ["floor", "floor", "floor", "floor", "floor bf16"]
    assert ways[DEFAULT].recognizer.config.inference == config.inference, "what a recogniser does by itself"
    batch, answers = person_batch(config, 2, CPU), []
    for way in ways.values():
        answers.append(way.task(batch)())
    first = answers[0][0].probabilities["pred"]
    for answer in answers[1:4]:
        assert answer[0].probabilities["pred"] == pytest.approx(first, abs=1e-5)
    assert answers[4][0].probabilities["pred"] == pytest.approx(first, abs=0.05)


def test_what_is_measured_where_when_not_everything_is() -> None:
    recognizer = Recognizer(random_model(tiny_config(), CPU), tiny_config())
    names = [name for name, _ in ways_on(CPU, eager=False, full=True)]
    assert (
        set(names) > {name for name, _ in ways_on(CPU, False, False)} > {name for name, _ in ways_on(CPU, True, False)}
    )
    compiled = [name for name, _ in ways_on(CPU, False, False) if name in dict(COMPILED)]
    assert len(compiled) == 1, "the fastest type only"
    measured = {
        n: [name for name in names if due(InferenceVariant(name, recognizer), n, (1, 2, 4, 8))] for n in (1, 2, 4, 8)
    }
    assert measured[8] == names
    assert measured[1] == [name for name in names if name not in dict(COMPILED)]
    assert measured[2] == measured[4] == [DEFAULT, f"{DEFAULT}, bf16"]


def speed_rows(**changes: float) -> list[Row]:
    """Rows of a run that meets every target, with changes to the row of eight persons in paper mode."""
    rows = []
    for mode in ("paper", "release"):
        for batch in (1, 8):
            row = Row("model", DEFAULT, mode, "cpu", "float32", batch, 100.0, 90.0, 0.9, 0.5, 10.0, 900.0, 0.9)
            rows += [row, replace(row, variant="onnxruntime", eager_ratio=0.7)]
        rows.append(Row("train", "whole step, channels_last", mode, "cpu", "float32", 8, ratio=1.1))
    rows[2] = replace(rows[2], **changes)
    return rows


def test_targets_are_held_against_the_rows(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {v.what: v for v in verdicts(speed_rows())}
    assert {v.met for v in found.values()} == {True, None}
    assert found["paper, batch 8: workspace / total"].found == pytest.approx(0.5 / 90)
    unmeasured = [what for what, v in found.items() if v.met is None]
    assert unmeasured == [
        "memory at the last image / when settled",
        "detection and recognition together / the slower",
        "annotate, ray, 1 actor: images/s over local",
        "annotate, ray, 2 actors: images/s over 1 actor, a core each",
    ]
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps([row.to_dict() for row in speed_rows()]))
    bad.write_text(json.dumps([row.to_dict() for row in speed_rows(ratio=1.06, workspace_ms=2.0)]))
    assert program.main(["--check", str(good)]) == 0
    assert " NO" not in capsys.readouterr().out
    assert program.main(["--check", str(good), str(bad)]) == 1
    missed = [line for line in capsys.readouterr().out.splitlines() if line.endswith(" NO")]
    assert len(missed) == 2 and "batch 8: total / floor" in missed[0] and "workspace" in missed[1]
    (tmp_path / "other.json").write_text('[{"speed": 3}]')
    for wrong in ("other.json", "missing.json"):
        assert program.main(["--check", str(tmp_path / wrong)]) == 2
        assert f"{wrong}: wanted rows" in capsys.readouterr().err


def test_targets_of_a_gpu_and_of_growth() -> None:
    rows = [
        Row("model", "graph", "paper", "cuda:0", "bfloat16", 256, 200.0, 210.0, 1.05, 1.0, 1219.0),
        Row("model", "graph", "paper", "cuda:0", "bfloat16", 1, 4.0, 6.5, 1.6, 1.0, 154.0),
        *(Row("scaling", "images", "paper", "cuda:0", "float32", 1, total_ms=n**1.5, work=n) for n in (1, 10, 100)),
    ]
    met = {v.what: v.met for v in verdicts(rows)}
    assert met["paper, batch 256: fastest"] and met["paper, batch 256: total / floor of the same type"]
    assert met["paper, batch 1: fastest"] is False and met["release, batch 1: fastest"] is None
    assert met["images (paper): cost grows as work to the power"] is False
    assert Verdict("x", 5.0, 6.0, at_least=True).met and not Verdict("x", 5.0, 6.0).met
    assert row_of(rows[0].to_dict()) == rows[0]


def test_memory_and_persons_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last, *series = measure_memory(tiny_config(), CPU, images=30, settled=7)
    assert first.peak_mb is not None and last.peak_mb is not None
    assert last.ratio == pytest.approx(last.peak_mb / first.peak_mb) and last.variant == "after 30 images"
    assert [row.work for row in series] == [1, 10, 30] and {row.variant for row in series} == {"images"}
    spent = [row.total_ms for row in series]
    assert spent == sorted(spent) and spent[0] > 0
    with pytest.raises(ValueError, match="more images"):
        next(measure_memory(tiny_config(), CPU, images=5, settled=10))
    monkeypatch.setattr("cocoer.benchmark.scaling.PERSONS_A_IMAGE", (1, 4))
    assert [(row.batch, row.work) for row in measure_persons(tiny_config(), CPU, 0.0)] == [(1, 1), (4, 4)]


def test_workspace_rows_say_what_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cocoer.benchmark.scaling.WORKSPACE_PERSONS", (1, 9))
    monkeypatch.setattr("cocoer.benchmark.scaling.CLASS_COUNTS", (7, 30))
    rows = list(measure_workspace(tiny_config(), CPU, 0.0))
    assert [(row.variant, row.work, row.batch) for row in rows] == [
        ("workspace, by persons", 1, 1), ("workspace, by persons", 9, 9),
        ("workspace, by classes", 7, 64), ("workspace, by classes", 30, 64),
    ]  # fmt: skip


@torch.inference_mode()
def test_backbones_run_together_see_what_they_see_alone() -> None:
    model = random_model(tiny_config(), CPU)
    model.fold()
    backbones = [model.backbones[level] for level in LEVELS]
    batch = person_batch(tiny_config(), 3, CPU)
    crops = (batch.head, batch.body, batch.context)
    together = as_one(backbones)(crops)
    assert len(together) == 3 and not torch.allclose(together[0], together[1])
    for alone, found in zip(one_after_another(backbones)(crops), together, strict=True):
        torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-5)
    rows = list(measure_backbones(tiny_config(), CPU, [2], 0.0, time.perf_counter))
    assert [row.variant for row in rows] == ["one after another", "as one (vmap)"] and rows[0].ratio == 1.0


def test_agreement_is_timed_beside_the_paper_s_rule(program: ModuleType) -> None:
    for config in program.configs(program.parse(["--small"])):
        paper, agreement = measure_agreement(config, CPU, [2], 0.0, time.perf_counter)
        view = config.model.vocabulary.view
        assert (paper.variant, agreement.variant) == (f"the paper's rule, view {view}", f"agreement, view {view}")
        for row in (paper, agreement):
            assert row.mode == config.model.mode and row.batch == 2 and row.ratio is not None and row.ratio > 0


@pytest.mark.filterwarnings("ignore:Warning. Profiler clears events:UserWarning")  # torch 2.11
def test_a_profile_names_where_the_time_goes() -> None:
    a = torch.randn(300, 300)
    operations = list(costliest(lambda: [a @ a for _ in range(20)], CPU))
    assert operations[0].name == "aten::mm" and operations[0].calls == 20 and operations[0].share > 0.5
    assert arithmetic(lambda: a @ a) == 2 * 300**3
    floor, batch = Floor(random_model(tiny_config(), CPU)).eval(), person_batch(tiny_config(), 2, CPU)
    backbones = arithmetic(lambda: floor(batch.head, batch.body, batch.context))
    forward, step = measure_profile(tiny_config(), CPU, 2, 0.0)
    assert (forward.what, step.what) == ("forward pass", "training step")
    for found in (forward, step):
        assert found.persons == 2 and found.gflops > 0 and found.peak_gflops > 0 and found.copy_gb_s > 0
        assert found.gflops * found.total_ms > 1e-6 * backbones, "all of the backbones' arithmetic was seen"
        assert 0.2 < sum(o.share for o in found.operations) <= 1.0001


def test_the_command_writes_rows_with_every_key(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_compiler(*_: object, **__: object) -> object:
        raise ValueError("no compiler here")

    # minutes of g++ that the test can do without
    monkeypatch.setattr("cocoer.inference.acceleration.compiled", no_compiler)
    file = tmp_path / "rows.json"
    arguments = [
        "--what",
        "model",
        "--mode",
        "paper",
        "--batch",
        "1",
        "2",
        "--seconds",
        "0",
        "--small",
        "--device",
        "cpu",
    ]
    assert program.main([*arguments, "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert all(row.keys() >= KEYS for row in rows) and {row["batch"] for row in rows} == {1, 2}
    names = {row["variant"] for row in rows}
    assert {"unfolded", "folded", "folded, channels_last", DEFAULT, "onnxruntime"} <= names and not any(
        "compiled" in n for n in names
    )
    for row in rows:
        assert row["workspace_ms"] > 0 and row["floor_ms"] > 0 and row["peak_mb"] > 0
        assert row["persons_per_s"] == pytest.approx(1000 * row["batch"] / row["total_ms"])
    said = capsys.readouterr()
    assert "variant" in said.out and "no compiler here" in said.err


def test_growth_is_fitted_and_drawn(
    program: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(part: str, *_: object) -> list[Row]:
        row = Row("scaling", part, "paper", "cpu", "float32", 1)
        return [replace(row, work=n, total_ms=3.0 * n) for n in (1, 10, 100)]

    monkeypatch.setattr(program, "measure", measured)
    file = tmp_path / "new" / "scaling.png"
    arguments = ["--what", "memory", "scaling", "--device", "cpu", "--plot", str(file)]
    assert program.main(arguments) == 0
    said = capsys.readouterr().out
    grown = [line.split() for line in said.splitlines() if "cost grows as work to the power" in line]
    assert [(line[0], line[-2:]) for line in grown] == [("memory", ["1.000", "yes"]), ("scaling", ["1.000", "yes"])]
    with Image.open(file) as drawing:
        assert (
            drawing.width > 1000 and file.with_suffix(".pdf").is_file() and len(drawing.getcolors(1 << 20) or []) > 10
        )


def test_profile_and_changed_configs(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["model.backbone.widths=[8, 8, 8, 8]", "model.tokens.size=24", "model.attention.head_size=7"]
    small = ["--small", "--mode", "paper", "--device", "cpu", "--seconds", "0", "--batch", "2"]
    assert program.main(["--what", "profile", *small, "--set", *changes]) == 0
    said = capsys.readouterr().out
    assert "forward pass, paper mode, 2 persons" in said and "training step" in said and "aten::" in said
    assert program.main(["--what", "profile", *small, "--set", "model.backbone.width=3"]) == 2
    assert "did you mean 'widths'" in capsys.readouterr().err


def test_wrong_usage_has_code_two(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--what", "speed"], ["--batch", "0"], ["--images", "1"]):
        with pytest.raises(SystemExit) as left:
            program.main(wrong)
        assert left.value.code == 2
    assert program.main(["--device", "cuda:77"]) == 2 or torch.cuda.is_available()
    assert "cuda" in capsys.readouterr().err or torch.cuda.is_available()


ENGINE = """
import sys, time
from pathlib import Path
out = Path(sys.argv[2])
out.mkdir()
for number in range(6):
    end = time.monotonic() + 0.3
    while time.monotonic() < end and number % 2:
        sum(range(1000))
    time.sleep(max(0.0, end - time.monotonic()))
    (out / f"{number}.parquet").touch()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_engine_is_measured_from_its_first_file_on(tmp_path: Path) -> None:
    found = archives.measure_command(
        [sys.executable, "-c", ENGINE, "annotate", str(tmp_path / "out")], tmp_path / "out", 60, 10, 1
    )
    assert 0 < found.rate <= 50 / (5 * 0.3) * 1.05 and found.start >= 0.3 and found.memory > 1
    assert 0 < found.cpu <= 3
    both = {archives.LOCAL: (found, 0.02), archives.RAY_ONE: (found, 0.04)}
    wall, processor = archives.archive_rows(archives.Engine(archives.RAY_ONE, base=archives.LOCAL), both, 60, 10)
    assert (wall.ratio, processor.ratio) == (1, 0.5) and processor.total_ms == 40
    met = {v.what: v.met for v in verdicts([wall, processor])}
    assert met["annotate, ray, 1 actor: images/s over local"]
    with pytest.raises(RuntimeError, match="ended with 3: *no"):
        command = [sys.executable, "-c", "import sys; print('no'); sys.exit(3)"]
        archives.measure_command(command, tmp_path / "none", 60, 10, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="cores of a process are Linux's")
def test_a_command_gets_the_cores_that_it_is_measured_with() -> None:
    before = os.sched_getaffinity(0)
    count = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    with pytest.raises(KeyError), archives.only_cores(1):
        assert subprocess.run(count, capture_output=True, text=True, check=True).stdout == "1\n"
        raise KeyError
    assert os.sched_getaffinity(0) == before
    with archives.only_cores(0):
        assert os.sched_getaffinity(0) == before
    names = [engine.name for engine in archives.ENGINES]
    assert all(engine.base is None or engine.base in names[: names.index(engine.name)] for engine in archives.ENGINES)
