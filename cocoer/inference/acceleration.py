"""Optimisations that a recogniser applies to its model; each is one switch of `inference.*` (gains: docs/performance.md)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import nn

from cocoer.config import InferenceConfig
from cocoer.data.batch import Batch
from cocoer.export.onnx_file import check_switches
from cocoer.export.onnx_model import ExportedModel
from cocoer.inference.compiling import compiled
from cocoer.inference.cuda_graph import GraphedModel, recorded_size
from cocoer.inference.onednn import can_prepack, prepacked
from cocoer.model.cocoer import CocoER
from cocoer.model.level_model import LevelModel, ModelOutput
from cocoer.model.vocabulary import RepeatedInputLinear
from cocoer.model.zero_shot import ZeroShot
from cocoer.runtime import autocast

Forward = Callable[[Batch], ModelOutput]
"""A batch on any device -> what the model says, on the model's device."""


_KNOWN = ("cocoer.", "torch.", "torchvision.", "open_clip.", "timm.")


def accelerated(
    model: LevelModel | ExportedModel | ZeroShot, settings: InferenceConfig, device: torch.device
) -> Forward:
    """The forward pass of a model in eval mode on `device`, as the switches say.

    The model is folded and laid out in place. In bf16 a copy of it runs, and with reordered weights a twin; the model itself
    stays in float32 and differentiable, for explanations.
    Raises ValueError for a switch that this machine or an exported file cannot follow.
    """
    if isinstance(model, ExportedModel):
        check_switches(settings)
        return _Forward(model, device, False, "fp32")
    if settings.cuda_graph is True and device.type != "cuda":
        raise ValueError(f"inference.cuda_graph: wanted a GPU, the model is on {device}; set it to false")
    if settings.fold:
        model.fold()
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)
    dtype = torch.bfloat16 if settings.precision == "bf16" else torch.float32
    running: nn.Module = lowered(deepcopy(model)) if settings.precision == "bf16" else model
    run: Callable[..., ModelOutput] = running
    if settings.compile:
        run = compiled(running, device, inference=True)
    elif settings.prepack and can_prepack(device, dtype):
        run = prepacked(running, dtype)
    forward = _Forward(run, device, settings.channels_last, settings.precision)
    if settings.cuda_graph is True:
        return GraphedModel(forward, device)
    if settings.cuda_graph == "auto" and device.type == "cuda" and _is_recordable(model):
        return GraphedModel(forward, device, recorded_size)
    return forward


def _is_recordable(model: nn.Module) -> bool:
    """Whether nothing in the forward pass waits for a result: no part of a plugin, and no mapping that needs autograd."""
    if not isinstance(model, CocoER):
        return False
    mappings = [head.get_submodule("mapping") for head in model.heads.values()]
    ours = all(type(part).__module__.startswith(_KNOWN) for part in (*model.modules(), model.workspace))
    return ours and all(isinstance(mapping, nn.Linear) for mapping in mappings)


class _Forward:
    """A batch through the model, in the layout and precision it wants."""

    def __init__(
        self, run: Callable[..., ModelOutput], device: torch.device, channels_last: bool, precision: str
    ) -> None:
        self._run = run
        self._device = device
        self._channels_last = channels_last
        self._precision = precision

    def __call__(self, batch: Batch) -> ModelOutput:
        """See `Forward`."""
        b = batch.to(self._device, self._channels_last)
        with autocast(self._device, self._precision):
            return self._run(b.head, b.body, b.context, b.head_xyxy, b.body_xyxy)


def lowered(model: nn.Module) -> nn.Module:
    """The model with the weights of its convolutions and Linears in bfloat16, in place: what autocast casts in every pass.

    So autocast gives the same answers bit for bit and reads half the memory. The prediction layers of the levels, which the
    competition reads in float32, keep their type, and so do weights that are added up before they are used.
    """
    heads = model.heads.values() if isinstance(model, LevelModel) else ()
    read_as_they_are = {head.get_submodule("prediction") for head in heads}
    read_as_they_are |= {module for module in model.modules() if isinstance(module, RepeatedInputLinear)}
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in read_as_they_are:
            module.to(torch.bfloat16)
    return model
