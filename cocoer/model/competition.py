"""Competition of the levels against the pseudo label (supplement, section 1 and Algorithm 1), for all persons at once.

For one person the gradient of the prediction layer is an outer product, err_m z_m', so the Gram matrix of the three gradients
is (Err Err') * (Z Z') elementwise, 3 x 3, and delta = - sum_m c_m err_m z_m' has rank 3: nothing of the size of a weight matrix
is built per person. Everything is differentiable: through err, z and, on the active face of the simplex, lambda; not through the
pseudo label. It runs in float32 (float64 stays float64) whatever autocast says: bfloat16 cannot hold the quadratic program.

Letters: B persons, L = 3 levels in `names.LEVELS` order, d feature size, k classes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from cocoer.model.level_head import NUM_LEVELS, HeadParameters, check_level_shapes
from cocoer.model.losses import error_per_person, loss_per_person
from cocoer.model.simplex_qp import solve_simplex_qp


class Competition(Protocol):
    """What every rule of competition says of B persons; training, inference and reports read nothing else.

    losses: L_hier of each level, [B, L].
    weights: lambda of both rounds, [B, 2, L]; a level that has left has 0.
    exclusion: level indices in the order of leaving, survivor last, [B, L] int64; -1 for a person whose losses are not finite.
    distance: length of the direction, [B], no gradient.
    """

    @property
    def losses(self) -> Tensor: ...
    @property
    def weights(self) -> Tensor: ...
    @property
    def exclusion(self) -> Tensor: ...
    @property
    def distance(self) -> Tensor: ...

    def penalty(self, kind: Literal["mean", "sum"]) -> Tensor | None:
        """What the training loss adds for each person, [B]; None for a rule whose direction carries no gradient."""


class Ruling(Protocol):
    """What a rule decides about who leaves: losses [B, L] and exclusion [B, L], as in `Competition`."""

    @property
    def losses(self) -> Tensor: ...
    @property
    def exclusion(self) -> Tensor: ...


@dataclass(frozen=True)
class PaperCompetition:
    """How the levels of every person competed by Algorithm 1; the fields of `Competition`, and what coordination needs.

    label: the pseudo label, [B, k], class_weights: [B, k] or None, multi_label: what the levels were held against.
    features: z, [B, L, d], and errors: err = dL_hier/dlogits, [B, L, k]: the factors of the gradients.
    coefficients: c, the lambdas of both rounds added up, [B, L].    delta_sq_norm: |delta|^2, [B].
    biases: whether the prediction layer's biases are part of theta^l (then the gradient of a level is err (z, 1)').
    """

    label: Tensor
    class_weights: Tensor | None
    multi_label: bool
    features: Tensor
    errors: Tensor
    losses: Tensor
    weights: Tensor
    coefficients: Tensor
    exclusion: Tensor
    delta_sq_norm: Tensor
    biases: bool

    @property
    def distance(self) -> Tensor:
        """|delta|, [B], no gradient."""
        return self.delta_sq_norm.detach().sqrt()

    def errors_at(self, logits: Tensor) -> Tensor:
        """dL_hier/dlogits at other logits [B, L, k] of the same persons: [B, L, k]."""
        weights = None if self.class_weights is None else self.class_weights.unsqueeze(1)
        return error_per_person(logits, self.label.unsqueeze(1), weights, multi_label=self.multi_label)

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
    ruling: Ruling | None = None,
    order: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> PaperCompetition:
    """Let the levels of every person compete against its pseudo label (Algorithm 1, the loop over Z).

    features: z, [B, L, d].    pseudo_label: [B, k], 0 or 1 (single-label: one-hot); no gradient flows into it.
    weights: class weights of L_hier, [B, k] (see `losses.competition_weights`), or None for 1.
    biases: count the biases of the prediction layer as parameters of theta^l.
    ruling: another rule's losses and exclusion sequence, in place of L_hier's; the gradients stay those of L_hier.
    order: another rule of who leaves: (losses [B, L], logits [B, L, k]) -> level indices [B, L], survivor last.
    In each of the two rounds lambda solves the simplex program over the levels that remain, delta moves by - G' lambda, and
    the level with the largest loss leaves; of equal losses the first level leaves.
    A person with NaN or infinity gets NaN weights and exclusion -1; `simplex_qp.require_finite` makes an error of it.
    Raises ValueError for wrong shapes.
    """
    with full_precision(features):
        held = hold(features, heads, pseudo_label, weights, multi_label=multi_label)
        gram = products_of(held.errors) * (products_of(held.features) + float(biases))  # [B, L, L]
        losses = held.losses if ruling is None else ruling.losses.to(held.losses.dtype)
        if ruling is not None:
            exclusion = ruling.exclusion
        else:
            exclusion = exclusion_sequence(losses) if order is None else order(losses, held.logits)
        rounds = both_rounds(gram, losses, exclusion)  # [B, 2, L]
        coefficients = rounds[:, 0] + rounds[:, 1]
        delta_sq_norm = (coefficients * (gram * coefficients.unsqueeze(1)).sum(-1)).sum(1).clamp_min(0.0)
    return PaperCompetition(
        held.label, held.class_weights, multi_label, held.features, held.errors, losses, rounds, coefficients, exclusion,
        delta_sq_norm, biases,
    )  # fmt: skip


class Held(NamedTuple):
    """The levels of B persons held against their pseudo label, float32 (or float64); label and weights without gradient.

    features: [B, L, d]. label: [B, k]. class_weights: [B, k] or None. logits: [B, L, k]. losses: L_hier, [B, L].
    errors: dL_hier/dlogits, [B, L, k].
    """

    features: Tensor
    label: Tensor
    class_weights: Tensor | None
    logits: Tensor
    losses: Tensor
    errors: Tensor


def hold(
    features: Tensor, heads: HeadParameters, pseudo_label: Tensor, weights: Tensor | None, *, multi_label: bool
) -> Held:
    """Losses and errors of every level against the pseudo label; arguments and errors as in `compete`."""
    check_level_shapes(features, heads, pseudo_label, weights)
    dtype = working_dtype(features)
    features, heads, label = features.to(dtype), heads.to(dtype), pseudo_label.detach().to(dtype)
    weights = None if weights is None else weights.detach().to(dtype)
    logits = heads.logits(features)  # [B, L, k]
    against = label.unsqueeze(1), None if weights is None else weights.unsqueeze(1)  # [B, 1, k]
    losses = loss_per_person(logits, *against, multi_label=multi_label)  # [B, L]
    errors = error_per_person(logits, *against, multi_label=multi_label)  # [B, L, k]
    return Held(features, label, weights, logits, losses, errors)


def both_rounds(gram: Tensor, losses: Tensor, exclusion: Tensor) -> Tensor:
    """Simplex weights with all levels, then without the first excluded one: gram [B, L, L], [B, L], [B, L] -> [B, 2, L]."""
    remaining = torch.arange(NUM_LEVELS, device=losses.device) != exclusion[:, :1]  # [B, L]
    return torch.stack((solve_simplex_qp(gram, losses), solve_simplex_qp(gram, losses, remaining)), dim=1)


def without_direction(competition: PaperCompetition) -> PaperCompetition:
    """Ablation without competition: the same losses, but delta is 0 and all simplex weights are reported as 0.

    Coordination then takes every mapping's step through its own, unchanged prediction layer.
    """
    return replace(
        competition,
        weights=torch.zeros_like(competition.weights),
        coefficients=torch.zeros_like(competition.coefficients),
        delta_sq_norm=torch.zeros_like(competition.delta_sq_norm),
    )


def exclusion_sequence(losses: Tensor, equal: float = 0.0) -> Tensor:
    """Order in which levels leave, survivor last: losses [B, L] -> level indices [B, L], int64, no gradient.

    The largest loss leaves first; of equal losses the first level. equal: losses that differ by no more count as equal.
    A person with a non-finite loss gets -1 for all levels, because such losses order nothing.
    """
    losses = losses.detach()
    finite = torch.isfinite(losses).all(1, keepdim=True)
    levels = torch.arange(NUM_LEVELS, device=losses.device)
    first = _first_largest(losses, equal)
    second = _first_largest(torch.where(levels == first, -torch.inf, losses), equal)
    survivor = levels.sum() - first - second
    return torch.where(finite, torch.cat((first, second, survivor), dim=1), -1)


def _first_largest(losses: Tensor, equal: float) -> Tensor:
    """The first level whose loss is the largest, or not smaller by more than `equal`: [B, L] -> [B, 1]."""
    return (losses >= losses.amax(1, keepdim=True) - equal).to(torch.uint8).argmax(1, keepdim=True)


def products_of(rows: Tensor) -> Tensor:
    """Inner products of a person's rows: [B, L, n] -> [B, L, L]."""
    return rows @ rows.transpose(-1, -2)


def working_dtype(tensor: Tensor) -> torch.dtype:
    """float64 for float64, float32 for everything else."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def full_precision(tensor: Tensor) -> AbstractContextManager[object]:
    """Context that switches autocast off where it is on, and does nothing (nothing to trace either) where it is not."""
    device = tensor.device.type
    on = device != "meta" and torch.is_autocast_enabled(device)  # meta tensors have shapes only, and no autocast
    return torch.autocast(device, enabled=False) if on else nullcontext()
