"""The learning rate as a function of the place in training alone, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import torch

from cocoer.config import OptimConfig


def learning_rate(step: int, epoch: int, optim: OptimConfig) -> float:
    """Learning rate of optimizer step `step` of the run, which lies in `epoch` (both counted from 0).

    optim.lr, times decay_factor after every decay_every epochs (supplement: x0.01 every 3 epochs), and during the first
    warmup_steps steps times (step + 1) / warmup_steps. `run.max_steps` has no part in it: a run that stops early and
    goes on later sees the same rates as one that never stopped.
    Raises ValueError for a negative step or epoch.
    """
    if step < 0 or epoch < 0:
        raise ValueError(f"wanted step >= 0 and epoch >= 0, got {step} and {epoch}")
    warm = min(1.0, (step + 1) / optim.warmup_steps) if optim.warmup_steps else 1.0
    return float(optim.lr * optim.decay_factor ** (epoch // optim.decay_every) * warm)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the rate, times its own `scale` where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
