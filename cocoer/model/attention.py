"""The one attention block of the model: cross or self attention, paper or published form, chosen when it is built.

Letters: B persons, Nq and Nk tokens, c token channels.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention whose inner size (heads x head_size) need not equal the token size.

    The paper names 3 heads for 1024 channels; 3 x 341 = 1023 is projected back to 1024
    (docs/method.md#readings-where-the-paper-is-silent).
    """

    def __init__(self, channels: int, heads: int, head_size: int) -> None:
        super().__init__()
        inner = heads * head_size
        self.heads, self.head_size = heads, head_size
        self.to_query = nn.Linear(channels, inner)
        self.to_key = nn.Linear(channels, inner)
        self.to_value = nn.Linear(channels, inner)
        self.to_out = nn.Linear(inner, channels)

    def _split(self, x: Tensor) -> Tensor:
        """[B, N, heads * head_size] -> [B, heads, N, head_size]."""
        return x.unflatten(-1, (self.heads, self.head_size)).transpose(1, 2)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """query [B, Nq, c], key and value [B, Nk, c] -> [B, Nq, c]."""
        q, k, v = self._split(self.to_query(query)), self._split(self.to_key(key)), self._split(self.to_value(value))
        mixed = F.scaled_dot_product_attention(q, k, v)  # [B, heads, Nq, head_size]
        return self.to_out(mixed.transpose(1, 2).flatten(2))  # [B, Nq, c]

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """The attention map itself, [B, heads, Nq, Nk], rows summing to 1; for explanations."""
        q, k = self._split(self.to_query(query)), self._split(self.to_key(key))
        return (q @ k.transpose(-2, -1) / math.sqrt(self.head_size)).softmax(-1)


class AttentionBlock(nn.Module):
    """x + attention(norm(x), norm(y)), then x + feed-forward(norm(x)).

    `published=False` (paper): GELU feed-forward; values are the normed context tokens.
    `published=True` (release): SiLU feed-forward; values are the context tokens *before* their norm.
    context_norm: the context has a norm of its own; False for self-attention, where one norm serves both. With a norm of
    its own in each cross-level block the parameter count is the paper's.
    """

    def __init__(
        self, channels: int, heads: int, head_size: int, feed_forward: int,
        published: bool = False, context_norm: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.published = published
        self.norm_query = nn.LayerNorm(channels)
        self.norm_context = nn.LayerNorm(channels) if context_norm else None
        self.attention = MultiHeadAttention(channels, heads, head_size)
        self.norm_feed_forward = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, feed_forward),
            nn.SiLU() if published else nn.GELU(),
            nn.Linear(feed_forward, channels),
        )

    def _attend_to(
        self, x: Tensor, y: Tensor, x_pos: Tensor | None, y_pos: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [B, Nq, c], keys and values [B, Nk, c]; positions are added to queries and keys, never to values."""
        query = self.norm_query(x)
        normed = (self.norm_query if self.norm_context is None else self.norm_context)(y)
        value = y if self.published else normed
        key = normed if y_pos is None else normed + y_pos
        return query if x_pos is None else query + x_pos, key, value

    def forward(self, x: Tensor, y: Tensor, x_pos: Tensor | None = None, y_pos: Tensor | None = None) -> Tensor:
        """Tokens x [B, Nq, c] look at y [B, Nk, c]; positions, where given, have the same shapes -> [B, Nq, c]."""
        x = x + self.attention(*self._attend_to(x, y, x_pos, y_pos))
        return x + self.feed_forward(self.norm_feed_forward(x))

    def attention_map(self, x: Tensor, y: Tensor, x_pos: Tensor | None = None, y_pos: Tensor | None = None) -> Tensor:
        """Where each token of x looks in y: [B, heads, Nq, Nk], rows summing to 1."""
        query, key, _ = self._attend_to(x, y, x_pos, y_pos)
        return self.attention.weights(query, key)
