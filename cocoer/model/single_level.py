"""The baseline of one level: its backbone, its tokens and its level head, trained without the others."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from cocoer.model.cocoer import CocoER, LevelStack, ModelOutput
from cocoer.model.competition import Competition
from cocoer.model.level_head import HeadParameters
from cocoer.names import LEVELS


def _nobody_competes(levels: LevelStack, heads: HeadParameters, label: Tensor) -> tuple[Tensor, Competition]:
    """The workspace of a model that has none."""
    raise ValueError("a single-level model has nobody to compete with; take a model of three levels")


class SingleLevel(CocoER):
    """Head only, body only or context only (`model.single_level`): no cross-level attention, no V-I, nothing to fuse.

    backbones, tokens, heads: the one level's module, under its name. positions: adds each token its learned position.
    Every source of a result (fused answer and each level) is the one level's answer.
    """

    def __init__(
        self,
        backbones: Mapping[str, nn.Module],
        tokens: Mapping[str, nn.Module],
        positions: nn.Module,
        heads: Mapping[str, nn.Module],
        image_size: int,
    ) -> None:
        nn.Module.__init__(self)  # CocoER's own constructor wants three levels and a fusion head
        (self.level,) = backbones
        self.backbones, self.tokens, self.heads = nn.ModuleDict(backbones), nn.ModuleDict(tokens), nn.ModuleDict(heads)
        self.cross_level = positions
        self.vocabulary = None
        self.workspace = _nobody_competes
        self.image_size = image_size
        self.fused = False

    def level_tokens(self, head: Tensor, body: Tensor, context: Tensor) -> list[Tensor]:
        """Raises ValueError: whoever asks for three levels has the wrong model."""
        raise ValueError(f"this model has one level, {self.level}; wanted a model of three levels")

    def forward(
        self,
        head: Tensor,
        body: Tensor,
        context: Tensor,
        head_xyxy: Tensor,
        body_xyxy: Tensor,
        embedding: Tensor | None = None,
    ) -> ModelOutput:
        """As `CocoER.forward`; the crops of the other levels are checked and not looked at, nor is an embedding."""
        self._check(head, body, context, head_xyxy, body_xyxy)
        crop = {"head": head, "body": body, "context": context}[self.level]
        tokens = self.tokens[self.level](self.backbones[self.level](crop))  # [B, N, c]
        (placed,) = self.cross_level([tokens], head_xyxy, body_xyxy)
        one = self.heads[self.level](placed)
        logits = one.logits.unsqueeze(1).expand(-1, len(LEVELS), -1)  # [B, L, k]
        features = one.z.unsqueeze(1).expand(-1, len(LEVELS), -1)  # [B, L, d]
        return ModelOutput(one.logits, logits, None, None, features, features, one.z, None)
