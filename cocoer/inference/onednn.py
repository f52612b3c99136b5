"""Weights laid out for oneDNN once, instead of in every forward pass: what makes single persons fast on a CPU.

oneDNN computes with weights in an order of its own. PyTorch puts them into it on every call, which for one person costs as
much as a third of a convolution. The operators used here are the ones to which torch.compile lowers a frozen model
(torch/_inductor/fx_passes/mkldnn_fusion.py); they need no compiler.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

_OPERATORS = (
    "_reorder_convolution_weight", "_convolution_pointwise", "_reorder_linear_weight", "_linear_pointwise",
    "_is_mkldnn_bf16_supported",
)  # fmt: skip

_PLAIN: tuple[str, list[Any], str] = ("none", [], "")  # no activation after the layer


class PackedConv2d(nn.Conv2d):
    """A convolution with the weights of `layer`, for inference. Reordered when first needed: once for one image, once for more.

    oneDNN likes another order for a single image; for two and more one order is as good as the best to 2 %.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,  # type: ignore[arg-type]
            layer.dilation, layer.groups, layer.bias is not None, device="meta",  # type: ignore[arg-type]
        )  # fmt: skip
        self.weight, self.bias = layer.weight, layer.bias
        self._packed: dict[bool, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, H, W] -> [B, C, h, w] in the weights' type; with gradients enabled as any convolution does it."""
        if torch.is_grad_enabled():
            return super().forward(x)
        shape = (self.padding, self.stride, self.dilation, self.groups)
        single = x.shape[0] == 1
        if single not in self._packed:
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self._packed[single] = reorder(self.weight, *shape, list(x.shape))
        x = x.to(self.weight.dtype)
        done: Tensor = torch.ops.mkldnn._convolution_pointwise(x, self._packed[single], self.bias, *shape, *_PLAIN)
        return done


class PackedLinear(nn.Linear):
    """A Linear with the weights of `layer`, for inference; reordered when first needed."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self._packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., m] in the weights' type; with gradients enabled as any Linear does it."""
        if torch.is_grad_enabled():
            return super().forward(x)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, None)
        x = x.to(self.weight.dtype)
        done: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, *_PLAIN)
        return done


def can_prepack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether this machine has oneDNN for such weights: CPUs that PyTorch was built with it for; bfloat16 wants AVX-512.

    torch does not document the operators, so a version that lacks one of them runs without.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in _OPERATORS):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def prepacked(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A twin of a model in eval mode that shares its parameters and computes with reordered weights where they are of `dtype`.

    The model itself stays as it is, for explanations, which want gradients. Layers of other classes, subclasses of
    convolutions and Linears among them, stay as they are, and so do those with padding other than zeros.
    """
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    twin = deepcopy(model, shared)
    for name, layer in list(twin.named_modules()):
        if type(layer) is nn.Conv2d and layer.weight.dtype == dtype and _plain_padding(layer):
            twin.set_submodule(name, PackedConv2d(layer))
        elif type(layer) is nn.Linear and layer.weight.dtype == dtype:
            twin.set_submodule(name, PackedLinear(layer))
    return twin


def _plain_padding(layer: nn.Conv2d) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
