"""CLIP through open_clip: the image tower that stays frozen, and the text embeddings of the emotion prompts.

The text tower is used once, when a model is first built; a checkpoint holds its result.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

CLIP_MEAN: tuple[float, float, float] = tuple(open_clip.OPENAI_DATASET_MEAN)
CLIP_STD: tuple[float, float, float] = tuple(open_clip.OPENAI_DATASET_STD)

_NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""A text tower of almost no size, for when only the image tower is wanted."""


def _architecture(tower: str) -> str:
    """The name under which open_clip knows the tower; a .json file is registered under its stem.

    Raises ValueError for a name that open_clip does not know.
    """
    if tower.endswith(".json"):
        if not Path(tower).is_file():
            raise ValueError(f"model.vocabulary.tower: no such file: {tower}; wanted an open_clip model config or a name")
        open_clip.add_model_config(Path(tower))
        return Path(tower).stem
    if tower not in open_clip.list_models():
        close = [name for name in open_clip.list_models() if name.startswith(tower[:4])]
        raise ValueError(f"model.vocabulary.tower: open_clip knows no {tower!r}; close to it: {', '.join(close) or 'none'}")
    return tower


def build_clip(tower: str, quick_gelu: bool, with_text: bool) -> nn.Module:
    """An open_clip model with random weights; without text its text tower is a placeholder that nobody reads."""
    name = _architecture(tower)
    overrides = {} if with_text else {"text_cfg": dict(_NO_TEXT)}
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # open_clip warns on the root logger that the weights are random, which is meant
    try:
        return open_clip.create_model(
            name, force_quick_gelu=quick_gelu, load_weights=False, pretrained_text=False, **overrides
        )
    finally:
        root.setLevel(level)


def read_clip_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a CLIP file: OpenAI's TorchScript archive, a torch file, or safetensors; code is never run.

    Raises FileNotFoundError, or ValueError for a file of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"CLIP weights: no such file: {path}; `python scripts/weights.py list` says where it comes from")
    if path.suffix == ".safetensors":
        return dict(load_file(path))
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as plain_error:  # OpenAI's file is a TorchScript archive, which torch.load refuses as such
        try:
            loaded = torch.jit.load(str(path), map_location="cpu").state_dict()
        except Exception:
            raise ValueError(
                f"CLIP weights: {path} is neither a TorchScript archive, a torch state dict nor safetensors ({plain_error})"
            ) from None
    if isinstance(loaded, Mapping) and isinstance(loaded.get("state_dict"), Mapping):
        loaded = loaded["state_dict"]
    return {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)}


@torch.no_grad()
def encode_prompts(clip: nn.Module, tower: str, prompts: Sequence[str]) -> Tensor:
    """Unit-norm text embeddings [len(prompts), e], float32."""
    tokenizer = open_clip.get_tokenizer(_architecture(tower))
    tokens = tokenizer(list(prompts), context_length=clip.context_length)
    return F.normalize(clip.eval().encode_text(tokens).float(), dim=-1)
