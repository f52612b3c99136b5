"""Coordination of the levels (supplement, Algorithm 1, second half), in closed form and for all persons at once.

Pure functions of features, head parameters, competition and pseudo label: nothing is written into a module, no autograd call, no
loop over persons. delta is only ever applied to vectors, through Err and Z; the update of the mapping has rank 1, so it moves the
pre-activation h_m by - step * v_m * (|x_m|^2 + 1). Everything is differentiable: through err, z, v and lambda.

Letters: B persons, L = 3 levels in `names.LEVELS` order, d feature size, k classes.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

from cocoer.model.competition import Competition, full_precision, products_of
from cocoer.model.level_head import NUM_LEVELS, HeadParameters, check_level_shapes, require_shape
from cocoer.model.losses import error_per_person

UpdateType = Literal["one", "two", "none"]
StepRule = Literal["relative", "raw"]


class MappingStep(Protocol):
    """One gradient step on the weights of the levels' mappings where these are networks (`mappings.NetworkStep`)."""

    def updated(self, slope: Tensor, step: float) -> Tensor:
        """Pre-activation h after the step: gradient v at h [B, L, d] -> [B, L, d]."""

    def direction(self, slope: Tensor) -> Tensor:
        """J J'v, against which h moves at first: gradient v at h [B, L, d] -> [B, L, d]."""


def coordinate(
    preactivation: Tensor,
    input_sq_norm: Tensor,
    heads: HeadParameters,
    competition: Competition,
    pseudo_label: Tensor,
    weights: Tensor | None = None,
    *,
    multi_label: bool,
    update: UpdateType = "one",
    step_rule: StepRule = "relative",
    step: float = 0.1,
    mapping: MappingStep | None = None,
) -> Tensor:
    """Refined level features after the update of prediction layer and mapping (Algorithm 1, second half).

    preactivation: h = A x + a, [B, L, d].    input_sq_norm: |x|^2 of the mapping's input, [B, L] (read by `raw` alone).
    pseudo_label, weights, multi_label: as handed to `compete`.
    update: `one` all levels; `two` only the excluded levels; `none` nobody.
    step_rule `raw`: Algorithm 1 to the letter, theta + step * delta, A - step * v x', a - step * v.
    step_rule `relative`: the prediction layer moves by step * its Frobenius norm along delta, the pre-activation by
    step * |h| against v; a level with zero delta or zero v stays where it is.
    mapping: None for a Linear, whose step is worked out here; networks bring their own, and then `raw` takes their exact
    step and `relative` moves h against J J'v, the way that a small step takes it (for a Linear the two directions agree).
    Returns z^, [B, L, d]. Raises ValueError for wrong shapes or an unknown option.
    """
    _check_options(update, step_rule)
    check_level_shapes(preactivation, heads, pseudo_label, weights)
    require_shape("input_sq_norm", input_sq_norm, tuple(preactivation.shape[:2]))
    if update == "none":
        return competition.features
    with full_precision(preactivation):
        dtype = competition.features.dtype
        preactivation, heads, label = (
            preactivation.to(dtype),
            heads.to(dtype),
            pseudo_label.detach().to(dtype).unsqueeze(1),
        )
        weights = None if weights is None else weights.detach().to(dtype).unsqueeze(1)
        slope = updated_gradient(heads, competition, label, weights, multi_label, step_rule, step)  # at z, [B, L, d]
        slope = heads.backward(slope, preactivation)  # v, [B, L, d]
        if step_rule == "raw" and mapping is not None:
            moved = mapping.updated(slope, step)
        elif step_rule == "raw":
            moved = preactivation - step * slope * (input_sq_norm.to(dtype) + 1.0).unsqueeze(-1)
        else:
            length = safe_norm(preactivation.square().sum(-1, keepdim=True))
            moved = preactivation - step * length * unit(slope if mapping is None else mapping.direction(slope))
        refined = heads.features(moved)  # [B, L, d]
        if update == "one":
            return refined
        levels = torch.arange(NUM_LEVELS, device=refined.device)
        survives = (levels == competition.exclusion[:, -1:]).unsqueeze(-1)  # [B, L, 1]
        return torch.where(survives, competition.features, refined)


def updated_gradient(
    heads: HeadParameters,
    competition: Competition,
    label: Tensor,
    weights: Tensor | None,
    multi_label: bool,
    step_rule: StepRule,
    step: float,
) -> Tensor:
    """Gradient of L_hier at z_m through the updated prediction layer, (P_m + s delta)' e~_m: [B, L, d].

    label, weights: [B, 1, k]. s = step (`raw`), or step * |theta_m| / |delta| (`relative`; 0 where delta is 0).
    """
    errors, features, coefficients = competition.errors, competition.features, competition.coefficients
    scale = prediction_step(heads, competition, step_rule, step).unsqueeze(-1)
    feature_gram = products_of(features) + float(competition.biases)  # z_j'z_m, [B, L(j), L(m)]
    mixed = feature_gram * coefficients.unsqueeze(1)  # c_m z_j'z_m
    logits = heads.logits(features) - scale * (mixed @ errors)  # l~, [B, L, k]
    error = error_per_person(logits, label, weights, multi_label=multi_label)  # e~
    through_delta = ((error @ errors.transpose(-1, -2)) * coefficients.unsqueeze(1)) @ features
    return torch.einsum("blk,lkd->bld", error, heads.prediction_weight) - scale * through_delta


def prediction_step(heads: HeadParameters, competition: Competition, step_rule: StepRule, step: float) -> Tensor:
    """s of the updated prediction layer theta^l_m + s * delta, per person and level: [B, L]."""
    if step_rule == "raw":
        return torch.full_like(competition.losses, step)
    theta_sq_norm = heads.prediction_weight.square().sum((-1, -2))  # [L]
    if competition.biases:
        theta_sq_norm = theta_sq_norm + heads.prediction_bias.square().sum(-1)
    return step * safe_norm(theta_sq_norm) * inverse_norm(competition.delta_sq_norm).unsqueeze(-1)


def safe_norm(sq_norm: Tensor) -> Tensor:
    """Square root with gradient 0, not infinity, at 0."""
    positive = ~(sq_norm <= 0)  # NaN stays NaN
    return torch.where(positive, torch.where(positive, sq_norm, 1.0).sqrt(), 0.0)


def inverse_norm(sq_norm: Tensor) -> Tensor:
    """1 / square root, and 0 (with gradient 0) where that would be infinite: at 0 and below the normal numbers."""
    usable = ~(sq_norm < torch.finfo(sq_norm.dtype).tiny)  # NaN stays NaN
    return torch.where(usable, torch.where(usable, sq_norm, 1.0).rsqrt(), 0.0)


def unit(vector: Tensor) -> Tensor:
    """Vectors [..., d] at length 1; a zero vector stays zero and gets no gradient."""
    return vector * inverse_norm(vector.square().sum(-1, keepdim=True))


def _check_options(update: str, step_rule: str) -> None:
    if update not in ("one", "two", "none"):
        raise ValueError(f"unknown update {update!r}; the choices are one, two, none")
    if step_rule not in ("relative", "raw"):
        raise ValueError(f"unknown step_rule {step_rule!r}; the choices are relative, raw")
