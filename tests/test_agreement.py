"""Competition by agreement: against a slow person-by-person oracle, and the properties that make it a rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from cocoer.config import CompetitionConfig
from cocoer.model.agreement import Agreement, AgreementRule, agree, gap_of, gated, shares_of, undecided, vote_label
from cocoer.outputs import EQUAL_LOSSES

SCALE = 6.0


def readings(persons: int = 7, classes: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(persons, 3, classes, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 0.4


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(v - max(values)) for v in values]
    return [p / sum(powers) for p in powers]


def oracle(person: list[list[float]], scale: float, slope: float, threshold: float) -> dict[str, list[float]]:
    """The rule as one would tell it, for one person, in plain Python."""
    scores = [[scale * r for r in level] for level in person]
    vote = softmax([sum(column) / 3 for column in zip(*scores, strict=True)])
    losses = [-sum(v * math.log(p) for v, p in zip(vote, softmax(level), strict=True)) for level in scores]
    left, order = [0, 1, 2], []
    while left:
        worst = max(losses[m] for m in left)
        order.append(next(m for m in left if losses[m] >= worst - EQUAL_LOSSES))
        left.remove(order[-1])
    largest = sorted(losses, reverse=True)
    share = 1 / (1 + math.exp(slope * (largest[0] - largest[1] - threshold))) / 3
    shares = [share if m == order[0] else (1 - share) / 2 for m in range(3)]
    return {"vote": vote, "losses": losses, "exclusion": [float(m) for m in order], "shares": shares}


@pytest.mark.parametrize(
    ("classes", "scale", "slope", "threshold"),
    [(5, 6.0, 4.0, 1.0), (26, 20.0, 4.0, 1.0), (1, 1.0, 0.0, 0.0), (7, 30.0, 5.0, 0.2)],
)
def test_the_rule_is_what_it_says(classes: int, scale: float, slope: float, threshold: float) -> None:
    given = readings(20, classes)
    found = agree(given, scale, slope, threshold)
    for i, person in enumerate(given.tolist()):
        expected = oracle(person, scale, slope, threshold)
        for name, values in expected.items():
            got = getattr(found, name)[i]
            torch.testing.assert_close(got.double(), torch.tensor(values, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def everything(found: Agreement) -> list[Tensor]:
    return [found.vote, found.losses, found.exclusion, found.shares, found.undecided, found.weights]


def test_a_person_does_not_depend_on_its_neighbours() -> None:
    given = readings(dtype=torch.float32)
    together = everything(agree(given, SCALE))
    for i in range(len(given)):
        for whole, alone in zip(together, everything(agree(given[i : i + 1], SCALE)), strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone, rtol=1e-6, atol=1e-6)
    assert [len(x) for x in everything(agree(given[:0], SCALE))] == [0] * 6


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_levels_are_treated_alike(order: tuple[int, int, int]) -> None:
    given = readings(50)
    plain, turned = agree(given, SCALE), agree(given[:, order], SCALE)
    torch.testing.assert_close(turned.vote, plain.vote)
    torch.testing.assert_close(turned.losses, plain.losses[:, order])
    torch.testing.assert_close(turned.shares, plain.shares[:, order])
    assert torch.equal(torch.tensor(order)[turned.exclusion], plain.exclusion)


def test_the_order_of_classes_and_a_constant_change_nothing() -> None:
    given = readings(50)
    plain = agree(given, SCALE)
    turned = agree(given[..., [4, 2, 0, 1, 3]] + 3.0, SCALE)
    torch.testing.assert_close(turned.losses, plain.losses)
    assert torch.equal(turned.exclusion, plain.exclusion)


def test_gradients_are_those_of_the_formula() -> None:
    given = readings(4).requires_grad_()

    def differentiable(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found = agree(x, SCALE, 2.0, 0.3)
        return found.vote, found.losses, found.shares

    assert torch.autograd.gradcheck(differentiable, (given,))
    assert not agree(given, SCALE).exclusion.requires_grad


def test_the_level_that_stands_alone_leaves_and_counts_nothing() -> None:
    two_against_one = torch.zeros(3, 3, 4)
    for odd in range(3):
        two_against_one[odd, :, 0] = 1.0
        two_against_one[odd, odd] = torch.tensor([0.0, 0.0, 1.0, 0.0])
    found = agree(two_against_one, 20.0)
    assert found.exclusion[:, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(found.shares, 0.5 * (1 - torch.eye(3)), rtol=0, atol=1e-3)
    assert found.vote.argmax(1).tolist() == [0, 0, 0] and not found.undecided.any()
    agreed = agree(torch.eye(4)[0].expand(1, 3, 4).contiguous(), 20.0)
    torch.testing.assert_close(agreed.shares, torch.full((1, 3), 1 / 3), rtol=0, atol=0.01)


def test_equal_readings_have_a_defined_order_that_rounding_does_not_choose() -> None:
    level = readings(30, seed=3, dtype=torch.float32)[:, :1]
    same = level.expand(-1, 3, -1).clone()
    for noise in (0.0, 1e-8):
        found = agree(same + noise * torch.randn(same.shape, generator=torch.Generator().manual_seed(1)), SCALE)
        assert found.exclusion.tolist() == [[0, 1, 2]] * 30 and found.undecided.all()
    head_and_body_alike = torch.cat([same[:, :2], -same[:, 2:]], dim=1)
    found = agree(head_and_body_alike, SCALE)
    assert found.exclusion.tolist() == [[2, 0, 1]] * 30 and not found.undecided.any()
    odd_body = torch.stack([same[:, 0], -same[:, 1], same[:, 2]], dim=1)
    assert agree(odd_body, SCALE).exclusion.tolist() == [[1, 0, 2]] * 30


def test_shares_add_up_and_follow_the_gap() -> None:
    found = agree(readings(500), SCALE, 4.0, 1.0)
    torch.testing.assert_close(found.shares.sum(1), torch.ones(500, dtype=torch.float64))
    first = found.shares.gather(1, found.exclusion[:, :1]).squeeze(1)
    assert (first <= 1 / 3 + 1e-12).all() and (found.shares >= 0).all()
    order = gap_of(found.losses).argsort()
    assert (first[order].diff() <= 1e-12).all()
    steep = shares_of(found.losses, found.exclusion, 1e4, 0.0)
    assert torch.equal(steep.argmin(1), found.exclusion[:, 0])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_reading_that_is_no_number_chooses_nobody_and_touches_no_neighbour(bad: float) -> None:
    given = readings(4)
    plain = agree(given, SCALE)
    broken = given.clone()
    broken[2, 1, 3] = bad
    found = agree(broken, SCALE)
    assert found.exclusion[2].tolist() == [-1, -1, -1] and found.shares[2].isnan().all() and not found.undecided[2]
    others = [0, 1, 3]
    torch.testing.assert_close(found.shares[others], plain.shares[others])
    assert torch.equal(found.exclusion[others], plain.exclusion[others])


def test_bfloat16_under_autocast_is_computed_in_float32() -> None:
    given = readings(6, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = agree(given, SCALE)
    assert found.losses.dtype == torch.float32
    assert torch.equal(found.losses, agree(given, SCALE).losses)


@pytest.mark.parametrize("shape", [(3, 5), (2, 2, 5), (2, 3, 0), (1, 2, 3, 5)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"readings: wanted \[persons, 3 levels, classes\], got"):
        agree(torch.zeros(shape))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_a_scale_that_is_none_is_an_error(scale: float) -> None:
    with pytest.raises(ValueError, match="logit_scale: wanted a number above 0"):
        agree(readings(), scale)


def test_without_settings_it_agrees_as_the_config_says() -> None:
    readings, spec = torch.rand(5, 3, 4, generator=torch.Generator().manual_seed(0)), CompetitionConfig()
    plain, said = agree(readings), agree(readings, spec.logit_scale, spec.gate_slope, spec.gate_threshold)
    assert torch.equal(plain.shares, said.shares) and torch.equal(plain.losses, said.losses)


def test_the_label_of_a_vote_is_its_best_word_or_those_over_twice_their_share() -> None:
    vote = torch.tensor([[0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    assert vote_label(vote, multi_label=False).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert vote_label(vote, multi_label=True).tolist() == [[0, 0, 1], [0, 0, 0]]  # 2/3 is twice a third


def test_a_word_with_exactly_twice_its_share_is_no_label() -> None:
    vote = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.5000001, 0.4999999, 0.0, 0.0]])  # a half is twice a quarter
    assert vote_label(vote, multi_label=True).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]


def test_losses_apart_by_what_counts_as_equal_are_undecided_and_those_further_apart_are_not() -> None:
    losses = torch.tensor([[EQUAL_LOSSES, 0.0, -1.0], [2 * EQUAL_LOSSES, 0.0, -1.0]], dtype=torch.float64)
    assert undecided(losses).tolist() == [True, False]


def test_a_level_counts_in_the_fusion_by_its_share_and_equal_shares_change_nothing() -> None:
    features = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    shares = torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]])
    found = gated(features, shares)
    torch.testing.assert_close(found[0], features[0])
    for level, factor in enumerate((1.5, 1.5, 0.0)):
        torch.testing.assert_close(found[1, level], factor * features[1, level])


def test_a_rule_without_settings_has_those_of_the_config_and_no_direction() -> None:
    given = readings()
    found, plain = AgreementRule()(given), agree(given)
    assert torch.equal(found.shares, plain.shares) and torch.equal(found.losses, plain.losses)
    assert torch.equal(shares_of(plain.losses, plain.exclusion), plain.shares)
    assert found.distance.tolist() == [0.0] * len(given) and found.penalty("mean") is None
    assert torch.equal(found.weights[:, 0], found.shares) and found.weights.shape == (len(given), 1, 3)
