"""The demonstration's model with random weights, and persons to show it: small enough for a test, every part in it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from cocoer.config import Config, change_config, load_config
from cocoer.model.build import build_model
from cocoer.model.cocoer import CocoER

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "model.backbone.weights=null",
    "model.backbone.widths=[8, 8, 16, 16]",
    f"model.vocabulary.tower={ROOT / 'configs' / 'demo_clip.json'}",
    "model.vocabulary.weights=null",
    "model.tokens.size=24",
    "model.attention.head_size=7",
    "model.attention.feed_forward=32",
    "model.level_head.feature_size=16",
)


def tiny_config(*overrides: str) -> Config:
    """The demonstration's config at a few thousand parameters a part, with changes on top."""
    return change_config(load_config(ROOT / "configs" / "demo_emotic.yaml"), [*SMALL, *overrides])


def tiny_model(*overrides: str, seed: int = 0) -> CocoER:
    """Random weights, batch norms with statistics as after some training, text embeddings of unit norm; in eval mode."""
    torch.manual_seed(seed)
    model = build_model(tiny_config(*overrides), pretrained=False)
    shake_norms(model)
    if model.vocabulary is not None:
        text = model.vocabulary.text_embeddings
        text.copy_(nn.functional.normalize(torch.randn(text.shape), dim=-1))
    return model.eval()


def shake_norms(network: nn.Module, seed: int = 0) -> None:
    """Give batch norms means, variances, scales and shifts that differ, as trained ones have."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None and norm.running_var is not None
                norm.running_mean.copy_(0.1 * torch.randn(norm.num_features, generator=rng))
                norm.running_var.copy_(0.5 + torch.rand(norm.num_features, generator=rng))
                norm.weight.copy_(0.5 + torch.rand(norm.num_features, generator=rng))
                norm.bias.copy_(0.1 * torch.randn(norm.num_features, generator=rng))


def persons(count: int = 3, side: int = 80, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """Crops head, body, context [B, 3, S, S] and boxes head, body [B, 4] of made-up persons."""
    rng = torch.Generator().manual_seed(seed)
    crops = [torch.randn(count, 3, side, side, generator=rng, dtype=dtype) for _ in range(3)]
    corner = torch.rand(2, count, 2, generator=rng, dtype=dtype) * side / 2
    size = (0.1 + 0.4 * torch.rand(2, count, 2, generator=rng, dtype=dtype)) * side
    boxes = torch.cat([corner, corner + size], dim=-1)  # [2, B, 4]
    return (*crops, boxes[0], boxes[1])
