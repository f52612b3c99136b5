"""Level heads (FFN0 and g_theta_m): from a level's tokens to its feature and its logits. One class for both modes.

Letters: B persons, n flattened token size, d feature size, k emotions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cocoer.names import LEVELS

NUM_LEVELS = len(LEVELS)


class LevelFeatures(NamedTuple):
    """What a level head computes on the way to its logits; the coordination needs all of it.

    sq_norm: [B], |x|^2 of the mapping's input x = GELU(flattened tokens); 0 where the mapping is a network.
    pre: [B, d], h = A x + a, or what the network gives. z: [B, d], LayerNorm(GELU(h)). logits: [B, k], P z + p.
    """

    sq_norm: Tensor
    pre: Tensor
    z: Tensor
    logits: Tensor


class LevelHead(nn.Module):
    """x = GELU(tokens); h = A x + a (the mapping); z = LayerNorm(GELU(h)); logits = P z + p (the prediction layer).

    The supplement draws FFN0 and g_theta apart, the published code fuses them so.
    mapping: a network [B, N, c] -> [B, d] in place of GELU and A (`mappings`, ablation of Fig. 3).
    """

    def __init__(self, inputs: int, features: int, classes: int, mapping: nn.Module | None = None) -> None:
        super().__init__()
        self.mapping = nn.Linear(inputs, features) if mapping is None else mapping
        self.norm = nn.LayerNorm(features)
        self.prediction = nn.Linear(features, classes)

    def forward(self, tokens: Tensor) -> LevelFeatures:
        """tokens [B, N, c] with N * c = n -> `LevelFeatures`."""
        precise = torch.promote_types(tokens.dtype, torch.float32)
        if isinstance(self.mapping, nn.Linear):
            x = F.gelu(tokens.flatten(1))  # [B, n]
            pre = self.mapping(x)  # [B, d]
            # the squared norm of thousands of entries overflows and loses digits in half precision
            sq_norm = torch.linalg.vector_norm(x, dim=1, dtype=precise).square()
        else:
            pre = self.mapping(tokens)  # [B, d]
            sq_norm = tokens.new_zeros(tokens.shape[0], dtype=precise)
        z = self.norm(F.gelu(pre))  # [B, d]
        return LevelFeatures(sq_norm, pre, z, self.prediction(z))


class MappingStep(Protocol):
    """One gradient step on the weights of the levels' mappings where these are networks (`mappings.NetworkStep`)."""

    def updated(self, v: Tensor, step: float) -> Tensor:
        """Pre-activation h after the step: gradient v at h [B, L, d] -> [B, L, d]."""

    def direction(self, v: Tensor) -> Tensor:
        """J J'v, against which h moves at first: gradient v at h [B, L, d] -> [B, L, d]."""


@dataclass(frozen=True)
class LevelStack:
    """The three level heads' results side by side: sq_norm [B, L], pre [B, L, d], z [B, L, d], logits [B, L, k].

    mapping_step: how the mappings take a gradient step where they are networks; None for Linears.
    """

    sq_norm: Tensor
    pre: Tensor
    z: Tensor
    logits: Tensor
    mapping_step: MappingStep | None = None

    @classmethod
    def of(cls, levels: list[LevelFeatures], mapping_step: MappingStep | None = None) -> LevelStack:
        """Stack in level order."""
        sq_norm, pre, z, logits = (torch.stack(parts, dim=1) for parts in zip(*levels, strict=True))
        return cls(sq_norm, pre, z, logits, mapping_step)


@dataclass(frozen=True)
class HeadParameters:
    """What the levels' heads share with the workspace: norm and prediction layer of z = LayerNorm(GELU(h)), l = P z + p.

    prediction_weight: P, [L, k, d].    prediction_bias: p, [L, k].
    norm_weight, norm_bias: LayerNorm scale and shift, [L, d].    norm_eps: added to its variance.
    """

    prediction_weight: Tensor
    prediction_bias: Tensor
    norm_weight: Tensor
    norm_bias: Tensor
    norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        """Raises ValueError where the four tensors do not fit together."""
        if self.prediction_weight.ndim != 3 or self.prediction_weight.shape[0] != NUM_LEVELS:
            raise ValueError(
                f"prediction_weight must be [{NUM_LEVELS}, k, d]; got {tuple(self.prediction_weight.shape)}"
            )
        levels, num_classes, size = self.prediction_weight.shape
        require_shape("prediction_bias", self.prediction_bias, (levels, num_classes))
        require_shape("norm_weight", self.norm_weight, (levels, size))
        require_shape("norm_bias", self.norm_bias, (levels, size))

    def to(self, dtype: torch.dtype) -> HeadParameters:
        """The same parameters (same gradient) in another precision."""
        return HeadParameters(
            self.prediction_weight.to(dtype),
            self.prediction_bias.to(dtype),
            self.norm_weight.to(dtype),
            self.norm_bias.to(dtype),
            self.norm_eps,
        )

    def logits(self, features: Tensor) -> Tensor:
        """Level logits l_m = P_m z_m + p_m: features [B, L, d] -> [B, L, k]."""
        return torch.einsum("lkd,bld->blk", self.prediction_weight, features) + self.prediction_bias

    def features(self, preactivation: Tensor) -> Tensor:
        """Level features z_m = LayerNorm(GELU(h_m)): [B, L, d] -> [B, L, d]."""
        normed = F.layer_norm(F.gelu(preactivation), preactivation.shape[-1:], eps=self.norm_eps)
        return normed * self.norm_weight + self.norm_bias

    def backward(self, error: Tensor, preactivation: Tensor) -> Tensor:
        """Gradient at h_m of a loss whose gradient at z_m is given: back through LayerNorm and (erf) GELU, analytically.

        error: [B, L, d], the gradient at z.    preactivation: h, [B, L, d].    Returns [B, L, d].
        """
        active = F.gelu(preactivation)
        centred = active - active.mean(-1, keepdim=True)
        inverse_std = (centred.square().mean(-1, keepdim=True) + self.norm_eps).rsqrt()
        normed = centred * inverse_std
        scaled = error * self.norm_weight
        mean_scaled = scaled.mean(-1, keepdim=True)
        at_active = inverse_std * (scaled - mean_scaled - normed * (scaled * normed).mean(-1, keepdim=True))
        return at_active * _gelu_slope(preactivation)


def _gelu_slope(value: Tensor) -> Tensor:
    """Derivative of the exact GELU: Phi(x) + x phi(x)."""
    cdf = 0.5 * (1.0 + torch.erf(value * 2.0**-0.5))
    density = torch.exp(-0.5 * value.square()) * (2.0 * torch.pi) ** -0.5
    return cdf + value * density


def check_level_shapes(rows: Tensor, heads: HeadParameters, pseudo_label: Tensor, weights: Tensor | None) -> None:
    """ValueError unless rows are [B, L, d] and pseudo_label and weights [B, k], as the heads want them."""
    _, num_classes, size = heads.prediction_weight.shape
    if rows.ndim != 3 or rows.shape[1:] != (NUM_LEVELS, size):
        raise ValueError(f"level features must be [B, {NUM_LEVELS}, {size}] to fit the heads; got {tuple(rows.shape)}")
    require_shape("pseudo_label", pseudo_label, (rows.shape[0], num_classes))
    if weights is not None:
        require_shape("weights", weights, (rows.shape[0], num_classes))


def require_shape(name: str, tensor: Tensor, wanted: tuple[int, ...]) -> None:
    """ValueError naming the tensor, the wanted and the actual shape, unless they agree."""
    if tuple(tensor.shape) != wanted:
        raise ValueError(f"{name} must be {list(wanted)}; got {list(tensor.shape)}")
