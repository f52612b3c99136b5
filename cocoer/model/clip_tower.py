"""CLIP through open_clip: the image tower that stays frozen, and the text embeddings of the emotion prompts.

The text tower is used once, when a model is first built; a checkpoint holds its result.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cocoer.errors import CheckpointError
from cocoer.model.release.safe_pickle import is_torchscript, read_pickled, tensors_of
from cocoer.names import nearest, spoken
from cocoer.weights import places

CLIP_MEAN: tuple[float, float, float] = tuple(open_clip.OPENAI_DATASET_MEAN)
CLIP_STD: tuple[float, float, float] = tuple(open_clip.OPENAI_DATASET_STD)

ENSEMBLE = "ensemble"
"""In place of a prompt: the mean over `TEMPLATES`."""

TEMPLATES: tuple[str, ...] = (
    "This photo shows {emotion} emotion.",
    "a photo of a person who feels {emotion}.",
    "a photo of a person showing {emotion}.",
    "a face that expresses {emotion}.",
    "a body posture that expresses {emotion}.",
    "a scene that evokes {emotion}.",
    "someone in a situation of {emotion}.",
    "the emotion of this person is {emotion}.",
)
"""Of the ensemble: an emotion's text embedding is the mean of the unit-norm embeddings of these, as CLIP's own ensembles are."""

_NO_TEXT = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
"""A text tower of almost no size, for when only the image tower is wanted."""


def _architecture(tower: str) -> str:
    """The name under which open_clip knows the tower; a .json file is registered under its stem.

    Raises ValueError for a name that open_clip does not know.
    """
    if tower.endswith(".json"):
        file = places.find(tower)  # the demo configs name a file that comes with cocoer
        if file is None:
            raise ValueError(
                f"model.vocabulary.tower: no such file: {tower}; wanted an open_clip model config or a name"
            )
        open_clip.add_model_config(file)
        return file.stem
    if tower not in open_clip.list_models():
        hint = nearest(tower, open_clip.list_models())
        raise ValueError(
            f"model.vocabulary.tower: open_clip knows no {tower!r}"
            + (f", did you mean {hint!r}?" if hint else "; open_clip.list_models() lists what it knows")
        )
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
            name,
            device=torch.get_default_device(),  # as any other module, so that a model of no data can be built on `meta`
            force_quick_gelu=quick_gelu,
            load_weights=False,
            pretrained_text=False,
            **overrides,
        )
    finally:
        root.setLevel(level)


def read_clip_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict of a CLIP file: OpenAI's TorchScript archive, a torch file, or safetensors; no Python code is run.

    Raises FileNotFoundError, or CheckpointError (a ValueError) for a file of another kind, a truncated or a damaged one.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"CLIP weights: no such file: {path}; `cocoer weights list` says where it comes from")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        if is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # deprecated, and the only reader of OpenAI's own files
                return dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    except (RuntimeError, SafetensorError) as err:
        first = str(err).strip().partition("\n")[0]
        raise CheckpointError(f"CLIP weights {path}: truncated or damaged: {first}; download the file again") from None
    content = read_pickled(path, "CLIP weights")
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]  # as open_clip's training writes it
    return tensors_of(content, path, "CLIP weights")


@torch.no_grad()
def encode_prompts(clip: nn.Module, tower: str, prompts: Sequence[str]) -> Tensor:
    """Unit-norm text embeddings [len(prompts), e], float32."""
    tokenizer = open_clip.get_tokenizer(_architecture(tower))
    tokens = tokenizer(list(prompts), context_length=clip.context_length)
    encode: Any = clip.eval().encode_text
    return F.normalize(encode(tokens).float(), dim=-1)


def text_embeddings(clip: nn.Module, tower: str, classes: Sequence[str], prompt: str) -> Tensor:
    """Unit-norm text embedding of each class, [k, e], float32. prompt: a text with `{emotion}` in it, or `ensemble`."""
    templates = TEMPLATES if prompt == ENSEMBLE else (prompt,)
    every = [encode_prompts(clip, tower, [t.format(emotion=word) for word in spoken(classes)]) for t in templates]
    return every[0] if len(every) == 1 else F.normalize(torch.stack(every).mean(0), dim=-1)
