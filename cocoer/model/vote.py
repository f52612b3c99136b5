"""An answer in which the levels that stay in the competition have a vote; our own addition, off by default."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FUSED_SHARE = 0.5
"""What the fused answer weighs; the two levels that did not leave first share the rest."""


def survivors_vote(
    logits: Tensor, level_logits: Tensor, exclusion: Tensor, shares: Tensor | None = None, *, multi_label: bool
) -> Tensor:
    """Logits whose probabilities are a mean: half the fused answer's, a quarter each of the two levels that stayed.

    logits: l_G, [B, k]. level_logits: [B, L, k]. exclusion: level indices, first to leave first, [B, L].
    shares: what each level counts in the levels' half, [B, L], sum 1, in place of a half for each that stayed.
    Multi-label: of sigmoids; single-label: of softmaxes. Computed in logarithms, so sure answers stay finite; at least float32.
    Returns [B, k].
    """
    answers = torch.cat([logits.unsqueeze(1), level_logits.to(logits.dtype)], dim=1)  # [B, 1 + L, k]
    answers = answers.to(torch.promote_types(answers.dtype, torch.float32))
    levels = level_logits.shape[1]
    stays = torch.arange(levels, device=logits.device) != exclusion[:, :1]  # [B, L]
    if shares is None:
        shares = stays / (levels - 1)
    weights = torch.log((1.0 - FUSED_SHARE) * shares.to(answers.dtype))
    weights = F.pad(weights, (1, 0), value=math.log(FUSED_SHARE)).unsqueeze(-1)  # [B, 1 + L, 1], logarithms
    if not multi_label:
        return torch.logsumexp(F.log_softmax(answers, dim=-1) + weights, dim=1)
    yes, no = (torch.logsumexp(F.logsigmoid(sign * answers) + weights, dim=1) for sign in (1.0, -1.0))
    return yes - no
