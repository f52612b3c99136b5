"""Competition and coordination: the closed form against Algorithm 1 person by person, and its properties."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slow_oracle import delta_of, kkt_residual, paper_person, person_loss
from small_worlds import FEATURE, World, world
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cocoer.model.competition import PaperCompetition, compete, exclusion_sequence, full_precision
from cocoer.model.coordination import coordinate, coordinated_logits, inverse_norm, safe_norm, unit
from cocoer.model.level_head import HeadParameters
from cocoer.model.losses import competition_weights
from cocoer.model.simplex_qp import require_finite


def run(
    w: World, *, multi_label: bool = True, weights: Tensor | None = None, biases: bool = False, **options: Any
) -> tuple[PaperCompetition, Tensor]:
    competition = compete(w.features, w.heads, w.label, weights, multi_label=multi_label, biases=biases)
    refined = coordinate(w.preactivation, w.sq_norm, w.heads, competition, **options)
    return competition, refined


# ---- against Algorithm 1 --------------------------------------------------------------------------------------------

LOSSES: list[tuple[bool, str, float | None]] = [
    *[(True, rule, negative) for rule in ("dynamic", "static", "mean") for negative in (None, 0.5)],
    (False, "dynamic", None),
]
"""multi_label, class-weight rule, weight of negatives."""


@pytest.mark.parametrize(("multi_label", "rule", "negative_weight"), LOSSES)
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("step_rule", "step"), [("relative", 0.1), ("raw", 1.0), ("raw", 0.01)])
@pytest.mark.parametrize("update", ["one", "two", "none"])
def test_equals_algorithm_1_person_by_person(
    multi_label: bool, rule: Any, negative_weight: float | None, biases: bool, step_rule: str, step: float, update: str
) -> None:
    w = world(multi_label=multi_label, seed=LOSSES.index((multi_label, rule, negative_weight)))
    weights = competition_weights(rule, w.label, w.counts, negative_weight) if multi_label else None
    competition, refined = run(
        w, multi_label=multi_label, weights=weights, biases=biases, update=update, step_rule=step_rule, step=step
    )
    for person in range(len(w.label)):
        slow = paper_person(
            w.modules,
            w.inputs[person],
            person_loss(w.label[person], rule, w.counts, negative_weight, multi_label),
            biases=biases,
            update=update,
            step_rule=step_rule,
            step=step,
        )
        assert competition.exclusion[person].tolist() == slow.exclusion
        for ours, theirs in (
            (competition.losses[person], torch.tensor(slow.losses, dtype=torch.float64)),
            (competition.weights[person], torch.tensor(slow.rounds, dtype=torch.float64)),
            (delta_of(competition)[person], slow.delta),
            (competition.delta_sq_norm[person], slow.delta.square().sum()),
            (refined[person], slow.refined),
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_updates_do_something() -> None:
    w = world()
    weights = competition_weights("dynamic", w.label)
    moved = {}
    for update in ("one", "two", "none"):
        competition, refined = run(w, weights=weights, update=update)
        moved[update] = (refined - w.features).norm(dim=-1) > 1e-3
        survivor = competition.exclusion[:, 2:]
    assert moved["one"].all()
    assert not moved["none"].any()
    assert not moved["two"].gather(1, survivor).any()
    assert moved["two"].sum() == 2 * len(w.label)


@pytest.mark.parametrize("update", ["one", "two"])
def test_a_small_raw_step_lowers_the_loss_it_follows(update: Any) -> None:
    w = world(num_persons=40)
    competition, refined = run(w, update=update, step_rule="raw", step=1e-3)
    after = compete(refined, w.heads, w.label, multi_label=True)
    changed = (refined != w.features).any(-1)
    assert (after.losses < competition.losses)[changed].all()


# ---- pieces ---------------------------------------------------------------------------------------------------------


def test_backward_through_norm_and_gelu() -> None:
    w = world(num_persons=3)
    preactivation = (3 * w.preactivation).requires_grad_()
    error = torch.randn(3, 3, FEATURE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (wanted,) = torch.autograd.grad(w.heads.features(preactivation), preactivation, error)
    torch.testing.assert_close(w.heads.backward(error, preactivation), wanted, rtol=1e-12, atol=1e-13)


def test_heads_are_the_module() -> None:
    w = world()
    torch.testing.assert_close(w.heads.features(w.preactivation), w.features, rtol=1e-13, atol=1e-13)
    logits = torch.stack([head(w.inputs[:, m]) for m, head in enumerate(w.modules)], dim=1)
    torch.testing.assert_close(w.heads.logits(w.features), logits.detach(), rtol=1e-13, atol=1e-13)


def test_penalty_is_the_mean_or_the_sum_over_the_entries_of_delta() -> None:
    w = world()
    for biases in (False, True):
        competition = compete(w.features, w.heads, w.label, multi_label=True, biases=biases)
        torch.testing.assert_close(competition.penalty("mean"), delta_of(competition).square().mean((1, 2)))
        torch.testing.assert_close(competition.penalty("sum"), delta_of(competition).square().sum((1, 2)))
    with pytest.raises(ValueError, match="unknown penalty 'max'"):
        competition.penalty("max")  # type: ignore[arg-type]


def test_largest_loss_leaves_first_and_ties_go_to_the_first_level() -> None:
    losses = torch.tensor([[1.0, 2, 3], [3, 1, 2], [2, 2, 1], [1, 2, 2], [0, 0, 0], [-5, -1, -3]])
    wanted = [[2, 1, 0], [0, 2, 1], [0, 1, 2], [1, 2, 0], [0, 1, 2], [1, 2, 0]]
    assert exclusion_sequence(losses).tolist() == wanted


def test_norms_at_zero() -> None:
    value = torch.tensor([0.0, 1e-320, 4.0, torch.nan], dtype=torch.float64, requires_grad=True)
    assert safe_norm(value)[[0, 2]].tolist() == [0, 2]
    assert inverse_norm(value)[:3].tolist() == [0, 0, 0.5]
    least = torch.finfo(torch.float64).tiny  # 2^-1022, the least normal number
    assert inverse_norm(torch.tensor(least, dtype=torch.float64)).item() == 2.0**511
    assert torch.isnan(safe_norm(value)[3])
    assert torch.isnan(inverse_norm(value)[3])
    for function in (safe_norm, inverse_norm):
        (slope,) = torch.autograd.grad(function(value)[[0, 2]].sum(), value)
        assert torch.isfinite(slope[:3]).all()
    zero = torch.zeros(2, 5, requires_grad=True)
    (slope,) = torch.autograd.grad(unit(zero).sum(), zero)
    assert (unit(zero) == 0).all()
    assert (slope == 0).all()


@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(("step_rule", "step"), [("relative", 0.1), ("raw", 0.5)])
@pytest.mark.parametrize("update", ["one", "two", "none"])
def test_what_levels_say_afterwards_is_what_their_moved_prediction_layers_say(
    update: Any, step_rule: Any, step: float, biases: bool
) -> None:
    """Theta + s delta of each person and level, written out; the survivor of update two keeps its layer."""
    w = world()
    competition, refined = run(w, biases=biases, update=update, step_rule=step_rule, step=step)
    found = coordinated_logits(refined, w.heads, competition, update, step_rule, step)
    if (update, step_rule) == ("one", "relative"):
        assert torch.equal(run(w, biases=biases)[1], refined)  # what nothing said means
    delta = delta_of(competition)
    for person in range(len(w.label)):
        for level in range(3):
            theta, bias = w.heads.prediction_weight[level], w.heads.prediction_bias[level]
            z = refined[person, level]
            if biases:
                theta, bias, z = torch.cat([theta, bias[:, None]], 1), bias * 0, torch.cat([z, z.new_ones(1)])
            stays = update == "none" or (update == "two" and level == competition.exclusion[person, -1])
            scale = step if step_rule == "raw" else step * theta.norm() / delta[person].norm()
            moved = theta if stays else theta + scale * delta[person]
            torch.testing.assert_close(found[person, level], moved @ z + bias)


# ---- gradients ------------------------------------------------------------------------------------------------------


def outer_loss(kind: str, multi_label: bool, biases: bool, label: Tensor, **options: Any) -> Callable[..., Tensor]:
    """A scalar per person of everything that training differentiates: the alpha term, or the refined features."""

    def function(h: Tensor, sq_norm: Tensor, p: Tensor, b: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        heads = HeadParameters(p, b, gamma, beta)
        competition = compete(heads.features(h), heads, label, multi_label=multi_label, biases=biases)
        if kind == "delta":
            return competition.penalty("sum")
        return coordinate(h, sq_norm, heads, competition, **options).sin().sum(-1)

    return function


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("biases", [False, True])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("delta", {}),
        ("refined", {"step_rule": "raw", "step": 0.05, "update": "one"}),
        ("refined", {"step_rule": "raw", "step": 0.05, "update": "two"}),
        ("refined", {"step_rule": "relative", "step": 0.1, "update": "one"}),
        ("refined", {"step_rule": "relative", "step": 0.1, "update": "two"}),
    ],
)
def test_gradient_through_delta_and_refined_features(
    multi_label: bool, biases: bool, kind: str, options: dict[str, Any]
) -> None:
    rng = torch.Generator().manual_seed(3)
    shapes = ((2, 3, 4), (2, 3), (3, 4, 4), (3, 4), (3, 4), (3, 4))
    inputs = [torch.randn(*s, generator=rng, dtype=torch.float64) for s in shapes]
    inputs[1] = inputs[1].square()
    label = F.one_hot(torch.tensor([0, 3]), 4).double()
    function = outer_loss(kind, multi_label, biases, label, **options)
    heads = HeadParameters(*inputs[2:])
    competition = compete(heads.features(inputs[0]), heads, label, multi_label=multi_label, biases=biases)
    assert (competition.weights > 0).sum(-1).max() > 1  # some person is on an edge or inside: lambda has a gradient
    random_projection = biases or not multi_label  # entry by entry for one combination is enough, and takes its time
    assert torch.autograd.gradcheck(function, [t.requires_grad_() for t in inputs], fast_mode=random_projection)


def test_no_gradient_reaches_the_pseudo_label_or_the_class_weights() -> None:
    w = world()
    features, label = w.features.requires_grad_(), w.label.clone().requires_grad_()
    weights = torch.ones_like(w.label, requires_grad=True)
    competition = compete(features, w.heads, label, weights, multi_label=True)
    refined = coordinate(w.preactivation, w.sq_norm, w.heads, competition)
    slopes = torch.autograd.grad(
        refined.sum() + competition.delta_sq_norm.sum(), (features, label, weights), allow_unused=True
    )
    assert slopes[0] is not None
    assert slopes[1] is None
    assert slopes[2] is None


@pytest.mark.parametrize("step_rule", ["relative", "raw"])
@pytest.mark.parametrize("update", ["one", "two"])
def test_without_any_error_nothing_moves_and_gradients_are_finite(step_rule: Any, update: Any) -> None:
    w = world()
    weights = torch.zeros_like(w.label)  # only positives count, and this person has none
    h = w.preactivation.requires_grad_()
    features = w.heads.features(h)
    competition = compete(features, w.heads, torch.zeros_like(w.label), weights, multi_label=True)
    refined = coordinate(h, w.sq_norm, w.heads, competition, update=update, step_rule=step_rule)
    assert torch.equal(refined, features)
    assert (competition.delta_sq_norm == 0).all()
    assert competition.exclusion.tolist() == [[0, 1, 2]] * len(w.label)
    (slope,) = torch.autograd.grad(refined.square().sum() + competition.penalty("mean").sum(), h)
    assert torch.isfinite(slope).all()


# ---- persons do not see each other ----------------------------------------------------------------------------------


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("step_rule", ["relative", "raw"])
def test_order_and_number_of_persons_change_nothing(multi_label: bool, step_rule: str) -> None:
    w = world(num_persons=17, multi_label=multi_label)
    competition, refined = run(w, multi_label=multi_label, step_rule=step_rule)
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0))
    shuffled = World(w.modules, w.heads, w.inputs[order], w.label[order], w.counts)
    other, other_refined = run(shuffled, multi_label=multi_label, step_rule=step_rule)
    torch.testing.assert_close(other_refined, refined[order], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(other.weights, competition.weights[order], rtol=1e-10, atol=1e-12)
    assert torch.equal(other.exclusion, competition.exclusion[order])
    for person in range(17):
        rows = slice(person, person + 1)
        alone = World(w.modules, w.heads, w.inputs[rows], w.label[rows], w.counts)
        other, other_refined = run(alone, multi_label=multi_label, step_rule=step_rule)
        torch.testing.assert_close(other_refined, refined[rows], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other.delta_sq_norm, competition.delta_sq_norm[rows], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("update", ["one", "two", "none"])
def test_no_person(update: str) -> None:
    competition, refined = run(world(num_persons=0), update=update)
    assert refined.shape == (0, 3, FEATURE)
    assert competition.weights.shape == (0, 2, 3)
    assert competition.exclusion.shape == (0, 3)
    assert delta_of(competition).shape == (0, 7, FEATURE)


# ---- precision ------------------------------------------------------------------------------------------------------


def float32(w: World) -> tuple[Tensor, Tensor, HeadParameters, Tensor]:
    return w.preactivation.float(), w.sq_norm.float(), w.heads.to(torch.float32), w.label.float()


@pytest.mark.parametrize("step_rule", ["relative", "raw"])
def test_bf16_autocast_changes_nothing_inside(step_rule: Any) -> None:
    h, sq_norm, heads, label = float32(world(num_persons=50))

    def both() -> tuple[PaperCompetition, Tensor]:
        competition = compete(features, heads, label, multi_label=True)
        return competition, coordinate(h, sq_norm, heads, competition, step_rule=step_rule, step=0.1)

    features = heads.features(h)
    plain, plain_refined = both()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (h @ h.mT).dtype == torch.bfloat16  # autocast is really on
        cast, cast_refined = both()
    assert cast.weights.dtype == cast_refined.dtype == torch.float32
    assert torch.equal(cast.weights, plain.weights)
    assert torch.equal(cast_refined, plain_refined)


def test_bf16_features_are_taken_as_they_are_and_solved_in_float32() -> None:
    h, _, heads, label = float32(world(num_persons=200))
    rounded = heads.features(h).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = compete(rounded, heads, label, multi_label=True)
    exact = compete(rounded.double(), heads.to(torch.float64), label, multi_label=True)
    assert torch.equal(ours.exclusion, exact.exclusion)
    torch.testing.assert_close(ours.weights.double(), exact.weights, rtol=0, atol=1e-4)
    gram = (ours.errors @ ours.errors.mT) * (ours.features @ ours.features.mT)
    assert kkt_residual(gram.double(), ours.losses.double(), ours.weights[:, 0].double()).max() < 2e-6


def test_float32_agrees_with_float64() -> None:
    w = world(num_persons=200)
    exact, exact_refined = run(w)
    h, sq_norm, heads, label = float32(w)
    ours = compete(w.features.float(), heads, label, multi_label=True)
    refined = coordinate(h, sq_norm, heads, ours)
    torch.testing.assert_close(ours.losses.double(), exact.losses, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.weights.double(), exact.weights, rtol=0, atol=1e-4)
    torch.testing.assert_close(refined.double(), exact_refined, rtol=0, atol=1e-4)


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_level_is_chosen_on_non_finite_numbers(bad: float) -> None:
    w = world()
    features = w.features
    clean = compete(features, w.heads, w.label, multi_label=True)
    features[2, 1, 0] = bad
    competition = compete(features, w.heads, w.label, multi_label=True)
    others = [0, 1, 3, 4, 5]
    assert competition.exclusion[2].tolist() == [-1, -1, -1]
    assert torch.isnan(competition.weights[2]).all()
    assert torch.isnan(competition.delta_sq_norm[2])
    assert torch.equal(competition.exclusion[others], clean.exclusion[others])
    assert torch.equal(competition.weights[others], clean.weights[others])
    for update in ("one", "two"):
        refined = coordinate(w.preactivation, w.sq_norm, w.heads, competition, update=update)
        assert torch.isnan(refined[2, 1]).any()
        assert torch.isfinite(refined[others]).all()
    with pytest.raises(ValueError, match=r"losses \(6, 3\) must be finite; got NaN or infinity in rows \[2\]"):
        require_finite(losses=competition.losses)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": torch.zeros(6, 2, FEATURE)}, r"level features must be \[B, 3, 12\] .* got \(6, 2, 12\)"),
        ({"features": torch.zeros(6, 3, FEATURE + 1)}, "level features must be"),
        ({"pseudo_label": torch.zeros(6, 8)}, r"pseudo_label must be \[6, 7\]; got \[6, 8\]"),
        ({"pseudo_label": torch.zeros(5, 7)}, r"pseudo_label must be \[6, 7\]; got \[5, 7\]"),
        ({"weights": torch.zeros(7)}, r"weights must be \[6, 7\]; got \[7\]"),
    ],
)
def test_wrong_shapes_are_named(changes: dict[str, Tensor], message: str) -> None:
    w = world()
    arguments = {"features": w.features, "pseudo_label": w.label, "weights": None} | changes
    with pytest.raises(ValueError, match=message):
        compete(heads=w.heads, multi_label=True, **arguments)  # type: ignore[arg-type]


def test_full_precision_switches_off_an_autocast_that_is_on_and_adds_nothing_else() -> None:
    numbers = torch.ones(2, 2)
    assert isinstance(full_precision(numbers), nullcontext) and isinstance(
        full_precision(numbers.to("meta")), nullcontext
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (numbers @ numbers).dtype == torch.bfloat16
        with full_precision(numbers):
            assert (numbers @ numbers).dtype == torch.float32


def test_wrong_heads_and_options_are_named() -> None:
    w = world()
    p, b, gamma, beta = (
        w.heads.prediction_weight,
        w.heads.prediction_bias,
        w.heads.norm_weight,
        w.heads.norm_bias,
    )
    with pytest.raises(ValueError, match=r"prediction_weight must be \[3, k, d\]; got \(7, 12\)"):
        HeadParameters(p[0], b, gamma, beta)
    with pytest.raises(ValueError, match=r"prediction_weight must be \[3, k, d\]; got \(3, 12\)"):
        HeadParameters(p[:, 0], b, gamma, beta)
    with pytest.raises(ValueError, match=r"prediction_weight must be \[3, k, d\]; got \(2, 7, 12\)"):
        HeadParameters(p[:2], b[:2], gamma[:2], beta[:2])  # all of two levels
    with pytest.raises(ValueError, match=r"prediction_bias must be \[3, 7\]; got \[3, 6\]"):
        HeadParameters(p, b[:, :6], gamma, beta)
    with pytest.raises(ValueError, match=r"norm_bias must be \[3, 12\]"):
        HeadParameters(p, b, gamma, beta[:2])
    with pytest.raises(ValueError, match="unknown update 'three'; the choices are one, two, none"):
        run(w, update="three")
    with pytest.raises(ValueError, match="unknown step_rule 'absolute'; the choices are relative, raw"):
        run(w, step_rule="absolute")
    competition = compete(w.features, w.heads, w.label, multi_label=True)
    with pytest.raises(ValueError, match=r"input_sq_norm must be \[6, 3\]; got \[6\]"):
        coordinate(w.preactivation, w.sq_norm[:, 0], w.heads, competition)
    with pytest.raises(ValueError, match=r"preactivation must be \[6, 3, 12\]; got \[5, 3, 12\]"):
        coordinate(w.preactivation[:5], w.sq_norm[:5], w.heads, competition)


# ---- cost -----------------------------------------------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """Number of entries of the largest tensor that any operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for item in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(item, Tensor):
                self.largest = max(self.largest, item.numel())
        return result


@pytest.mark.parametrize("step_rule", ["relative", "raw"])
def test_nothing_of_the_size_of_a_weight_matrix_is_built_per_person(step_rule: Any) -> None:
    num_persons, k, d = 64, 26, 256
    rng = torch.Generator().manual_seed(0)
    h = torch.randn(num_persons, 3, d, generator=rng, requires_grad=True)
    weight = torch.randn(3, k, d, generator=rng, requires_grad=True)
    heads = HeadParameters(weight, torch.zeros(3, k), torch.ones(3, d), torch.zeros(3, d))
    label = (torch.rand(num_persons, k, generator=rng) > 0.7).float()
    with LargestTensor() as seen:
        competition = compete(heads.features(h), heads, label, multi_label=True)
        refined = coordinate(h, h.detach().square().sum(-1), heads, competition, step_rule=step_rule)
        torch.autograd.grad(refined.sum() + competition.penalty("mean").mean(), (h, weight))
    assert (
        seen.largest == num_persons * 3 * d
    )  # the features themselves; one k x d per person would be 26 / 3 times that


def test_traces_without_a_graph_break() -> None:
    w = world()

    def both(h: Tensor, sq_norm: Tensor, p: Tensor, b: Tensor, gamma: Tensor, beta: Tensor, label: Tensor) -> Tensor:
        heads = HeadParameters(p, b, gamma, beta)
        competition = compete(heads.features(h), heads, label, multi_label=True)
        return coordinate(h, sq_norm, heads, competition, update="two")

    heads = w.heads
    arguments = (w.preactivation, w.sq_norm, heads.prediction_weight, heads.prediction_bias, heads.norm_weight)
    compiled = torch.compile(both, fullgraph=True, backend="eager")
    assert torch.equal(compiled(*arguments, heads.norm_bias, w.label), both(*arguments, heads.norm_bias, w.label))
