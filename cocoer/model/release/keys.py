"""Map names and shapes of the published checkpoint to ours (models_sw.py, `model_GWT`).

Facts: `encoder1`, `encoder2`, `encoder3` are the cross-level blocks of head, body and context; the blocks named after the
levels (`encoder_head`, ...) are left over from earlier versions of the authors' code and take no part in its forward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cocoer.model.vocabulary import fold_copies
from cocoer.names import LEVELS

LEFTOVERS: tuple[str, ...] = (
    "encoder_head.", "encoder_body.", "encoder_ctx.", "decoder_head.", "decoder_body.", "decoder_ctx.",
    "query_embedding.", "query_embedding_gwt.", "en_pos_gwt.", "shar_after.", "cls_en_all.",
)  # fmt: skip
"""Prefixes of keys that the published forward does not read."""

OMEGA = "W.weight"
"""The vocabulary branch's alignment."""

CLASS_LAYER = "cls_HFE_head.4.weight"
"""A prediction layer: its first axis is the number of classes."""

WIDE = "VI_ffn.1.weight"
"""FFN1's first Linear, which sees k copies of one vector: [k*e/4, k*e]."""

_BLOCKS = {"head": "encoder1", "body": "encoder2", "context": "encoder3"}
_HEADS = {"head": "cls_HFE_head", "body": "cls_HFE_body", "context": "cls_HFE_ctx"}
_IN_HEAD = {"1": "mapping", "3": "norm", "4": "prediction"}
_IN_BLOCK = {
    "cross_attn.linears.0": "attention.to_query",
    "cross_attn.linears.1": "attention.to_key",
    "cross_attn.linears.2": "attention.to_value",
    "cross_attn.linears.3": "attention.to_out",
    "feed_forward.w_1": "feed_forward.0",
    "feed_forward.w_2": "feed_forward.2",
    "norm1": "norm_query",
    "norm2": "norm_feed_forward",
    "norm3": "norm_context",
}
_ELSEWHERE = {
    "ln_after": "cross_level.norm",
    "W": "vocabulary.alignment",
    "VI_ffn.1": "vocabulary.widen",
    "VI_ffn.3": "vocabulary.narrow",
    "VI_ffn.5": "vocabulary.prediction",
    "cls_global_all": "fusion.layers",
}
_WHOLE = {
    "en_pos.row_embed.weight": "cross_level.positions.row",
    "en_pos.col_embed.weight": "cross_level.positions.column",
}
_TEXT = "vocabulary.text_embeddings"
_NOT_IN_FILE = ("vocabulary.tower.", _TEXT)


def _renamed_parts(blocks: int) -> dict[str, str]:
    """Published name of a module -> its name here."""
    names = dict(_ELSEWHERE)
    for level in LEVELS:
        names[f"backbone.{level}"] = f"backbones.{level}.layers"
        names[f"{level}_proj"] = f"tokens.{level}.project"
        for there, here in _IN_HEAD.items():
            names[f"{_HEADS[level]}.{there}"] = f"heads.{level}.{here}"
        for i in range(blocks):
            for there, here in _IN_BLOCK.items():
                names[f"{_BLOCKS[level]}.{i}.{there}"] = f"cross_level.blocks.{level}.{i}.{here}"
    return names


def published_names(keys: Iterable[str], blocks: int) -> dict[str, str]:
    """Our key -> the published checkpoint's, for instance `heads.body.norm.bias` -> `cls_HFE_body.3.bias`.

    blocks: cross-level blocks per level. Keys that the published file does not hold (CLIP's tower, text embeddings) are left
    out. Raises KeyError for a key that has no counterpart.
    """
    parts = {here: there for there, here in _renamed_parts(blocks).items()}
    whole = {here: there for there, here in _WHOLE.items()}
    names = {}
    for key in keys:
        if key.startswith(_NOT_IN_FILE):
            continue
        part = key
        while key not in whole and part not in parts:
            part, _, _ = part.rpartition(".")
            if not part:
                raise KeyError(f"{key} has no counterpart in the published checkpoint")
        names[key] = whole[key] if key in whole else parts[part] + key.removeprefix(part)
    return names


@dataclass(frozen=True)
class KeyFates:
    """What became of every key of a published file.

    used: published key -> ours. ignored: known leftovers. unknown: keys that the published model does not have.
    missing: published keys that the model needs and the file lacks. misshapen: one line each, with both shapes.
    """

    used: Mapping[str, str]
    ignored: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]

    def lines(self) -> list[str]:
        """Every key on a line of its own, under what became of it."""
        out = [f"used {there} as {here}" for there, here in sorted(self.used.items())]
        for fate in ("ignored", "unknown", "missing", "misshapen"):
            out += [f"{fate} {key}" for key in getattr(self, fate)]
        return out

    def __str__(self) -> str:
        by_prefix = Counter(next(p for p in LEFTOVERS if key.startswith(p)).rstrip(".") for key in self.ignored)
        leftovers = ", ".join(f"{prefix} ({count})" for prefix, count in sorted(by_prefix.items()))
        counts = f"{len(self.used)} keys used, {len(self.ignored)} ignored{': ' if leftovers else ''}{leftovers}"
        return f"{counts}; {len(self.unknown)} unknown, {len(self.missing)} missing, {len(self.misshapen)} of a wrong shape"


def key_fates(published: Mapping[str, Tensor], model: nn.Module, blocks: int) -> KeyFates:
    """Compare a published state dict with the release model that is to take it; changes nothing."""
    own = model.state_dict()
    names = published_names(own, blocks)
    inputs = own[_TEXT].numel()
    shapes = {there: _published_shape(there, tuple(own[here].shape), inputs) for here, there in names.items()}
    extra = [key for key in published if key not in shapes]
    return KeyFates(
        used={there: here for here, there in names.items() if there in published},
        ignored=tuple(sorted(key for key in extra if key.startswith(LEFTOVERS))),
        unknown=tuple(sorted(key for key in extra if not key.startswith(LEFTOVERS))),
        missing=tuple(sorted(shapes.keys() - published.keys())),
        misshapen=tuple(
            f"{key}: wanted {list(shape)}, got {list(published[key].shape)}"
            for key, shape in sorted(shapes.items())
            if key in published and tuple(published[key].shape) != shape
        ),
    )


def _published_shape(there: str, shape: tuple[int, ...], inputs: int) -> tuple[int, ...]:
    """The shape of a published key whose counterpart here has `shape`; inputs: k * e, what FFN1 sees before it is folded."""
    if there.endswith("_proj.weight"):
        return (*shape, 1, 1)
    return (shape[0], inputs) if there == WIDE else shape


def our_state(published: Mapping[str, Tensor], model: nn.Module, blocks: int) -> dict[str, Tensor]:
    """A published state dict under our names, in our shapes; FFN1 is folded where the model's is.

    Only for one whose `key_fates` show nothing missing or misshapen. CLIP's tower and the text embeddings are not in it.
    """
    own = model.state_dict()
    out = {}
    for here, there in published_names(own, blocks).items():
        tensor = published[there]
        if tensor.is_floating_point():
            tensor = tensor.float()
        if there == WIDE and own[here].shape != tensor.shape:
            tensor = fold_copies(tensor, own[_TEXT].shape[0])
        out[here] = tensor.reshape(own[here].shape)
    return out
