"""Tokens and cross-level attention of paper mode against a slow reference, written from the supplement in float64.

Zero-padded feature maps are cut into patches, each becomes a token by E, a learned position is added; head, body and context
query the context's tokens: x + attention(norm x, norm y), then x + feed-forward(norm x). Plain loops over numpy numbers; no
line, layer or function of the package is used but its weights.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cocoer.model.attention import AttentionBlock
from cocoer.model.cross_level import PaperCrossLevel, PatchTokens
from cocoer.names import LEVELS

Array = NDArray[np.float64]
CHANNELS, GRID, PATCH, SIZE, HEADS, HEAD_SIZE, FEED_FORWARD = 3, 5, 2, 10, 3, 3, 14


class Weights:
    """The parameters of a module by name, float64."""

    def __init__(self, module: nn.Module) -> None:
        self.arrays = {name: value.detach().double().numpy() for name, value in module.state_dict().items()}

    def linear(self, name: str, x: Array) -> Array:
        """y_i = sum_j W_ij x_j + b_i."""
        weight, bias = self.arrays[f"{name}.weight"], self.arrays[f"{name}.bias"]
        return np.array([sum(weight[i, j] * x[j] for j in range(len(x))) + bias[i] for i in range(len(bias))])

    def norm(self, name: str, x: Array) -> Array:
        """LayerNorm with torch's epsilon."""
        mean = sum(x) / len(x)
        variance = sum((v - mean) ** 2 for v in x) / len(x)
        scaled = [(v - mean) / math.sqrt(variance + 1e-5) for v in x]
        return np.array(scaled) * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]


def gelu(x: Array) -> Array:
    return np.array([v * 0.5 * (1.0 + math.erf(v / math.sqrt(2.0))) for v in x])


def tokens_of(weights: Weights, features: Array) -> list[Array]:
    """One person's map [channels, g, g] -> tokens, patch by patch, row by row; what lies outside the map is 0."""
    side = math.ceil(GRID / PATCH)
    out = []
    for row in range(side):
        for column in range(side):
            entries = [
                features[c, PATCH * row + y, PATCH * column + x]
                if PATCH * row + y < GRID and PATCH * column + x < GRID else 0.0
                for c in range(CHANNELS) for y in range(PATCH) for x in range(PATCH)
            ]  # fmt: skip
            out.append(weights.linear("project", np.array(entries)))
    return out


def attended(weights: Weights, at: str, tokens: list[Array], context: list[Array], own_norm: bool) -> list[Array]:
    """One block: every token looks at every context token with every head, then passes the feed-forward network."""
    context_norm = "norm_context" if own_norm else "norm_query"
    seen = [weights.norm(f"{at}{context_norm}", y) for y in context]
    keys = [weights.linear(f"{at}attention.to_key", y) for y in seen]
    values = [weights.linear(f"{at}attention.to_value", y) for y in seen]
    out = []
    for x in tokens:
        query = weights.linear(f"{at}attention.to_query", weights.norm(f"{at}norm_query", x))
        mixed: list[float] = []
        for head in range(HEADS):
            part = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            alike = [math.exp(float(query[part] @ key[part]) / math.sqrt(HEAD_SIZE)) for key in keys]
            mixed += list(sum(a * value[part] for a, value in zip(alike, values, strict=True)) / sum(alike))
        x = x + weights.linear(f"{at}attention.to_out", np.array(mixed))
        inner = gelu(weights.linear(f"{at}feed_forward.0", weights.norm(f"{at}norm_feed_forward", x)))
        out.append(x + weights.linear(f"{at}feed_forward.2", inner))
    return out


def shaken(module: nn.Module, seed: int) -> nn.Module:
    """Every parameter away from its start: norms of scale 1 and shift 0 would hide a norm that is left out or swapped."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.4 * torch.randn(parameter.shape, generator=generator))
    return module.double()


def test_tokens_are_the_padded_patches_projected() -> None:
    module = shaken(PatchTokens(CHANNELS, GRID, PATCH, SIZE), 1)
    features = torch.randn(2, CHANNELS, GRID, GRID, generator=torch.Generator().manual_seed(2)).double()
    found = module(features).detach().numpy()
    for person in range(2):
        np.testing.assert_allclose(found[person], tokens_of(Weights(module), features[person].numpy()), atol=1e-12)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_levels_query_the_context_and_positions_are_added(num_blocks: int) -> None:
    blocks = [
        [
            AttentionBlock(SIZE, HEADS, HEAD_SIZE, FEED_FORWARD, context_norm=level != "context")
            for _ in range(num_blocks)
        ]
        for level in LEVELS
    ]
    module = shaken(PaperCrossLevel(blocks, 4, SIZE), 3)
    generator = torch.Generator().manual_seed(4)
    tokens = [torch.randn(2, 4, SIZE, generator=generator).double() for _ in LEVELS]
    nowhere = torch.zeros(2, 4)
    found = module(tokens, nowhere, nowhere)
    weights = Weights(module)
    for person in range(2):
        placed = [[row + weights.arrays["position"][i] for i, row in enumerate(t[person].numpy())] for t in tokens]
        for m, level in enumerate(LEVELS):
            x = placed[m]
            for number in range(num_blocks):
                look = x if level == "context" else placed[LEVELS.index("context")]
                x = attended(weights, f"blocks.{level}.{number}.", x, look, own_norm=level != "context")
            np.testing.assert_allclose(found[m][person].detach().numpy(), np.array(x), atol=1e-11)
