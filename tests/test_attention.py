"""The attention block, paper and published form, against a slow reading of its definition."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.model.attention import AttentionBlock, MultiHeadAttention

CHANNELS, HEADS, HEAD_SIZE = 10, 3, 4  # 3 x 4 = 12: the inner size is not the token size, as 3 x 341 is not 1024


def slow_attention(module: MultiHeadAttention, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """One person, one head, one query at a time: output [B, Nq, c] and map [B, heads, Nq, Nk]."""
    q, k, v = module.to_query(query), module.to_key(key), module.to_value(value)
    maps = torch.zeros(query.shape[0], HEADS, query.shape[1], key.shape[1], dtype=query.dtype)
    mixed = torch.zeros(query.shape[0], query.shape[1], HEADS * HEAD_SIZE, dtype=query.dtype)
    for b in range(query.shape[0]):
        for head in range(HEADS):
            part = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            for i in range(query.shape[1]):
                scores = torch.stack(
                    [q[b, i, part] @ k[b, j, part] / math.sqrt(HEAD_SIZE) for j in range(key.shape[1])]
                )
                share = scores.exp() / scores.exp().sum()
                maps[b, head, i] = share
                mixed[b, i, part] = sum(share[j] * v[b, j, part] for j in range(key.shape[1]))
    return module.to_out(mixed), maps


def tokens(count: int, seed: int) -> Tensor:
    return torch.randn(2, count, CHANNELS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def block(published: bool, context_norm: bool = True) -> AttentionBlock:
    torch.manual_seed(0)
    made = AttentionBlock(CHANNELS, HEADS, HEAD_SIZE, 16, published, context_norm).double()
    with torch.no_grad():
        for norm in made.modules():
            if isinstance(norm, nn.LayerNorm):
                norm.weight.add_(0.3 * torch.randn(CHANNELS))
                norm.bias.add_(0.3 * torch.randn(CHANNELS))
    return made


def test_attention_is_its_definition() -> None:
    module = block(False).attention
    query, key, value = tokens(4, 0), tokens(5, 1), tokens(5, 2)
    wanted, maps = slow_attention(module, query, key, value)
    torch.testing.assert_close(module(query, key, value), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(module.weights(query, key), maps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("placed", [False, True])
@pytest.mark.parametrize("context_norm", [False, True])
def test_block_is_what_its_docstring_says(published: bool, placed: bool, context_norm: bool) -> None:
    made, x, y = block(published, context_norm), tokens(4, 0), tokens(6, 1)
    x_pos, y_pos = (tokens(4, 2), tokens(6, 3)) if placed else (None, None)
    query = made.norm_query(x) + (x_pos if x_pos is not None else 0)
    assert (made.norm_context is not None) == context_norm
    normed = made.norm_query(y) if made.norm_context is None else made.norm_context(y)
    value, activation = (y, F.silu) if published else (normed, F.gelu)
    key = normed + (y_pos if y_pos is not None else 0)
    mixed, maps = slow_attention(made.attention, query, key, value)
    after = x + mixed
    first, _, second = made.feed_forward
    wanted = after + second(activation(first(made.norm_feed_forward(after))))
    torch.testing.assert_close(made(x, y, x_pos, y_pos), wanted, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made.attention_map(x, y, x_pos, y_pos), maps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("published", [False, True])
def test_order_of_context_tokens_does_not_matter_and_persons_stand_apart(published: bool) -> None:
    made, x, y = block(published), tokens(4, 0), tokens(6, 1)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made(x, y[:, order]), made(x, y), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(made(x[1:], y[1:]), made(x, y)[1:], rtol=1e-12, atol=1e-12)
    assert made(x[:0], y[:0]).shape == (0, 4, CHANNELS)
