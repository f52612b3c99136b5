"""Where the time of a forward pass and of a training step goes, and how far both are from what the machine can do at most."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cocoer.benchmark.model import random_model
from cocoer.benchmark.timing import Task, take_turns
from cocoer.benchmark.variants import person_batch
from cocoer.config import Config, change_config
from cocoer.inference.recognizer import Recognizer
from cocoer.runtime import Runtime
from cocoer.training.learner import build_learner, training_mode
from cocoer.training.step import step_facts, train_step


@dataclass(frozen=True)
class Operation:
    """One kind of operation. ms: its own time a pass, without that of operations inside it. share: of the pass, 0..1."""

    name: str
    calls: int
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """One pass. total_ms: median without the profiler. gflops: arithmetic done a second, in 10^9 operations.

    peak_gflops: what a large matrix product of the same type reaches here; copy_gb_s: what copying large tensors reaches
    (bytes read and written). operations: the costliest first.
    """

    what: str
    persons: int
    total_ms: float
    gflops: float
    peak_gflops: float
    copy_gb_s: float
    operations: tuple[Operation, ...]


def measure_profile(config: Config, device: torch.device, persons: int, seconds: float) -> Iterator[Profile]:
    """A forward pass of a recogniser and a training step, both with the config's settings."""
    model = random_model(config, device)
    batch = person_batch(config, persons, device)
    runtime = Runtime(0, 1, device)
    learner = build_learner(config, random_model(config, device), runtime)
    training_mode(learner.model, learner.frozen_norms)
    facts = step_facts([batch], False, runtime)
    recognizer = Recognizer(model, change_config(config, ["inference.compile=false"]), device)
    # the same arithmetic in operators that the counter knows
    countable = Recognizer(
        model,
        change_config(config, ["inference.compile=false", "inference.prepack=false", "inference.cuda_graph=false"]),
        device,
    )

    def step() -> object:
        return train_step(learner, [batch], facts, 0.0, runtime, "profile")

    tasks: dict[str, tuple[Task, Task, str]] = {
        "forward pass": (
            lambda: recognizer.predict_tensors(batch),
            lambda: countable.predict_tensors(batch),
            config.inference.precision,
        ),
        "training step": (step, step, config.optim.precision),
    }
    for what, (task, counted, precision) in tasks.items():
        total = take_turns({what: task}, seconds, device, least=3).median(what)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        peak, copy = limits(device, dtype, seconds)
        operations = tuple(costliest(task, device))
        yield Profile(what, persons, total, 1e-6 * arithmetic(counted) / total, peak, copy, operations)


def arithmetic(task: Task) -> int:
    """Floating-point operations of a task's matrix products and convolutions (an addition and a product count two)."""
    counter = FlopCounterMode(display=False)
    with counter:
        task()
    return int(counter.get_total_flops())


def costliest(task: Task, device: torch.device, most: int = 12) -> Iterator[Operation]:
    """The operations in which a task spends its time, on the GPU where there is one."""
    gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    task()
    with profile(activities=activities) as record:
        task()
        if gpu:
            torch.cuda.synchronize(device)
    times = {
        event.key: (event.self_device_time_total if gpu else event.self_cpu_time_total, event.count)
        for event in record.key_averages()
    }
    whole = sum(time for time, _ in times.values())
    for name, (time, calls) in sorted(times.items(), key=lambda item: -item[1][0])[:most]:
        yield Operation(name, calls, time / 1000, time / whole)


def limits(device: torch.device, dtype: torch.dtype, seconds: float) -> tuple[float, float]:
    """(GFLOP/s of a large matrix product, GB/s of a large copy) that this machine reaches."""
    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    source = torch.empty(2**28 if device.type == "cuda" else 2**26, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timings = take_turns({"product": lambda: a @ b, "copy": lambda: target.copy_(source)}, min(seconds, 2.0), device)
    return 2e-6 * side**3 / timings.median("product"), 2e-6 * source.numel() / timings.median("copy")
