"""A training step beside the least that training must do: the trunks forward and backward, the frozen CLIP tower forward."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from cocoer.config import Config
from cocoer.engine.benchmark import Floor, Row, person_batch, random_model
from cocoer.engine.benchmark_timing import Task, peak_mb, take_turns
from cocoer.engine.runtime import Runtime
from cocoer.engine.train_epoch import Learner, backward, step_facts, train_step, training_mode


def measure_train(config: Config, device: torch.device, persons: int, seconds: float) -> Iterator[Row]:
    """Rows of one mode: the gradients alone (`forward and backward`), and a whole step with the optimizer.

    The floor has no optimizer, as the target asks, so the second row also pays for updating every weight of the model.
    """
    runtime = Runtime(0, 1, device)
    model = random_model(config, device)
    floor = Floor(model).to(device)
    floor.trunks.train()
    floor.tower.eval()
    training_mode(model, config.model.trunk.frozen_norms)
    trained = [p for p in model.parameters() if p.requires_grad]
    learner = Learner(
        model=model,
        forward=model,
        wrapped=None,
        optimizer=torch.optim.Adam(trained, lr=config.optim.lr, weight_decay=config.optim.weight_decay),
        average=None,
        loss=config.loss,
        optim=config.optim,
        multi_label=config.multi_label,
        class_counts=None,
        frozen_norms=config.model.trunk.frozen_norms,
    )
    batch = person_batch(config, persons, device)
    facts = step_facts([batch], False, runtime)

    def gradients() -> None:
        learner.optimizer.zero_grad(set_to_none=True)
        backward(learner, [batch], facts, runtime)

    def floor_step() -> None:
        floor.zero_grad(set_to_none=True)
        for trunk, crops in zip(floor.trunks, (batch.head, batch.body, batch.context), strict=True):
            trunk(crops).sum().backward()
        with torch.no_grad():
            floor.look(batch.context)

    tasks: dict[str, Task] = {
        "floor": floor_step,
        "forward and backward": gradients,
        # rate 0: random weights on noise must not run away while they are timed; the work is the same
        "whole step": lambda: train_step(learner, [batch], facts, 0.0, runtime, "benchmark"),
    }
    timings = take_turns(tasks, seconds, device, least=3)
    for name in ("forward and backward", "whole step"):
        total = timings.median(name)
        yield Row(
            what="train",
            variant=name,
            mode=config.model.mode,
            device=str(device),
            dtype="float32",
            batch=persons,
            floor_ms=timings.median("floor"),
            total_ms=total,
            ratio=timings.ratio(name, "floor"),
            persons_per_s=1000 * persons / total,
            peak_mb=peak_mb(tasks[name], device),
            spread_ms=timings.quartiles(name),
            rounds=timings.count,
        )
