"""Where each level looks for an emotion, before and after the coordination: Grad-CAM and attention (supplement, Fig. 4).

Grad-CAM is captum's `LayerGradCam`. The score of a level *before* is its own logit l_m = P_m z_m + p_m with theta. The score
*after* is the logit that the updated level gives, l^_m = (P_m + s delta) z^_m + p_m with theta~ and the refined feature z^_m
(`coordination.coordinated_logits`).
The paper draws both and does not name the scores; the fused logit would mix the three levels and have no "before".
The pass through the coordination is differentiated as it stands (through errors, features and lambda, not through the pseudo
label), so the two maps are equal where, and only where, the coordination changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn

from cocoer.config import Config
from cocoer.data.batch import Batch
from cocoer.errors import MissingExtra
from cocoer.inference.predictions import probabilities_of
from cocoer.model.backbone import Backbone
from cocoer.model.cocoer import CocoER, three_levels
from cocoer.model.level_model import ModelOutput
from cocoer.names import LEVELS, canonical_class
from cocoer.outputs import Explanation, Grid, LevelSaliency

When = Literal["before", "after"]


class _LevelScores(nn.Module):
    """The model as captum wants it: three crops and two boxes in, one level's logits [B, k] out."""

    def __init__(self, model: CocoER, level: int, when: When) -> None:
        super().__init__()
        self.model, self.level, self.when = model, level, when

    def forward(self, head: Tensor, body: Tensor, context: Tensor, head_xyxy: Tensor, body_xyxy: Tensor) -> Tensor:
        """[B, 3, S, S] three times, [B, 4] twice -> [B, k]."""
        output: ModelOutput = self.model(head, body, context, head_xyxy, body_xyxy)
        if self.when == "before" or output.competition is None:
            return output.level_logits[:, self.level]
        heads = self.model.head_parameters()
        return self.model.workspace.coordinated_logits(output.refined, heads, output.competition)[:, self.level]


def grad_cam(model: CocoER, batch: Batch, classes: Tensor, level: int, when: When) -> tuple[Tensor, Tensor]:
    """Grad-CAM of one level on the last block of its backbone: maps [B, g, g] >= 0 and scores [B].

    batch: on the model's device. classes: [B] int64, the emotion of each person. The model must be in eval mode; its
    parameters and their gradients are left alone.
    """
    try:
        from captum.attr import LayerGradCam
    except ImportError as err:
        raise MissingExtra("explain", err) from None

    scores = _LevelScores(model, level, when)
    block = cast(Backbone, model.backbones[LEVELS[level]]).last_block
    # Crops that ask for a gradient make one flow to the block even where the weights are frozen.
    crops = tuple(crop.detach().requires_grad_() for crop in (batch.head, batch.body, batch.context))
    boxes = (batch.head_xyxy, batch.body_xyxy)
    with torch.inference_mode(False), torch.enable_grad():
        said = scores(*crops, *boxes).gather(1, classes.unsqueeze(1)).squeeze(1).detach()
        maps = LayerGradCam(scores, block).attribute(
            crops, target=classes, additional_forward_args=boxes, relu_attributions=True
        )
    return cast(Tensor, maps).detach().float().squeeze(1), said.float()


def attention_grids(maps: Tensor, cells: int, patch: int) -> Tensor:
    """Attention [B, heads, N, N] -> where the level looks, [B, heads, cells, cells]: the mean over its own tokens.

    A token's weight is shared among its patch x patch cells; cells of the zero padding are cut off.
    """
    side = -(-cells // patch)
    looked = maps.mean(2).unflatten(-1, (side, side)) / patch**2  # [B, heads, side, side]
    whole = looked.repeat_interleave(patch, -1).repeat_interleave(patch, -2)
    return whole[..., :cells, :cells]


def chosen_classes(probabilities: Tensor, emotion: str | None, classes: Sequence[str]) -> Tensor:
    """The emotion to explain for each person, [B] int64: the named one, or the most probable of its fused answer.

    Raises ValueError, with the nearest name, for an emotion that is not a class.
    """
    if emotion is None:
        return probabilities.argmax(1)
    number = tuple(classes).index(canonical_class(emotion, classes))
    return torch.full((len(probabilities),), number, device=probabilities.device)


def explain(model: nn.Module, config: Config, batch: Batch, emotion: str | None = None) -> list[Explanation]:
    """Saliency and attention of every person of a batch, in order; the model is used in eval mode, its mode restored.

    emotion: a class name, any case; None = each person's most probable one.
    Raises ValueError for an unknown emotion (the nearest is named), for an exported model, which has no gradients, and
    for a single level, which nothing coordinates.
    """
    model = three_levels(model)
    training, device = model.training, next(model.parameters()).device
    model.eval()
    batch = batch.to(device)
    given = (batch.head, batch.body, batch.context, batch.head_xyxy, batch.body_xyxy)
    with torch.no_grad():
        probabilities = probabilities_of(model(*given).logits, config.multi_label)
        chosen = chosen_classes(probabilities, emotion, config.classes)
        looks = {}
        if hasattr(model.cross_level, "attention_maps"):
            cells = cast(Backbone, model.backbones["context"]).grid(model.image_size)
            found = model.attention_maps(*given)
            looks = {m: attention_grids(getattr(found, m), cells, config.model.tokens.patch) for m in ("head", "body")}
    cams = {
        (level, when): grad_cam(model, batch, chosen, level, when)
        for level in range(len(LEVELS))
        for when in ("before", "after")
    }
    model.train(training)
    out = []
    for person in range(len(batch)):
        saliency = []
        for level, name in enumerate(LEVELS):
            (before, theta), (after, theta_new) = cams[level, "before"], cams[level, "after"]
            saliency.append(
                LevelSaliency(
                    name, _grid(before[person]), _grid(after[person]), float(theta[person]), float(theta_new[person])
                )
            )
        number = int(chosen[person])
        out.append(
            Explanation(
                person,
                config.classes[number],
                float(probabilities[person, number]),
                tuple(saliency),
                {name: tuple(_grid(one) for one in grids[person]) for name, grids in looks.items()},
            )
        )
    return out


def _grid(values: Tensor) -> Grid:
    """[g, g] as plain numbers."""
    return tuple(tuple(float(v) for v in row) for row in values.cpu().tolist())
