"""Timing in turns, peak memory, and how cost grows with size: what every part of the benchmark measures with."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cocoer.files import read_lines
from cocoer.runtime import peak_memory_bytes

Task = Callable[[], object]
Clock = Callable[[], float]
"""Seconds since some moment."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds of every round, by task."""

    rounds: Mapping[str, Sequence[float]]

    def median(self, task: str) -> float:
        """The middle round, ms."""
        return statistics.median(self.rounds[task])

    def quartiles(self, task: str) -> tuple[float, float]:
        """Where the middle half of the rounds lies, ms."""
        low, _, high = statistics.quantiles(self.rounds[task], n=4, method="inclusive")
        return low, high

    def ratio(self, task: str, floor: str) -> float:
        """Median over the rounds of task / floor, each of the same round: slow changes of the machine cancel out."""
        pairs = zip(self.rounds[task], self.rounds[floor], strict=True)
        return statistics.median(a / b for a, b in pairs)

    @property
    def count(self) -> int:
        """Rounds."""
        return len(next(iter(self.rounds.values())))


def take_turns(
    tasks: Mapping[str, Task],
    seconds: float,
    device: torch.device,
    least: int = 5,
    most: int = 50,
    clock: Clock = time.perf_counter,
    warm: int = 2,
) -> Timings:
    """Time tasks in turns, each once a round, until `seconds` are over; at least `least` and at most `most` rounds.

    clock: wall time, or `time.process_time`: what this process itself computed, for a machine that is busy with other work
    (then with one thread, for threads that wait for each other compute too).
    Each task first runs `warm` times. Every round starts with another task, so that no task always follows the same one.
    """
    for task in tasks.values():
        for _ in range(warm):
            task()
    names = list(tasks)
    rounds: dict[str, list[float]] = {name: [] for name in names}
    start = time.perf_counter()
    for number in range(most):
        shift = number % len(names)
        for name in names[shift:] + names[:shift]:
            rounds[name].append(_milliseconds(tasks[name], device, clock))
        if number + 1 >= least and time.perf_counter() - start > seconds:
            break
    return Timings(rounds)


def _milliseconds(task: Task, device: torch.device, clock: Clock) -> float:
    """One call, until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = clock()
    task()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return 1000 * (clock() - start)


def reserved_mb(device: torch.device) -> float:
    """What torch holds of the GPU's memory once it has given back what nothing uses, MB; 0 for a CPU."""
    gc.collect()
    if device.type != "cuda":
        return 0.0
    torch.cuda.empty_cache()
    return float(torch.cuda.memory_reserved(device) / 1e6)


def peak_mb(task: Task, device: torch.device, held: float | None = None) -> float:
    """Highest memory while the task runs, MB: of the whole process where Linux lets the mark be reset.

    On a GPU: what the task takes beside `held`, by default what is in use before it (`reserved_mb`), so not the weights.
    """
    before = reserved_mb(device)
    if device.type == "cuda":
        task()
        torch.cuda.synchronize(device)
        return float(torch.cuda.memory_reserved(device) / 1e6) - (before if held is None else held)
    clear_refs = Path("/proc/self/clear_refs")
    if clear_refs.exists():
        clear_refs.write_text("5", encoding="ascii")  # sets the high-water mark to what is in use now
    task()
    if clear_refs.exists():
        return memory_mb("VmHWM")
    return peak_memory_bytes() / 1e6


def memory_mb(entry: str = "VmRSS") -> float:
    """This process's memory now (or at its highest, `VmHWM`), MB: from /proc on Linux, elsewhere the peak so far."""
    status = Path("/proc/self/status")
    if not status.exists():
        return peak_memory_bytes() / 1e6
    line = next(line for line in read_lines(status) if line.startswith(entry + ":"))
    return int(line.split()[1]) * 1024 / 1e6


def straightness(work: Sequence[float], cost: Sequence[float]) -> float:
    """Exponent of cost over work, from a least-squares line through the logarithms: 1 = a straight line, below it better."""
    if len(work) != len(cost) or len(set(work)) < 2:
        raise ValueError(f"straightness: wanted two or more sizes and a cost for each, got {len(work)} and {len(cost)}")
    slope, _ = statistics.linear_regression([math.log(x) for x in work], [math.log(y) for y in cost])
    return slope
