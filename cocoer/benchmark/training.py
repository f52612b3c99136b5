"""A training step beside the least that training must do: the backbones forward and backward, the frozen CLIP tower forward."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from copy import deepcopy

import torch

from cocoer.benchmark.model import Floor, Row, random_model, timed
from cocoer.benchmark.timing import Clock, Task, peak_mb, take_turns
from cocoer.benchmark.variants import person_batch
from cocoer.config import Config
from cocoer.data.batch import Batch
from cocoer.runtime import Runtime, autocast
from cocoer.training.learner import Learner, build_learner, training_mode
from cocoer.training.step import backward, step_facts, train_step

GRADIENTS, STEP, BARE = "forward and backward", "whole step", "backbones and tower alone"


def measure_train(
    config: Config, device: torch.device, batches: Sequence[int], seconds: float, clock: Clock = time.perf_counter
) -> Iterator[Row]:
    """Rows of one mode at each number of persons: the gradients, a whole step with the optimizer, and the bare networks.

    All three run as `optim.*` says. The floor has the config's type and is laid out as the networks come; it has no
    optimizer, as the target asks, so a whole step also pays for updating every weight of the model. clock: see `take_turns`.
    """
    model = random_model(config, device)
    floor = Floor(model).to(device)
    floor.backbones.train()
    floor.tower.eval()
    learner = build_learner(config, model, Runtime(0, 1, device))
    training_mode(model, learner.frozen_norms)
    for persons in batches:
        yield from _rows(config, device, learner, floor, persons, seconds, clock)


def how(learner: Learner) -> str:
    """The switches of a training step that are on, as a row's name ends: `, channels_last, bf16`."""
    optim = learner.optim
    switches = {"channels_last": learner.channels_last, "bf16": optim.precision == "bf16", "compiled": optim.compile}
    return "".join(f", {name}" for name, on in switches.items() if on)


def _rows(
    config: Config, device: torch.device, learner: Learner, floor: Floor, persons: int, seconds: float, clock: Clock
) -> Iterator[Row]:
    runtime, precision = Runtime(0, 1, device), config.optim.precision
    batch = person_batch(config, persons, device)
    facts = step_facts([batch], False, runtime)

    def gradients() -> None:
        learner.optimizer.zero_grad(set_to_none=True)
        backward(learner, [batch], facts, runtime)

    tasks: dict[str, Task] = {
        "floor": floor_task(floor, batch, device, precision),
        GRADIENTS: gradients,
        # rate 0: random weights on noise must not run away while they are timed; the work is the same
        STEP: lambda: train_step(learner, [batch], facts, 0.0, runtime, "benchmark"),
    }
    if learner.channels_last:
        laid_out = deepcopy(floor).to(memory_format=torch.channels_last)
        tasks[BARE] = floor_task(laid_out, batch.to(device, channels_last=True), device, precision)
    if precision != "fp32":
        tasks["plain floor"] = floor_task(floor, batch, device, "fp32")
    peaks = {name: peak_mb(task, device) for name, task in tasks.items()}
    timings = take_turns(tasks, seconds, device, least=3, clock=clock, warm=0)  # all have run by now
    dtype, plain = ("float32", "floor") if precision == "fp32" else ("bfloat16", "plain floor")
    for name in (GRADIENTS, STEP, *(name for name in tasks if name == BARE)):
        variant, times = name + how(learner), timed(timings, name, persons, plain=plain)
        yield Row("train", variant, config.model.mode, str(device), dtype, peak_mb=peaks[name], **times)


def floor_task(floor: Floor, batch: Batch, device: torch.device, precision: str) -> Task:
    """The three backbones forward and backward, each with a gradient of its own, and the tower forward."""

    def run() -> None:
        floor.zero_grad(set_to_none=True)
        for backbone, crops in zip(floor.backbones, (batch.head, batch.body, batch.context), strict=True):
            with autocast(device, precision):
                features = backbone(crops)
            features.sum().backward()
        with torch.no_grad(), autocast(device, precision):
            floor.look(batch.context)

    return run
