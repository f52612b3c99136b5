"""The ways to run the model that the benchmark compares: what is switched on, and on which machine and batch it is tried."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cocoer.benchmark.timing import Task
from cocoer.config import Config, change_config, config_to_dict
from cocoer.data.batch import Batch
from cocoer.description import FORMAT_VERSION
from cocoer.errors import first_line
from cocoer.export.onnx_export import example_inputs, export_model
from cocoer.export.onnx_model import load_exported
from cocoer.export.quantize import quantize
from cocoer.inference.onednn import can_prepack
from cocoer.inference.predictions import Scores, answers_of
from cocoer.inference.recognizer import Recognizer
from cocoer.model.level_model import LevelModel


@dataclass(frozen=True)
class InferenceVariant:
    """One way to run the model."""

    name: str
    recognizer: Recognizer

    @property
    def bf16(self) -> bool:
        """Whether it computes in bfloat16, and so has a floor of its own."""
        return self.recognizer.config.inference.precision == "bf16"

    @property
    def dtype(self) -> str:
        """What its convolutions compute in."""
        if self.bf16:
            return "bfloat16"
        return "int8" if self.name.endswith("int8") else "float32"

    @property
    def floor(self) -> str:
        """The floor of the same type."""
        return "floor bf16" if self.bf16 else "floor"

    def task(self, batch: Batch) -> Task:
        """From normalised crops on the device to answers."""
        batch = batch.to(self.recognizer.device)
        return lambda: answers_of(
            Scores.of_output(self.recognizer.predict_tensors(batch), self.recognizer.config.multi_label),
            self.recognizer.rule,
        )


Way = tuple[str, tuple[str, ...]]
"""A name, and what differs in `inference.*` from its defaults."""

BY_SWITCH: tuple[Way, ...] = (
    ("unfolded", ("fold=false", "channels_last=false", "prepack=false")),
    ("folded", ("channels_last=false", "prepack=false")),
    ("folded, channels_last", ("prepack=false",)),
)
DEFAULT = "folded, channels_last, prepacked"
EAGER: tuple[Way, ...] = ((DEFAULT, ()), (f"{DEFAULT}, bf16", ("precision=bf16",)))
COMPILED: tuple[Way, ...] = (
    ("folded, channels_last, compiled", ("compile=true",)),
    ("folded, channels_last, compiled, bf16", ("compile=true", "precision=bf16")),
)
PLAIN_BF16: Way = ("folded, channels_last, bf16", ("precision=bf16",))
AS_IT_COMES: Way = ("as it comes", ())
GRAPHED: tuple[Way, ...] = (
    ("folded, channels_last, graph", ("cuda_graph=true",)),
    ("folded, channels_last, graph, bf16", ("cuda_graph=true", "precision=bf16")),
    ("folded, channels_last, compiled, graph, bf16", ("cuda_graph=true", "compile=true", "precision=bf16")),
)


def ways_on(device: torch.device, eager: bool, full: bool) -> tuple[Way, ...]:
    """What can be tried on a device. eager: nothing that is compiled; not full: on a CPU, compiled in its fastest type only."""
    if device.type == "cuda":
        plain = tuple((name, (*switches, "cuda_graph=false")) for name, switches in (*BY_SWITCH, *COMPILED, PLAIN_BF16))
        return tuple(way for way in (*plain, *GRAPHED, AS_IT_COMES) if not eager or "compiled" not in way[0])
    fastest = COMPILED[1:] if can_prepack(device, torch.bfloat16) else COMPILED[:1]
    compiled = COMPILED if full else fastest
    return BY_SWITCH + EAGER + (() if eager else compiled)


def variants(
    config: Config,
    model: LevelModel,
    device: torch.device,
    folder: Path,
    warn: Callable[[str], None],
    eager: bool = False,
    full: bool = True,
) -> Iterator[InferenceVariant]:
    """The ways to run `model` (`ways_on`), which must not be folded yet. An exported file is made in `folder`, on the CPU only.

    A way that this machine cannot run is reported to `warn` and left out. eager: leave out what is compiled or exported first.
    """
    gpu = device.type == "cuda"
    folded: LevelModel | None = None
    for name, switches in ways_on(device, eager, full):
        settings = change_config(config, [f"inference.{text}" for text in switches])
        # variants that are laid out alike share one model
        own = folded if folded is not None and settings.inference.channels_last else deepcopy(model)
        try:
            recognizer = Recognizer(own, settings, device)
        except ValueError as err:
            warn(f"{name}: {err}")
            continue
        if settings.inference.channels_last and isinstance(recognizer.model, LevelModel):
            folded = recognizer.model
        yield InferenceVariant(name, recognizer)
    if not gpu and not eager:
        model.fold()
        exact, small = folder / "model.onnx", folder / "int8.onnx"
        export_model(model, config, description_of(config), exact)
        yield InferenceVariant("onnxruntime", Recognizer(load_exported(exact)[0], config))
        if full:
            quantize(exact, small, [person_batch(config, 4, device)], "noise")
            yield InferenceVariant("onnxruntime, int8", Recognizer(load_exported(small)[0], config))


def description_of(config: Config) -> dict[str, Any]:
    """The description of an exported file with random weights."""
    return {"format_version": FORMAT_VERSION, "config": config_to_dict(config), "classes": list(config.classes)}


def person_batch(config: Config, persons: int, device: torch.device) -> Batch:
    """Made-up persons in model units on a device, with one emotion each."""
    head, body, context, head_xyxy, body_xyxy = example_inputs(config, persons)
    targets = torch.eye(len(config.classes))[torch.arange(persons) % len(config.classes)]
    keys = tuple(str(i) for i in range(persons))
    return Batch(head, body, context, head_xyxy, body_xyxy, targets, keys).to(device)


def usable(variant: InferenceVariant, batch: Batch, warn: Callable[[str], None]) -> Task | None:
    """The variant's task, run once; None, with a remark, where this machine cannot run it (no compiler, no bf16)."""
    task = variant.task(batch)
    try:
        task()
    except (RuntimeError, ValueError, ImportError) as err:
        warn(f"{variant.name}: cannot run here: {first_line(err)}")
        return None
    return task


def due(way: InferenceVariant, persons: int, batches: Sequence[int]) -> bool:
    """Whether a way is measured at a batch size when not everything is.

    At the smallest and the largest size everything, but what is compiled, for half a minute a size, only at the largest;
    between them what a `Recognizer` does by itself, and bf16.
    """
    if ", compiled" in way.name:
        return persons == max(batches)
    return persons in (min(batches), max(batches)) or way.name in {name for name, _ in (*EAGER, *GRAPHED, AS_IT_COMES)}
