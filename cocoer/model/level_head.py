"""Level heads (FFN0 and g_theta_m): from a level's tokens to its feature and its logits. One class for both modes.

Letters: B persons, n flattened token size, d feature size, k emotions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LevelFeatures(NamedTuple):
    """What a level head computes on the way to its logits; the coordination needs all of it.

    sq_norm: [B], |x|^2 of the mapping's input x = GELU(flattened tokens).
    pre: [B, d], h = A x + a. z: [B, d], LayerNorm(GELU(h)). logits: [B, k], P z + p.
    """

    sq_norm: Tensor
    pre: Tensor
    z: Tensor
    logits: Tensor


class LevelHead(nn.Module):
    """x = GELU(tokens); h = A x + a (the mapping); z = LayerNorm(GELU(h)); logits = P z + p (the prediction layer).

    Design section 3, "Level heads": the supplement draws FFN0 and g_theta apart, the published code fuses them so.
    """

    def __init__(self, inputs: int, features: int, classes: int) -> None:
        super().__init__()
        self.mapping = nn.Linear(inputs, features)
        self.norm = nn.LayerNorm(features)
        self.prediction = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> LevelFeatures:
        """tokens [B, N, c] with N * c = n -> `LevelFeatures`."""
        x = F.gelu(tokens.flatten(1))  # [B, n]
        pre = self.mapping(x)  # [B, d]
        z = self.norm(F.gelu(pre))  # [B, d]
        # the squared norm of thousands of entries overflows and loses digits in half precision
        sq_norm = torch.linalg.vector_norm(x, dim=1, dtype=torch.promote_types(x.dtype, torch.float32)).square()
        return LevelFeatures(sq_norm, pre, z, self.prediction(z))
