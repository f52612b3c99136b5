"""A workspace rule in a few lines: the level that is least sure of its answer leaves first (docs/extend.md)."""

import torch
from torch import Tensor

from cocoer.ideas import register
from cocoer.model.workspaces import PaperWorkspace


@register("workspace", "lowest_confidence")
class LowestConfidence(PaperWorkspace):
    """Algorithm 1, but the pseudo label does not decide who leaves: the levels' own confidence does."""

    def leaving_order(self, losses: Tensor, logits: Tensor) -> Tensor:
        """losses [B, L], logits [B, L, k] -> level indices in the order of leaving, survivor last, [B, L] int64."""
        probabilities = torch.sigmoid(logits) if self.binary else torch.softmax(logits, dim=-1)
        confidence = probabilities.amax(-1)  # [B, L]: how sure each level is of its first choice
        return confidence.argsort(dim=-1, stable=True)
