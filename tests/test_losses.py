"""Losses per person and their errors: against torch's own losses, against autograd, and the class-weight rules."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cocoer.model.losses import (
    CLASS_WEIGHT_RULES,
    ClassWeightRule,
    class_weights,
    competition_weights,
    error_per_person,
    loss_per_person,
)

COUNTS = torch.tensor([0.0, 1.0, 5.0, 100.0, 20000.0], dtype=torch.float64)


def made_up(multi_label: bool, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [7, 5], targets [7, 5] and class weights [5]."""
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(7, 5, generator=rng, dtype=torch.float64)
    picked = torch.randint(5, (7,), generator=rng)
    several = (torch.rand(7, 5, generator=rng) > 0.6).double()
    targets = several if multi_label else F.one_hot(picked, 5).double()
    return logits, targets, torch.rand(5, generator=rng, dtype=torch.float64)


def test_multi_label_is_weighted_bce_summed_over_classes() -> None:
    logits, targets, weights = made_up(True)
    wanted = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none").sum(-1)
    torch.testing.assert_close(loss_per_person(logits, targets, weights, multi_label=True), wanted)


def test_single_label_is_cross_entropy() -> None:
    logits, targets, weights = made_up(False)
    wanted = F.cross_entropy(logits, targets.argmax(-1), reduction="none")
    torch.testing.assert_close(loss_per_person(logits, targets, multi_label=False), wanted)
    wanted = F.cross_entropy(logits, targets.argmax(-1), weights, reduction="none")
    torch.testing.assert_close(loss_per_person(logits, targets, weights, multi_label=False), wanted)


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("weighted", ["none", "per class", "per person"])
def test_error_is_the_derivative_of_the_loss(multi_label: bool, scale: float, weighted: str) -> None:
    logits, targets, weights = made_up(multi_label, scale)
    chosen = {"none": None, "per class": weights, "per person": weights * torch.arange(1, 8)[:, None]}[weighted]
    logits.requires_grad_()
    loss = loss_per_person(logits, targets, chosen, multi_label=multi_label)
    assert loss.shape == (7,)
    assert torch.isfinite(loss).all()
    (wanted,) = torch.autograd.grad(loss.sum(), logits)
    error = error_per_person(logits, targets, chosen, multi_label=multi_label)
    torch.testing.assert_close(error, wanted, rtol=1e-12, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x: error_per_person(x, targets, chosen, multi_label=multi_label), logits)


@pytest.mark.parametrize("multi_label", [True, False])
def test_levels_share_the_label_of_their_person(multi_label: bool) -> None:
    logits, targets, weights = made_up(multi_label)
    levels = torch.stack((logits, 2 * logits, -logits), dim=1)  # [B, 3, k]
    together = loss_per_person(levels, targets[:, None], weights, multi_label=multi_label)
    errors = error_per_person(levels, targets[:, None], weights, multi_label=multi_label)
    assert together.shape == (7, 3)
    for level in range(3):
        alone = loss_per_person(levels[:, level], targets, weights, multi_label=multi_label)
        torch.testing.assert_close(together[:, level], alone, rtol=1e-14, atol=1e-15)
        alone = error_per_person(levels[:, level], targets, weights, multi_label=multi_label)
        torch.testing.assert_close(errors[:, level], alone, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("multi_label", [True, False])
def test_no_person_no_loss(multi_label: bool) -> None:
    nobody = torch.zeros(0, 5)
    assert loss_per_person(nobody, nobody, multi_label=multi_label).shape == (0,)
    assert error_per_person(nobody, nobody, multi_label=multi_label).shape == (0, 5)
    assert class_weights("dynamic", nobody).tolist() == pytest.approx([1e-4] * 5)
    assert competition_weights("dynamic", nobody).shape == (0, 5)


def test_dynamic_weights_count_the_batch() -> None:
    targets = torch.tensor([[1.0, 0, 1], [1, 0, 0], [1, 0, 0]])
    wanted = [1 / math.log(4.2), 1e-4, 1 / math.log(2.2)]
    assert class_weights("dynamic", targets).tolist() == pytest.approx(wanted)


def test_static_and_mean_weights_do_not_look_at_the_batch() -> None:
    for targets in (torch.zeros(4, 5), torch.ones(4, 5)):
        wanted = [1 / math.log(1.2 + n) for n in COUNTS.tolist()]
        assert class_weights("static", targets, COUNTS).tolist() == pytest.approx(wanted)
        assert class_weights("mean", targets).tolist() == pytest.approx([0.2] * 5)
        assert class_weights("static", targets, COUNTS).dtype == targets.dtype


@pytest.mark.parametrize("rule", CLASS_WEIGHT_RULES)
def test_in_the_competition_every_person_is_a_batch_of_its_own(rule: ClassWeightRule) -> None:
    _, label, _ = made_up(True)
    together = competition_weights(rule, label, COUNTS)
    for person in range(len(label)):
        assert torch.equal(together[person], class_weights(rule, label[person : person + 1], COUNTS))


@pytest.mark.parametrize(
    ("rule", "positive"),
    [
        ("dynamic", [1 / math.log(2.2)] * 5),
        ("static", [1 / math.log(1.2 + n) for n in COUNTS.tolist()]),
        ("mean", [0.2] * 5),
    ],
)
@pytest.mark.parametrize("negative_weight", [0.0, 0.5, 1.0, 2.0])
def test_negative_weight_is_relative_to_a_positive(
    rule: ClassWeightRule, positive: list[float], negative_weight: float
) -> None:
    _, label, _ = made_up(True)
    weights = competition_weights(rule, label, COUNTS, negative_weight)
    as_positive = torch.tensor(positive, dtype=torch.float64).expand_as(label)
    wanted = torch.where(label > 0, as_positive, negative_weight * as_positive)
    torch.testing.assert_close(weights, wanted)


def test_weights_carry_no_gradient() -> None:
    label = torch.rand(3, 5, requires_grad=True)
    assert not class_weights("dynamic", label).requires_grad
    assert not competition_weights("dynamic", label).requires_grad


@pytest.mark.parametrize(
    ("targets", "weights", "message"),
    [
        (torch.zeros(7, 4), None, r"targets must fit logits \(7, 5\) .* got \(7, 4\)"),
        (torch.zeros(6, 5), None, r"targets must fit .* got \(6, 5\)"),
        (torch.zeros(7, 1), None, "targets must fit"),
        (torch.zeros(2, 7, 5), None, "targets must fit"),
        (torch.zeros(7, 5), torch.zeros(4), "weights must fit"),
        (torch.zeros(7, 5), torch.tensor(1.0), "weights must fit"),
    ],
)
@pytest.mark.parametrize("function", [loss_per_person, error_per_person])
def test_wrong_shapes_are_named(function: object, targets: Tensor, weights: Tensor | None, message: str) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match=message):
        function(torch.zeros(7, 5), targets, weights, multi_label=True)


def test_wrong_rules_and_counts_are_named() -> None:
    label = torch.zeros(2, 5)
    with pytest.raises(ValueError, match="unknown class weight rule 'dynamik'; the choices are dynamic, static, mean"):
        class_weights("dynamik", label)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"counts of shape \(5,\), .* got None"):
        competition_weights("static", label)
    with pytest.raises(ValueError, match=r"counts of shape \(5,\), .* got \(4,\)"):
        class_weights("static", label, torch.ones(4))
    with pytest.raises(ValueError, match=r"targets must be \[B, k\]; got \(5,\)"):
        class_weights("mean", torch.zeros(5))
    with pytest.raises(ValueError, match=r"pseudo_label must be \[B, k\]"):
        competition_weights("mean", torch.zeros(5))
    for bad in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match="negative_weight must be None or a finite number >= 0"):
            competition_weights("mean", label, negative_weight=bad)
