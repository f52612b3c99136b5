"""Build a model from a config; all architecture numbers are here."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from cocoer import ideas
from cocoer.config import CompetitionConfig, Config, ModelConfig, VocabularyConfig
from cocoer.config_checks import reads_levels
from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.errors import CheckpointError
from cocoer.model.agreement import AgreementRule
from cocoer.model.attention import AttentionBlock
from cocoer.model.backbone import Backbone, TimmBackbone, build_backbone
from cocoer.model.clip_tower import CLIP_MEAN, CLIP_STD, build_clip, text_embeddings
from cocoer.model.cocoer import CocoER, Decisions, FusionHead
from cocoer.model.cross_level import NoCrossLevel, PaperCrossLevel, PatchTokens, ReleaseCrossLevel
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.model.level_head import LevelHead
from cocoer.model.level_model import LevelModel, LevelParts
from cocoer.model.mappings import ResNetMapping, TransformerMapping
from cocoer.model.release.positions import RegionPositions
from cocoer.model.single_level import SingleLevel
from cocoer.model.two_stream import TwoStream
from cocoer.model.vocabulary import ClipReader, VocabularyBranch, build_pseudo_label
from cocoer.model.vote import survivors_vote
from cocoer.model.workspaces import build_workspace
from cocoer.names import LEVELS
from cocoer.weights import places

VIT_MAPPING_BLOCKS = 2
"""Depth of the `vit` mapping; the paper does not say it."""


def build_model(config: Config, pretrained: bool = True, folded: bool = False) -> LevelModel:
    """The model of a config: `CocoER`, or a baseline (`model.single_level`, `model.two_stream`).

    Arguments and errors as `build_cocoer`.
    """
    if config.model.two_stream is not None:
        return _two_stream(config, pretrained)
    level = config.model.single_level
    if level is None:
        return build_cocoer(config, pretrained, folded)
    (parts,), num_tokens, _ = _levels(config, (level,), pretrained)
    return SingleLevel(level, parts, NoCrossLevel(num_tokens, config.model.tokens.size), config.data.image_size)


def build_cocoer(config: Config, pretrained: bool = True, folded: bool = False) -> CocoER:
    """The model of a config, in training mode, on the CPU.

    pretrained=True loads the backbone and CLIP weights that the config names; False leaves everything random, for a model
    whose weights are loaded afterwards (then no text tower is built, and the text embeddings come with the weights).
    folded=True builds FFN1 of the vocabulary branch as `VocabularyBranch.fold` leaves it.
    Raises FileNotFoundError for a missing weights file, ValueError for one that does not fit, or for a single level.
    """
    model, size = config.model, config.data.image_size
    if model.single_level is not None:
        raise ValueError(f"model.single_level: {model.single_level} builds one level; wanted a config of three (null)")
    if model.two_stream is not None:
        raise ValueError(
            f"model.two_stream: {model.two_stream} builds body and scene; wanted a config of three levels (null)"
        )
    levels, num_tokens, grid = _levels(config, LEVELS, pretrained)
    features = model.level_head.feature_size
    vocabulary = _vocabulary(config, pretrained, folded) if model.vocabulary.enabled else None
    sources = len(LEVELS) + (vocabulary is not None)
    return CocoER(
        levels=dict(zip(LEVELS, levels, strict=True)),
        cross_level=_cross_level(model, num_tokens, grid, size),
        vocabulary=vocabulary,
        fusion=_fusion(model.fusion)(sources * features, features, len(config.classes)),
        workspace=build_workspace(config),
        decisions=Decisions(
            label=build_pseudo_label(config),
            vote=partial(survivors_vote, multi_label=config.multi_label) if model.competition.vote else None,
            agreement=_agreement(model.competition) if reads_levels(model) else None,
        ),
        image_size=size,
    )


def _two_stream(config: Config, pretrained: bool) -> TwoStream:
    """The baseline of body and scene."""
    model = config.model
    chosen = ("body", "context") if model.two_stream == "backbone" else ("body",)
    backbones = _backbones(model, chosen, pretrained)
    inputs = sum(backbone.channels for backbone in backbones.values())
    scene = None
    if model.two_stream == "clip":
        tower: Any = _clip(model.vocabulary, pretrained).visual
        statistics = (
            (CLIP_MEAN, CLIP_STD) if model.vocabulary.normalisation == "clip" else (IMAGENET_MEAN, IMAGENET_STD)
        )
        scene = ClipReader(tower, torch.zeros(1, tower.output_dim), statistics)
        inputs += tower.output_dim
    features = model.level_head.feature_size
    return TwoStream(dict(backbones), scene, inputs, features, len(config.classes), config.data.image_size)


def _agreement(spec: CompetitionConfig) -> AgreementRule:
    """Competition by agreement with the config's settings."""
    return AgreementRule(
        spec.logit_scale, spec.gate_slope, spec.gate_threshold, excludes=spec.rule == "agreement", gates=spec.gate
    )


def _levels(config: Config, chosen: Sequence[str], pretrained: bool) -> tuple[list[LevelParts], int, int]:
    """The parts of the chosen levels, the number of a level's tokens, and the side of its feature map."""
    model = config.model
    backbones = _backbones(model, chosen, pretrained)
    grid = backbones[chosen[0]].grid(config.data.image_size)
    tokens = {m: PatchTokens(b.channels, grid, model.tokens.patch, model.tokens.size) for m, b in backbones.items()}
    num_tokens = tokens[chosen[0]].num_tokens
    inputs, features = num_tokens * model.tokens.size, model.level_head.feature_size
    heads = {m: LevelHead(inputs, features, len(config.classes), _mapping(model, num_tokens)) for m in chosen}
    return [LevelParts(backbones[m], tokens[m], heads[m]) for m in chosen], num_tokens, grid


def _backbones(model: ModelConfig, chosen: Sequence[str], pretrained: bool) -> dict[str, Backbone]:
    """The chosen levels' networks, one copy each, with the weights that the config names."""
    spec = model.backbone
    backbones = {level: build_backbone(spec.name, spec.widths, spec.timm) for level in chosen}
    if pretrained and spec.weights is not None:
        _load_backbones(backbones, model)
    return backbones


def _fusion(name: str) -> Callable[[int, int, int], nn.Module]:
    """What makes the fusion that `model.fusion` names, of (inputs, features, classes)."""
    return ideas.added("fusion").get(name, FusionHead)


class BlankWeights(TorchFunctionMode):
    """A context in which random fills of tensors become zeros: for models whose every weight is loaded right after.

    Drawing a release model's random weights takes longer than reading them from disk. The random state is left alone.
    most: so many numbers the tensors made inside may have together; one more is a CheckpointError, before memory is taken
    for it (a file's config can say any size; its tensors cannot).
    """

    _RANDOM = (
        Tensor.normal_,
        Tensor.uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
    )
    _MAKERS = (torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn)

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self._left = most

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions inside the context."""
        kwargs = kwargs or {}
        if self._left is not None and func in self._MAKERS:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._left -= math.prod(size)
            if self._left < 0:
                raise CheckpointError("the config in the file describes a model with more weights than the file has")
        if func not in self._RANDOM:
            return func(*args, **kwargs)
        tensor = args[0] if args else kwargs["tensor"]
        return tensor.detach().zero_() if tensor.is_leaf and tensor.requires_grad else tensor.zero_()


def _cross_level(model: ModelConfig, num_tokens: int, grid: int, size: int) -> nn.Module:
    channels, spec, published = model.tokens.size, model.attention, model.mode == "release"
    if not spec.enabled:
        return NoCrossLevel(num_tokens, channels)
    blocks = [
        [AttentionBlock(channels, spec.heads, spec.head_size, spec.feed_forward, published) for _ in range(spec.blocks)]
        for _ in LEVELS
    ]
    if published:
        return ReleaseCrossLevel(blocks, RegionPositions(grid, channels, cell=size / grid), channels)
    return PaperCrossLevel(blocks, num_tokens, channels)


def _mapping(model: ModelConfig, num_tokens: int) -> nn.Module | None:
    """The network that takes the place of a level head's Linear (paper Fig. 3), or None for the Linear."""
    channels, features, spec = model.tokens.size, model.level_head.feature_size, model.attention
    if model.level_head.mapping == "resnet50":
        return ResNetMapping(num_tokens, channels, features)
    if model.level_head.mapping == "vit":
        blocks = [
            AttentionBlock(channels, spec.heads, spec.head_size, spec.feed_forward, context_norm=False)
            for _ in range(VIT_MAPPING_BLOCKS)
        ]
        return TransformerMapping(blocks, channels, features)
    return None


def _vocabulary(config: Config, pretrained: bool, folded: bool) -> VocabularyBranch:
    spec = config.model.vocabulary
    clip = _clip(spec, pretrained)
    visual: Any = clip.visual
    embed_size: int = visual.output_dim
    text = (
        text_embeddings(clip, spec.tower, config.classes, spec.prompt)
        if pretrained
        else torch.zeros(len(config.classes), embed_size)
    )
    features = config.model.level_head.feature_size
    branch = VocabularyBranch(
        visual, text, features, spec.layout, spec.normalisation == "clip", folded, spec.view, reads_levels(config.model)
    )
    branch.alignment.requires_grad_(spec.train_alignment)
    return branch


def _clip(spec: VocabularyConfig, pretrained: bool) -> nn.Module:
    """The CLIP that the config names, with its weights; without them it has no text tower."""
    clip = build_clip(spec.tower, quick_gelu=spec.weights == "openai", with_text=pretrained)
    if pretrained and spec.weights is not None:
        name = f"checkpoints/clip/{spec.tower}.pt"
        path = places.place_of(name) if spec.weights == "openai" else places.find(spec.weights) or Path(spec.weights)
        load_clip(clip, read_foreign_weights(path, "CLIP weights"), str(path))
    return clip


def load_clip(clip: nn.Module, weights: dict[str, Tensor], path: str) -> None:
    """Load a CLIP state dict; OpenAI's archive carries three numbers of its own that are no weights.

    Raises ValueError, with the keys, where they do not fit the tower.
    """
    known = clip.state_dict()
    fitting = {k: v.float() if v.is_floating_point() else v for k, v in weights.items() if k in known}
    missing = sorted(set(known) - set(fitting) - {"attn_mask"})
    wrong = sorted(k for k, v in fitting.items() if v.shape != known[k].shape)
    if missing or wrong:
        raise ValueError(
            f"CLIP weights {path} do not fit the tower: {len(missing)} keys missing (e.g. {missing[:3]}), "
            f"{len(wrong)} of another shape (e.g. {wrong[:3]}); check model.vocabulary.tower"
        )
    clip.load_state_dict(fitting, strict=False)


def _load_backbones(backbones: dict[str, Backbone], model: ModelConfig) -> None:
    """ImageNet weights (torchvision's file for the named network) into each level's backbone."""
    name = model.backbone.weights
    published = f"checkpoints/imagenet/{model.backbone.name}.pth"
    path = places.place_of(published) if name == "imagenet" else places.find(str(name)) or Path(str(name))
    if not path.is_file():
        raise FileNotFoundError(
            f"backbone weights: no such file: {path}; get them with `cocoer weights fetch {model.backbone.name}`, "
            f"or start from random weights with --set model.backbone.weights=null"
        )
    weights = read_foreign_weights(path, "backbone weights")
    for level, backbone in backbones.items():
        load_torchvision(backbone, weights, f"{path} (level {level})")


def load_torchvision(backbone: Backbone, weights: dict[str, Tensor], where: str) -> None:
    """Load a torchvision classifier's state dict into a backbone; the classifier's own layers are left out.

    A backbone keeps torchvision's modules in torchvision's order, so the keys correspond one to one in order. A backbone's own
    state dict (the demo's) goes in by name, and so does one of timm. Raises ValueError where they do not fit.
    """
    own = backbone.state_dict()
    if isinstance(backbone, TimmBackbone):
        weights = {
            name: weights[short] for name in own if (short := name.removeprefix(TimmBackbone.PREFIX)) in weights
        } or weights
    if set(weights) == set(own):
        weights = {key: weights[key] for key in own}
    body = {k: v for k, v in weights.items() if not k.startswith(("fc.", "classifier."))}
    if all("num_batches_tracked" not in k for k in body):  # files older than torch 0.4.1 lack these counters
        own = {k: v for k, v in own.items() if "num_batches_tracked" not in k}
    if len(own) != len(body) or any(a.shape != b.shape for a, b in zip(own.values(), body.values(), strict=False)):
        raise ValueError(
            f"backbone weights {where} are not of this network: {len(body)} tensors for {len(own)}, or other shapes"
        )
    backbone.load_state_dict(dict(zip(own, body.values(), strict=True)), strict=False)
