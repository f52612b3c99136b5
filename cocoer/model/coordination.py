"""Coordination of the levels (supplement, Algorithm 1, second half), in closed form and for all persons at once.

Pure functions of features, head parameters and competition: nothing is written into a module, no autograd call, no
loop over persons. delta is only ever applied to vectors, through Err and Z; the update of the mapping has rank 1, so it moves the
pre-activation h_m by - step * v_m * (|x_m|^2 + 1). Everything is differentiable: through err, z, v and lambda.

Letters: B persons, L = 3 levels in `names.LEVELS` order, d feature size, k classes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from cocoer.model.competition import PaperCompetition, full_precision, products_of
from cocoer.model.level_head import NUM_LEVELS, HeadParameters, MappingStep, require_shape

UpdateType = Literal["one", "two", "none"]
StepRule = Literal["relative", "raw"]


def coordinate(
    preactivation: Tensor,
    input_sq_norm: Tensor,
    heads: HeadParameters,
    competition: PaperCompetition,
    *,
    update: UpdateType = "one",
    step_rule: StepRule = "relative",
    step: float = 0.1,
    mapping: MappingStep | None = None,
) -> Tensor:
    """Refined level features after the update of prediction layer and mapping (Algorithm 1, second half).

    preactivation: h = A x + a, [B, L, d].    input_sq_norm: |x|^2 of the mapping's input, [B, L] (read by `raw` alone).
    update: `one` all levels; `two` only the excluded levels; `none` no level.
    step_rule `raw`: Algorithm 1 to the letter, theta + step * delta, A - step * v x', a - step * v.
    step_rule `relative`: the prediction layer moves by step * its Frobenius norm along delta, the pre-activation by
    step * |h| against v; a level with zero delta or zero v stays where it is.
    mapping: None for a Linear, whose step is worked out here; networks bring their own, and then `raw` takes their exact
    step and `relative` moves h against J J'v, the way that a small step takes it (for a Linear the two directions agree).
    Returns z^, [B, L, d]. Raises ValueError for wrong shapes or an unknown option.
    """
    _check_options(update, step_rule)
    require_shape("preactivation", preactivation, tuple(competition.features.shape))
    require_shape("input_sq_norm", input_sq_norm, tuple(preactivation.shape[:2]))
    if update == "none":
        return competition.features
    with full_precision(preactivation):
        dtype = competition.features.dtype
        preactivation, heads = preactivation.to(dtype), heads.to(dtype)
        at_z = updated_gradient(heads, competition, step_rule, step)  # [B, L, d]
        v = heads.backward(at_z, preactivation)  # gradient at h, [B, L, d]
        if step_rule == "raw" and mapping is not None:
            moved = mapping.updated(v, step)
        elif step_rule == "raw":
            moved = preactivation - step * v * (input_sq_norm.to(dtype) + 1.0).unsqueeze(-1)
        else:
            length = safe_norm(preactivation.square().sum(-1, keepdim=True))
            moved = preactivation - step * length * unit(v if mapping is None else mapping.direction(v))
        refined = heads.features(moved)  # [B, L, d]
        return refined if update == "one" else _survivor_kept(competition, competition.features, refined)


def updated_gradient(heads: HeadParameters, competition: PaperCompetition, step_rule: StepRule, step: float) -> Tensor:
    """Gradient of L_hier at z_m through the updated prediction layer, (P_m + s delta)' e~_m: [B, L, d].

    s = step (`raw`), or step * |theta_m| / |delta| (`relative`; 0 where delta is 0).
    """
    errors, features = competition.errors, competition.features
    scale = prediction_step(heads, competition, step_rule, step).unsqueeze(-1)
    feature_gram = products_of(features) + float(competition.biases)  # z_m'z_j, [B, L(m), L(j)]
    logits = heads.logits(features) - scale * _along_delta(competition, feature_gram)  # l~, [B, L, k]
    error = competition.errors_at(logits)  # e~
    through_delta = ((error @ errors.transpose(-1, -2)) * competition.coefficients.unsqueeze(1)) @ features
    return torch.einsum("blk,lkd->bld", error, heads.prediction_weight) - scale * through_delta


def coordinated_logits(
    refined: Tensor,
    heads: HeadParameters,
    competition: PaperCompetition,
    update: UpdateType,
    step_rule: StepRule,
    step: float,
) -> Tensor:
    """What each level says after the coordination: l^_m = (P_m + s delta) z^_m + p_m, [B, L, k].

    refined: z^, [B, L, d], as `coordinate` gave it with the same update, step_rule and step. A level that is not updated
    keeps its prediction layer too.
    """
    heads = heads.to(refined.dtype)
    logits = heads.logits(refined)  # [B, L, k]
    if update == "none":
        return logits
    scale = prediction_step(heads, competition, step_rule, step).unsqueeze(-1)
    feature_gram = refined @ competition.features.transpose(-1, -2) + float(competition.biases)  # z^_m'z_j
    updated = logits - scale * _along_delta(competition, feature_gram)
    return updated if update == "one" else _survivor_kept(competition, logits, updated)


def _along_delta(competition: PaperCompetition, feature_gram: Tensor) -> Tensor:
    """- delta z of features z whose products with those that competed are given, [B, L, L(j)] -> [B, L, k]."""
    return (feature_gram * competition.coefficients.unsqueeze(1)) @ competition.errors


def _survivor_kept(competition: PaperCompetition, before: Tensor, after: Tensor) -> Tensor:
    """Update type two: the level that leaves last keeps what it had; [B, L, n] and [B, L, n] -> [B, L, n]."""
    levels = torch.arange(NUM_LEVELS, device=after.device)
    survives = (levels == competition.exclusion[:, -1:]).unsqueeze(-1)  # [B, L, 1]
    return torch.where(survives, before, after)


def prediction_step(heads: HeadParameters, competition: PaperCompetition, step_rule: StepRule, step: float) -> Tensor:
    """s of the updated prediction layer theta^l_m + s * delta, per person and level: [B, L]."""
    if step_rule == "raw":
        return torch.full_like(competition.losses, step)
    theta_sq_norm = heads.prediction_weight.square().sum((-1, -2))  # [L]
    if competition.biases:
        theta_sq_norm = theta_sq_norm + heads.prediction_bias.square().sum(1)
    return step * safe_norm(theta_sq_norm) * inverse_norm(competition.delta_sq_norm).unsqueeze(1)


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
