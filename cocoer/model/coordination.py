"""Competition and coordination of the levels (supplement, Algorithm 1), in closed form and for all persons at once.

Pure functions of features, head parameters and pseudo label: nothing is written into a module, no autograd call, no loop over
persons, nothing of the size of a weight matrix is built per person. Why that is possible (design section 3):

- for one person the gradient of the prediction layer is an outer product, err_m z_m', so the Gram matrix of the three
  gradients is (Err Err') * (Z Z') elementwise, 3 x 3;
- delta = - sum_m c_m err_m z_m' has rank 3 and is only ever applied to vectors, through Err and Z;
- the update of the mapping has rank 1, so it moves the pre-activation h_m by - step * v_m * (|x_m|^2 + 1).

Everything is differentiable: through err, z, v and, on the active face of the simplex, lambda; not through the pseudo label.
It runs in float32 (float64 stays float64) whatever autocast says: bfloat16 cannot hold the quadratic program.

Letters: B persons, L = 3 levels in `names.LEVELS` order, d feature size, k classes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from cocoer.model.losses import error_per_person, loss_per_person
from cocoer.model.simplex_qp import solve_simplex_qp
from cocoer.names import LEVELS

UpdateType = Literal["one", "two", "none"]
StepRule = Literal["relative", "raw"]

NUM_LEVELS = len(LEVELS)


@dataclass(frozen=True)
class HeadParameters:
    """What the levels' heads share with the workspace: norm and prediction layer of z = LayerNorm(GELU(h)), l = P z + p.

    prediction_weight: P, [L, k, d].    prediction_bias: p, [L, k].
    norm_weight, norm_bias: LayerNorm scale and shift, [L, d].    norm_eps: added to its variance.
    """

    prediction_weight: Tensor
    prediction_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raises ValueError where the four tensors do not fit together."""
        if self.prediction_weight.ndim != 3 or self.prediction_weight.shape[0] != NUM_LEVELS:
            raise ValueError(
                f"prediction_weight must be [{NUM_LEVELS}, k, d]; got {tuple(self.prediction_weight.shape)}"
            )
        levels, num_classes, size = self.prediction_weight.shape
        require_shape("prediction_bias", self.prediction_bias, (levels, num_classes))
        require_shape("norm_weight", self.norm_weight, (levels, size))
        require_shape("norm_bias", self.norm_bias, (levels, size))

    def to(self, dtype: torch.dtype) -> HeadParameters:
        """The same parameters (same gradient) in another precision."""
        return HeadParameters(
            self.prediction_weight.to(dtype),
            self.prediction_bias.to(dtype),
            self.norm_weight.to(dtype),
            self.norm_bias.to(dtype),
            self.norm_eps,
        )

    def logits(self, features: Tensor) -> Tensor:
        """Level logits l_m = P_m z_m + p_m: features [B, L, d] -> [B, L, k]."""
        return torch.einsum("lkd,bld->blk", self.prediction_weight, features) + self.prediction_bias

    def features(self, preactivation: Tensor) -> Tensor:
        """Level features z_m = LayerNorm(GELU(h_m)): [B, L, d] -> [B, L, d]."""
        normed = F.layer_norm(F.gelu(preactivation), preactivation.shape[-1:], eps=self.norm_eps)
        return normed * self.norm_weight + self.norm_bias

    def backward(self, error: Tensor, preactivation: Tensor) -> Tensor:
        """Gradient at h_m of a loss whose gradient at z_m is given: back through LayerNorm and (erf) GELU, analytically.

        error: [B, L, d], the gradient at z.    preactivation: h, [B, L, d].    Returns [B, L, d].
        """
        active = F.gelu(preactivation)
        centred = active - active.mean(-1, keepdim=True)
        inverse_std = (centred.square().mean(-1, keepdim=True) + self.norm_eps).rsqrt()
        normed = centred * inverse_std
        scaled = error * self.norm_weight
        mean_scaled = scaled.mean(-1, keepdim=True)
        at_active = inverse_std * (scaled - mean_scaled - normed * (scaled * normed).mean(-1, keepdim=True))
        return at_active * _gelu_slope(preactivation)


class MappingStep(Protocol):
    """One gradient step on the weights of the levels' mappings where these are networks (`mappings.NetworkStep`)."""

    def updated(self, slope: Tensor, step: float) -> Tensor:
        """Pre-activation h after the step: gradient v at h [B, L, d] -> [B, L, d]."""

    def direction(self, slope: Tensor) -> Tensor:
        """J J'v, against which h moves at first: gradient v at h [B, L, d] -> [B, L, d]."""


@dataclass(frozen=True)
class Competition:
    """How the levels of every person competed.

    features: z, [B, L, d], and errors: err = dL_hier/dlogits, [B, L, k]: the factors of the gradients.
    losses: L_hier of each level, [B, L].
    weights: lambda of both rounds, [B, 2, L]; a level that has left has 0.
    coefficients: c, the lambdas of both rounds added up, [B, L].
    exclusion: level indices in the order of leaving, survivor last, [B, L] int64; -1 for a person whose losses are not finite.
    delta_sq_norm: |delta|^2, [B].
    biases: whether the prediction layer's biases are part of theta^l (then the gradient of a level is err (z, 1)').
    """

    features: Tensor
    errors: Tensor
    losses: Tensor
    weights: Tensor
    coefficients: Tensor
    exclusion: Tensor
    delta_sq_norm: Tensor
    biases: bool

    def delta(self) -> Tensor:
        """The direction itself, [B, k, d] (with biases [B, k, d + 1], bias last): for looking at, the model never needs it."""
        features = F.pad(self.features, (0, 1), value=1.0) if self.biases else self.features
        return -torch.einsum("bl,blk,bld->bkd", self.coefficients, self.errors, features)

    def penalty(self, kind: Literal["mean", "sum"]) -> Tensor:
        """|delta|^2 as the mean or the sum over its entries (k * d, and k more with biases), per person: [B]."""
        if kind not in ("mean", "sum"):
            raise ValueError(f"unknown penalty {kind!r}; the choices are mean, sum")
        num_entries = self.errors.shape[-1] * (self.features.shape[-1] + int(self.biases))
        return self.delta_sq_norm / num_entries if kind == "mean" else self.delta_sq_norm


def compete(
    features: Tensor,
    heads: HeadParameters,
    pseudo_label: Tensor,
    weights: Tensor | None = None,
    *,
    multi_label: bool,
    biases: bool = False,
) -> Competition:
    """Let the levels of every person compete against its pseudo label (Algorithm 1, the loop over Z).

    features: z, [B, L, d].    pseudo_label: [B, k], 0 or 1 (single-label: one-hot); no gradient flows into it.
    weights: class weights of L_hier, [B, k] (see `losses.competition_weights`), or None for 1.
    biases: count the biases of the prediction layer as parameters of theta^l.
    In each of the two rounds lambda solves the simplex program over the levels that remain, delta moves by - G' lambda, and
    the level with the largest loss leaves; of equal losses the first level leaves.
    A person with NaN or infinity gets NaN weights and exclusion -1; `simplex_qp.require_finite` makes an error of it.
    Raises ValueError for wrong shapes.
    """
    check_level_shapes(features, heads, pseudo_label, weights)
    with full_precision(features):
        dtype = working_dtype(features)
        features, heads, label = features.to(dtype), heads.to(dtype), pseudo_label.detach().to(dtype).unsqueeze(1)
        weights = None if weights is None else weights.detach().to(dtype).unsqueeze(1)  # [B, 1, k]
        logits = heads.logits(features)  # [B, L, k]
        losses = loss_per_person(logits, label, weights, multi_label=multi_label)  # [B, L]
        errors = error_per_person(logits, label, weights, multi_label=multi_label)  # [B, L, k]
        gram = _products(errors) * (_products(features) + float(biases))  # [B, L, L]

        exclusion = exclusion_sequence(losses)
        remaining = torch.arange(NUM_LEVELS, device=losses.device) != exclusion[:, :1]  # [B, L]
        first = solve_simplex_qp(gram, losses)
        second = solve_simplex_qp(gram, losses, remaining)
        coefficients = first + second
        delta_sq_norm = (coefficients * (gram * coefficients.unsqueeze(1)).sum(-1)).sum(-1).clamp_min(0.0)
    rounds = torch.stack((first, second), dim=1)
    return Competition(features, errors, losses, rounds, coefficients, exclusion, delta_sq_norm, biases)


def without_direction(competition: Competition) -> Competition:
    """Ablation without competition: the same losses, but delta is 0 and nobody's share of it is reported.

    Coordination then takes every mapping's step through its own, unchanged prediction layer.
    """
    nothing = torch.zeros_like(competition.coefficients)
    return replace(
        competition,
        weights=torch.zeros_like(competition.weights),
        coefficients=nothing,
        delta_sq_norm=torch.zeros_like(competition.delta_sq_norm),
    )


def exclusion_sequence(losses: Tensor) -> Tensor:
    """Order in which levels leave, survivor last: losses [B, L] -> level indices [B, L], int64, no gradient.

    The largest loss leaves first; of equal losses the first level. A person with a non-finite loss gets -1 throughout:
    nobody is chosen on such numbers.
    """
    losses = losses.detach()
    finite = torch.isfinite(losses).all(-1, keepdim=True)
    levels = torch.arange(NUM_LEVELS, device=losses.device)
    first = losses.argmax(-1, keepdim=True)
    second = torch.where(levels == first, -torch.inf, losses).argmax(-1, keepdim=True)
    survivor = levels.sum() - first - second
    return torch.where(finite, torch.cat((first, second, survivor), dim=-1), -1)


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
    closeness = _products(features) + float(competition.biases)  # z_j'z_m, [B, L(j), L(m)]
    mixed = closeness * coefficients.unsqueeze(1)  # c_m z_j'z_m
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


def _products(rows: Tensor) -> Tensor:
    """Inner products of a person's rows: [B, L, n] -> [B, L, L]."""
    return rows @ rows.transpose(-1, -2)


def _gelu_slope(value: Tensor) -> Tensor:
    """Derivative of the exact GELU: Phi(x) + x phi(x)."""
    cdf = 0.5 * (1.0 + torch.erf(value * 2.0**-0.5))
    density = torch.exp(-0.5 * value.square()) * (2.0 * torch.pi) ** -0.5
    return cdf + value * density


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Context that switches autocast off where it is on, and does nothing (nothing to trace either) where it is not."""
    device = tensor.device.type
    on = device != "meta" and torch.is_autocast_enabled(device)  # meta tensors have shapes only, and no autocast
    return torch.autocast(device, enabled=False) if on else nullcontext()


def _check_options(update: str, step_rule: str) -> None:
    if update not in ("one", "two", "none"):
        raise ValueError(f"unknown update {update!r}; the choices are one, two, none")
    if step_rule not in ("relative", "raw"):
        raise ValueError(f"unknown step_rule {step_rule!r}; the choices are relative, raw")


def check_level_shapes(rows: Tensor, heads: HeadParameters, pseudo_label: Tensor, weights: Tensor | None) -> None:
    """ValueError unless rows are [B, L, d] and pseudo_label and weights [B, k], as the heads want them."""
    _, num_classes, size = heads.prediction_weight.shape
    if rows.ndim != 3 or rows.shape[1:] != (NUM_LEVELS, size):
        raise ValueError(f"level features must be [B, {NUM_LEVELS}, {size}] to fit the heads; got {tuple(rows.shape)}")
    require_shape("pseudo_label", pseudo_label, (rows.shape[0], num_classes))
    if weights is not None:
        require_shape("weights", weights, (rows.shape[0], num_classes))


def require_shape(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    """ValueError naming the tensor, the wanted and the actual shape, unless they agree."""
    if tuple(tensor.shape) != wanted:
        raise ValueError(f"{name} must be {list(wanted)}; got {list(tensor.shape)}")
