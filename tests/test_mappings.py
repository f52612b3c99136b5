"""Level mappings that are networks: their gradient step, for all persons at once, against autograd person by person."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from slow_oracle import delta_of
from tiny_models import persons, tiny_model
from torch import Tensor, nn

from cocoer.model.attention import AttentionBlock
from cocoer.model.competition import PaperCompetition, compete
from cocoer.model.coordination import coordinate, unit
from cocoer.model.level_head import HeadParameters, LevelHead
from cocoer.model.level_model import ModelOutput
from cocoer.model.losses import competition_weights
from cocoer.model.mappings import NetworkStep, ResNetMapping, TransformerMapping, _group_norm, _patches

TOKENS, CHANNELS, FEATURES, CLASSES = 9, 8, 6, 5


def network(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    if kind == "resnet50":
        built: nn.Module = ResNetMapping(TOKENS, CHANNELS, FEATURES)
    else:
        blocks = [AttentionBlock(CHANNELS, heads=2, head_size=3, feed_forward=12) for _ in range(2)]
        built = TransformerMapping(blocks, CHANNELS, FEATURES)
    built = built.double()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, dtype=torch.float64))
    return built


KINDS = ["resnet50", "vit"]


class Levels:
    """Three level heads with mapping networks, and some persons' tokens and pseudo labels, in float64."""

    def __init__(self, kind: str, count: int = 4) -> None:
        torch.manual_seed(1)
        self.heads = [LevelHead(0, FEATURES, CLASSES, network(kind, seed)).double() for seed in range(3)]
        self.tokens = [torch.randn(count, TOKENS, CHANNELS, dtype=torch.float64) for _ in range(3)]
        self.label = (torch.rand(count, CLASSES) > 0.5).double()
        self.weights = competition_weights("dynamic", self.label)
        self.parameters = HeadParameters(
            torch.stack([h.prediction.weight for h in self.heads]).detach(),
            torch.stack([h.prediction.bias for h in self.heads]).detach(),
            torch.stack([h.norm.weight for h in self.heads]).detach(),
            torch.stack([h.norm.bias for h in self.heads]).detach(),
        )
        results = [head(x) for head, x in zip(self.heads, self.tokens, strict=True)]
        self.pre = torch.stack([r.pre for r in results], dim=1).detach()
        self.z = torch.stack([r.z for r in results], dim=1).detach()

    def step(self) -> NetworkStep:
        return NetworkStep([head.mapping for head in self.heads], self.tokens)

    def run(self, **options: Any) -> tuple[PaperCompetition, Tensor]:
        competition = compete(self.z, self.parameters, self.label, self.weights, multi_label=True)
        refined = coordinate(
            self.pre,
            torch.zeros(self.pre.shape[:2], dtype=torch.float64),
            self.parameters,
            competition,
            mapping=self.step(),
            **options,
        )
        return competition, refined

    def slow(self, competition: PaperCompetition, person: int, level: int, step_rule: str, step: float) -> Tensor:
        """One person and level of Algorithm 1, with autograd and a deep copy."""
        head = copy.deepcopy(self.heads[level])
        x, delta = self.tokens[level][person : person + 1], delta_of(competition)[person]
        size = head.prediction.weight.norm() / delta.norm() if step_rule == "relative" else 1.0
        with torch.no_grad():
            head.prediction.weight += step * size * delta
        loss = F.binary_cross_entropy_with_logits(
            head(x).logits[0], self.label[person], self.weights[person], reduction="sum"
        )
        weights = dict(head.mapping.named_parameters())
        gradient = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        if step_rule == "raw":
            with torch.no_grad():
                for name, value in weights.items():
                    value -= step * gradient[name]
            return head(x).z[0].detach()

        def features(*values: Tensor) -> Tensor:
            result: Tensor = torch.func.functional_call(head.mapping, dict(zip(weights, values, strict=True)), x)
            return result

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            pre, change = torch.autograd.functional.jvp(features, tuple(weights.values()), tuple(gradient.values()))
        moved = pre - step * pre.norm() * change / change.norm()
        return head.norm(F.gelu(moved))[0].detach()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("step_rule", "step"), [("raw", 0.5), ("raw", 0.01), ("relative", 0.1)])
@pytest.mark.parametrize("update", ["one", "two"])
def test_equals_algorithm_1_through_the_network_person_by_person(
    kind: str, step_rule: Any, step: float, update: Any
) -> None:
    levels = Levels(kind)
    competition, refined = levels.run(step_rule=step_rule, step=step, update=update)
    assert (refined - levels.z).abs().max() > 1e-4
    for person in range(len(levels.label)):
        for level in range(3):
            stays = update == "two" and level == competition.exclusion[person, -1]
            wanted = levels.z[person, level] if stays else levels.slow(competition, person, level, step_rule, step)
            torch.testing.assert_close(refined[person, level], wanted, rtol=1e-10, atol=1e-10)


def test_for_a_linear_the_network_step_is_the_closed_form() -> None:
    torch.manual_seed(0)
    linears = [
        nn.Sequential(nn.GELU(), nn.Flatten(), nn.Linear(TOKENS * CHANNELS, FEATURES)).double() for _ in range(3)
    ]
    tokens = [torch.randn(5, TOKENS, CHANNELS, dtype=torch.float64) for _ in range(3)]
    x = torch.stack([F.gelu(t.flatten(1)) for t in tokens], dim=1)
    pre = torch.stack([f(t) for f, t in zip(linears, tokens, strict=True)], dim=1).detach()
    slope = torch.randn(5, 3, FEATURES, dtype=torch.float64)
    step = NetworkStep(linears, tokens)
    change = slope * (x.square().sum(-1, keepdim=True) + 1)
    torch.testing.assert_close(step.updated(slope, 0.3), pre - 0.3 * change, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(step.direction(slope), change, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(unit(step.direction(slope)), unit(slope), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_person_does_not_depend_on_its_neighbours(kind: str) -> None:
    levels = Levels(kind)
    slope = torch.randn(4, 3, FEATURES, dtype=torch.float64)
    for call in (lambda s, v: s.updated(v, 0.2), lambda s, v: s.direction(v)):
        together = call(levels.step(), slope)
        for person in range(4):
            rows = slice(person, person + 1)
            alone = NetworkStep([head.mapping for head in levels.heads], [t[rows] for t in levels.tokens])
            torch.testing.assert_close(call(alone, slope[rows]), together[rows], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", ["updated", "direction"])
def test_the_outer_loss_sees_through_the_step(kind: str, method: str) -> None:
    torch.manual_seed(2)
    net = network(kind)
    weights = dict(net.named_parameters())
    names = list(weights)[:2] + list(weights)[-2:]

    def outer(tokens: Tensor, slope: Tensor, *chosen: Tensor) -> Tensor:
        changed = copy.deepcopy(net)
        for name, value in zip(names, chosen, strict=True):
            owner, _, last = name.rpartition(".")
            module = changed.get_submodule(owner)
            del module._parameters[last]
            setattr(module, last, value)
        step = NetworkStep([changed], [tokens])
        moved = step.updated(slope, 0.3) if method == "updated" else step.direction(slope)
        return moved.sin().sum(-1)

    tokens = torch.randn(2, TOKENS, CHANNELS, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 1, FEATURES, dtype=torch.float64, requires_grad=True)
    chosen = [weights[name].detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(outer, (tokens, slope, *chosen), fast_mode=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_model_with_mapping_networks(kind: str) -> None:
    def answers(model: nn.Module, context: Callable[[], Any]) -> Tensor:
        with context():
            result: Tensor = model(*persons(3)).refined
        return result.clone()

    model = tiny_model(
        f"model.level_head.mapping={kind}", "model.coordination.step_rule=raw", "model.coordination.step=0.5"
    )
    plain = answers(model, torch.enable_grad)
    for context in (torch.no_grad, torch.inference_mode):
        torch.testing.assert_close(answers(model, context), plain.detach(), rtol=1e-5, atol=1e-5)
    still = tiny_model(f"model.level_head.mapping={kind}", "model.coordination.update=none")
    assert (answers(still, torch.no_grad) - plain.detach()).abs().max() > 1e-4
    model.train()
    output = model(*persons(3))
    assert not any(isinstance(m, nn.BatchNorm2d) for head in model.heads.values() for m in head.modules())
    output.logits.square().mean().backward()
    for head in model.heads.values():
        assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in head.mapping.parameters())


def test_a_mapping_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="wanted a square number of tokens and an even token size, got 8 and 8"):
        ResNetMapping(8, 8, 4)
    with pytest.raises(ValueError, match="got 9 and 7"):
        ResNetMapping(9, 7, 4)
    assert replace(Levels("vit", 0).run()[0]).exclusion.shape == (0, 3)


@pytest.mark.parametrize(("padding", "groups"), [("same", 1), (1, 2), ("same", 2)])
def test_a_convolution_whose_rows_are_not_known_is_refused(padding: int | str, groups: int) -> None:
    layer = nn.Conv2d(4, 4, 3, padding=padding, groups=groups)
    with pytest.raises(NotImplementedError, match="one group and padding in numbers"):
        _patches(torch.zeros(1, 4, 5, 5), layer.weight, None, 1, padding, 1, groups)
    plain = nn.Conv2d(4, 6, 3, padding=1, bias=False)
    image = torch.randn(2, 4, 5, 5)
    rows = _patches(image, plain.weight, None, 1, 1, 1, 1)  # [B, pixels, in * area]
    assert torch.allclose(rows @ plain.weight.flatten(1).T, plain(image).flatten(2).transpose(1, 2), atol=1e-5)


def test_group_norms_have_32_groups_as_published_where_the_channels_allow() -> None:
    """Wu and He, Group Normalization, section 3: 32 groups by default."""
    assert [_group_norm(channels).num_groups for channels in (2048, 1024, 64, 48, 6)] == [32, 32, 32, 16, 2]


def test_one_answer_stands_for_every_level() -> None:
    logits, features = torch.randn(2, 5), torch.randn(2, 7)
    output = ModelOutput.of_one(logits, features)
    assert output.level_logits.shape == (2, 3, 5) and output.level_features.shape == (2, 3, 7)
    for level in range(3):
        assert torch.equal(output.level_logits[:, level], logits)
        assert torch.equal(output.refined[:, level], features)
    assert output.competition is None and output.pseudo_label is None and torch.equal(output.fused_features, features)
