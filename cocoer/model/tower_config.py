"""Allowed CLIP towers: the keys and sizes of an open_clip model config that cocoer builds.

A config file names an architecture, and some architectures of open_clip are fetched from a Hub repository or load weights of
their own (`timm_model_name`, `hf_model_name`, `pretrained`). A file may be untrusted, so it may use the keys below and
no other. Architectures that open_clip itself lists are named by their name.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cocoer.errors import ConfigError
from cocoer.files import parse_json
from cocoer.weights import places

_Layers = Annotated[int, Field(ge=1, le=64)]
_Width = Annotated[int, Field(ge=1, le=4096)]
_Heads = Annotated[int, Field(ge=1, le=64)]
_Side = Annotated[int, Field(ge=8, le=1024)]
_MOST_BYTES = 65_536


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Vision(_Strict):
    layers: _Layers | Annotated[list[_Layers], Field(min_length=4, max_length=4)] = 12
    width: _Width = 768
    head_width: Annotated[int, Field(ge=1, le=1024)] = 64
    mlp_ratio: Annotated[float, Field(gt=0, le=16)] = 4.0
    patch_size: Annotated[int, Field(ge=1, le=256)] | None = 16
    image_size: _Side | Annotated[list[_Side], Field(min_length=2, max_length=2)] = 224


class _Text(_Strict):
    context_length: Annotated[int, Field(ge=1, le=1024)] = 77
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)] = 49408
    width: _Width = 512
    heads: _Heads = 8
    layers: _Layers = 12


class _Tower(_Strict):
    embed_dim: Annotated[int, Field(ge=1, le=8192)]
    vision_cfg: _Vision
    text_cfg: _Text
    quick_gelu: bool = False


def checked_tower(content: Any, where: str) -> dict[str, Any]:
    """The tower as plain values, if cocoer builds such a one. Raises ConfigError that names each key and value that is wrong."""
    try:
        tower = _Tower.model_validate_json(json.dumps(content))
    except (TypeError, ValueError) as err:
        lines = err.errors(include_url=False) if isinstance(err, ValidationError) else [{"loc": (), "msg": str(err)}]
        shown = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in lines[:4])
        raise ConfigError(
            f"{where}: cocoer cannot build this CLIP tower: {shown}. Allowed are the keys"
            f" {', '.join(_Vision.model_fields)} of vision_cfg, {', '.join(_Text.model_fields)} of text_cfg, embed_dim and"
            " quick_gelu; nothing that would be fetched"
        ) from None
    return tower.model_dump(exclude_unset=True)


def read_tower(tower: str) -> dict[str, Any]:
    """The checked content of a tower's .json file, found as `places.find` does.

    Raises ConfigError for a missing or unreadable file and for one that is no such tower.
    """
    where = f"model.vocabulary.tower: {tower}"
    file = places.find(tower)  # the demo configs name a file that comes with cocoer
    if file is None:
        raise ConfigError(f"model.vocabulary.tower: no such file: {tower}; wanted an open_clip model config or a name")
    try:
        with file.open("rb") as handle:
            text = handle.read(_MOST_BYTES + 1)
        if len(text) > _MOST_BYTES:
            raise ConfigError(f"{where}: wanted a config of at most {_MOST_BYTES:,} bytes")
        content = parse_json(text)
    except (OSError, ValueError, RecursionError) as err:
        raise err if isinstance(err, ConfigError) else ConfigError(f"{where}: is not JSON: {err}") from None
    return checked_tower(content, where)
