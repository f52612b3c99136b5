"""What each of two processes does under torchrun, for test_distributed.py: `distributed_worker.py CONFIG FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from programs import load_program
from training_world import read, train

from cocoer.data.loaders import build_loader
from cocoer.model.build import build_model
from cocoer.runtime import start_runtime
from cocoer.training import recognition_stage as recognition
from cocoer.training import step as te
from cocoer.training.learner import build_learner, training_mode

FROZEN = "model.backbone.frozen_norms=true"


class Killed(BaseException):
    """Stands for a process that is no more."""


def gradients(config: Path, folder: Path, accumulate: int) -> None:
    """Loss terms and gradients of one step of 16 persons, without an update; rank 0 stores them."""
    with start_runtime("cpu") as runtime:
        settings = read(config, FROZEN)
        torch.manual_seed(0)
        model = build_model(settings)
        learner = build_learner(settings, model, runtime)
        training_mode(model, True)
        size = 16 // runtime.world_size // accumulate
        loader = build_loader(settings.data, "train", size, 0, train=True, share=runtime.share)
        batches = [batch for batch, _ in zip(loader, range(accumulate), strict=False)]
        facts = te.step_facts(batches, runtime.rank == 1, runtime)  # type: ignore[arg-type]
        terms = te.backward(learner, batches, facts, runtime)  # type: ignore[arg-type]
        total = {name: runtime.sum(value.double().reshape(1)) for name, value in terms.items()}
        if runtime.is_main:
            grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
            kept = {"gradients": grads, "terms": total, "persons": facts.persons, "stop": facts.stop}
            torch.save(kept, folder / f"gradients-{runtime.world_size}-{accumulate}.pt")


def killed_run(config: Path, settings: list[str]) -> None:
    """A run whose processes end in the middle of step 3."""
    inner = recognition.train_step
    done: list[int] = []

    def dying(*args: Any) -> dict[str, float]:
        values = inner(*args)
        done.append(1)
        if len(done) == 3:
            raise Killed
        return values

    recognition.train_step = dying
    try:
        train(config, settings=settings)
    except Killed:
        pass
    finally:
        recognition.train_step = inner


def main(config: Path, folder: Path) -> None:
    """Everything in one start, because starting is what takes time."""
    with start_runtime("cpu"):  # one group for all that follows: gloo does not like to be joined again and again
        everything(config, folder)


def everything(config: Path, folder: Path) -> None:
    """Gradients, whole and killed runs, a refused run, an evaluation."""
    for accumulate in (1, 2):
        gradients(config, folder, accumulate)
    settings = ["run.checkpoint_every=1", "optim.batch_size=4", "optim.accumulate=2", "optim.ema=0.5"]
    assert train(config, settings=[*settings, f"run.dir={folder}/whole"]) == 0
    killed_run(config, [*settings, f"run.dir={folder}/parts"])
    assert train(config, "--resume", "latest", settings=[*settings, f"run.dir={folder}/parts"]) == 0
    assert train(config, settings=[*settings, f"run.dir={folder}/parts"]) == 1  # every process learns what rank 0 found
    code = load_program("evaluate").main(
        ["--checkpoint", f"{folder}/whole/best.safetensors", "--device", "cpu", "--resamples", "10", "--batch-size", "2",
         "--output", f"{folder}/evaluation-2"]
    )  # fmt: skip
    assert code == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
