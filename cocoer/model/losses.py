"""Classification losses of the paper, per person, with their error (the derivative by the logits) in closed form.

EMOTIC (multi-label): binary cross-entropy over the classes, each with a weight, summed over the classes.
CAER-S (single-label): cross-entropy. See docs/method.md.
The competition needs loss and error of single persons without autograd, so both are plain functions.

Letters: B persons, k classes; `...` any leading shape, for instance [B] or [B, L].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ClassWeightRule = Literal["dynamic", "static", "mean"]

CLASS_WEIGHT_RULES: tuple[ClassWeightRule, ...] = ("dynamic", "static", "mean")

COUNT_OFFSET = 1.2
"""A class with n positives weighs 1 / ln(1.2 + n): rare classes count more."""

ABSENT_WEIGHT = 1e-4
"""`dynamic` weight of a class without any positive."""


def loss_per_person(logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, multi_label: bool) -> Tensor:
    """Loss of each person against its label.

    logits: [..., k].    targets: [..., k], 0 or 1 (single-label: one-hot), same dtype; broadcast against logits.
    weights: class weights, [k] or [..., k], or None for 1.
    Returns [...]: sum over classes of w_j BCE(logit_j, y_j); single-label: w_y times the cross-entropy.
    Raises ValueError where the shapes do not fit.
    """
    _check_shapes(logits, targets, weights)
    if multi_label:
        per_class = -F.logsigmoid(-logits) - targets * logits  # F.softplus is cut off at 20, too coarse for float64
        return (per_class if weights is None else weights * per_class).sum(-1)
    wanted = targets if weights is None else weights * targets
    return (wanted * (logits.logsumexp(-1, keepdim=True) - logits)).sum(-1)


def error_per_person(logits: Tensor, targets: Tensor, weights: Tensor | None = None, *, multi_label: bool) -> Tensor:
    """Derivative of `loss_per_person` by the logits, in closed form; same arguments, returns the shape of logits.

    Multi-label: w_j (sigmoid(logit_j) - y_j). Single-label: (sum_i w_i y_i) softmax(logits)_j - w_j y_j.
    """
    _check_shapes(logits, targets, weights)
    if multi_label:
        error = torch.sigmoid(logits) - targets
        return error if weights is None else weights * error
    wanted = targets if weights is None else weights * targets
    return wanted.sum(-1, keepdim=True) * torch.softmax(logits, -1) - wanted


def class_weights(rule: ClassWeightRule, targets: Tensor, counts: Tensor | None = None) -> Tensor:
    """Weight of every class in the multi-label training loss: [k], no gradient.

    targets: [B, k], 0 or 1: the labels of the batch (`dynamic` counts them; the other rules take only k, dtype, device).
    counts: [k], positives of each class in the training split; needed by `static`, not read otherwise.
    `dynamic`: 1 / ln(1.2 + positives in the batch), 1e-4 for a class without one. `static`: 1 / ln(1.2 + count).
    `mean`: 1 / k.
    Raises ValueError for an unknown rule, targets that are not [B, k], missing or misshapen counts.
    """
    if targets.ndim != 2:
        raise ValueError(f"targets must be [B, k]; got {tuple(targets.shape)}")
    if rule == "dynamic":
        return _weight_of_count(targets.detach().sum(0), ABSENT_WEIGHT)
    return _fixed_weights(rule, targets, counts)


def competition_weights(
    rule: ClassWeightRule, pseudo_label: Tensor, counts: Tensor | None = None, negative_weight: float | None = None
) -> Tensor:
    """Class weights of L_hier, the loss of one person inside the competition: [B, k], no gradient.

    pseudo_label: [B, k], 0 or 1. Every person is a batch of its own, so with `dynamic` its positives weigh 1 / ln(2.2) and
    its negatives 1e-4; `static` and `mean` treat positives and negatives alike.
    negative_weight: None leaves it there. A number r >= 0 says how much a negative counts against a positive: a class that
    is negative for this person weighs r times what it would weigh as a positive (`dynamic`: r / ln(2.2); `static`:
    r / ln(1.2 + count); `mean`: r / k). 1 = both alike, 0 = only positives.
    Raises ValueError as `class_weights`, and for a negative or non-finite negative_weight.
    """
    if pseudo_label.ndim != 2:
        raise ValueError(f"pseudo_label must be [B, k]; got {tuple(pseudo_label.shape)}")
    label = pseudo_label.detach()
    if rule == "dynamic":
        as_positive = torch.full_like(label, 1.0 / math.log(COUNT_OFFSET + 1.0))
    else:
        as_positive = _fixed_weights(rule, label, counts).expand_as(label)
    if negative_weight is None:
        as_negative = torch.full_like(label, ABSENT_WEIGHT) if rule == "dynamic" else as_positive
    elif math.isfinite(negative_weight) and negative_weight >= 0:
        as_negative = negative_weight * as_positive
    else:
        raise ValueError(f"negative_weight must be None or a finite number >= 0; got {negative_weight}")
    return torch.where(label > 0, as_positive, as_negative)


def _fixed_weights(rule: ClassWeightRule, targets: Tensor, counts: Tensor | None) -> Tensor:
    """Weights [k] of the rules that do not look at the labels."""
    num_classes = targets.shape[1]
    if rule == "mean":
        return targets.new_full((num_classes,), 1.0 / num_classes)
    if rule != "static":
        raise ValueError(f"unknown class weight rule {rule!r}; the choices are {', '.join(CLASS_WEIGHT_RULES)}")
    if counts is None or counts.shape != (num_classes,):
        got = "None" if counts is None else str(tuple(counts.shape))
        raise ValueError(
            f"static class weights need counts of shape ({num_classes},), the positives of each class in the training "
            f"split; got {got}"
        )
    return _weight_of_count(counts.to(targets), None)


def _weight_of_count(count: Tensor, absent: float | None) -> Tensor:
    """1 / ln(1.2 + count), or `absent` where the count is 0 (None: the formula there too)."""
    weight = 1.0 / torch.log(COUNT_OFFSET + count)
    return weight if absent is None else torch.where(count > 0, weight, absent)


def _check_shapes(logits: Tensor, targets: Tensor, weights: Tensor | None) -> None:
    """ValueError unless targets and weights broadcast to the shape of logits without enlarging it."""
    for name, tensor in (("targets", targets), ("weights", weights)):
        if tensor is None:
            continue
        fits = tensor.ndim <= logits.ndim and tensor.ndim > 0 and tensor.shape[-1] == logits.shape[-1]
        if not fits or any(t not in (n, 1) for t, n in zip(tensor.shape[::-1], logits.shape[::-1], strict=False)):
            raise ValueError(
                f"{name} must fit logits {tuple(logits.shape)} with the classes last; got {tuple(tensor.shape)}"
            )
