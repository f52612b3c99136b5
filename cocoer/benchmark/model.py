"""How long the model takes beside its own backbones: floor and total in one process, round by round, side by side.

The floor is the forward pass of the three backbones and the CLIP tower alone, as the plain torchvision and open_clip modules.
The total is a `Recognizer` from normalised crops to probabilities. Both see the same crops, type and threads, and take turns
in every round, so that whatever else the machine does hits both; medians of the rounds count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cocoer.benchmark.timing import Clock, Task, Timings, peak_mb, reserved_mb, take_turns
from cocoer.benchmark.variants import InferenceVariant, due, person_batch, usable, variants
from cocoer.config import Config
from cocoer.data.batch import Batch
from cocoer.model.build import build_cocoer
from cocoer.model.cocoer import CocoER
from cocoer.model.level_head import LevelStack
from cocoer.names import LEVELS
from cocoer.runtime import autocast


@dataclass(frozen=True)
class Row:
    """One measurement. Times in ms a forward pass (medians); None where a column does not apply.

    what: model, workspace, train, data, memory, scaling, archive. variant: what was switched on. batch: persons.
    ratio: median over the rounds of total / floor. eager_ratio: the same against the plain float32 floor.
    spread_ms: first to third quartile of the total. peak_mb: memory at its highest, of the process; on a GPU what a pass takes
    beside the weights.
    work: how much there was to do, in a series of rows that differ in that alone (persons, images or classes).
    """

    what: str
    variant: str
    mode: str
    device: str
    dtype: str
    batch: int
    floor_ms: float | None = None
    total_ms: float | None = None
    ratio: float | None = None
    workspace_ms: float | None = None
    persons_per_s: float | None = None
    peak_mb: float | None = None
    eager_ratio: float | None = None
    spread_ms: tuple[float, float] | None = None
    rounds: int | None = None
    work: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """As written to JSON."""
        return asdict(self)


def timed(
    timings: Timings, task: str, persons: int, floor: str = "floor", plain: str | None = "floor"
) -> dict[str, Any]:
    """The columns of a `Row` that are times. floor, plain: the tasks to which `ratio` and `eager_ratio` compare."""
    total = timings.median(task)
    return {
        "batch": persons,
        "floor_ms": timings.median(floor),
        "total_ms": total,
        "ratio": timings.ratio(task, floor),
        "persons_per_s": 1000 * persons / total,
        "eager_ratio": timings.ratio(task, plain) if plain else None,
        "spread_ms": timings.quartiles(task),
        "rounds": timings.count,
    }


def random_model(config: Config, device: torch.device) -> CocoER:
    """The config's model with random weights, in eval mode: speed does not depend on what it has learned."""
    torch.manual_seed(0)
    return build_cocoer(config, pretrained=False, folded=config.model.mode == "release").to(device).eval()


class Floor(nn.Module):
    """The three backbones and the CLIP tower, as they are before anything is folded."""

    def __init__(self, model: CocoER) -> None:
        super().__init__()
        if model.vocabulary is None:
            raise ValueError("benchmark: wanted a config with the vocabulary branch, whose tower is part of the floor")
        self.backbones = nn.ModuleList(deepcopy(model.backbones[level]) for level in LEVELS)
        self.tower = deepcopy(model.vocabulary.tower)
        side: Any = self.tower.image_size
        self._side = side if isinstance(side, int) else side[0]

    def forward(self, head: Tensor, body: Tensor, context: Tensor) -> None:
        """Crops [B, 3, S, S] through the backbones, and the context through the tower."""
        for backbone, crops in zip(self.backbones, (head, body, context), strict=True):
            backbone(crops)
        self.look(context)

    def look(self, context: Tensor) -> None:
        """The tower alone; crops larger than its images are cut, for the floor knows no resizing."""
        self.tower(context[..., : self._side, : self._side])


def workspace_task(model: CocoER, persons: int, device: torch.device) -> Task:
    """Competition and coordination alone, on made-up level features."""
    heads = model.head_parameters()
    _, classes, features = heads.prediction_weight.shape
    rng = torch.Generator().manual_seed(0)
    pre = torch.randn(persons, len(LEVELS), features, generator=rng).to(device)
    label = (torch.rand(persons, classes, generator=rng) < 0.2).float().to(device)
    with torch.no_grad():
        z = heads.features(pre)
        stack = LevelStack(pre.square().sum(-1), pre, z, heads.logits(z))

    def run() -> object:
        with torch.inference_mode():
            return model.workspace(stack, model.head_parameters(), label, None)

    return run


def measure_model(
    config: Config,
    device: torch.device,
    batches: Sequence[int],
    seconds: float,
    warn: Callable[[str], None],
    clock: Clock = time.perf_counter,
    eager: bool = False,
    full: bool = True,
) -> Iterator[Row]:
    """Rows of one mode: every variant at every batch size, beside the floor. `seconds`: for one batch size, at least.

    clock: see `take_turns`. eager: leave out what must be compiled or exported first. full: see `due`.
    """
    model = random_model(config, device)
    floor = Floor(model).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        ways = list(variants(config, model, device, Path(folder), warn, eager, full))
        for persons in batches:
            batch = person_batch(config, persons, device)
            tasks: dict[str, Task] = {
                "floor": floor_forward(floor, batch, device, False),
                "workspace": workspace_task(model, persons, device),
            }
            if any(way.bf16 for way in ways):
                tasks["floor bf16"] = floor_forward(floor, batch, device, True)
            for task in tasks.values():
                task()
            found, peaks = {}, {}
            for way in ways:
                held = reserved_mb(device)  # a graph keeps its memory from the first run on
                work = usable(way, batch, warn) if full or due(way, persons, batches) else None
                if work is not None:
                    found[way.name], tasks[way.name] = way, work
                    peaks[way.name] = peak_mb(work, device, held)
            timings = take_turns(tasks, seconds, device, least=3, clock=clock, warm=0)  # all have run by now
            yield from _rows(config, device, persons, timings, found, peaks)


def floor_forward(floor: Floor, batch: Batch, device: torch.device, bf16: bool) -> Task:
    """The floor's forward pass."""

    def run() -> None:
        with torch.inference_mode(), autocast(device, "bf16" if bf16 else "fp32"):
            floor(batch.head, batch.body, batch.context)

    return run


def _rows(
    config: Config,
    device: torch.device,
    persons: int,
    timings: Timings,
    found: Mapping[str, InferenceVariant],
    peaks: Mapping[str, float],
) -> Iterator[Row]:
    """One row per variant."""
    for name, way in found.items():
        times = timed(timings, name, persons, floor=way.floor) | {"workspace_ms": timings.median("workspace")}
        yield Row("model", name, config.model.mode, str(device), way.dtype, peak_mb=peaks[name], **times)
