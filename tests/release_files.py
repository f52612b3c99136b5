"""Files as the authors and OpenAI publish them, made small or in full size, for the tests of release mode and conversion."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from programs import load_file
from torch import Tensor, nn

from cocoer.config import Config, load_config
from cocoer.model.build import build_model
from cocoer.model.clip_tower import build_clip
from cocoer.model.cocoer import CocoER
from cocoer.model.release.keys import published_names

ROOT = Path(__file__).resolve().parents[1]
_SHARED = ROOT.parent / "shared" / "parity"
PARITY = _SHARED if (_SHARED / "seeded_weights.py").is_file() else ROOT / "tests" / "data"
"""Where the reference files lie: beside the checkout, or the copy that comes with the tests."""

SMALL = (
    "model.backbone.name=small", "model.backbone.weights=null", "model.backbone.widths=[4, 4, 4, 4]", "model.tokens.size=16",
    "model.attention.heads=2", "model.attention.head_size=8", "model.attention.feed_forward=32",
    "model.level_head.feature_size=8", "model.vocabulary.tower=configs/demo_clip.json",
)  # fmt: skip
"""Overrides that make the release model small: same modules, same key names, numbers of no meaning."""

LEFTOVERS = {"encoder_head.0.norm1.weight": (4,), "decoder_ctx.0.norm4.bias": (4,), "query_embedding.weight": (16, 4),
             "en_pos_gwt.row_embed.weight": (7, 2), "shar_after.bias": (3,), "cls_en_all.2.bias": (3,)}  # fmt: skip


def recipe() -> ModuleType:
    """seeded_weights.py."""
    return load_file(PARITY / "seeded_weights.py")


def small_config() -> Config:
    """The release config at a small size."""
    return load_config(ROOT / "configs/emotic_release.yaml", SMALL)


def small_model(config: Config, seed: int = 0) -> CocoER:
    """A small release model with random weights, unfolded, in eval mode, and batch norms that are not the identity."""
    torch.manual_seed(seed)
    model = build_model(config, pretrained=False).eval()
    for name, tensor in model.state_dict().items():
        if name.endswith(("running_mean", "norm.bias", "position")):
            tensor.normal_(std=0.1)
        elif name.endswith(("running_var", "norm.weight")):
            tensor.uniform_(0.5, 1.5)
    return model


def published_state(model: CocoER, blocks: int = 3) -> dict[str, Tensor]:
    """The model's weights as the published checkpoint names and shapes them, with some of its leftovers."""
    own = model.state_dict()
    out = {there: own[here] for here, there in published_names(own, blocks).items()}
    out |= {key: t[..., None, None] for key, t in out.items() if key.endswith("_proj.weight")}
    return out | {key: torch.ones(shape) for key, shape in LEFTOVERS.items()}


def write_release(path: Path, state: Mapping[str, Tensor], **changes: Any) -> Path:
    """A checkpoint as the published training writes it: `model`, `iter`, `cur_epoch`, and the AdamW object itself as `opt`.

    As there, the optimizer's parameters share their storage with the state, and one of them has been stepped.
    """
    parameters = [nn.Parameter(t) for t in state.values() if t.is_floating_point()]
    optimizer = torch.optim.AdamW(parameters, lr=6e-5, weight_decay=0.01)
    first = min(parameters, key=nn.Parameter.numel)
    kept = first.detach().clone()
    first.grad = torch.ones_like(first)
    optimizer.step()
    with torch.no_grad():
        first.copy_(kept)
    torch.save({"model": dict(state), "iter": 1500, "cur_epoch": 3, "opt": optimizer} | changes, path)
    return path


def write_clip(path: Path, config: Config, seed: int = 0, text: bool = True) -> dict[str, Tensor]:
    """A CLIP state dict with random weights, and the image tower alone where text is False; returns what was written."""
    torch.manual_seed(seed)
    clip = build_clip(config.model.vocabulary.tower, quick_gelu=True, with_text=True)
    state = {k: v for k, v in clip.state_dict().items() if text or k.startswith("visual.")}
    torch.save(state, path)
    return state


class _Node(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


def write_torchscript(path: Path, state: Mapping[str, Tensor]) -> Path:
    """A TorchScript archive with these tensors, as OpenAI publishes CLIP."""
    root = _Node()
    for key, tensor in state.items():
        node: nn.Module = root
        *folders, leaf = key.split(".")
        for name in folders:
            if name not in node._modules:
                node.add_module(name, _Node())
            node = node.get_submodule(name)
        node.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):  # it is deprecated; torch 2.11 says so by the second
            warnings.simplefilter("ignore", kind)
        torch.jit.script(root).save(str(path))
    return path


FEW_CLASSES, FEW_SIZE = 3, 4  # k emotions, e numbers of an embedding

FEW_OURS: dict[str, tuple[int, ...]] = {
    "vocabulary.text_embeddings": (FEW_CLASSES, FEW_SIZE),
    "vocabulary.tower.conv1.weight": (2, 3),
    "vocabulary.widen.weight": (3, FEW_SIZE),  # folded: e inputs in place of k * e
    "vocabulary.widen.bias": (3,),
    "heads.body.norm.bias": (5,),
    "tokens.head.project.weight": (6, 2),
    "cross_level.positions.row": (7, 2),
    "cross_level.blocks.context.1.attention.to_out.weight": (2, 2),
    "backbones.context.layers.4.0.bn1.num_batches_tracked": (),
}
"""Shapes of a few of a folded release model's tensors, for tests that need no whole one."""

FEW_THEIRS: dict[str, tuple[int, ...]] = {
    "VI_ffn.1.weight": (3, FEW_CLASSES * FEW_SIZE),
    "VI_ffn.1.bias": (3,),
    "cls_HFE_body.3.bias": (5,),
    "head_proj.weight": (6, 2, 1, 1),  # a 1x1 convolution there, a Linear here
    "en_pos.row_embed.weight": (7, 2),
    "encoder3.1.cross_attn.linears.3.weight": (2, 2),
    "backbone.context.4.0.bn1.num_batches_tracked": (),
}
"""The same as published, in the same order."""


class _OnlyState:
    """Of a model, all that is asked for: its state."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._state = {name: torch.zeros(shape) for name, shape in shapes.items()}

    def state_dict(self) -> dict[str, Tensor]:
        return self._state


def few_tensors(changes: Mapping[str, tuple[int, ...]] | None = None) -> Any:
    """A "model" of FEW_OURS, all zeros."""
    return _OnlyState({**FEW_OURS, **(changes or {})})


def few_published() -> dict[str, Tensor]:
    """Ones in the shapes of FEW_THEIRS."""
    return {name: torch.ones(shape) for name, shape in FEW_THEIRS.items()}
