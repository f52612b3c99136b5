"""Initialise from the weights of another model (`model.initial`): tensors that fit are copied, the rest starts from scratch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cocoer.config import Config, config_from_dict
from cocoer.errors import CheckpointError
from cocoer.model.checkpoint import Loaded, load_weights, read_metadata

CLASS_LAYERS: tuple[str, ...] = (
    "heads.head.prediction", "heads.body.prediction", "heads.context.prediction", "fusion.layers.8", "vocabulary.prediction",
    "vocabulary.widen", "vocabulary.narrow", "vocabulary.text_embeddings",
)  # fmt: skip
"""Modules and buffers that speak of the classes: other classes, and they start from scratch even where the shapes agree.

FFN1's first two Linears (`widen`, `narrow`) are among them because their width is k times the embedding's.
"""

_TOWER = "vocabulary.tower."


@dataclass(frozen=True)
class Taken:
    """What a model took over. taken: names of tensors. anew: name -> why. unused: the checkpoint's, without a place here."""

    taken: tuple[str, ...]
    anew: Mapping[str, str]
    unused: tuple[str, ...]

    def lines(self, where: str) -> list[str]:
        """For the user: one line for what was taken, one per layer that starts from scratch, one for what was not used."""
        out = [f"model.initial: {len(self.taken)} tensors taken from {where}"]
        for layer, why in _by_layer(self.anew).items():
            out.append(f"model.initial: {layer}: not loaded ({why})")
        if self.unused:
            layers = dict.fromkeys(name.rpartition(".")[0] for name in self.unused)
            out.append(f"model.initial: {len(self.unused)} tensors have no place in this model: {', '.join(layers)}")
        return out


def start_from(model: nn.Module, classes: Sequence[str], path: str) -> list[str]:
    """Copy into `model` what fits from a weights file of cocoer; returns what is to be told, see `Taken.lines`.

    A tensor is taken where name and shape agree, and, for layers that speak of the classes, where the class names and their
    order are the same too. V-I is taken only where its CLIP tower is the same, because alignment and text embeddings live in
    that tower's space. Raises CheckpointError for a file that cannot be used, and where nothing at all fits.
    """
    loaded = load_weights(path)
    found = transfer(model, loaded, classes)
    if not found.taken:
        raise CheckpointError(
            f"model.initial: {loaded.path}: not one tensor fits this model; was it trained with another backbone and other sizes?"
        )
    return found.lines(str(loaded.path))


def config_to_build(config: Config) -> Config:
    """The config with random backbones where `model.initial` brings the same ones: then no other file of theirs is needed.

    Raises CheckpointError for a file that cannot be used.
    """
    if config.model.initial is None:
        return config
    stored = config_from_dict(read_metadata(config.model.initial)["config"], f"config in {config.model.initial}")
    theirs, ours = stored.model.backbone, config.model.backbone
    if (theirs.name, theirs.timm, theirs.widths) != (ours.name, ours.timm, ours.widths):
        return config
    return replace(config, model=replace(config.model, backbone=replace(ours, weights=None)))


def transfer(model: nn.Module, loaded: Loaded, classes: Sequence[str]) -> Taken:
    """Copy what fits; see `start_from`."""
    own, given = model.state_dict(), _unfolded(loaded.model.state_dict(), model.state_dict())
    same_classes = list(loaded.config.classes) == list(classes)
    speaking = CLASS_LAYERS if loaded.config.model.fusion == "ffn" else (*CLASS_LAYERS, "fusion.")
    other_tower = not _fits(own, given, _TOWER)
    taken: list[str] = []
    anew: dict[str, str] = {}
    with torch.no_grad():
        for name, tensor in own.items():
            if not same_classes and name.startswith(speaking):
                anew[name] = "other classes"
            elif name not in given:
                anew[name] = "not in the checkpoint"
            elif name.startswith("vocabulary.") and other_tower:
                anew[name] = "another CLIP tower"
            elif given[name].shape != tensor.shape:
                anew[name] = f"shape {list(given[name].shape)} there, {list(tensor.shape)} here"
            else:
                tensor.copy_(given[name])
                taken.append(name)
    return Taken(tuple(taken), anew, tuple(sorted(given.keys() - own.keys())))


def _fits(own: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether all tensors below a prefix are in both, with the same shapes."""
    here, there = ({k: v.shape for k, v in state.items() if k.startswith(prefix)} for state in (own, given))
    return here == there


def _unfolded(given: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with FFN1's first weight as k copies again where it was stored folded and this model is not: same answers."""
    name = "vocabulary.widen.weight"
    if name in given and name in own and given[name].shape != own[name].shape:
        (rows, size), (wanted_rows, wide) = given[name].shape, own[name].shape
        if rows == wanted_rows and wide % size == 0:
            copies = wide // size
            return given | {name: (given[name] / copies).repeat(1, copies)}
    return given


def _by_layer(anew: Mapping[str, str]) -> dict[str, str]:
    """The same by layer: the tensor's name without its last part, its first reason."""
    out: dict[str, str] = {}
    for name, why in anew.items():
        layer = name.rpartition(".")[0] if name.endswith((".weight", ".bias")) else name
        out.setdefault(layer, why)
    return out
