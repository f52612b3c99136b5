"""Prints the table of oracle comparisons that docs/method.md shows: how many cases, and the worst error of each.

    python tests/measure_oracles.py

Cases and oracles are those of test_simplex_qp, test_coordination, test_mappings and test_release_rule, which hold them to
their limits; this only says how far below the limits they are. Takes about a minute on one core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import test_coordination
import test_release_rule
import torch
from slow_oracle import delta_of, kkt_residual, paper_person, person_loss, release_person
from small_worlds import world
from test_coordination import LOSSES
from test_mappings import KINDS, Levels
from test_simplex_qp import (
    FAMILIES,
    NUM_CVXOPT,
    NUM_PROBLEMS,
    Array,
    by_brute_force,
    by_cvxopt,
    by_quadprog,
    excess,
    problems,
    solve,
)
from torch import Tensor

from cocoer.model.losses import competition_weights
from cocoer.model.simplex_qp import solve_simplex_qp

Row = tuple[str, str, str, str]


def qp_rows() -> Iterator[Row]:
    """The simplex program against three solvers, and its optimality conditions."""
    oracles: list[tuple[str, Callable[[Array, Array], Array], int]] = [
        ("quadprog", by_quadprog, NUM_PROBLEMS),
        ("cvxopt", by_cvxopt, NUM_CVXOPT),
        ("all faces by pseudo-inverse", by_brute_force, NUM_PROBLEMS),
    ]
    for name, oracle, count in oracles:
        worst = 0.0
        for family in FAMILIES:
            gram, losses = (part[:count] for part in problems(family, NUM_PROBLEMS))
            worst = max(worst, excess(gram, losses, solve(gram, losses), oracle(gram, losses))[1])
        cases = f"{count * len(FAMILIES):,} problems, {len(FAMILIES)} families"
        yield "simplex QP, float64", name, cases, f"objective higher by {worst:.0e} of its terms"
    for dtype, name in ((torch.float64, "float64"), (torch.float32, "float32")):
        worst = 0.0
        for family in FAMILIES:
            gram, losses = (torch.tensor(part, dtype=dtype) for part in problems(family, NUM_PROBLEMS))
            weights = solve_simplex_qp(gram, losses)
            worst = max(worst, float(kkt_residual(gram.double(), losses.double(), weights.double()).max()))
        cases = f"{NUM_PROBLEMS * len(FAMILIES):,} problems"
        yield f"simplex QP, {name}", "KKT conditions in float64", cases, f"residual {worst:.0e}"


def furthest(*pairs: tuple[Tensor, Tensor]) -> float:
    """The largest absolute difference."""
    return max(float((a - b).detach().abs().max()) for a, b in pairs)


def paper_rows() -> Iterator[Row]:
    """Competition and coordination against Algorithm 1 with autograd, one person at a time."""
    for step_rule, step in (("raw", 1.0), ("raw", 0.01), ("relative", 0.1)):
        cases, simplex, direction, features = 0, 0.0, 0.0, 0.0
        for seed, (multi_label, rule, negative) in enumerate(LOSSES):
            w = world(multi_label=multi_label, seed=seed)
            weights = competition_weights(rule, w.label, w.counts, negative) if multi_label else None
            for biases in (False, True):
                for update in ("one", "two"):
                    options = {"update": update, "step_rule": step_rule, "step": step}
                    found, refined = test_coordination.run(
                        w, multi_label=multi_label, weights=weights, biases=biases, **options
                    )
                    for person in range(len(w.label)):
                        loss = person_loss(w.label[person], rule, w.counts, negative, multi_label)
                        slow = paper_person(w.modules, w.inputs[person], loss, biases=biases, **options)  # type: ignore[arg-type]
                        rounds = torch.tensor(slow.rounds, dtype=torch.float64)
                        simplex = max(simplex, furthest((found.weights[person], rounds)))
                        direction = max(direction, furthest((delta_of(found)[person], slow.delta)))
                        features = max(features, furthest((refined[person], slow.refined)))
                        cases += 1
        yield (
            f"competition and coordination, `{step_rule}` step {step}",
            "Algorithm 1 with autograd and deep copies, person by person",
            f"{cases} persons, 7 losses, with and without biases, update one and two",
            f"lambda {simplex:.0e}, delta {direction:.0e}, refined features {features:.0e}",
        )


def mapping_rows() -> Iterator[Row]:
    """Mapping networks against the same, through every weight of the network."""
    for kind in KINDS:
        for step_rule, step in (("raw", 0.5), ("relative", 0.1)):
            levels = Levels(kind, 8)
            found, refined = levels.run(step_rule=step_rule, step=step)
            worst = furthest(
                *((refined[b, m], levels.slow(found, b, m, step_rule, step)) for b in range(8) for m in range(3))
            )
            yield (
                f"coordination through a `{kind}` mapping, `{step_rule}`",
                "Algorithm 1 with autograd and deep copies, person by person",
                "8 persons, 3 levels",
                f"refined features {worst:.0e}",
            )


def release_rows() -> Iterator[Row]:
    """The published rule against the published way of computing it."""
    cases, features, distance = 0, 0.0, 0.0
    for multi_label in (True, False):
        for seed in range(4):
            w = world(multi_label=multi_label, seed=seed)
            found, refined = test_release_rule.run(w, multi_label=multi_label, step=1.0)
            for person in range(len(w.label)):
                loss = person_loss(w.label[person], "dynamic", w.counts, None, multi_label)
                slow, far = release_person(w.modules, w.inputs[person], loss, 1.0)
                features = max(features, furthest((refined[person], slow.refined)))
                distance = max(distance, abs(float(found.distance[person]) - far))
                cases += 1
    yield (
        "published rule, step 1.0",
        "its two programs and gradient step with autograd, person by person",
        f"{cases} persons",
        f"refined features {features:.0e}, distance {distance:.0e}",
    )


def main() -> None:
    """Print the table in Markdown."""
    print("| what | against | cases | worst error |\n|---|---|---|---|")
    for rows in (qp_rows, paper_rows, mapping_rows, release_rows):
        for row in rows():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
