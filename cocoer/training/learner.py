"""The state of an optimizer step: the model as it is trained, its optimizer and its weight average."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cocoer.config import Config, LossConfig, OptimConfig
from cocoer.inference.compiling import compiled
from cocoer.model.level_model import LevelModel, ModelOutput
from cocoer.model.objective import PersonLoss, build_person_loss
from cocoer.runtime import Runtime
from cocoer.training.ema import WeightAverage
from cocoer.training.embedding_cache import KnownEmbeddings

_BACKBONES = "backbones."


@dataclass(frozen=True)
class Learner:
    """What a step works on. forward: the model itself, wrapped or compiled, with the same parameters.

    wrapped: the model as several processes share it, whose `no_sync` saves an exchange of gradients; None for one process.
    channels_last: how the weights are laid out, and how images have to be. embeddings: of the training persons, where the
    frozen tower need not look again. person_loss: L_m of a plugin, or None for the paper's.
    """

    model: LevelModel
    forward: Callable[..., ModelOutput]
    wrapped: DistributedDataParallel | None
    optimizer: torch.optim.Optimizer
    average: WeightAverage | None
    loss: LossConfig
    optim: OptimConfig
    multi_label: bool
    class_counts: Tensor | None
    frozen_norms: bool
    channels_last: bool
    embeddings: KnownEmbeddings | None = None
    person_loss: PersonLoss | None = None


def build_optimizer(model: nn.Module, optim: OptimConfig) -> torch.optim.Optimizer:
    """The config's optimizer over the weights that are trained, in torch's fused form: over weights, gradients, moments once.

    With `optim.backbone_lr` the backbones are a second group, whose rate is that share of every step's.

    The unfused form makes a copy of all weights for every term of the formula: 4.4 s against 0.16 s a step for the 314 M
    trained weights of the paper's model on one CPU core.
    """
    kind = torch.optim.AdamW if optim.name == "adamw" else torch.optim.Adam
    betas = (optim.beta1, optim.beta2)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    groups: list[dict[str, Any]] = [{"params": list(trained.values())}]
    if optim.backbone_lr:
        inside = [p for name, p in trained.items() if name.startswith(_BACKBONES)]
        rest = [p for name, p in trained.items() if not name.startswith(_BACKBONES)]
        groups = [{"params": rest}, {"params": inside, "scale": optim.backbone_lr / optim.lr}]
    return kind(groups, lr=optim.lr, betas=betas, weight_decay=optim.weight_decay, fused=True)


def freeze_backbones(model: nn.Module) -> None:
    """`optim.backbone_lr: 0`: the backbones' weights are not trained."""
    for name, parameter in model.named_parameters():
        if name.startswith(_BACKBONES):
            parameter.requires_grad_(False)


def build_learner(
    config: Config,
    model: LevelModel,
    runtime: Runtime,
    class_counts: Tensor | None = None,
    embeddings: KnownEmbeddings | None = None,
) -> Learner:
    """The model of a config, on this process's device, ready for steps: laid out, shared, compiled as `optim.*` says.

    class_counts: [k] positives of each class in the training split. embeddings: see `Learner`.
    Raises ValueError for what this machine cannot do: synchronised norms on CPUs, compiling without a compiler.
    """
    optim = config.optim
    if optim.backbone_lr == 0:
        freeze_backbones(model)
    if optim.sync_batch_norm and runtime.world_size > 1:
        if runtime.device.type != "cuda":
            raise ValueError(
                "optim.sync_batch_norm: works on GPUs only; with CPU processes use model.backbone.frozen_norms"
            )
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    channels_last = optim.channels_last and channels_last_can_train(model, runtime.device)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    model.set_class_counts(class_counts)
    wrapped = None
    if runtime.world_size > 1:
        devices = [runtime.device] if runtime.device.type == "cuda" else None
        wrapped = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
    forward: nn.Module = wrapped or model
    return Learner(
        model=model,
        forward=compiled(forward, runtime.device) if optim.compile else forward,
        wrapped=wrapped,
        optimizer=build_optimizer(model, optim),
        average=WeightAverage(model, optim.ema) if optim.ema else None,
        loss=config.loss,
        optim=optim,
        multi_label=config.multi_label,
        class_counts=class_counts,
        frozen_norms=config.model.backbone.frozen_norms,
        channels_last=channels_last,
        embeddings=embeddings,
        person_loss=build_person_loss(config),
    )


def channels_last_can_train(model: nn.Module, device: torch.device) -> bool:
    """Whether the model's convolutions can be trained in that layout.

    oneDNN 3.x writes past its memory for the weights' gradient of a strided 1x1 convolution over fewer than 16 channels on a
    CPU (uxlfoundation/oneDNN issue 6035, open). Only backbones that are narrower than any published one have such a layer.
    """
    if device.type != "cpu":
        return True
    found = (m for m in model.modules() if isinstance(m, nn.Conv2d) and m.weight.requires_grad)
    return not any(m.kernel_size == (1, 1) and m.stride != (1, 1) and m.in_channels < 16 for m in found)


def training_mode(model: nn.Module, frozen_norms: bool) -> None:
    """Training mode; with frozen_norms every batch norm stays in eval (the frozen CLIP tower always does).

    A backbone without a trained weight is frozen as a whole: its statistics stay too.
    """
    model.train()
    backbones: Any = getattr(model, "backbones", {})
    for backbone in backbones.values():
        if not any(p.requires_grad for p in backbone.parameters()):
            backbone.eval()
    if frozen_norms:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
