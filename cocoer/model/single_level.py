"""The baseline of one level: its backbone, its tokens and its level head, trained without the others."""

from __future__ import annotations

from torch import Tensor, nn

from cocoer.model.level_model import LevelModel, LevelParts, ModelOutput


class SingleLevel(LevelModel):
    """Head only, body only or context only (`model.single_level`): no cross-level attention, no V-I, nothing to fuse.

    positions: adds each token its learned position.
    Every source of a result (fused answer and each level) is the one level's answer.
    """

    def __init__(self, level: str, parts: LevelParts, positions: nn.Module, image_size: int) -> None:
        super().__init__({level: parts}, positions, None, image_size)
        self.level = level

    def forward(
        self,
        head: Tensor,
        body: Tensor,
        context: Tensor,
        head_xyxy: Tensor,
        body_xyxy: Tensor,
        embedding: Tensor | None = None,
    ) -> ModelOutput:
        """Crops [B, 3, S, S], boxes [B, 4] as in `CocoER.forward`; other levels' crops are only checked; no embedding is read."""
        self.check_shapes(head, body, context, head_xyxy, body_xyxy)
        crop = {"head": head, "body": body, "context": context}[self.level]
        (placed,) = self.cross_level(self.level_tokens(crop), head_xyxy, body_xyxy)  # [B, N, c]
        one = self.heads[self.level](placed)
        return ModelOutput.of_one(one.logits, one.z)
