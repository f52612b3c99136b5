"""The simplex program: against two solver libraries, against brute force over faces and grids, and its own properties."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations

import numpy as np
import pytest
import quadprog
import torch
from cvxopt import matrix, solvers
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from slow_oracle import kkt_residual
from torch import Tensor

from cocoer.model.simplex_qp import require_finite, solve_simplex_qp

Array = NDArray[np.float64]
Problems = tuple[Array, Array]  # gram [n, 3, 3], losses [n, 3]

solvers.options.update({"show_progress": False, "abstol": 1e-13, "reltol": 1e-13, "feastol": 1e-13})


# ---- problems -------------------------------------------------------------------------------------------------------


def powers(rng: np.random.Generator, low: float, high: float, *shape: int) -> Array:
    return 10.0 ** rng.uniform(low, high, shape)


def gram_of(rows: Array) -> Array:
    return rows @ rows.swapaxes(-1, -2)


def generic(rng: np.random.Generator, n: int) -> Problems:
    """Random gradients; losses from negligible to dominant."""
    gram = gram_of(rng.standard_normal((n, 3, 8)))
    return gram, rng.standard_normal((n, 3)) * powers(rng, -2, 2, n, 1)


def like_the_competition(rng: np.random.Generator, n: int) -> Problems:
    """Outer-product gradients (Err Err') * (Z Z') with positive losses."""
    errors, features = rng.uniform(-1, 1, (n, 3, 26)), rng.standard_normal((n, 3, 256))
    return gram_of(errors) * gram_of(features), rng.uniform(0, 40, (n, 3))


def losses_of_any_size(rng: np.random.Generator, n: int) -> Problems:
    """Gram of order one, losses 1e-12 to 1e12."""
    return gram_of(rng.standard_normal((n, 3, 5))), rng.standard_normal((n, 3)) * powers(rng, -12, 12, n, 1)


def all_of_any_size(rng: np.random.Generator, n: int) -> Problems:
    """Everything multiplied by 1e-12 to 1e12."""
    gram, losses = generic(rng, n)
    size = powers(rng, -12, 12, n, 1)
    return gram * size[..., None], losses * size


def levels_of_any_size(rng: np.random.Generator, n: int) -> Problems:
    """One level's gradient up to 1e12 times as long as another's (Gram entries 1e-12 to 1e12)."""
    gram = gram_of(rng.standard_normal((n, 3, 6)) * powers(rng, -6, 6, n, 3, 1))
    return gram, rng.standard_normal((n, 3)) * powers(rng, -12, 12, n, 1)


def identical_gradients(rng: np.random.Generator, n: int) -> Problems:
    """Two or three levels with the same gradient; half of them with the same loss too."""
    rows = rng.standard_normal((n, 3, 6))
    rows[:, 1] = rows[:, 0]
    rows[::3, 2] = rows[::3, 0]
    losses = rng.standard_normal((n, 3))
    losses[::2, 1:] = losses[::2, :1]
    return gram_of(rows), losses


def zero_gradients(rng: np.random.Generator, n: int) -> Problems:
    """One, two or three levels without gradient, with and without losses."""
    rows = rng.standard_normal((n, 3, 6))
    rows[:, 0] = 0
    rows[::2, 1] = 0
    rows[::4, 2] = 0
    losses = rng.standard_normal((n, 3)) * powers(rng, -6, 2, n, 1)
    losses[::8] = 0
    return gram_of(rows), losses


def nearly_identical(rng: np.random.Generator, n: int) -> Problems:
    """Gradients that differ by 1e-12 to 1e-2, losses that differ about as much as the Gram entries."""
    spread = powers(rng, -12, -2, n, 1)
    rows = rng.standard_normal((n, 1, 6)) + rng.standard_normal((n, 3, 6)) * spread[..., None]
    gram = gram_of(rows)
    losses = (gram @ rng.dirichlet(np.ones(3), n)[..., None])[..., 0] + spread**2 * rng.standard_normal((n, 3)) / 3
    return gram, losses


def nearly_collinear(rng: np.random.Generator, n: int) -> Problems:
    """The third gradient on, or 1e-12 to 1e-3 beside, the line through the other two."""
    rows = rng.standard_normal((n, 3, 6))
    share = rng.uniform(-0.5, 1.5, (n, 1))
    rows[:, 2] = share * rows[:, 0] + (1 - share) * rows[:, 1]
    rows[n // 4 :, 2] += (rng.standard_normal((n, 6)) * powers(rng, -12, -3, n, 1))[n // 4 :]
    losses = rng.standard_normal((n, 3))
    losses[:, 2] = (share * losses[:, :1] + (1 - share) * losses[:, 1:2])[:, 0]
    return gram_of(rows), losses * powers(rng, -10, 1, n, 1)


def opposed(rng: np.random.Generator, n: int) -> Problems:
    """Gradients that cancel: the smallest norm on the simplex is (nearly) zero."""
    rows = rng.standard_normal((n, 3, 6))
    weights = rng.dirichlet(np.ones(3), n)[..., None]
    rows = rows - (weights * rows).sum(1, keepdims=True)
    return gram_of(rows), rng.standard_normal((n, 3)) * powers(rng, -12, 0, n, 1)


def small_integers(rng: np.random.Generator, n: int) -> Problems:
    """Ties, zeros and singular matrices in exact arithmetic."""
    return gram_of(rng.integers(-2, 3, (n, 3, 2)).astype(float)), rng.integers(-2, 3, (n, 3)).astype(float)


def on_the_border(rng: np.random.Generator, n: int) -> Problems:
    """The best weights lie 1e-16 to 1e-6 inside or outside the border of a face."""
    gram = gram_of(rng.standard_normal((n, 3, 5)))
    weights = rng.dirichlet(np.ones(3), n)
    weights[:, 0] = rng.choice([-1, 1], n) * powers(rng, -16, -6, n)
    return gram, (gram @ weights[..., None])[..., 0] + rng.standard_normal((n, 1))


FAMILIES: tuple[Callable[[np.random.Generator, int], Problems], ...] = (
    generic,
    like_the_competition,
    losses_of_any_size,
    all_of_any_size,
    levels_of_any_size,
    identical_gradients,
    zero_gradients,
    nearly_identical,
    nearly_collinear,
    opposed,
    small_integers,
    on_the_border,
)


def problems(family: Callable[[np.random.Generator, int], Problems], n: int) -> Problems:
    return family(np.random.default_rng([2025, FAMILIES.index(family)]), n)


# ---- oracles --------------------------------------------------------------------------------------------------------


def objective(gram: Array, losses: Array, weights: Array) -> tuple[Array, Array]:
    """1/2 w'Gw - f'w in extended precision with the losses counted from the largest one (an offset all candidates share),
    and the size of its terms, both [n]."""
    g, w = gram.astype(np.longdouble), weights.astype(np.longdouble)
    f = losses.astype(np.longdouble)
    f = f - f.max(-1, keepdims=True)
    value = 0.5 * np.einsum("ni,nij,nj->n", w, g, w) - (f * w).sum(-1)
    size = 0.5 * np.einsum("ni,nij,nj->n", w, abs(g), w) + (abs(f) * w).sum(-1)
    return value, size


def on_simplex(weights: Array) -> Array:
    """A solver's answer, with its last digits pushed onto the simplex."""
    weights = np.clip(weights, 0.0, None)
    return weights / weights.sum(-1, keepdims=True)


def order_one(gram: Array, losses: Array) -> Problems:
    """The same program at the scale that solver libraries expect."""
    losses = losses - losses.max(-1, keepdims=True)
    size = np.maximum(abs(gram).max((1, 2)), abs(losses).max(1))
    size[size == 0] = 1.0
    return gram / size[:, None, None], losses / size[:, None]


def by_quadprog(gram: Array, losses: Array) -> Array:
    """quadprog needs a positive definite matrix: a ridge of 1e-13 of its trace (raised until it answers)."""
    gram, losses = order_one(gram, losses)
    constraints, bounds = np.vstack((np.ones(3), np.eye(3))).T, np.array([1.0, 0, 0, 0])
    found = np.empty_like(losses)
    for i, (g, f) in enumerate(zip(gram, losses, strict=True)):
        ridge = 1e-13 * max(np.trace(g), 1e-3)
        for _ in range(8):
            try:
                found[i] = quadprog.solve_qp(g + ridge * np.eye(3), f, constraints, bounds, 1)[0]
            except ValueError:  # not positive definite for its Cholesky factorisation
                found[i] = np.nan
            if abs(found[i].sum() - 1) < 1e-6 and found[i].min() > -1e-6:
                break
            ridge *= 100
    return on_simplex(found)


def by_cvxopt(gram: Array, losses: Array) -> Array:
    gram, losses = order_one(gram, losses)
    below, zero = matrix(-np.eye(3)), matrix(np.zeros(3))
    ones, one = matrix(np.ones((1, 3))), matrix(np.ones(1))
    found = [
        np.array(solvers.qp(matrix(g), matrix(-f), below, zero, ones, one)["x"])[:, 0]
        for g, f in zip(gram, losses, strict=True)
    ]
    return on_simplex(np.array(found))


def by_brute_force(gram: Array, losses: Array) -> Array:
    """The stationary point of every face by a pseudo-inverse of its optimality system; the best admissible one."""
    gram, losses = order_one(gram, losses)
    best, lowest = np.zeros_like(losses), np.full(len(losses), np.inf)
    for size in (1, 2, 3):
        for face in map(list, combinations(range(3), size)):
            system = np.zeros((len(losses), size + 1, size + 1))
            system[:, :size, :size] = gram[:, face][:, :, face]
            system[:, :size, size] = system[:, size, :size] = 1.0
            right = np.concatenate((losses[:, face], np.ones((len(losses), 1))), axis=1)
            point = (np.linalg.pinv(system, rcond=1e-15) @ right[..., None])[:, :size, 0]
            weights = np.zeros_like(losses)
            weights[:, face] = point
            admissible = (point > -1e-12).all(1) & (abs(point.sum(1) - 1) < 1e-9)
            weights[~admissible] = np.eye(3)[0]
            weights = on_simplex(weights)
            value = objective(gram, losses, weights)[0].astype(float)
            better = admissible & (value < lowest)
            best[better], lowest[better] = weights[better], value[better]
    return best


def solve(gram: Array, losses: Array, dtype: torch.dtype = torch.float64) -> Array:
    return solve_simplex_qp(torch.tensor(gram, dtype=dtype), torch.tensor(losses, dtype=dtype)).double().numpy()


def excess(gram: Array, losses: Array, ours: Array, theirs: Array) -> tuple[float, float]:
    """How much higher our objective is than theirs: relative to the objective, and relative to the size of its terms."""
    (a, _), (b, size) = objective(gram, losses, ours), objective(gram, losses, theirs)
    gap, tiny = np.maximum(a - b, 0), np.finfo(float).tiny
    return float((gap / np.maximum(abs(b), tiny)).max()), float((gap / np.maximum(size, tiny)).max())


# ---- against the oracles --------------------------------------------------------------------------------------------

NUM_PROBLEMS = 2000  # of each family, 24,000 in all
NUM_CVXOPT = 250  # cvxopt takes a millisecond each


@pytest.mark.parametrize(
    ("oracle", "count"), [(by_quadprog, NUM_PROBLEMS), (by_brute_force, NUM_PROBLEMS), (by_cvxopt, NUM_CVXOPT)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_objective_is_never_worse_than_the_oracles(
    family: Callable[[np.random.Generator, int], Problems], oracle: Callable[[Array, Array], Array], count: int
) -> None:
    gram, losses = (part[:count] for part in problems(family, NUM_PROBLEMS))
    theirs = oracle(gram, losses)
    assert np.isfinite(theirs).all()
    (ours, _), (wanted, size) = objective(gram, losses, solve(gram, losses)), objective(gram, losses, theirs)
    # The second term is the rounding of the terms; it counts only where they cancel to nothing (`opposed`).
    assert (ours - wanted <= 1e-9 * abs(wanted) + 1e-15 * size).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_kkt_conditions_hold(
    family: Callable[[np.random.Generator, int], Problems], dtype: torch.dtype, limit: float
) -> None:
    gram, losses = (torch.tensor(part, dtype=dtype) for part in problems(family, NUM_PROBLEMS))
    weights = solve_simplex_qp(gram, losses)
    assert (weights >= 0).all()
    # In double precision, so that the check does not share the solver's rounding.
    assert kkt_residual(gram.double(), losses.double(), weights.double()).max() <= limit


@given(st.integers(0, 2**32 - 1), st.sampled_from(FAMILIES))
def test_no_point_of_a_fine_grid_is_better(seed: int, family: Callable[[np.random.Generator, int], Problems]) -> None:
    gram, losses = family(np.random.default_rng(seed), 8)
    gram, losses = gram[-1:], losses[-1:]
    steps = 120
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    values, sizes = objective(np.repeat(gram, len(grid), 0), np.repeat(losses, len(grid), 0), grid)
    (ours,), _ = objective(gram, losses, solve(gram, losses))
    assert ours <= (values + 1e-15 * sizes).min()


# ---- properties -----------------------------------------------------------------------------------------------------


def tensors(family: Callable[[np.random.Generator, int], Problems], n: int = 500) -> tuple[Tensor, Tensor]:
    gram, losses = problems(family, n)
    return torch.tensor(gram), torch.tensor(losses)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_power_of_two_changes_nothing(family: Callable[[np.random.Generator, int], Problems]) -> None:
    gram, losses = tensors(family)
    for exponent in (-40, 40):
        scaled = solve_simplex_qp(gram * 2.0**exponent, losses * 2.0**exponent)
        assert torch.equal(scaled, solve_simplex_qp(gram, losses))


def test_scale_and_loss_offset_change_nothing_but_rounding() -> None:
    gram, losses = tensors(like_the_competition)
    weights = solve_simplex_qp(gram, losses)
    for scale in (1e-12, 1e-3, 7.0, 1e12):
        torch.testing.assert_close(solve_simplex_qp(gram * scale, losses * scale), weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(solve_simplex_qp(gram, losses + 123.0), weights, rtol=0, atol=1e-11)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_permuting_levels_permutes_weights(order: tuple[int, ...]) -> None:
    gram, losses = tensors(generic)
    order_list = list(order)
    permuted = solve_simplex_qp(gram[:, order_list][:, :, order_list], losses[:, order_list])
    torch.testing.assert_close(permuted, solve_simplex_qp(gram, losses)[:, order_list], rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_problem_does_not_see_its_batch_neighbours(dtype: torch.dtype) -> None:
    parts = [tensors(family, 20) for family in FAMILIES]
    gram = torch.cat([p[0] for p in parts]).to(dtype)
    losses = torch.cat([p[1] for p in parts]).to(dtype)
    together = solve_simplex_qp(gram, losses)
    alone = torch.stack([solve_simplex_qp(g, f) for g, f in zip(gram, losses, strict=True)])
    assert torch.equal(alone, together)
    reshaped = solve_simplex_qp(gram.reshape(4, -1, 3, 3), losses.reshape(4, -1, 3))
    assert torch.equal(reshaped.reshape(-1, 3), together)
    order = torch.randperm(len(gram), generator=torch.Generator().manual_seed(0))
    assert torch.equal(solve_simplex_qp(gram[order], losses[order]), together[order])


def test_fewer_levels() -> None:
    gram, losses = tensors(generic)
    assert torch.equal(solve_simplex_qp(gram[:, :1, :1], losses[:, :1]), torch.ones(500, 1, dtype=torch.float64))
    two = solve_simplex_qp(gram[:, :2, :2], losses[:, :2])
    share = (gram[:, 1, 1] - gram[:, 0, 1] + losses[:, 0] - losses[:, 1]) / (
        gram[:, 0, 0] + gram[:, 1, 1] - 2 * gram[:, 0, 1]
    )
    torch.testing.assert_close(two[:, 0], share.clamp(0, 1), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (0,), (4, 0), (2, 3)])
@pytest.mark.parametrize("q", [1, 2, 3])
def test_any_batch_shape(batch: tuple[int, ...], q: int) -> None:
    weights = solve_simplex_qp(torch.eye(q).expand(*batch, q, q), torch.zeros(*batch, q))
    assert weights.shape == (*batch, q)
    torch.testing.assert_close(weights, torch.full((*batch, q), 1 / q))
    assert kkt_residual(torch.eye(q).expand(*batch, q, q), torch.zeros(*batch, q), weights).shape == batch


def test_equal_levels_are_resolved_by_the_first() -> None:
    flat = torch.ones(3, 3, dtype=torch.float64)
    assert solve_simplex_qp(flat, torch.zeros(3, dtype=torch.float64)).tolist() == [1, 0, 0]
    assert solve_simplex_qp(0 * flat, torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)).tolist() == [0, 1, 0]
    mask = torch.tensor([False, True, True])
    assert solve_simplex_qp(flat, torch.zeros(3, dtype=torch.float64), mask).tolist() == [0, 1, 0]


# ---- levels that do not take part -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_problem_is_the_smaller_problem(family: Callable[[np.random.Generator, int], Problems]) -> None:
    gram, losses = tensors(family, 200)
    for keep in ([0, 1], [0, 2], [1, 2], [0], [1], [2]):
        mask = torch.zeros(200, 3, dtype=torch.bool)
        mask[:, keep] = True
        smaller = solve_simplex_qp(gram[:, keep][:, :, keep], losses[:, keep])
        spoiled_gram = torch.where(mask[:, :, None] & mask[:, None, :], gram, torch.nan)
        weights = solve_simplex_qp(spoiled_gram, torch.where(mask, losses, torch.inf), mask)
        assert torch.equal(weights[:, keep], smaller)
        assert (weights[~mask] == 0).all()
        assert kkt_residual(gram, losses, weights, mask).max() <= 1e-14


def test_masks_may_differ_within_a_batch() -> None:
    gram, losses = tensors(generic, 300)
    mask = torch.arange(3) != (torch.arange(300) % 3)[:, None]
    weights = solve_simplex_qp(gram, losses, mask)
    for i in range(300):
        assert torch.equal(weights[i], solve_simplex_qp(gram[i], losses[i], mask[i]))


def test_a_problem_without_levels_gets_no_weight() -> None:
    gram, losses = (part.requires_grad_() for part in tensors(generic, 4))
    weights = solve_simplex_qp(gram, losses, torch.zeros(4, 3, dtype=torch.bool))
    assert (weights == 0).all()
    assert all((g == 0).all() for g in torch.autograd.grad(weights.sum(), (gram, losses)))


# ---- gradients ------------------------------------------------------------------------------------------------------


def test_gradient_on_every_kind_of_face() -> None:
    gram, losses = tensors(like_the_competition, 400)
    gram, losses = gram / 1000, losses / 20
    weights = solve_simplex_qp(gram, losses)
    inside = torch.where(weights > 0, weights, 1.0).amin(-1) > 1e-2  # far from a change of face
    for support in (1, 2, 3):
        chosen = (inside & ((weights > 0).sum(-1) == support)).nonzero().flatten()[:8]
        assert len(chosen) > 0
        inputs = (gram[chosen].requires_grad_(), losses[chosen].requires_grad_())
        assert torch.autograd.gradcheck(solve_simplex_qp, inputs)
        slopes = torch.autograd.grad(solve_simplex_qp(*inputs)[:, 0].sum(), inputs)
        assert any((slope != 0).any() for slope in slopes) == (support > 1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite(family: Callable[[np.random.Generator, int], Problems], dtype: torch.dtype) -> None:
    gram, losses = (part.to(dtype).requires_grad_() for part in tensors(family, NUM_PROBLEMS))
    slopes = torch.autograd.grad(solve_simplex_qp(gram, losses).square().sum(), (gram, losses))
    assert all(torch.isfinite(slope).all() for slope in slopes)


def test_second_derivatives_exist() -> None:
    gram, losses = tensors(generic, 6)
    assert torch.autograd.gradgradcheck(solve_simplex_qp, (gram.requires_grad_(), losses.requires_grad_()))


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", ["gram", "losses"])
def test_non_finite_problems_are_marked_and_alone(bad: float, place: str) -> None:
    gram, losses = tensors(generic, 5)
    clean = solve_simplex_qp(gram, losses)
    if place == "gram":
        gram[2, 1, 1] = bad
    else:
        losses[2, 1] = bad
    weights = solve_simplex_qp(gram, losses)
    assert torch.isnan(weights[2]).all()
    assert torch.equal(weights[[0, 1, 3, 4]], clean[[0, 1, 3, 4]])
    assert torch.isnan(kkt_residual(gram, losses, clean)[2])
    with pytest.raises(ValueError, match=rf"{place} .* must be finite; got NaN or infinity in rows \[2\]"):
        require_finite(gram=gram, losses=losses)


def test_finite_input_passes() -> None:
    require_finite(gram=torch.eye(3), losses=torch.zeros(3), loss=torch.tensor(1.0), empty=torch.zeros(0, 3))
    with pytest.raises(ValueError, match="loss .* must be finite"):
        require_finite(loss=torch.tensor(torch.nan))


@pytest.mark.parametrize(
    ("gram", "losses", "mask", "message"),
    [
        (torch.zeros(2, 4, 4), torch.zeros(2, 4), None, r"gram must be .* q = 1, 2 or 3; got \(2, 4, 4\)"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 3), None, "gram must be"),
        (torch.zeros(3), torch.zeros(3), None, "gram must be"),
        (torch.zeros(2, 3, 3), torch.zeros(3), None, r"losses must be \(2, 3\) .* got \(3,\)"),
        (torch.zeros(3, 3), torch.zeros(3, dtype=torch.float64), None, "float32 and torch.float64"),
        (torch.zeros(3, 3).bfloat16(), torch.zeros(3).bfloat16(), None, "Half precision"),
        (torch.zeros(3, 3), torch.zeros(3), torch.ones(3), "mask must be bool"),
        (torch.zeros(3, 3), torch.zeros(3), torch.ones(2, dtype=torch.bool), r"mask must be bool \(3,\)"),
    ],
)
def test_wrong_shapes_are_named(gram: Tensor, losses: Tensor, mask: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_simplex_qp(gram, losses, mask)


def test_kkt_residual_sees_what_is_wrong() -> None:
    gram, losses = torch.eye(3), torch.zeros(3)
    third = torch.full((3,), 1 / 3)
    assert kkt_residual(gram, losses, third) < 1e-6
    assert kkt_residual(gram, losses, torch.tensor([1.0, 0, 0])) == 1  # gap w'g - min g = 1 - 0
    assert kkt_residual(gram, losses, 2 * third) == 1  # sum is 2
    assert kkt_residual(gram, losses, torch.tensor([0.6, 0.6, -0.2])) >= 0.2  # negative weight
    assert kkt_residual(gram, losses, third, torch.tensor([True, True, False])) >= 1 / 3  # weight on an absent level


# ---- compiled and exported ------------------------------------------------------------------------------------------


def test_traces_without_a_graph_break() -> None:
    gram, losses = tensors(generic, 50)
    mask = torch.arange(3) != (torch.arange(50) % 3)[:, None]
    compiled = torch.compile(solve_simplex_qp, fullgraph=True, backend="eager")
    assert torch.equal(compiled(gram, losses, mask), solve_simplex_qp(gram, losses, mask))
