"""Folding for inference: the same answers from fewer weights."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from tiny_models import persons, shake_norms, tiny_model
from torch import Tensor, nn

from cocoer.model.backbone import build_backbone
from cocoer.model.cocoer import CocoER
from cocoer.model.fold_batch_norms import fold_batch_norms


def norms_in(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def bytes_of(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in model.state_dict().values())


@torch.inference_mode()
def outputs_of(model: CocoER) -> dict[str, Tensor]:
    output = model(*persons(4))
    return {f.name: v for f in fields(output) if isinstance(v := getattr(output, f.name), Tensor)}


@pytest.mark.parametrize("layout", ["repeat", "modulate"])
def test_a_fused_model_answers_the_same_with_less(layout: str) -> None:
    model = tiny_model(f"model.vocabulary.layout={layout}")
    before, size = outputs_of(model), bytes_of(model)
    model.fold()
    after = outputs_of(model)
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-5, msg=name)
    assert norms_in(model) == 0
    assert model.folded
    assert bytes_of(model) < (0.6 if layout == "repeat" else 1.0) * size
    model.fold()
    assert all(torch.equal(value, after[name]) for name, value in outputs_of(model).items())


@pytest.mark.parametrize(
    ("name", "left"),
    [("resnet18", 0), ("resnet50", 0), ("small", 0), ("densenet161", 78 + 3 + 1)],
)
def test_backbones_fold_where_the_norm_follows_a_convolution(name: str, left: int) -> None:
    torch.manual_seed(0)
    backbone = build_backbone(name, (8, 16)).eval()
    shake_norms(backbone)
    images, all_norms = torch.randn(1, 3, 48, 48), norms_in(backbone)
    with torch.inference_mode():
        before = backbone(images)
        folded = fold_batch_norms(backbone)
        after = backbone(images)
    assert norms_in(backbone) == left == all_norms - folded
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5 * before.abs().max().item())
    assert any(module is backbone.last_block for module in backbone.modules())  # saliency still finds it


def shaken(kind: type[nn.Module]) -> nn.Module:
    """A network with seeded weights whose norms have statistics as after some training, in eval mode."""
    torch.manual_seed(0)
    network = kind().eval()
    shake_norms(network)
    return network


class Oddities(nn.Module):
    """A convolution that feeds two layers, one that is called twice, a norm before its convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second, self.before = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.twice = nn.Conv2d(4, 4, 1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.plain, self.after = nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        mid = self.shared(self.before(x))
        x = self.first(mid) + self.second(mid).relu()
        x = self.norm_b(self.twice(self.norm_a(self.twice(x))))
        return self.after(self.plain(x))


def test_only_what_is_safe_is_folded() -> None:
    network = shaken(Oddities)
    images = torch.randn(2, 4, 5, 5)
    before = network(images)
    assert fold_batch_norms(network) == 1
    assert isinstance(network.after, nn.Identity)
    torch.testing.assert_close(network(images), before, rtol=1e-5, atol=1e-5)


class SharedNorm(nn.Module):
    """One norm behind two convolutions: in neither is it theirs alone."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.a(x)) + self.norm(self.b(x))


def test_a_norm_that_two_convolutions_share_stays() -> None:
    network = shaken(SharedNorm)
    images = torch.randn(2, 3, 4, 4)
    before = network(images)
    assert fold_batch_norms(network) == 0 and torch.equal(network(images), before)


def test_folding_and_training_exclude_each_other() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="call eval"):
        model.train().fold()
    with pytest.raises(ValueError, match="call eval"):
        fold_batch_norms(model.backbones["head"])
    model.eval().fold()
    assert model.eval() is model
    with pytest.raises(ValueError, match="has been folded for inference and cannot be trained"):
        model.train()
