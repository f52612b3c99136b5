"""Options, schedule and file format shared by the trainings of the demonstration's networks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_index
from cocoer.model.tensor_file import write_tensors

T = TypeVar("T")


@dataclass(frozen=True)
class Plan:
    """lr: the highest learning rate of a one-cycle schedule."""

    epochs: int
    batch_size: int
    lr: float
    seed: int

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser, epochs: int, batch_size: int, lr: float) -> None:
        """`--epochs`, `--batch-size`, `--lr` and `--seed` with these defaults; see `of`."""
        parser.add_argument("--epochs", type=int, default=epochs)
        parser.add_argument("--batch-size", type=int, default=batch_size)
        parser.add_argument("--lr", type=float, default=lr)
        parser.add_argument("--seed", type=int, default=0)

    @classmethod
    def of(cls, args: argparse.Namespace) -> Plan:
        """What the options say; seeds torch too."""
        torch.manual_seed(args.seed)
        return cls(args.epochs, args.batch_size, args.lr, args.seed)

    def batches(self, order: Iterable[T], epoch: int) -> Iterable[T]:
        """The batches of an epoch, with a progress bar on a terminal."""
        return tqdm(order, desc=f"epoch {epoch + 1}/{self.epochs}", disable=not sys.stderr.isatty())

    def say(self, epoch: int, what: str) -> None:
        """One line at the end of an epoch."""
        print(f"epoch {epoch + 1}/{self.epochs}: {what}", flush=True)


class OneCycle:
    """AdamW under a one-cycle schedule. steps: of the whole training. rise: share of them in which the rate grows."""

    def __init__(
        self, parameters: Iterable[nn.Parameter], plan: Plan, steps: int, weight_decay: float, rise: float = 0.1
    ) -> None:
        self._optimizer = torch.optim.AdamW(parameters, plan.lr, weight_decay=weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, plan.lr, total_steps=max(1, steps), pct_start=rise
        )

    def step(self, loss: Tensor) -> None:
        """One step against the gradient of a scalar loss."""
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()


def demo_people(parser: argparse.ArgumentParser, data: Path) -> list[PersonRecord]:
    """The training persons of a demo tree; ends the program with exit code 2 where `data` is none."""
    records = read_index(data / "index", "train")
    if not all("synthetic" in record.extra for record in records):
        parser.error(
            f"{data} is not a demo tree: its index does not say what is shown; make one with cocoer prepare demo"
        )
    return records


def write_half(module: nn.Module, file: Path, what: str) -> None:
    """A network's weights in half precision, marked as the demonstration's; says the file. Raises OutputError."""
    weights = {k: v.half() if v.is_floating_point() else v for k, v in module.state_dict().items() if k != "attn_mask"}
    note = f"synthetic demonstration: trained on the demo world's generated {what}"
    write_tensors(file, {k: v.contiguous() for k, v in weights.items()}, {"note": note})
    print(f"wrote {file} ({file.stat().st_size / 1e6:.2f} MB)")
