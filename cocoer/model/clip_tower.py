"""CLIP through open_clip: the image tower that stays frozen, and the text embeddings of the emotion prompts.

The text tower is used once, when a model is first built; a checkpoint holds its result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.errors import ConfigError, one_line
from cocoer.model.tower_config import read_tower
from cocoer.names import nearest, spoken

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
"""A minimal text tower, used if only the image tower is needed."""


def _architecture(tower: str, with_text: bool) -> str:
    """The name under which open_clip knows the tower; that of a .json file is registered under a name of its content.

    Raises ConfigError for a file that is no tower (`tower_config`), a name that open_clip does not know, and one whose text
    tower or tokenizer open_clip would fetch from a Hub repository.
    """
    if tower.endswith(".json"):
        text = json.dumps(read_tower(tower), sort_keys=True)
        name = f"cocoer-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        if name not in open_clip.list_models():
            with tempfile.TemporaryDirectory() as folder:
                scratch = Path(folder) / f"{name}.json"
                scratch.write_text(text, encoding="utf-8")
                open_clip.add_model_config(scratch)
        return name
    if tower not in open_clip.list_models():
        hint = nearest(tower, open_clip.list_models())
        raise ConfigError(
            f"model.vocabulary.tower: open_clip does not have {tower!r}"
            + (f", did you mean {hint!r}?" if hint else "; open_clip.list_models() lists all")
        )
    if with_text and any(key.startswith("hf_") for key in open_clip.get_model_config(tower)["text_cfg"]):
        raise ConfigError(
            f"model.vocabulary.tower: open_clip fetches the text tower or tokenizer of {tower!r} from a Hub repository, and"
            " cocoer does not download while it builds a model; choose a tower with CLIP's own text tower, such as RN50"
        )
    return tower


def build_clip(tower: str, quick_gelu: bool, with_text: bool) -> nn.Module:
    """An open_clip model with random weights; without text its text tower is an unused placeholder.

    Nothing is fetched. Raises ConfigError for a tower that cannot be built.
    """
    name = _architecture(tower, with_text)
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
    except (ValueError, TypeError, RuntimeError, AssertionError, ArithmeticError, AttributeError) as err:
        raise ConfigError(f"model.vocabulary.tower: {tower} cannot be built: {one_line(err)}") from None
    finally:
        root.setLevel(level)


def image_side(visual: Any) -> int:
    """The side of the square images that an image tower looks at; where they are not square, their height."""
    size = visual.image_size
    side: int = size if isinstance(size, int) else size[0]
    return side


def tokenizer_of(tower: str) -> Any:
    """The tower's tokenizer: texts -> token numbers [n, context length]. Raises ConfigError as `build_clip` does."""
    return open_clip.get_tokenizer(_architecture(tower, with_text=True))


@torch.no_grad()
def encode_prompts(clip: nn.Module, tower: str, prompts: Sequence[str]) -> Tensor:
    """Unit-norm text embeddings [len(prompts), e], float32."""
    tokens = tokenizer_of(tower)(list(prompts), context_length=clip.context_length)
    encode: Any = clip.eval().encode_text
    return F.normalize(encode(tokens).float(), dim=1)


def text_embeddings(clip: nn.Module, tower: str, classes: Sequence[str], prompt: str) -> Tensor:
    """Unit-norm text embedding of each class, [k, e], float32. prompt: a text with `{emotion}` in it, or `ensemble`."""
    templates = TEMPLATES if prompt == ENSEMBLE else (prompt,)
    every = [encode_prompts(clip, tower, [t.format(emotion=word) for word in spoken(classes)]) for t in templates]
    return every[0] if len(every) == 1 else F.normalize(torch.stack(every).mean(0), dim=1)
