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

    sq_norm: [B], |x|^2 of the mapping's input x = GELU(flattened tokens); 0 where the mapping is a network.
    pre: [B, d], h = A x + a, or what the network gives. z: [B, d], LayerNorm(GELU(h)). logits: [B, k], P z + p.
    """

    sq_norm: Tensor
    pre: Tensor
    z: Tensor
    logits: Tensor


class LevelHead(nn.Module):
    """x = GELU(tokens); h = A x + a (the mapping); z = LayerNorm(GELU(h)); logits = P z + p (the prediction layer).

    Design section 3, "Level heads": the supplement draws FFN0 and g_theta apart, the published code fuses them so.
    mapping: a network [B, N, c] -> [B, d] in place of GELU and A (`mappings`, ablation of Fig. 3).
    """

    def __init__(self, inputs: int, features: int, classes: int, mapping: nn.Module | None = None) -> None:
        super().__init__()
        self.mapping = nn.Linear(inputs, features) if mapping is None else mapping
        self.norm = nn.LayerNorm(features)
        self.prediction = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> LevelFeatures:
        """tokens [B, N, c] with N * c = n -> `LevelFeatures`."""
        precise = torch.promote_types(tokens.dtype, torch.float32)
        if isinstance(self.mapping, nn.Linear):
            x = F.gelu(tokens.flatten(1))  # [B, n]
            pre = self.mapping(x)  # [B, d]
            # the squared norm of thousands of entries overflows and loses digits in half precision
            sq_norm = torch.linalg.vector_norm(x, dim=1, dtype=precise).square()
        else:
            pre = self.mapping(tokens)  # [B, d]
            sq_norm = tokens.new_zeros(tokens.shape[0], dtype=precise)
        z = self.norm(F.gelu(pre))  # [B, d]
        return LevelFeatures(sq_norm, pre, z, self.prediction(z))
