"""How long the model takes beside its own trunks: floor and total in one process, round by round, side by side.

The floor is the forward pass of the three trunks and the CLIP tower alone, as the plain torchvision and open_clip modules.
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

from cocoer.config import Config, change_config, config_to_dict
from cocoer.data.batch import Batch
from cocoer.engine.answers import answers_of
from cocoer.engine.benchmark_timing import Clock, Task, Timings, peak_mb, take_turns
from cocoer.engine.exported import ExportedModel, load_exported
from cocoer.engine.predict import Recognizer
from cocoer.engine.runtime import autocast
from cocoer.model.build import build_model
from cocoer.model.cocoer import CocoER, LevelStack
from cocoer.model.export import example_inputs, export_model
from cocoer.names import LEVELS


@dataclass(frozen=True)
class Row:
    """One measurement. Times in ms a forward pass (medians); None where a column does not apply.

    what: model, workspace, train, data, memory, scaling. variant: what was switched on. batch: persons.
    ratio: median over the rounds of total / floor. eager_ratio: the same against the plain float32 floor.
    spread_ms: first to third quartile of the total. peak_mb: memory at its highest, of the process or the GPU.
    work: how much there was to do, in a series of rows that differ in that alone (persons, pictures or classes).
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


def person_batch(config: Config, persons: int, device: torch.device) -> Batch:
    """Made-up persons in model units, with one emotion each."""
    head, body, context, head_xyxy, body_xyxy = example_inputs(config, persons)
    targets = torch.eye(len(config.classes))[torch.arange(persons) % len(config.classes)]
    keys = tuple(str(i) for i in range(persons))
    return Batch(head, body, context, head_xyxy, body_xyxy, targets, keys).to(device)


def random_model(config: Config, device: torch.device) -> CocoER:
    """The config's model with random weights, in eval mode: speed does not depend on what it has learned."""
    torch.manual_seed(0)
    return build_model(config, pretrained=False, folded=config.model.mode == "release").to(device).eval()


class Floor(nn.Module):
    """The three trunks and the CLIP tower, as they are before anything is folded."""

    def __init__(self, model: CocoER) -> None:
        super().__init__()
        if model.vocabulary is None:
            raise ValueError("benchmark: wanted a config with the vocabulary branch, whose tower is part of the floor")
        self.trunks = nn.ModuleList(deepcopy(model.trunks[level]) for level in LEVELS)
        self.tower = deepcopy(model.vocabulary.tower)
        side: Any = self.tower.image_size
        self._side = side if isinstance(side, int) else side[0]

    def forward(self, head: Tensor, body: Tensor, context: Tensor) -> None:
        """Crops [B, 3, S, S] through the trunks, and the context through the tower."""
        for trunk, crops in zip(self.trunks, (head, body, context), strict=True):
            trunk(crops)
        self.look(context)

    def look(self, context: Tensor) -> None:
        """The tower alone; crops larger than its pictures are cut, for the floor knows no resizing."""
        self.tower(context[..., : self._side, : self._side])


@dataclass(frozen=True)
class Variant:
    """One way to run the model."""

    name: str
    recognizer: Recognizer

    @property
    def bf16(self) -> bool:
        """Whether it computes in bfloat16, and so has a floor of its own."""
        return self.recognizer.config.inference.precision == "bf16"

    @property
    def floor(self) -> str:
        """The floor of the same type."""
        return "floor bf16" if self.bf16 else "floor"

    def task(self, batch: Batch) -> Task:
        """From normalised crops on the device to answers."""
        batch = batch.to(self.recognizer.device)
        return lambda: answers_of(self.recognizer.predict_tensors(batch), self.recognizer.rule)


SWITCHES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("unfused", ("fuse=false", "channels_last=false", "prepack=false")),
    ("fused", ("channels_last=false", "prepack=false")),
    ("fused, channels_last", ("prepack=false",)),
)
EAGER: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fused, channels_last, prepacked", ()),
    ("fused, channels_last, prepacked, bf16", ("precision=bf16",)),
)
COMPILED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fused, channels_last, compiled", ("compile=true",)),
    ("fused, channels_last, compiled, bf16", ("compile=true", "precision=bf16")),
)
GRAPHED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fused, channels_last, graph", ("cuda_graph=true",)),
    ("fused, channels_last, graph, bf16", ("cuda_graph=true", "precision=bf16")),
    ("fused, channels_last, compiled, graph, bf16", ("cuda_graph=true", "compile=true", "precision=bf16")),
)
"""Ways to run the model: name, and what differs in `inference.*` from its defaults."""


def variants(
    config: Config,
    model: CocoER,
    device: torch.device,
    folder: Path,
    warn: Callable[[str], None],
    eager: bool = False,
) -> Iterator[Variant]:
    """Every way to run `model`, which must not be fused yet. An exported file is made in `folder`, on the CPU only.

    A way that this machine cannot go is named to `warn` and left out. eager: leave out what is compiled or exported first.
    """
    gpu = device.type == "cuda"
    ways = SWITCHES + EAGER + (() if eager else COMPILED) + (GRAPHED if gpu else ())
    fused: CocoER | None = None
    for name, switches in ways:
        settings = change_config(config, [f"inference.{text}" for text in switches])
        # variants that are laid out alike share one model
        own = fused if fused is not None and settings.inference.channels_last else deepcopy(model)
        try:
            recognizer = Recognizer(own, settings, device)
        except ValueError as err:
            warn(f"{name}: {err}")
            continue
        if settings.inference.channels_last and isinstance(recognizer.model, CocoER):
            fused = recognizer.model
        yield Variant(name, recognizer)
    if not gpu and not eager:
        model.fuse()
        yield Variant("onnxruntime", Recognizer(exported_model(model, config, folder), config))


def exported_model(model: CocoER, config: Config, folder: Path) -> ExportedModel:
    """The model written as ONNX into `folder` and read back. Raises ExportError."""
    file = folder / f"{config.model.mode}.onnx"
    metadata = {"config": config_to_dict(config), "classes": list(config.classes), "note": "random weights"}
    export_model(model, config, metadata, file)
    return load_exported(file)[0]


def usable(variant: Variant, batch: Batch, warn: Callable[[str], None]) -> Task | None:
    """The variant's task, run once; None, with a remark, where this machine cannot run it (no compiler, no bf16)."""
    task = variant.task(batch)
    try:
        task()
    except (RuntimeError, ValueError, ImportError) as err:
        warn(f"{variant.name}: cannot run here: {str(err).strip().splitlines()[0][:200]}")
        return None
    return task


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
            return model.workspace(stack, model.head_parameters(), label)

    return run


def measure_model(
    config: Config,
    device: torch.device,
    batches: Sequence[int],
    seconds: float,
    warn: Callable[[str], None],
    clock: Clock = time.perf_counter,
    eager: bool = False,
) -> Iterator[Row]:
    """Rows of one mode: every variant at every batch size, beside the floor. `seconds`: for one batch size, at least.

    clock: see `take_turns`. eager: leave out what must be compiled or exported first.
    """
    model = random_model(config, device)
    floor = Floor(model).to(device).eval()
    with tempfile.TemporaryDirectory() as folder:
        ways = list(variants(config, model, device, Path(folder), warn, eager))
        for persons in batches:
            batch = person_batch(config, persons, device)
            tasks: dict[str, Task] = {
                "floor": _floor_task(floor, batch, device, False),
                "workspace": workspace_task(model, persons, device),
            }
            found = {}
            for way in ways:
                task = usable(way, batch, warn)
                if task is not None:
                    found[way.name], tasks[way.name] = way, task
            if any(way.bf16 for way in found.values()):
                tasks["floor bf16"] = _floor_task(floor, batch, device, True)
            timings = take_turns(tasks, seconds, device, clock=clock, warm=1)
            yield from _rows(config, device, persons, timings, found, tasks)


def _floor_task(floor: Floor, batch: Batch, device: torch.device, bf16: bool) -> Task:
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
    found: Mapping[str, Variant],
    tasks: Mapping[str, Task],
) -> Iterator[Row]:
    """One row per variant."""
    for name, way in found.items():
        total = timings.median(name)
        yield Row(
            what="model",
            variant=name,
            mode=config.model.mode,
            device=str(device),
            dtype="bfloat16" if way.bf16 else "float32",
            batch=persons,
            floor_ms=timings.median(way.floor),
            total_ms=total,
            ratio=timings.ratio(name, way.floor),
            workspace_ms=timings.median("workspace"),
            persons_per_s=1000 * persons / total,
            peak_mb=peak_mb(tasks[name], device),
            eager_ratio=timings.ratio(name, "floor"),
            spread_ms=timings.quartiles(name),
            rounds=timings.count,
        )
