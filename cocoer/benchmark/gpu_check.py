"""Does this GPU give the CPU's answers, train as the CPU does, and reach the targets? What `cocoer doctor --gpu` runs.

Every check yields lines of one table. The CPU is the reference: one process, float32, nothing folded or laid out anew. The
device is an argument, so the tests run the same checks with a CPU in the GPU's place.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from cocoer.benchmark.model import Row, measure_model, random_model
from cocoer.benchmark.targets import verdicts
from cocoer.benchmark.timing import straightness, take_turns
from cocoer.benchmark.training import measure_train
from cocoer.benchmark.variants import description_of, person_batch
from cocoer.config import Config, change_config, save_config
from cocoer.errors import ExportError, NonFiniteLoss
from cocoer.export.onnx_export import GATE_TOLERANCE, export_model
from cocoer.export.onnx_file import OnnxFile
from cocoer.inference.recognizer import Recognizer
from cocoer.model.level_model import ModelOutput
from cocoer.runtime import Runtime, use_gpu
from cocoer.training.learner import build_learner, training_mode
from cocoer.training.step import step_facts, train_step
from cocoer.weights import places

State = Literal["pass", "FAIL", "skip"]
CPU = torch.device("cpu")
PLAIN = ("inference.fold=false", "inference.channels_last=false", "inference.prepack=false")
GOLDENS = ("release_golden_a.npz", "release_golden_b.npz")
FP32, TF32, BF16 = 1e-4, 5e-3, 5e-2
"""Largest difference of a probability from the CPU's: rounding of float32, and of 10 and 7 bits of mantissa through 50 layers."""
CURVE = {"fp32": (1e-3, 0.05), "bf16": (0.03, 0.10)}
"""Largest relative difference of the loss in the first `EARLY` steps of a training, and in all: rounding grows."""
EARLY = 5
RATE_SHARE = 0.01
"""Of the config's learning rate, in the training that is compared. At the whole rate the last digit of the weights moves the loss
by 20 % within six steps, on a CPU too; at a hundredth by less than 1e-4 until the first exclusion changes."""


@dataclass(frozen=True)
class Line:
    """One line of the table. measured, wanted: in words. floor_share: time / that of the bare networks of the same type."""

    check: str
    state: State
    measured: str = ""
    wanted: str = ""
    ms: float | None = None
    persons_per_s: float | None = None
    floor_share: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Bench:
    """What is checked. configs: by mode, paper and release. batches: persons of the timings, the smallest first.

    persons: of the comparisons. steps: of the training curves. seconds: of each timing. compiled: whether torch.compile is tried.
    processes: of the distributed step.
    """

    device: torch.device
    configs: Mapping[str, Config]
    batches: Sequence[int] = (1, 8, 64, 256)
    persons: int = 5
    train_persons: int = 64
    steps: int = 20
    seconds: float = 3.0
    compiled: bool = True
    processes: int = 1


Check = Callable[[Bench], Iterator[Line]]


def run_checks(bench: Bench, minutes: float, checks: Mapping[str, Check] | None = None) -> Iterator[Line]:
    """All lines, check by check. A check that raises is a FAIL with its reason; those after `minutes` are skipped."""
    if bench.device.type == "cuda":
        use_gpu(bench.device)
    until = time.monotonic() + 60 * minutes
    for name, check in (CHECKS if checks is None else checks).items():
        if time.monotonic() > until:
            yield Line(name, "skip", f"{minutes:g} minutes were over", "more time: --minutes")
            continue
        try:
            yield from check(bench)
        except Exception as err:  # noqa: BLE001 - CUDA, NCCL, triton and onnxruntime each have error types of their own
            yield Line(name, "FAIL", first_line(err))
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()


def first_line(err: BaseException) -> str:
    """The type and first line of an error, at most 200 characters."""
    said = next((line.strip() for line in str(err).splitlines() if line.strip()), "")
    return f"{type(err).__name__}: {said}"[:200]


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Matrix products and convolutions of a GPU with 10 bits of mantissa, or with all 23."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def ways(bench: Bench) -> Iterator[tuple[str, list[str], bool, float]]:
    """(name, settings, TF32, tolerance) of the ways to run the model that are compared with the CPU."""
    plain = ["inference.cuda_graph=false"]
    yield "fp32", plain, False, FP32
    yield "as it comes", [], False, FP32
    yield "TF32", plain, True, TF32
    yield "bf16", [*plain, "inference.precision=bf16"], False, BF16
    yield "graph", ["inference.cuda_graph=true"], False, FP32
    yield "graph, bf16", ["inference.cuda_graph=true", "inference.precision=bf16"], False, BF16
    if bench.compiled:
        yield "compiled", [*plain, "inference.compile=true"], False, FP32
        yield "compiled, bf16", [*plain, "inference.compile=true", "inference.precision=bf16"], False, BF16


def check_answers(bench: Bench) -> Iterator[Line]:
    """Both modes with random weights: probabilities and exclusion order of every way beside the CPU's."""
    for mode, config in bench.configs.items():
        model = random_model(config, CPU)
        batch = person_batch(config, bench.persons, CPU)
        wanted = Recognizer(deepcopy(model), change_config(config, [*PLAIN]), CPU).predict_tensors(batch)
        for name, settings, low, tolerance in ways(bench):
            title = f"answers, {mode}, {name}"
            if "graph" in name and bench.device.type != "cuda":
                yield Line(title, "skip", f"a graph needs CUDA, the device is {bench.device}")
                continue
            try:
                with tf32(low):
                    run = Recognizer(deepcopy(model), change_config(config, settings), bench.device)
                    got = run.predict_tensors(batch)
            except (RuntimeError, ValueError, ImportError) as err:
                yield Line(title, "FAIL", first_line(err))
                continue
            yield compared(title, got, wanted, tolerance, exact=tolerance == FP32)


def compared(title: str, got: ModelOutput, wanted: ModelOutput, tolerance: float, exact: bool) -> Line:
    """Probabilities to the tolerance, of the fused answer the median person's; where `exact`, every exclusion order too."""
    pairs = [(got.level_logits, wanted.level_logits)]
    if got.vocabulary_logits is not None and wanted.vocabulary_logits is not None:
        pairs.append((got.vocabulary_logits, wanted.vocabulary_logits))
    before = torch.stack([_gaps(a, b).max() for a, b in pairs]).max()  # NaN stays NaN
    fused = _gaps(got.logits, wanted.logits).flatten(1).max(-1).values  # [B]
    gap, largest = float(torch.maximum(before, fused.median())), float(fused.max())
    said, ok = f"probabilities differ by {gap:.1e}", gap <= tolerance and largest <= max(GATE_TOLERANCE, tolerance)
    if largest > gap:
        said += f" (one person's by {largest:.1e})"
    if got.competition is not None and wanted.competition is not None:
        same = (got.competition.exclusion.cpu() == wanted.competition.exclusion.cpu()).all(-1)
        said += f", {int(same.sum())} of {len(same)} exclusion orders equal"
        ok = ok and (bool(same.all()) or not exact)
    return Line(title, "pass" if ok else "FAIL", said, f"at most {tolerance:.0e}" + (", all equal" if exact else ""))


def _gaps(got: Tensor, wanted: Tensor) -> Tensor:
    """|sigmoid - sigmoid| of logits, on the CPU."""
    return (torch.sigmoid(got.float().cpu()) - torch.sigmoid(wanted.float().cpu())).abs()


def check_goldens(bench: Bench) -> Iterator[Line]:
    """The published code's stored outputs against release mode on the device, TF32 off."""
    program = places.SHIPPED / "scripts" / "check_parity.py"
    for name in GOLDENS:
        golden = places.SHIPPED / "tests" / "data" / name
        if not program.is_file() or not golden.is_file():
            yield Line(f"published outputs, {name}", "skip", "the reference files come with a clone, not with a wheel")
            continue
        words = [str(program), "--golden", str(golden), "--device", str(bench.device)]
        done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
        errors = [float(line.split()[1]) for line in done.stdout.splitlines() if len(line.split()) > 1]
        said = f"largest error {max(errors):.1e}" if errors else (done.stderr.strip().splitlines() or ["no answer"])[-1]
        yield Line(f"published outputs, {name}", "pass" if done.returncode == 0 else "FAIL", said, "at most 1e-04")


def check_training(bench: Bench) -> Iterator[Line]:
    """The loss over some steps on the same persons, beside the CPU's in float32: eager, bf16, compiled."""
    config = bench.configs["paper"]
    wanted = loss_curve(config, CPU, bench.persons, bench.steps)
    kinds = [("eager", [], "fp32"), ("bf16", ["optim.precision=bf16"], "bf16")]
    if bench.compiled:
        kinds.append(("compiled", ["optim.compile=true"], "fp32"))
    for name, settings, precision in kinds:
        title = f"training, {bench.steps} steps, {name}"
        try:
            with tf32(False):
                got = loss_curve(change_config(config, settings), bench.device, bench.persons, bench.steps)
        except (RuntimeError, ValueError, NonFiniteLoss) as err:
            yield Line(title, "FAIL", first_line(err))
            continue
        gaps = [abs(a - b) / abs(b) for a, b in zip(got, wanted, strict=True)]
        early, late = CURVE[precision]
        ok = all(gap <= early for gap in gaps[:EARLY]) and all(gap <= late for gap in gaps)  # NaN fails
        said = f"loss {got[0]:.4f} -> {got[-1]:.4f}, CPU {wanted[0]:.4f} -> {wanted[-1]:.4f}, at most"
        said += f" {100 * max(gaps[:EARLY]):.2g} % apart in {EARLY} steps, {100 * max(gaps):.2g} % in all"
        yield Line(title, "pass" if ok else "FAIL", said, f"at most {100 * early:g} %, {100 * late:g} %")


def loss_curve(config: Config, device: torch.device, persons: int, steps: int) -> list[float]:
    """The loss of each step of a slow training with random weights on made-up persons, the same on every device."""
    model, runtime = random_model(config, CPU).to(device), Runtime(0, 1, device)
    learner = build_learner(config, model, runtime)
    training_mode(learner.model, learner.frozen_norms)
    batch = person_batch(config, persons, CPU)
    facts = step_facts([batch], False, runtime)
    rate = RATE_SHARE * config.optim.lr
    return [train_step(learner, [batch], facts, rate, runtime, "gpu check")["loss"] for _ in range(steps)]


def check_distributed(bench: Bench) -> Iterator[Line]:
    """One optimizer step shared by all GPUs: afterwards every process must hold the same weights."""
    title = f"distributed step, {bench.processes} process{'es' * (bench.processes > 1)}"
    with tempfile.TemporaryDirectory() as folder:
        save_config(bench.configs["paper"], Path(folder) / "config.yaml")
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(bench.processes),
            "-m", "cocoer.benchmark.distributed_step", f"{folder}/config.yaml", bench.device.type, str(bench.persons),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=300)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode != 0 or not lines:
        said = [line for line in done.stderr.splitlines() if "Error" in line] or ["no answer"]
        yield Line(title, "FAIL", said[-1][:200], "equal weights")
        return
    found = json.loads(lines[-1])
    ok = found["equal"] and math.isfinite(found["loss"])
    said_so = f"loss {found['loss']:.4f}, weights {'equal' if found['equal'] else 'differ'} ({found['backend']})"
    yield Line(title, "pass" if ok else "FAIL", said_so, "equal weights", ms=found["ms"])


def check_onnx(bench: Bench) -> Iterator[Line]:
    """The exported file in onnxruntime on the device, beside the model on the CPU."""
    import onnxruntime

    provider = "CUDAExecutionProvider" if bench.device.type == "cuda" else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        yield Line("onnxruntime", "FAIL", f"no {provider}", places.installs_gpu_runtime())
        return
    for mode, config in bench.configs.items():
        model, batch = random_model(config, CPU), person_batch(config, bench.persons, CPU)
        wanted = Recognizer(deepcopy(model), change_config(config, [*PLAIN]), CPU).predict_tensors(batch)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            export_model(model, config, description_of(config), path)
            try:
                file = OnnxFile(path, providers=(provider,))
            except ExportError as err:
                yield Line(f"onnxruntime, {mode}", "FAIL", first_line(err))
                continue
            inputs = (batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)
            got = file(*inputs)
            ms = take_turns({"file": partial(file, *inputs)}, bench.seconds / 3, bench.device).median("file")
        logits: dict[str, Any] = {name: got[name] for name in ("logits", "level_logits", "vocabulary_logits")}
        answer = replace(wanted, **logits, competition=None)
        line = compared(f"onnxruntime, {mode}", answer, wanted, TF32, exact=False)
        yield replace(line, ms=ms, persons_per_s=1000 * bench.persons / ms)


def check_speed(bench: Bench) -> Iterator[Line]:
    """Every way to run the model at every batch size beside the bare networks, its memory, and the targets."""
    rows: list[Row] = []
    warned: list[str] = []
    for mode, config in bench.configs.items():
        for row in measure_model(
            config, bench.device, bench.batches, bench.seconds, warned.append, eager=not bench.compiled, full=False
        ):
            rows.append(row)
            yield as_line(f"{mode}, {row.batch} persons: {row.variant}", row)
    yield from (Line("way to run the model", "FAIL", text[:200]) for text in warned)
    yield from memory_lines(rows)
    for verdict in verdicts(rows) if bench.device.type == "cuda" else ():
        if verdict.found is not None:
            wanted = f"{'at least' if verdict.at_least else 'at most'} {verdict.wanted:g} {verdict.unit}".rstrip()
            yield Line(f"target: {verdict.what}", "pass" if verdict.met else "FAIL", f"{verdict.found:.4g}", wanted)


def memory_lines(rows: Sequence[Row]) -> Iterator[Line]:
    """Whether memory grows at most as persons do, for every way that was measured at two batch sizes or more."""
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row.peak_mb:
            series.setdefault(f"{row.mode}, {row.variant}", []).append((row.batch, row.peak_mb))
    for name, points in series.items():
        if len(points) > 1:
            power = straightness(*zip(*points, strict=True))
            said = ", ".join(f"{persons}: {mb:.0f} MB" for persons, mb in points)
            yield Line(f"memory, {name}", "pass" if power <= 1.02 else "FAIL", said, "grows at most as persons do")


def check_training_speed(bench: Bench) -> Iterator[Line]:
    """A whole training step of the paper's model beside its bare networks, in both types."""
    for settings in ([], ["optim.precision=bf16"]):
        config = change_config(bench.configs["paper"], settings)
        for row in measure_train(config, bench.device, [bench.train_persons], bench.seconds):
            yield as_line(f"training, {row.batch} persons: {row.variant}", row)


def as_line(title: str, row: Row) -> Line:
    """A row of the benchmark as a line: it ran, with finite figures."""
    ok = row.total_ms is not None and math.isfinite(row.total_ms)
    memory = f"{row.peak_mb:.0f} MB" if row.peak_mb else ""
    return Line(title, "pass" if ok else "FAIL", memory, "", row.total_ms, row.persons_per_s, row.ratio)


CHECKS: dict[str, Check] = {
    "answers": check_answers,
    "published outputs": check_goldens,
    "training": check_training,
    "distributed step": check_distributed,
    "onnxruntime": check_onnx,
    "speed and memory": check_speed,
    "training speed": check_training_speed,
}
