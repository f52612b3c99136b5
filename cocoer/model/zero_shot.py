"""CocoER without training: CLIP scores the three crops, the levels compete by agreement, and their weighted mean is predicted.

    --checkpoint zero-shot                  the config's tower; without a config CLIP RN50 of OpenAI, the paper's
    --checkpoint zero-shot:ViT-B-16         another tower, with OpenAI's weights in checkpoints/clip
    --checkpoint zero-shot:TOWER=FILE       a tower with CLIP's own text side, or an open_clip config (.json); weights in FILE
    --checkpoint zero-shot:demo             the demonstration's tower and detectors, for its synthetic scenes

No weights of CocoER are read; the answer is a general image-text model's, not that of the paper.
`--set model.vocabulary.prompt=ensemble` reads against several prompts instead of the paper's one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from cocoer.config import Config, load_config
from cocoer.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from cocoer.errors import CheckpointError
from cocoer.model.agreement import LABEL_OVER, agree
from cocoer.model.build import load_clip
from cocoer.model.checkpoint import Loaded, load_weights
from cocoer.model.clip_tower import (
    CLIP_MEAN,
    CLIP_STD,
    build_clip,
    image_side,
    text_embeddings,
)
from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.foreign_weights import read_foreign_weights
from cocoer.model.level_model import ModelOutput
from cocoer.model.tensor_file import read_container
from cocoer.model.vocabulary import ClipReader, pseudo_label
from cocoer.weights import places
from cocoer.weights.catalog import CATALOG

NAME = "zero-shot"
OPENAI_LOGIT_SCALE = 100.0
_DEMO = "demo"


@dataclass(frozen=True)
class Tower:
    """A CLIP: open_clip's name of it, or a model config (.json); and its weights, `openai` for the file in checkpoints/clip."""

    name: str
    weights: str = "openai"

    @classmethod
    def parse(cls, text: str) -> Tower:
        """From `TOWER` or `TOWER=FILE`."""
        name, _, weights = text.partition("=")
        return cls(name, weights or "openai")

    @property
    def file(self) -> Path:
        """Where its weights are; those of the demonstration are found from any folder."""
        if self.weights == "openai":
            return places.place_of(f"checkpoints/clip/{self.name}.pt")
        return places.find(self.weights) or Path(self.weights)

    @property
    def title(self) -> str:
        """For a row."""
        return Path(self.name).stem if self.name.endswith(".json") else self.name

    @property
    def remedy(self) -> str:
        """What to do about missing weights."""
        entry = f"clip-{self.name.lower()}"
        if self.weights == "openai" and entry in {known.name for known in CATALOG}:
            return f"get them with `cocoer weights fetch {entry}`, or name a file: {self.name}=FILE"
        return f"name an existing file: {self.name}=FILE"


class ZeroShot(nn.Module):
    """The recogniser without training, called as the model is (`CocoER.forward`); every level has one CLIP's reading.

    reader: tower and text embeddings. image_size: S, of the crops. label: logits [B, k] -> pseudo label [B, k].
    In its `ModelOutput` the level logits are the readings, the vocabulary's is the vote, and the answer is the mean of the
    readings weighted by `Agreement.shares`; the features are CLIP's embeddings.
    """

    vocabulary: None = None
    without_levels = (
        "CLIP alone has no backbones and no coordination to look into; name weights of CocoER, such as --checkpoint release or"
        " --checkpoint demo"
    )

    def __init__(
        self,
        reader: ClipReader,
        image_size: int,
        logit_scale: float,
        label: Callable[[Tensor], Tensor],
        multi_label: bool,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.image_size = image_size
        self._logit_scale = logit_scale
        self._label = label
        self._multi_label = multi_label

    def fold(self) -> None:
        """Fold the tower's batch norms into its convolutions, in place; outputs stay equal to 1e-5."""
        fold_batch_norms(self.reader.tower)

    def forward(self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor) -> ModelOutput:
        """Crops [B, 3, S, S] with ImageNet mean and std; boxes are not looked at. Raises ValueError for other shapes."""
        side = self.image_size
        for name, crop in (("context", context), ("head", head), ("body", body)):
            if tuple(crop.shape) != (context.shape[0], 3, side, side):
                raise ValueError(
                    f"{name} crops: wanted [{context.shape[0]}, 3, {side}, {side}], got {list(crop.shape)}"
                )
        embeddings = self.reader.embeddings(head, body, context)  # [B, L, e]
        readings = self.reader.readings(embeddings)  # [B, L, k]
        found = agree(readings, self._logit_scale)
        levels = torch.log_softmax(self._logit_scale * readings, dim=-1)
        answer = torch.logsumexp(levels + found.shares.log().unsqueeze(-1), dim=1)  # [B, k], log probabilities
        vote = found.vote.clamp_min(torch.finfo(found.vote.dtype).tiny).log()
        logits, level_logits, vote_logits = (self._logits(x) for x in (answer, levels, vote))
        return ModelOutput(
            logits=logits,
            level_logits=level_logits,
            vocabulary_logits=vote_logits,
            pseudo_label=self._label(vote_logits),
            level_features=embeddings,
            refined=embeddings,
            fused_features=embeddings.flatten(1),
            competition=found,
            agreement=found,
        )

    def _logits(self, log_probability: Tensor) -> Tensor:
        """Logits whose probabilities (sigmoid, or softmax for one label a person) are these shares of the vocabulary."""
        if not self._multi_label:
            return log_probability
        sure = torch.finfo(log_probability.dtype).eps
        return log_probability - torch.log(-torch.expm1(log_probability.clamp_max(-sure)))


def is_zero_shot(path: str | Path) -> bool:
    """Whether the name of a checkpoint means this recogniser."""
    return str(path) == NAME or str(path).startswith(f"{NAME}:")


def load_model(
    path: str | Path,
    device: torch.device | str = "cpu",
    change: Callable[[Config], Config] | None = None,
    verify: bool = True,
) -> Loaded:
    """What `--checkpoint` names: a weights file (`checkpoint.load_weights`), or the zero-shot recogniser (see above).

    Raises as `load_weights` does; CheckpointError for a CLIP whose weights are missing or do not fit, and for an unknown tower.
    """
    if not is_zero_shot(path):
        return load_weights(path, device, change, verify)
    config = _config(str(path).partition(":")[2])
    config = change(config) if change else config
    spec = config.model.vocabulary
    if spec.weights is None:
        raise CheckpointError(f"{NAME}: wanted a CLIP with weights, got model.vocabulary.weights: null; name a file")
    tower = Tower(spec.tower, spec.weights)
    clip = load_tower(tower)
    text = text_embeddings(clip, tower.name, config.classes, spec.prompt)
    mean_std = (IMAGENET_MEAN, IMAGENET_STD) if spec.normalisation == "imagenet" else image_mean_std(tower.name)
    side = image_side(clip.visual)
    config = replace(config, data=replace(config.data, image_size=side))
    threshold = config.inference.thresholds.vocabulary

    def label(logits: Tensor) -> Tensor:
        return pseudo_label(logits, config.multi_label, threshold)

    reader = ClipReader(clip.visual, text, mean_std)
    model: Any = ZeroShot(reader, side, config.model.competition.logit_scale, label, config.multi_label)
    return Loaded(model.to(device).eval(), config, _about(tower), tower.file)


def load_tower(tower: Tower) -> Any:
    """The CLIP with its weights, on the CPU, in eval mode. Raises CheckpointError."""
    if not tower.file.is_file():
        raise CheckpointError(
            f"CLIP {tower.name}: wanted its weights at {places.shown(tower.file)}, found none; {tower.remedy}"
        )
    try:
        clip = build_clip(tower.name, quick_gelu=tower.weights == "openai", with_text=True)
        load_clip(clip, read_foreign_weights(tower.file, "CLIP weights"), str(tower.file))
    except CheckpointError:
        raise
    except ValueError as err:  # an unknown tower, or weights of another one
        raise CheckpointError(str(err)) from None
    return clip.eval()


def image_mean_std(tower: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of the images that a tower was trained on: what open_clip states for it, OpenAI's where it states several."""
    tags = [] if tower.endswith(".json") else open_clip.list_pretrained_tags_by_model(tower)
    stated = [open_clip.get_pretrained_cfg(tower, tag) for tag in tags]
    found = {(tuple(cfg.get("mean", CLIP_MEAN)), tuple(cfg.get("std", CLIP_STD))) for cfg in stated}
    return found.pop() if len(found) == 1 else (CLIP_MEAN, CLIP_STD)


def _config(stated: str) -> Config:
    """The config of what stands after `zero-shot:`, before anything of the user's is laid over it."""
    if stated == _DEMO:
        config, tower = load_config(places.SHIPPED / "configs" / "demo_emotic.yaml"), None
    else:
        config, tower = Config(), Tower.parse(stated) if stated else Tower(Config().model.vocabulary.tower)
    model = config.model
    if tower is not None:
        vocabulary = replace(model.vocabulary, tower=tower.name, weights=tower.weights)
        competition = replace(model.competition, logit_scale=_own_scale(tower))
        model = replace(model, vocabulary=vocabulary, competition=competition)
    over = LABEL_OVER / len(config.classes)
    thresholds = replace(config.inference.thresholds, fused=over, levels=over, vocabulary=over)
    return replace(config, model=model, inference=replace(config.inference, thresholds=thresholds))


def _own_scale(tower: Tower) -> float:
    """The factor before the softmax with which a CLIP was trained; OpenAI's all have 100."""
    if tower.weights == "openai" or not tower.file.is_file():
        return OPENAI_LOGIT_SCALE
    stored = read_foreign_weights(tower.file, "CLIP weights").get("logit_scale")
    return OPENAI_LOGIT_SCALE if stored is None else float(stored.float().exp().flatten()[0])


def _about(tower: Tower) -> dict[str, Any]:
    """What results say of it, in place of a weights file's own description."""
    note = f"zero-shot: CLIP {tower.title} reads head, body and context, the levels compete by agreement; no weights of CocoER"
    if tower.file.suffix == ".safetensors":
        note = "; ".join(part for part in (note, read_container(tower.file, "CLIP weights").get("note")) if part)
    return {"name": f"{NAME}:{tower.title}", "mode": NAME, "note": note}
