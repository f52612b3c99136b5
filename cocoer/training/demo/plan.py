"""How long and how fast one of the demonstration's networks is trained."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """lr: the highest learning rate of a one-cycle schedule."""

    epochs: int
    batch_size: int
    lr: float
    seed: int
