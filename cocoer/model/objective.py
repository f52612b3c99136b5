"""The training loss L_emo = sum of beta_m L_m + alpha |delta|^2 (docs/method.md), from a model's output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from cocoer import ideas
from cocoer.config import Config, LossConfig
from cocoer.model.level_model import ModelOutput
from cocoer.model.losses import loss_per_person
from cocoer.names import LEVELS

PersonLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""(logits [B, k], targets [B, k], class weights [k] or None) -> [B], with gradient."""


def build_person_loss(config: Config) -> PersonLoss | None:
    """The loss that `loss.name` names, or None for the paper's."""
    make = ideas.added("loss").get(config.loss.name)
    return None if make is None else make(config)


def total_loss(
    output: ModelOutput,
    targets: Tensor,
    loss: LossConfig,
    *,
    multi_label: bool,
    weights: Tensor | None = None,
    per_person: PersonLoss | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss to minimise, as a mean over the batch's persons, and its terms for the log.

    targets: [B, k], 0 or 1. weights: [k], class weights of the whole batch over all processes (`losses.class_weights`),
    or None for 1. per_person: L_m of one person in place of the paper's. Everything is computed in float32.
    Returns a scalar with gradient, and detached scalars: `loss`, `loss_<source>` before their betas, `penalty` before alpha.
    Parts that the model has not (vocabulary branch, competition) add nothing and have no term.
    """
    weights = None if weights is None else weights.float()
    one = partial(loss_per_person, multi_label=multi_label) if per_person is None else per_person
    betas = {"head": loss.beta_head, "body": loss.beta_body, "context": loss.beta_context}
    logits = {level: output.level_logits[:, m] for m, level in enumerate(LEVELS)}
    if output.vocabulary_logits is not None:
        betas["vocabulary"], logits["vocabulary"] = loss.beta_vocabulary, output.vocabulary_logits
    betas["fused"], logits["fused"] = loss.beta_fused, output.logits

    terms: dict[str, Tensor] = {}
    parts: list[Tensor] = []
    for name, values in logits.items():
        term = one(values.float(), targets.float(), weights).mean()
        terms[f"loss_{name}"] = term.detach()
        parts.append(betas[name] * term)
    penalty = None if output.competition is None else output.competition.penalty(loss.penalty)
    if penalty is not None:
        mean = penalty.float().mean()
        terms["penalty"] = mean.detach()
        parts.append(loss.alpha * mean)
    total = torch.stack(parts).sum()
    return total, {"loss": total.detach()} | terms
