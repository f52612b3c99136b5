"""The small quadratic program of the competition, solved exactly for many persons at once.

    argmin over w of  1/2 w' G w - f' w    subject to  w >= 0, sum(w) = 1

(supplement, Algorithm 1: G = Gram matrix of the level gradients, f = level losses). With at most three levels the simplex
has seven faces, so no iteration is needed: the minimum over each face has a closed form and the best face wins. This module
knows Gram matrices and losses, not emotions.

Letters: q levels (1, 2 or 3); `...` any batch shape, empty ones too.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_LEVELS = 3
_FLAT = 4.0
"""A face whose curvature is below this many rounding errors of the Gram entries is flat: its minimum lies on its border."""


def solve_simplex_qp(gram: Tensor, losses: Tensor, mask: Tensor | None = None) -> Tensor:
    """Weights on the simplex that minimise 1/2 w' gram w - losses' w, exactly, for every problem of the batch.

    gram: [..., q, q] float32 or float64, positive semi-definite (its symmetric part is used); may be singular.
    losses: [..., q], same dtype. q = 1, 2 or 3.
    mask: [..., q] bool, True where a level takes part; the others get weight 0 and their entries are not read.
        A problem in which no level takes part gets weights 0.
    Returns [..., q]. The result does not depend on batch neighbours. Equal candidates are resolved by the first face in
    the order: vertices 0, 1, 2, then edges, then the interior; so identical levels give the weight to the first.
    Gradients flow on the active face only (none at a vertex) and are always finite for finite problems of sane scale.
    A problem that holds NaN or infinity gives NaN weights, never a silent choice; `require_finite` turns that into an error.
    Raises ValueError for wrong shapes or dtypes. No data-dependent control flow: runs under torch.compile and exports.
    """
    q = _check_shapes(gram, losses, mask)
    take_part = torch.ones_like(losses, dtype=torch.bool) if mask is None else mask
    padding = MAX_LEVELS - q
    if padding:  # absent levels are levels that do not take part, so one code path serves q = 1, 2, 3
        gram, losses = F.pad(gram, (0, padding, 0, padding)), F.pad(losses, (0, padding))
        take_part = F.pad(take_part, (0, padding))
    pair = take_part.unsqueeze(-1) & take_part.unsqueeze(-2)
    gram = torch.where(pair, 0.5 * gram + 0.5 * gram.transpose(-1, -2), 0.0)  # [..., 3, 3]
    finite = (torch.isfinite(gram).all(-1) & torch.isfinite(torch.where(take_part, losses, 0.0))).all(-1, keepdim=True)
    gram, losses = _normalised(gram, losses, take_part)

    candidates, allowed = _candidates(gram, losses, take_part)  # [..., 9, 3], [..., 9]
    best = _best_candidate(gram.detach(), losses.detach(), candidates.detach(), allowed)  # [..., 1]
    # not take_along_dim: it fixes the batch size when the model is exported
    place = best.unsqueeze(-1).expand(*best.shape, MAX_LEVELS)  # [..., 1, 3]
    weights = torch.gather(candidates, -2, place).squeeze(-2)  # [..., 3]
    weights = torch.where(take_part, weights, 0.0)
    return torch.where(finite, weights, torch.nan)[..., :q]


def require_finite(**tensors: Tensor) -> None:
    """Raise ValueError naming the first tensor that holds NaN or infinity, with the first persons concerned.

    Tensors have the persons on axis 0. Kept apart from the maths because it reads values, which a compiled graph cannot.
    """
    if bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors.values()]).all()):
        return  # one question to the device instead of one per tensor
    for name, tensor in tensors.items():
        good = torch.isfinite(tensor)
        if not bool(good.all()):
            rows = (~good).reshape(tensor.shape[0], -1).any(-1).nonzero().flatten().tolist() if tensor.ndim else []
            where = f" in rows {rows[:8]}{' ...' if len(rows) > 8 else ''}" if rows else ""
            raise ValueError(
                f"{name} {tuple(tensor.shape)} must be finite; got NaN or infinity{where}. "
                "The competition does not choose a level on such numbers: check the inputs and the learning rate."
            )


def _check_shapes(gram: Tensor, losses: Tensor, mask: Tensor | None) -> int:
    """Number of levels q; ValueError where shapes or dtypes do not fit together."""
    if gram.ndim < 2 or gram.shape[-1] != gram.shape[-2] or not 1 <= gram.shape[-1] <= MAX_LEVELS:
        raise ValueError(f"gram must be [..., q, q] with q = 1, 2 or 3; got {tuple(gram.shape)}")
    if losses.shape != gram.shape[:-1]:
        raise ValueError(
            f"losses must be {tuple(gram.shape[:-1])} to fit gram {tuple(gram.shape)}; got {tuple(losses.shape)}"
        )
    if gram.dtype not in (torch.float32, torch.float64) or losses.dtype != gram.dtype:
        raise ValueError(
            f"gram and losses must both be float32 or both float64; got {gram.dtype} and {losses.dtype}. "
            "Half precision cannot hold the program: convert with .float()"
        )
    if mask is not None and (mask.shape != losses.shape or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool {tuple(losses.shape)}; got {mask.dtype} {tuple(mask.shape)}")
    return gram.shape[-1]


def _normalised(gram: Tensor, losses: Tensor, take_part: Tensor) -> tuple[Tensor, Tensor]:
    """The same program with entries of order one: adding to all losses or scaling both leaves the minimiser as it is.

    For that reason shift and scale are constants to the gradient.
    """
    top = torch.where(take_part, losses.detach(), -torch.inf).amax(-1, keepdim=True)
    losses = torch.where(take_part, losses - torch.where(torch.isfinite(top), top, 0.0), 0.0)  # <= 0
    size = torch.maximum(gram.detach().abs().amax((-1, -2)), losses.detach().abs().amax(-1))
    size = torch.where(size > 0, size, 1.0)
    return gram / size[..., None, None], losses / size[..., None]


def _candidates(gram: Tensor, losses: Tensor, take_part: Tensor) -> tuple[Tensor, Tensor]:
    """The minimiser over each face, and whether it lies inside that face: [..., 9, 3] and [..., 9].

    Three vertices, three edges, and the interior counted from each of the three levels: equal on paper, but where the Gram
    entries differ by many orders of magnitude one is more accurate than the others, and its lower objective finds it.
    Entry o of an axis of three stands for the face "seen from level o" with the other two levels in cyclic order.
    """
    eye = torch.eye(MAX_LEVELS, dtype=gram.dtype, device=gram.device)
    second, third = eye.roll(1, -1), eye.roll(2, -1)  # row o: the one at o + 1, at o + 2
    diag = gram.diagonal(dim1=-2, dim2=-1)  # [..., 3]
    opposite = torch.stack((gram[..., 1, 2], gram[..., 2, 0], gram[..., 0, 1]), dim=-1)  # entry o: the pair without o
    next_in, last_in = take_part.roll(-1, -1), take_part.roll(-2, -1)

    edge_next, edge_last, on_edge = _edge_minimum(diag, opposite, losses)
    edges = edge_next.unsqueeze(-1) * second + edge_last.unsqueeze(-1) * third
    faces = [eye.expand_as(gram), edges]
    allowed = [take_part, on_edge & next_in & last_in]
    origin, pivot, other, inside = _interior_minimum(diag, opposite, losses)
    faces.append(origin.unsqueeze(-1) * eye + pivot.unsqueeze(-1) * second + other.unsqueeze(-1) * third)
    allowed.append(inside & take_part.all(-1, keepdim=True))
    return torch.cat(faces, dim=-2), torch.cat(allowed, dim=-1)


def _best_candidate(gram: Tensor, losses: Tensor, candidates: Tensor, allowed: Tensor) -> Tensor:
    """Index of the candidate to take, [..., 1]: the lowest objective, and among those equal to rounding the smallest KKT gap.

    The objective alone is blind to a step of sqrt(eps) across the border of a face (3e-4 in float32); the gap alone is noisy
    where the Gram entries differ by many orders of magnitude.
    """
    pulled = (gram.unsqueeze(-3) * candidates.unsqueeze(-2)).sum(-1)  # [..., 9, 3]
    value = (candidates * (0.5 * pulled - losses.unsqueeze(-2))).sum(-1)
    value = torch.where(allowed, value, torch.inf)
    size = (gram.abs().unsqueeze(-3) * candidates.unsqueeze(-2)).sum(-1) + losses.abs().unsqueeze(-2)
    rounding = _FLAT * torch.finfo(gram.dtype).eps * (candidates * size).sum(-1)
    near = value <= value.amin(-1, keepdim=True) + rounding
    slope = pulled - losses.unsqueeze(-2)
    present = allowed[..., :MAX_LEVELS].unsqueeze(-2)  # a vertex is allowed where its level takes part
    lowest = torch.where(present, slope, torch.inf).amin(-1, keepdim=True)
    gap = torch.where(present, candidates * (slope - lowest), 0.0).sum(-1)
    return torch.where(near & allowed, gap, torch.inf).argmin(-1, keepdim=True)  # the first of equal ones


def _edge_minimum(diag: Tensor, opposite: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Minimum over the edge that leaves out level o: weights of levels o + 1 and o + 2, and whether it is inside the edge.

    Both weights are computed directly (not as 1 - the other), so a tiny one keeps its digits.
    """
    diag_next, diag_last = diag.roll(-1, -1), diag.roll(-2, -1)
    loss_gain = losses.roll(-1, -1) - losses.roll(-2, -1)
    pull_next = (diag_last - opposite) + loss_gain  # how steeply the objective falls from o + 2 towards o + 1
    pull_last = (diag_next - opposite) - loss_gain
    inside = (pull_next > 0) & (pull_last > 0)
    inside = inside & (pull_next + pull_last > _FLAT * torch.finfo(diag.dtype).eps * (diag_next + diag_last))
    curvature = torch.where(inside, pull_next + pull_last, 1.0)
    return torch.where(inside, pull_next, 0.0) / curvature, torch.where(inside, pull_last, 0.0) / curvature, inside


def _interior_minimum(diag: Tensor, opposite: Tensor, losses: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Minimum over the whole triangle: steps from level o (the origin) towards o + 1 (the pivot) and o + 2 (the other).

    Returns the weights of origin, pivot and other, each [..., 3], and whether all are positive; 0 where they are not.
    """
    flat = _FLAT * torch.finfo(diag.dtype).eps
    diag_p, diag_r = diag.roll(-1, -1), diag.roll(-2, -1)
    gram_op, gram_or = opposite.roll(-2, -1), opposite.roll(-1, -1)
    curve_p = diag_p + diag - 2 * gram_op  # |g_p - g_o|^2
    curve_r = diag_r + diag - 2 * gram_or
    cross = (opposite - gram_op) + (diag - gram_or)  # (g_p - g_o)'(g_r - g_o)
    pull_p = (diag - gram_op) + (losses.roll(-1, -1) - losses)
    pull_r = (diag - gram_or) + (losses.roll(-2, -1) - losses)

    steep = curve_p > flat * (diag_p + diag)
    # First find where the minimum is: what lies outside must not even divide, or 0 * infinity spoils the gradients.
    with torch.no_grad():
        pivot, other, rest = _eliminate(torch.where(steep, curve_p, 1.0), curve_r, cross, pull_p, pull_r)
        inside = steep & (rest > flat * (diag_r + diag)) & (other > 0) & (pivot > 0) & (1.0 - pivot - other > 0)
    curve_p, curve_r = torch.where(inside, curve_p, 1.0), torch.where(inside, curve_r, 1.0)
    cross, pull_p, pull_r = (torch.where(inside, part, 0.0) for part in (cross, pull_p, pull_r))
    pivot, other, _ = _eliminate(curve_p, curve_r, cross, pull_p, pull_r)
    return torch.where(inside, 1.0 - pivot - other, 0.0), pivot, other, inside


def _eliminate(
    curve_p: Tensor, curve_r: Tensor, cross: Tensor, pull_p: Tensor, pull_r: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Solve [[curve_p, cross], [cross, curve_r]] s = pull, eliminating p first: s_p, s_r, and the curvature left for r."""
    ratio = cross / curve_p
    rest = curve_r - ratio * cross
    other = (pull_r - ratio * pull_p) / torch.where(rest == 0, 1.0, rest)
    return (pull_p - cross * other) / curve_p, other, rest
