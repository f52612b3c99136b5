"""Describe a config's model: parts, parameters, multiply-adds and tensor shapes, without allocating memory.

The model is built on torch's `meta` device, where tensors have shapes and no numbers, so the full size takes a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cocoer.config import Config
from cocoer.model.build import build_cocoer
from cocoer.model.cocoer import CocoER, three_levels
from cocoer.names import LEVELS


@dataclass(frozen=True)
class Part:
    """One part of the model.

    parameters: numbers that are learned or frozen weights (no buffers). trainable: those that training changes (in a folded
    model none).
    multiply_adds: of convolutions and matrix products for one person; norms, activations and sums are not counted.
    """

    name: str
    parameters: int
    trainable: int
    multiply_adds: int


@dataclass(frozen=True)
class Description:
    """parts: in the order of the forward pass, each parameter in one of them. shapes: name and shape along the way, B=1."""

    parts: tuple[Part, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def parameters(self) -> int:
        """All parameters; the text tower of CLIP is none of them, for it is used once and not kept."""
        return sum(part.parameters for part in self.parts)

    @property
    def multiply_adds(self) -> int:
        """Of one person's forward pass."""
        return sum(part.multiply_adds for part in self.parts)


def blank_model(config: Config) -> CocoER:
    """The model of a config on the meta device, in evaluation mode: every shape, no numbers, no memory.

    Raises ValueError for a single level.
    """
    with torch.device("meta"):
        return three_levels(build_cocoer(config, pretrained=False).eval())


def describe(config: Config, folded: bool = False) -> Description:
    """Parts, multiply-adds and shapes of a config's model for one person.

    folded: as it is after `model.fold()`. Raises what `build_cocoer` and `LevelModel.fold` raise.
    """
    model = blank_model(config)
    if folded:
        model.fold()
    parts = _parts_of(model)
    side = config.data.image_size
    crop, box = torch.empty(1, 3, side, side, device="meta"), torch.empty(1, 4, device="meta")
    shapes: list[tuple[str, tuple[int, ...]]] = [("crop of each level", tuple(crop.shape))]
    hooks = [module.register_forward_hook(_recorder(name, shapes)) for name, module in _steps_of(model)]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = model(crop, crop, crop, box, box)
    for hook in hooks:
        hook.remove()
    for field in fields(output):
        value = getattr(output, field.name)
        if isinstance(value, Tensor):
            shapes.append((field.name.replace("_", " "), tuple(value.shape)))
    counted = {name: sum(counts.values()) // 2 for name, counts in counter.get_flop_counts().items()}
    root = type(model).__name__
    inside = 0
    rows = []
    for name, modules, paths in parts:
        work = sum(counted.get(f"{root}.{path}", 0) for path in paths)
        inside += work
        unique = {id(p): p for module in modules for p in module.parameters()}.values()
        trainable = sum(p.numel() for p in unique if p.requires_grad and not folded)
        rows.append(Part(name, sum(p.numel() for p in unique), trainable, work))
    rows.insert(-1, Part("competition and coordination", 0, 0, counted["Global"] - inside))
    return Description(tuple(rows), tuple(shapes))


def _parts_of(model: CocoER) -> list[tuple[str, list[nn.Module], list[str]]]:
    """Name, modules and their paths, in the order of the forward pass; together they hold every parameter."""

    def named(name: str, paths: Iterable[str]) -> tuple[str, list[nn.Module], list[str]]:
        known = list(paths)
        return name, [model.get_submodule(path) for path in known], known

    parts = [
        named("backbones", (f"backbones.{m}" for m in LEVELS)),
        named("patch projections E", (f"tokens.{m}" for m in LEVELS)),
        named("cross-level attention", ("cross_level",)),
        named("level heads: mapping", (f"heads.{m}.mapping" for m in LEVELS)),
        named(
            "level heads: norm, prediction", (f"heads.{m}.{part}" for m in LEVELS for part in ("norm", "prediction"))
        ),
    ]
    if model.vocabulary is not None:
        parts += [
            named("V-I: CLIP image tower, frozen", ("vocabulary.tower",)),
            named("V-I: alignment omega", ("vocabulary.alignment",)),
            named("V-I: FFN1", (f"vocabulary.{part}" for part in ("widen", "narrow", "prediction"))),
        ]
    return [*parts, named("fusion FFN2", ("fusion",))]


def _steps_of(model: CocoER) -> list[tuple[str, nn.Module]]:
    """The modules whose output shapes tell the way of a person through the model; the levels have the same shapes."""
    steps: list[tuple[str, nn.Module]] = [
        ("feature map of a level", model.backbones["context"]),
        ("tokens of a level", model.tokens["context"]),
        ("tokens after attention", model.cross_level),
        ("pre-activation h of a level", model.heads["context"].get_submodule("mapping")),
    ]
    if model.vocabulary is not None:
        steps += [
            ("CLIP embedding", model.vocabulary.tower),
            ("aligned embedding", model.vocabulary.alignment),
            ("hidden layer of FFN1", model.vocabulary.widen),
            ("z_t", model.vocabulary.narrow),
        ]
    return steps


def _recorder(name: str, shapes: list[tuple[str, tuple[int, ...]]]) -> Callable[[nn.Module, object, object], None]:
    """A forward hook that notes the shape of the module's output (of its first tensor where it gives several)."""

    def hook(module: nn.Module, inputs: object, output: object) -> None:
        tensor = output if isinstance(output, Tensor) else next(iter(output))  # type: ignore[call-overload]
        shapes.append((name, tuple(tensor.shape)))

    return hook
