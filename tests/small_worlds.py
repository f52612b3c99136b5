"""A few made-up persons with the heads of three levels, both as modules and as plain parameters, for the workspace's tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from slow_oracle import SlowHead
from torch import Tensor

from cocoer.model.level_head import HeadParameters

INPUT, FEATURE = 20, 12  # n, d of the small worlds here


@dataclass
class World:
    """Some persons, the heads of three levels, and the heads' parameters as the functions want them."""

    modules: list[SlowHead]
    heads: HeadParameters
    inputs: Tensor  # x, [B, L, n]
    label: Tensor  # [B, k]
    counts: Tensor  # [k]

    @property
    def preactivation(self) -> Tensor:
        return torch.stack([head.mapping(self.inputs[:, m]) for m, head in enumerate(self.modules)], dim=1).detach()

    @property
    def features(self) -> Tensor:
        return torch.stack([head.features(self.inputs[:, m]) for m, head in enumerate(self.modules)], dim=1).detach()

    @property
    def sq_norm(self) -> Tensor:
        return self.inputs.square().sum(-1)


def world(num_persons: int = 6, num_classes: int = 7, multi_label: bool = True, seed: int = 0) -> World:
    """Deterministic heads and persons in float64; logits of a few units, so that losses and gradients differ."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    modules = [SlowHead(INPUT, FEATURE, num_classes).double() for _ in range(3)]
    for module in modules:
        state = {name: normal(*value.shape) / value.shape[-1] ** 0.5 for name, value in module.state_dict().items()}
        state["norm.weight"] = 1 + 0.3 * normal(FEATURE)
        module.load_state_dict(state)
    heads = HeadParameters(
        torch.stack([m.prediction.weight.detach() for m in modules]),
        torch.stack([m.prediction.bias.detach() for m in modules]),
        torch.stack([m.norm.weight.detach() for m in modules]),
        torch.stack([m.norm.bias.detach() for m in modules]),
        modules[0].norm.eps,
    )
    if multi_label:
        label = (torch.rand(num_persons, num_classes, generator=rng) > 0.6).double()
    else:
        label = F.one_hot(torch.randint(num_classes, (num_persons,), generator=rng), num_classes).double()
    counts = torch.randint(0, 500, (num_classes,), generator=rng).double()
    return World(modules, heads, F.gelu(normal(num_persons, 3, INPUT)), label, counts)
