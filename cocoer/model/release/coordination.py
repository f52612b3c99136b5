"""The published code's competition and coordination, in closed form (docs/release.md).

It differs from Algorithm 1 in four points: weights and biases of the prediction layer have a simplex program each; each
round's direction is L2-normalised per class and averaged over the classes; that direction reaches the reported distance and
nothing else; and the mapping takes one plain gradient step through the *original* prediction layer.
As there, directions are numbers to report, not part of the training graph.

Letters: B persons, L = 3 levels in `names.LEVELS` order, d feature size, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cocoer.model.competition import both_rounds, exclusion_sequence, full_precision, hold, products_of
from cocoer.model.level_head import HeadParameters, require_shape

_NORM_FLOOR = 1e-12
"""Smallest norm by which a direction is divided, as in torch.nn.functional.normalize."""


@dataclass(frozen=True)
class ReleaseCompetition:
    """How the levels of every person competed by the published rule; a `competition.Competition`.

    No gradient flows through any of it.
    features: z, [B, L, d].    errors: dL_hier/dlogits, [B, L, k].    losses: L_hier of each level, [B, L].
    weights, bias_weights: lambda of both rounds, of the program over the weights and of that over the biases, [B, 2, L].
    exclusion: level indices in the order of leaving, survivor last, [B, L] int64; -1 where the losses are not finite.
    direction: the weight direction, mean over the classes, both rounds added, [B, d].    bias_direction: [B].
    distance: |direction| + |bias_direction|, [B], what the published code reports.
    """

    features: Tensor
    errors: Tensor
    losses: Tensor
    weights: Tensor
    bias_weights: Tensor
    exclusion: Tensor
    direction: Tensor
    bias_direction: Tensor
    distance: Tensor

    def penalty(self, kind: Literal["mean", "sum"]) -> None:
        """None: the published direction carries no gradient, so the training loss has nothing to add."""


@torch.no_grad()
def release_compete(
    features: Tensor, heads: HeadParameters, pseudo_label: Tensor, weights: Tensor | None = None, *, multi_label: bool
) -> ReleaseCompetition:
    """The published competition of every person.

    features: z, [B, L, d].    pseudo_label: [B, k], 0 or 1.    weights: class weights of L_hier, [B, k], or None for 1
    (the published checkpoint: `losses.competition_weights("dynamic", ...)`).
    Raises ValueError for wrong shapes. A non-finite person gets NaN weights and exclusion -1.
    """
    with full_precision(features):
        held = hold(features, heads, pseudo_label, weights, multi_label=multi_label)
        features, losses, errors = held.features, held.losses, held.errors
        exclusion = exclusion_sequence(losses)
        feature_gram, bias_gram = products_of(features), products_of(errors)  # [B, L, L]
        rounds = both_rounds(feature_gram * bias_gram, losses, exclusion)  # [B, 2, L]
        bias_rounds = both_rounds(bias_gram, losses, exclusion)
        direction = _mean_class_direction(rounds, errors, features, feature_gram)  # [B, d]
        bias_direction = _mean_class_bias_direction(bias_rounds, errors)  # [B]
        distance = direction.norm(dim=1) + bias_direction.abs()
    return ReleaseCompetition(
        features, errors, losses, rounds, bias_rounds, exclusion, direction, bias_direction, distance
    )


def release_coordinate(
    preactivation: Tensor, input_sq_norm: Tensor, heads: HeadParameters, competition: ReleaseCompetition, *, step: float
) -> Tensor:
    """Refined level features after the published gradient step on the mapping: z^, [B, L, d].

    preactivation: h = A x + a, [B, L, d].    input_sq_norm: |x|^2, [B, L].
    h moves by - step * g * (|x|^2 + 1), g the gradient of L_hier at h through GELU, LayerNorm and the original prediction
    layer. step: 1.0 in the published inference, 0.1 in its training.
    In training the gradient is that of the published code: the updated mapping A - step * g x' is a constant offset to A, so
    x is differentiated once, as its input, and g not at all.
    Raises ValueError for wrong shapes.
    """
    if preactivation.shape != competition.features.shape:
        raise ValueError(
            f"preactivation must be {list(competition.features.shape)} as the features that competed; "
            f"got {list(preactivation.shape)}"
        )
    require_shape("input_sq_norm", input_sq_norm, tuple(preactivation.shape[:2]))
    with full_precision(preactivation):
        dtype = competition.features.dtype
        preactivation, heads, input_sq_norm = preactivation.to(dtype), heads.to(dtype), input_sq_norm.to(dtype)
        with torch.no_grad():
            at_features = torch.einsum("blk,lkd->bld", competition.errors, heads.prediction_weight)
            g = heads.backward(at_features, preactivation)  # gradient at h, [B, L, d]
        once = 0.5 * (input_sq_norm + input_sq_norm.detach())  # value |x|^2, gradient x instead of 2 x
        return heads.features(preactivation - step * g * (once + 1.0).unsqueeze(-1))


def _mean_class_direction(rounds: Tensor, errors: Tensor, features: Tensor, feature_gram: Tensor) -> Tensor:
    """Sum over rounds of mean over classes of D_j / |D_j|, D_j = - sum_m lambda_m err_mj z_m: [B, d].

    Every D_j is a combination of three features, so its norm needs only their Gram matrix.
    """
    parts = rounds.unsqueeze(-1) * errors.unsqueeze(1)  # lambda_m err_mj, [B, 2, L, k]
    sq_norm = (parts * (feature_gram.unsqueeze(1) @ parts)).sum(2)  # |D_j|^2, [B, 2, k]
    norm = sq_norm.clamp_min(0.0).sqrt().clamp_min(_NORM_FLOOR)
    share = (parts / norm.unsqueeze(2)).mean(3).sum(1)  # [B, L]
    return -(share.unsqueeze(1) @ features).squeeze(1)


def _mean_class_bias_direction(rounds: Tensor, errors: Tensor) -> Tensor:
    """The same for the biases: a class has one bias, so normalising leaves its sign: [B]."""
    direction = -(rounds @ errors)  # [B, 2, k]
    return (direction / direction.abs().clamp_min(_NORM_FLOOR)).mean(2).sum(1)
