"""The training objective of the recognition stage: L_emo = sum_m beta_m L_m + alpha |delta|^2 (design section 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from cocoer.config import LossConfig
from cocoer.model.cocoer import ModelOutput
from cocoer.model.losses import loss_per_person
from cocoer.names import BODY, CONTEXT, HEAD


def total_loss(
    output: ModelOutput,
    targets: Tensor,
    spec: LossConfig,
    *,
    multi_label: bool,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L_emo of a batch, and its terms before their factors.

    targets: [B, k], 0 or 1, the ground truth. class_weights: [k], of the global batch (multi-label), or None for 1.
    Returns the scalar loss and the terms `head`, `body`, `context`, `vocabulary`, `fused`, `delta` (means over persons,
    detached). A term that the model does not have (ablations) is left out.
    """

    def mean_loss(logits: Tensor) -> Tensor:
        full = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return loss_per_person(full, targets.to(full.dtype), class_weights, multi_label=multi_label).mean()

    weighted = {
        "head": (spec.beta_head, mean_loss(output.level_logits[:, HEAD])),
        "body": (spec.beta_body, mean_loss(output.level_logits[:, BODY])),
        "context": (spec.beta_context, mean_loss(output.level_logits[:, CONTEXT])),
        "fused": (spec.beta_fused, mean_loss(output.logits)),
    }
    if output.vocabulary_logits is not None:
        weighted["vocabulary"] = (spec.beta_vocabulary, mean_loss(output.vocabulary_logits))
    if output.competition is not None:
        weighted["delta"] = (spec.alpha, output.competition.penalty(spec.penalty).mean())
    loss = torch.stack([factor * term for factor, term in weighted.values()]).sum()
    return loss, {name: term.detach() for name, (_, term) in weighted.items()}
