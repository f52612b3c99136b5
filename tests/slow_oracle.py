"""Algorithm 1 the slow and obvious way: one person at a time, autograd, deep copies of modules, brute force over faces.

What `cocoer.model.coordination` and `cocoer.model.release.coordination` do in closed form is done here by hand, so
that the tests can compare them. Shares no line with them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.model.competition import PaperCompetition

PersonLoss = Callable[[Tensor], Tensor]  # logits [k] -> loss


class SlowHead(nn.Module):
    """One level's head: h = A x + a, z = LayerNorm(GELU(h)), l = P z + p."""

    def __init__(self, input_size: int, feature_size: int, num_classes: int) -> None:
        super().__init__()
        self.mapping = nn.Linear(input_size, feature_size)
        self.activation = nn.GELU()
        self.norm = nn.LayerNorm(feature_size)
        self.prediction = nn.Linear(feature_size, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.norm(self.activation(self.mapping(x)))

    def forward(self, x: Tensor) -> Tensor:
        return self.prediction(self.features(x))


@dataclass
class SlowResult:
    losses: list[float]
    rounds: list[
        list[float]
    ]  # lambda per round and level (release: first those of the weights, then those of the biases)
    exclusion: list[int]
    delta: Tensor  # [k, d], with biases [k, d + 1]
    refined: Tensor  # [L, d]


def person_loss(
    label: Tensor, rule: str, counts: Tensor, negative_weight: float | None, multi_label: bool
) -> PersonLoss:
    """L_hier of one person, class by class."""
    if not multi_label:
        return lambda logits: F.cross_entropy(logits[None], label.argmax()[None])
    weights = []
    for j, positive in enumerate(label.tolist()):
        if rule == "dynamic":  # the person is a batch of one
            as_positive, as_negative = 1 / math.log(1.2 + 1), 1e-4
        elif rule == "static":
            as_positive = as_negative = 1 / math.log(1.2 + counts[j].item())
        else:
            as_positive = as_negative = 1 / len(label)
        if negative_weight is not None:
            as_negative = negative_weight * as_positive
        weights.append(as_positive if positive else as_negative)
    weight = torch.tensor(weights, dtype=label.dtype)
    return lambda logits: F.binary_cross_entropy_with_logits(logits, label, weight, reduction="sum")


def simplex_by_faces(gram: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """Best admissible stationary point over all faces, each by a linear solve of its optimality system."""
    best, lowest = np.zeros(len(losses)), np.inf
    for size in range(1, len(losses) + 1):
        for face in map(list, combinations(range(len(losses)), size)):
            system = np.zeros((size + 1, size + 1))
            system[:size, :size] = gram[np.ix_(face, face)]
            system[:size, size] = system[size, :size] = 1
            try:
                point = np.linalg.solve(system, np.append(losses[face], 1.0))[:size]
            except np.linalg.LinAlgError:
                continue
            weights = np.zeros(len(losses))
            weights[face] = point
            value = 0.5 * weights @ gram @ weights - losses @ weights
            if (point >= 0).all() and value < lowest:
                best, lowest = weights, value
    return best


def prediction_gradient(head: SlowHead, x: Tensor, loss: PersonLoss, biases: bool) -> Tensor:
    """Gradient of the person's loss with respect to the prediction layer: [k, d], with biases [k, d + 1]."""
    parameters = [head.prediction.weight] + ([head.prediction.bias] if biases else [])
    gradients = torch.autograd.grad(loss(head(x)), parameters)
    return torch.cat((gradients[0], gradients[1][:, None]), dim=1) if biases else gradients[0]


def compete_one(
    heads: list[SlowHead], x: Tensor, loss: PersonLoss, biases: bool
) -> tuple[list[float], list[list[float]], list[int], Tensor]:
    """Algorithm 1, the loop over Z for one person; x is [L, n]."""
    losses = [loss(head(x[m])).item() for m, head in enumerate(heads)]
    rows = [prediction_gradient(head, x[m], loss, biases) for m, head in enumerate(heads)]
    delta, rounds, exclusion, remaining = torch.zeros_like(rows[0]), [], [], [0, 1, 2]
    while len(remaining) > 1:
        matrix = torch.stack([rows[m].flatten() for m in remaining]).numpy()
        weights = simplex_by_faces(matrix @ matrix.T, np.array([losses[m] for m in remaining]))
        rounds.append([float(weights[remaining.index(m)]) if m in remaining else 0.0 for m in range(3)])
        for share, m in zip(weights, remaining, strict=True):
            delta = delta - float(share) * rows[m]
        worst = max(remaining, key=lambda m: losses[m])
        exclusion.append(worst)
        remaining.remove(worst)
    return losses, rounds, exclusion + remaining, delta


def refine_level(head: SlowHead, x: Tensor, delta: Tensor, loss: PersonLoss, step_rule: str, step: float) -> Tensor:
    """One level after its update: a deep copy gets theta + step * delta, then A and a one gradient step through it."""
    updated = copy.deepcopy(head)
    weight, bias = updated.prediction.weight, updated.prediction.bias
    has_bias = delta.shape[1] > weight.shape[1]
    scale = step
    if step_rule == "relative":
        size = math.sqrt(weight.square().sum().item() + (bias.square().sum().item() if has_bias else 0.0))
        scale = step * size / delta.norm().item()
    with torch.no_grad():
        weight += scale * delta[:, : weight.shape[1]]
        if has_bias:
            bias += scale * delta[:, -1]
    mapping = updated.mapping
    grad_weight, grad_bias = torch.autograd.grad(loss(updated(x)), (mapping.weight, mapping.bias))
    with torch.no_grad():
        if step_rule == "raw":
            mapping.weight -= step * grad_weight
            mapping.bias -= step * grad_bias
            return updated.features(x)
        before = mapping(x)  # the gradient of a is the gradient at h
        after = before - step * before.norm() * grad_bias / grad_bias.norm()
        return updated.norm(updated.activation(after))


def paper_person(
    heads: list[SlowHead], x: Tensor, loss: PersonLoss, *, biases: bool, update: str, step_rule: str, step: float
) -> SlowResult:
    """Competition and coordination of one person, x [L, n] being the (activated) input of the mappings."""
    losses, rounds, exclusion, delta = compete_one(heads, x, loss, biases)
    changed = {"one": exclusion, "two": exclusion[:2], "none": []}[update]
    refined = [
        refine_level(head, x[m], delta, loss, step_rule, step) if m in changed else head.features(x[m]).detach()
        for m, head in enumerate(heads)
    ]
    return SlowResult(losses, rounds, exclusion, delta, torch.stack(refined))


def release_person(heads: list[SlowHead], x: Tensor, loss: PersonLoss, step: float) -> tuple[SlowResult, float]:
    """The published rule for one person: separate programs for weights and biases, directions normalised per class and
    averaged, a plain gradient step on the mapping. Returns the result (delta: the weight direction [d]) and the distance."""
    losses = [loss(head(x[m])).item() for m, head in enumerate(heads)]
    gradients = [
        torch.autograd.grad(loss(head(x[m])), (head.prediction.weight, head.prediction.bias))
        for m, head in enumerate(heads)
    ]
    totals = []
    exclusion: list[int] = []
    rounds: list[list[float]] = []
    for part in (0, 1):
        rows = [g[part].reshape(g[part].shape[0], -1) for g in gradients]  # [k, d] and [k, 1]
        remaining, exclusion, total = [0, 1, 2], [], torch.zeros(rows[0].shape[1], dtype=x.dtype)
        while len(remaining) > 1:
            matrix = torch.stack([rows[m].flatten() for m in remaining]).numpy()
            weights = simplex_by_faces(matrix @ matrix.T, np.array([losses[m] for m in remaining]))
            rounds.append([float(weights[remaining.index(m)]) if m in remaining else 0.0 for m in range(3)])
            direction = -sum(float(share) * rows[m] for share, m in zip(weights, remaining, strict=True))
            total = total + F.normalize(direction, dim=1).mean(0)
            worst = max(remaining, key=lambda m: losses[m])
            exclusion.append(worst)
            remaining.remove(worst)
        exclusion += remaining
        totals.append(total)
    refined = []
    for m, head in enumerate(heads):
        updated = copy.deepcopy(head)
        mapping = updated.mapping
        grad_weight, grad_bias = torch.autograd.grad(loss(updated(x[m])), (mapping.weight, mapping.bias))
        with torch.no_grad():
            mapping.weight -= step * grad_weight
            mapping.bias -= step * grad_bias
            refined.append(updated.features(x[m]))
    distance = totals[0].norm().item() + totals[1].norm().item()
    return SlowResult(losses, rounds, exclusion, totals[0], torch.stack(refined)), distance


def kkt_residual(gram: Tensor, losses: Tensor, weights: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far weights are from optimal: 0 exactly where the Karush-Kuhn-Tucker conditions hold.

    gram [..., q, q], losses [..., q], weights [..., q], mask as in `solve_simplex_qp`; returns [...].
    The largest of: the duality gap w'g - min(g) with g = gram w - losses, relative to the largest entry of |gram| and the
    spread of the losses; the negative part of the weights; |sum(w) - 1|; any weight on a level that does not take part.
    The gap bounds how far the objective is above its minimum. NaN where the problem or the weights hold NaN.
    """
    present = torch.ones_like(losses, dtype=torch.bool) if mask is None else mask
    pair = present.unsqueeze(-1) & present.unsqueeze(-2)
    gram = torch.where(pair, 0.5 * gram + 0.5 * gram.transpose(-1, -2), 0.0)
    top = torch.where(present, losses, -torch.inf).amax(-1, keepdim=True)
    losses = torch.where(present, losses - top, 0.0)
    size = torch.maximum(gram.abs().amax((-1, -2)), losses.abs().amax(-1))
    size = torch.where(size > 0, size, 1.0).unsqueeze(-1)
    gradient = ((gram * weights.unsqueeze(-2)).sum(-1) - losses) / size
    lowest = torch.where(present, gradient, torch.inf).amin(-1, keepdim=True)
    gap = torch.where(present, weights * (gradient - lowest), 0.0).sum(-1)
    outside = torch.where(present, (-weights).clamp_min(0.0), weights.abs()).amax(-1)
    off_simplex = (weights.sum(-1) - present.any(-1).to(weights.dtype)).abs()
    return torch.stack((gap, outside, off_simplex), dim=-1).amax(-1)


def delta_of(competition: PaperCompetition) -> Tensor:
    """The direction itself, [B, k, d] (with biases [B, k, d + 1], bias last); the model only ever applies it to vectors."""
    features = F.pad(competition.features, (0, 1), value=1.0) if competition.biases else competition.features
    return -torch.einsum("bl,blk,bld->bkd", competition.coefficients, competition.errors, features)
