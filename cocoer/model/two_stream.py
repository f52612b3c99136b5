"""The two-stream baseline: one network for the person's body, one for the scene, joined by a hidden layer.

Scene `backbone` is the layout of EMOTIC's own baseline (Kosti et al., arXiv 2003.13401), scene `clip` that of arXiv 2606.22072: a
frozen CLIP image tower. Readings where they are silent or where we differ: features are means over the map, the hidden layer has
the level heads' feature size, and only the categories are learned, with the loss of the full model.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.model.fold_batch_norms import fold_batch_norms
from cocoer.model.level_model import LevelModel, LevelParts, ModelOutput
from cocoer.model.vocabulary import ClipReader


class TwoStream(LevelModel):
    """Body and scene (`model.two_stream`): no head, no cross-level attention, no V-I, no competition.

    backbones: `body`, and `context` where no CLIP looks at the scene, each [B, 3, S, S] -> [B, C, g, g]. scene: CLIP, or None.
    inputs: C of the body and C or e of the scene, together. features: d. classes: k.
    Every source of a result (fused answer and each level) is the one answer.
    """

    def __init__(
        self,
        backbones: dict[str, nn.Module],
        scene: ClipReader | None,
        inputs: int,
        features: int,
        classes: int,
        image_size: int,
    ) -> None:
        parts = {level: LevelParts(backbone, nn.Identity(), nn.Identity()) for level, backbone in backbones.items()}
        super().__init__(parts, nn.Identity(), None, image_size)
        self.scene = scene
        self.join = nn.Linear(inputs, features)
        self.prediction = nn.Linear(features, classes)

    def fold(self) -> None:
        """As `LevelModel.fold`; the scene's tower too."""
        super().fold()
        if self.scene is not None:
            fold_batch_norms(self.scene.tower)

    def forward(
        self,
        head: Tensor,
        body: Tensor,
        context: Tensor,
        head_xyxy: Tensor,
        body_xyxy: Tensor,
        embedding: Tensor | None = None,
    ) -> ModelOutput:
        """Crops [B, 3, S, S], boxes [B, 4] as in `CocoER.forward`; head and boxes are only checked, an embedding is ignored."""
        self.check_shapes(head, body, context, head_xyxy, body_xyxy)
        person = self.backbones["body"](body).mean((2, 3))  # [B, C]
        if self.scene is None:
            around = self.backbones["context"](context).mean((2, 3))  # [B, C]
        else:
            around = self.scene.embeddings(context)[:, 0].to(person.dtype)  # [B, e]
        z = F.relu(self.join(torch.cat([person, around], dim=1)))  # [B, d]
        return ModelOutput.of_one(self.prediction(z), z)
