"""The published competition and coordination: the closed form against modules, autograd and brute force, person by person."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from slow_oracle import person_loss, release_person
from small_worlds import FEATURE, World, world
from torch import Tensor

from cocoer.model.level_head import HeadParameters
from cocoer.model.losses import competition_weights
from cocoer.model.release.coordination import (
    ReleaseCompetition,
    _mean_class_bias_direction,
    release_compete,
    release_coordinate,
)


def run(w: World, *, multi_label: bool = True, step: float = 1.0) -> tuple[ReleaseCompetition, Tensor]:
    weights = competition_weights("dynamic", w.label) if multi_label else None
    competition = release_compete(w.features, w.heads, w.label, weights, multi_label=multi_label)
    return competition, release_coordinate(w.preactivation, w.sq_norm, w.heads, competition, step=step)


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("step", [1.0, 0.1])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_published_rule_person_by_person(multi_label: bool, step: float, seed: int) -> None:
    w = world(multi_label=multi_label, seed=seed)
    competition, refined = run(w, multi_label=multi_label, step=step)
    for person in range(len(w.label)):
        loss = person_loss(w.label[person], "dynamic", w.counts, None, multi_label)
        slow, distance = release_person(w.modules, w.inputs[person], loss, step)
        assert competition.exclusion[person].tolist() == slow.exclusion
        for ours, theirs in (
            (competition.losses[person], torch.tensor(slow.losses, dtype=torch.float64)),
            (competition.weights[person], torch.tensor(slow.rounds[:2], dtype=torch.float64)),
            (competition.bias_weights[person], torch.tensor(slow.rounds[2:], dtype=torch.float64)),
            (competition.direction[person], slow.delta),
            (competition.distance[person], torch.tensor(distance, dtype=torch.float64)),
            (refined[person], slow.refined),
        ):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_the_direction_never_reaches_the_features() -> None:
    """As published: the refined features follow from each level's own gradient, whatever the programs say."""
    w = world()
    competition, refined = run(w)
    spoiled = copy.copy(competition)
    object.__setattr__(spoiled, "weights", competition.weights.flip(-1))
    object.__setattr__(spoiled, "direction", -competition.direction)
    assert torch.equal(release_coordinate(w.preactivation, w.sq_norm, w.heads, spoiled, step=1.0), refined)
    assert (refined - w.features).norm(dim=-1).min() > 1e-3


@pytest.mark.parametrize("step", [1.0, 0.1])
def test_training_gradient_is_that_of_the_updated_mapping(step: float) -> None:
    """The published code lowers A by a constant (step * g x') and runs the head again: gradients by x, A and the norm."""
    w = world(num_persons=1)
    weights = competition_weights("dynamic", w.label)
    person_inputs = w.inputs.clone().requires_grad_()
    modules = copy.deepcopy(w.modules)
    mapping = [module.mapping for module in modules]
    h = torch.stack([a(person_inputs[:, m]) for m, a in enumerate(mapping)], dim=1)
    heads = HeadParameters(
        torch.stack([m.prediction.weight for m in modules]),
        torch.stack([m.prediction.bias for m in modules]),
        torch.stack([m.norm.weight for m in modules]),
        torch.stack([m.norm.bias for m in modules]),
    )
    competition = release_compete(heads.features(h), heads, w.label, weights, multi_label=True)
    refined = release_coordinate(h, person_inputs.square().sum(-1), heads, competition, step=step)
    ours = torch.autograd.grad(refined.sin().sum(), [person_inputs, *(a.weight for a in mapping)])

    loss = person_loss(w.label[0], "dynamic", w.counts, None, True)
    inputs, outer, updated = w.inputs.clone().requires_grad_(), torch.zeros((), dtype=torch.float64), []
    for m, module in enumerate(w.modules):
        changed = copy.deepcopy(module)
        parameters = (changed.mapping.weight, changed.mapping.bias)
        slopes = torch.autograd.grad(loss(changed(inputs[0, m].detach())), parameters)
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter -= step * slope
        outer = outer + changed.features(inputs[0, m]).sin().sum()
        updated.append(changed)
    theirs = torch.autograd.grad(outer, [inputs, *(m.mapping.weight for m in updated)])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_no_gradient_through_the_reported_numbers() -> None:
    w = world()
    competition = release_compete(w.features.requires_grad_(), w.heads, w.label, multi_label=True)
    assert not any(getattr(competition, name).requires_grad for name in ("distance", "direction", "weights", "losses"))


def test_persons_do_not_see_each_other() -> None:
    w = world(num_persons=9)
    competition, refined = run(w)
    for person in range(9):
        rows = slice(person, person + 1)
        alone, alone_refined = run(World(w.modules, w.heads, w.inputs[rows], w.label[rows], w.counts))
        torch.testing.assert_close(alone_refined, refined[rows], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(alone.distance, competition.distance[rows], rtol=1e-12, atol=1e-12)


def test_no_person_no_error_and_no_choice_on_bad_numbers() -> None:
    competition, refined = run(world(num_persons=0))
    assert refined.shape == (0, 3, FEATURE)
    assert competition.distance.shape == (0,)

    w = world()
    silent = release_compete(w.features, w.heads, w.label, torch.zeros_like(w.label), multi_label=True)
    assert (silent.distance == 0).all()  # no error, no direction: 0, not 0 / 0

    features = w.features
    features[4, 0, 0] = torch.nan
    bad = release_compete(features, w.heads, w.label, multi_label=True)
    assert bad.exclusion[4].tolist() == [-1, -1, -1]
    assert torch.isnan(bad.distance).tolist() == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("preactivation", torch.zeros(6, 3, 4), r"preactivation must be \[6, 3, 12\] .* got \[6, 3, 4\]"),
        ("input_sq_norm", torch.zeros(6), r"input_sq_norm must be \[6, 3\]; got \[6\]"),
    ],
)
def test_wrong_shapes_are_named(name: str, tensor: Tensor, message: str) -> None:
    w = world()
    competition, _ = run(w)
    arguments: dict[str, Any] = {"preactivation": w.preactivation, "input_sq_norm": w.sq_norm} | {name: tensor}
    with pytest.raises(ValueError, match=message):
        release_coordinate(heads=w.heads, competition=competition, step=1.0, **arguments)


def test_bf16_autocast_changes_nothing_inside() -> None:
    w = world(num_persons=20)
    heads, features, label = w.heads.to(torch.float32), w.features.float(), w.label.float()
    plain = release_compete(features, heads, label, multi_label=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = release_compete(features, heads, label, multi_label=True)
    assert torch.equal(plain.distance, cast.distance)
    assert torch.equal(plain.weights, cast.weights)


def test_of_each_class_the_biases_direction_is_the_sign_against_its_error() -> None:
    """Three classes, by hand. Round one weighs head and body: errors 1, 1 and -2, signs -, -, +; round two the context: all -."""
    rounds = torch.tensor([[[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]])
    errors = torch.tensor([[[1.0, 2.0, -2.0], [1.0, 0.0, -2.0], [3.0, 4.0, 5.0]]])
    torch.testing.assert_close(_mean_class_bias_direction(rounds, errors), torch.tensor([-1 / 3 - 1]))
