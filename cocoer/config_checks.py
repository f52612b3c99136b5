"""Checks of a whole config: combinations of values that are valid alone but not together."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cocoer.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from cocoer.config import Config, ModelConfig


def check_together(config: Config, where: str) -> None:
    """ConfigError for values that are fine alone and not together."""
    try:
        _ = config.dataset
    except DatasetError as err:
        raise ConfigError(f"{where}: data.dataset: {err}") from None
    for fault in (*_structure_faults(config.model), *_agreement_faults(config.model), *_input_faults(config)):
        raise ConfigError(f"{where}: {fault}")


def _structure_faults(model: ModelConfig) -> Iterator[str]:
    """Parts of the model that do not fit each other."""
    if model.coordination.update == "release" and model.level_head.mapping != "linear":
        yield (
            "model.coordination.update: 'release' is the published step on a linear mapping, got "
            f"model.level_head.mapping {model.level_head.mapping!r}; take update one, two or none with it"
        )
    if (model.backbone.name == "timm") != (model.backbone.timm is not None):
        yield (
            "model.backbone.timm: wanted a network's name with model.backbone.name: timm, and null with any other;"
            f" got {model.backbone.timm!r} with name {model.backbone.name!r}"
        )
    if model.backbone.name in ("timm", "small") and model.backbone.weights == "imagenet":
        yield (
            f"model.backbone.weights: torchvision has no ImageNet file for {model.backbone.name!r}; name a file"
            " (.safetensors or .pth of that network), or null for random weights"
        )
    if model.single_level is not None and (model.vocabulary.enabled or model.attention.enabled):
        yield (
            f"model.single_level: {model.single_level!r} has no other level to attend to and no V-I; "
            "set model.vocabulary.enabled and model.attention.enabled to false"
        )
    if model.two_stream is not None and (
        model.single_level is not None or model.vocabulary.enabled or model.attention.enabled
    ):
        yield (
            f"model.two_stream: {model.two_stream!r} is body and scene and nothing else; set"
            " model.vocabulary.enabled and model.attention.enabled to false, and model.single_level to null"
        )
    if model.competition.vote and not model.vocabulary.enabled:
        yield (
            "model.competition.vote: without V-I there is no competition, so no remaining levels can vote; "
            "set model.vocabulary.enabled to true"
        )


def _agreement_faults(model: ModelConfig) -> Iterator[str]:
    """What competition by agreement needs, and what it cannot be combined with."""
    spec = model.competition
    if reads_levels(model) and not model.vocabulary.enabled:
        yield "model.competition: agreement reads the crops with V-I's CLIP; set model.vocabulary.enabled to true"
    if reads_levels(model) and model.coordination.update == "release":
        yield (
            "model.competition: the published update has its own competition, without agreement; set"
            " model.coordination.update to one, two or none"
        )
    if spec.gate and spec.rule != "agreement":
        yield f"model.competition.gate: wanted model.competition.rule: agreement beside it, got {spec.rule!r}"


def _input_faults(config: Config) -> Iterator[str]:
    """Data and prompts that the model cannot take."""
    model, augment = config.model, config.data.augment
    touching = {"flip": augment.flip, "crop": augment.crop, "jitter": augment.jitter}
    if model.vocabulary.view != "context" or reads_levels(model):
        touching["box_shift"] = augment.box_shift
    if config.data.embeddings is not None and any(touching.values()):
        shown = ", ".join(f"{name} {value:g}" for name, value in touching.items())
        yield (
            "data.embeddings: CLIP's embedding of a person can be kept only if no augmentation changes its view; "
            f"wanted data.augment.{', '.join(touching)} at 0, got {shown}"
        )
    if model.vocabulary.prompt != "ensemble" and places_in(model.vocabulary.prompt) != {"emotion"}:
        yield (
            "model.vocabulary.prompt: wanted a text with {emotion} in it, or ensemble, got"
            f" {model.vocabulary.prompt!r}"
        )
    if model.mode == "release" and model.level_head.mapping != "linear":
        yield (
            f"model.level_head.mapping: release mode has a linear mapping, got {model.level_head.mapping!r}; "
            "set model.mode: paper for the ablation"
        )
    if model.mode == "release" and config.data.image_size != 224:
        yield f"data.image_size: release mode is defined for 224 pixels, got {config.data.image_size}"


def reads_levels(model: ModelConfig) -> bool:
    """Whether CLIP has to look at head, body and context of every person."""
    return "agreement" in (model.competition.rule, model.competition.pseudo_label)


def places_in(text: str) -> set[str] | None:
    """The names in plain braces of a text to be filled in by `str.format`; None where a brace says more than a name.

    What says more could look into objects (`{x.__class__}`) or ask for any width (`{x:>9999999999}`).
    """
    try:
        found = list(string.Formatter().parse(text))
    except ValueError:
        return None
    if any(name is not None and (spec or conversion or not name.isidentifier()) for _, name, spec, conversion in found):
        return None
    return {name for _, name, _, _ in found if name is not None}
