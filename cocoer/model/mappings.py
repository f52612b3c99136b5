"""The level head's mapping as a network (paper Fig. 3), and one gradient step on all of its weights, for every person.

Where the mapping is one Linear, Algorithm 1's update has rank one and a closed form (`coordination`). For a network it has not,
but the same idea holds layer by layer: a person's gradient of a layer is G'X, with X the rows that the layer saw and G the
gradient at what it gave, so after a step the layer gives W y - step * G'(X y): two small products, and again nothing of the
size of a weight matrix is built per person. One forward pass notes X, one backward pass gives G for all persons and layers
at once, and one more forward pass uses them. This holds for every layer that treats persons apart, so the networks here have
group norms and layer norms and no batch norms.

Letters: B persons, N tokens, c token channels, d feature size, T rows of a layer (tokens or pixels).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import Bottleneck

from cocoer.model.attention import AttentionBlock

_STAGE_BLOCKS = 3
_LARGEST_GROUPS = 32


def _group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(_LARGEST_GROUPS, channels), channels)


class ResNetMapping(nn.Module):
    """The last stage of ResNet-50 over the token grid, with group norms, then mean and Linear.

    With c = 1024 the stage is ResNet-50's layer4 to the letter (1024 -> 2048, three bottlenecks, stride 2).
    The paper names the network of Fig. 3 and not how it meets the tokens; this is our reading.
    Raises ValueError where the tokens do not form a square or c is odd.
    """

    def __init__(self, num_tokens: int, channels: int, features: int) -> None:
        super().__init__()
        self.side = math.isqrt(num_tokens)
        if self.side**2 != num_tokens or channels % 2:
            raise ValueError(
                f"mapping resnet50: wanted a square number of tokens and an even token size, got {num_tokens} and {channels}"
            )
        planes, wide = channels // 2, 2 * channels
        shortcut = nn.Sequential(nn.Conv2d(channels, wide, 1, stride=2, bias=False), _group_norm(wide))
        blocks = [Bottleneck(channels, planes, 2, shortcut, norm_layer=_group_norm)]
        blocks += [Bottleneck(wide, planes, norm_layer=_group_norm) for _ in range(_STAGE_BLOCKS - 1)]
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(wide, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, c] -> [B, d]."""
        grid = tokens.transpose(1, 2).unflatten(2, (self.side, self.side))  # [B, c, side, side]
        return self.out(self.blocks(grid).mean((2, 3)))


class TransformerMapping(nn.Module):
    """A small ViT over the tokens (they carry positions already): self-attention blocks, LayerNorm, mean, Linear.

    The paper names a ViT in Fig. 3 and not its size; blocks are those of the cross-level attention.
    """

    def __init__(self, blocks: Sequence[AttentionBlock], channels: int, features: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(channels)
        self.out = nn.Linear(channels, features)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, N, c] -> [B, d]."""
        for block in self.blocks:
            tokens = block(tokens, tokens)
        return self.out(self.norm(tokens).mean(1))


@dataclass(frozen=True)
class _Call:
    """One call of a layer with weights.

    weight: the layer's weight, which tells layers apart. rows: what it saw, [B, T, in]. output: what it gave, in the
    layer's own layout. matrix: a matrix acts on the rows (Linear, convolution), or a scale on each channel (norms).
    """

    weight: Tensor
    rows: Tensor
    output: Tensor
    matrix: bool


def _as_rows(tensor: Tensor, channels_first: bool) -> Tensor:
    """[B, c, h, w], or [B, ..., c], or [B, c] -> [B, T, c]."""
    if channels_first:
        return tensor.flatten(2).transpose(1, 2)
    return tensor.unsqueeze(1) if tensor.ndim == 2 else tensor.flatten(1, -2)


def _layout(output: Tensor, matrix: Tensor, channels_first: bool) -> Tensor:
    """Rows [B, T, c] in the shape of a layer's output."""
    return (matrix.transpose(1, 2) if channels_first else matrix).reshape(output.shape)


class _LayerCalls(TorchFunctionMode):
    """Shows every call of a layer with weights to `on_call`, whose answer takes the place of the layer's output.

    A mode of this thread rather than hooks, so that the network itself is not touched.
    """

    def __init__(self, on_call: Callable[[_Call, bool], Tensor]) -> None:
        super().__init__()
        self._on_call = on_call

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Called by torch for each of its functions inside the context."""
        kwargs = kwargs or {}
        if func is F.layer_norm:
            plain = _normed(args[0], kwargs["eps"])
            output = plain * kwargs["weight"] + kwargs["bias"]
            return self._on_call(_Call(kwargs["weight"], _as_rows(plain, False), output, False), False)
        output = func(*args, **kwargs)
        if func is F.linear:
            return self._on_call(_Call(args[1], _as_rows(args[0], False), output, True), False)
        if func is F.conv2d:
            return self._on_call(_Call(args[1], _patches(*args), output, True), True)
        if func is F.group_norm:
            plain = func(args[0], args[1], eps=kwargs["eps"])  # normed, before scale and shift
            return self._on_call(_Call(kwargs["weight"], _as_rows(plain, True), output, False), True)
        return output


def _normed(rows: Tensor, eps: float) -> Tensor:
    """Layer norm before scale and shift, written out: torch's own is wrong in the third derivative, which training needs."""
    centred = rows - rows.mean(-1, keepdim=True)
    return centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()


def _patches(image: Tensor, weight: Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Tensor:
    """The rows that a convolution multiplies with its weight: [B, pixels of the output, in * kernel area]."""
    if groups != 1 or isinstance(padding, str):
        raise NotImplementedError("a mapping's convolutions have one group and padding in numbers")
    return F.unfold(image, weight.shape[-2:], dilation, padding, stride).transpose(1, 2)


class _Gradients:
    """Every layer's gradient of every person, as the rows that its calls saw (X) and the gradients at what they gave (G)."""

    def __init__(self, network: nn.Module, tokens: Tensor, v: Tensor) -> None:
        """tokens: [B, N, c].    v: gradient at the network's output, [B, d]."""
        calls: list[tuple[_Call, bool]] = []

        def note(call: _Call, channels_first: bool) -> Tensor:
            calls.append((call, channels_first))
            return call.output.clone()  # what follows may work in place

        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            start = tokens if tokens.requires_grad else tokens.detach().requires_grad_()
            with _LayerCalls(note):
                features = network(start)
            gradients = torch.autograd.grad(features, [call.output for call, _ in calls], v, create_graph=keep)
        self._of: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for (call, channels_first), at_output in zip(calls, gradients, strict=True):
            rows = call.rows if keep else call.rows.detach()
            self._of.setdefault(id(call.weight), []).append((rows, _as_rows(at_output, channels_first)))

    def output_change(self, call: _Call) -> Tensor:
        """What the layer would give for the call's rows if its weights were the person's gradient: [B, T, out]."""
        change: Tensor | float = 0.0
        for rows, at_output in self._of[id(call.weight)]:
            if call.matrix:
                change = change + (call.rows @ rows.transpose(1, 2)) @ at_output
            else:
                change = change + call.rows * (rows * at_output).sum(1, keepdim=True)
        assert isinstance(change, Tensor), "a layer that is called has been called before"
        return change

    def bias_change(self, call: _Call) -> Tensor:
        """The same for its bias: [B, 1, out]."""
        return torch.stack([at_output.sum(1, keepdim=True) for _, at_output in self._of[id(call.weight)]]).sum(0)


class NetworkStep:
    """One gradient step of every level's mapping network, person by person, at once (`level_head.MappingStep`).

    networks, tokens: of the levels in order; tokens [B, N, c] as the networks saw them.
    Needs autograd for the backward pass, so a model with such mappings can be neither compiled whole nor exported.
    """

    def __init__(self, networks: Sequence[nn.Module], tokens: Sequence[Tensor]) -> None:
        self._levels = tuple(zip(networks, tokens, strict=True))

    def updated(self, v: Tensor, step: float) -> Tensor:
        """h of the networks with weights phi - step * J'v, to the letter: v [B, L, d] -> [B, L, d]."""
        return self._each(v, lambda run: run(torch.tensor(step, dtype=v.dtype, device=v.device)))

    def direction(self, v: Tensor) -> Tensor:
        """J J'v, how h changes per unit of step at the start: v [B, L, d] -> [B, L, d]."""

        def derivative(run: Callable[[Tensor], Tensor]) -> Tensor:
            keep = torch.is_grad_enabled()
            with torch.enable_grad():  # the derivative by the step is the one by w of the backward pass from w
                step = torch.zeros((), dtype=v.dtype, device=v.device, requires_grad=True)
                features = run(step)
                w = torch.zeros_like(features, requires_grad=True)
                (at_step,) = torch.autograd.grad(features, step, w, create_graph=True)
                (slowing,) = torch.autograd.grad(at_step, w, create_graph=keep)
            return -slowing

        return self._each(v, derivative)

    def _each(self, v: Tensor, answer: Callable[[Callable[[Tensor], Tensor]], Tensor]) -> Tensor:
        """`answer` of every level's pre-activation as a function of the step."""
        levels = []
        with ExitStack() as stack:
            if torch.is_inference_mode_enabled():  # its tensors cannot take part in a backward pass; copies can
                stack.enter_context(torch.inference_mode(False))
                stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))  # the fused kernels have no second derivative
            for m, (network, tokens) in enumerate(self._levels):
                tokens, at_output = (t.clone() if t.is_inference() else t for t in (tokens.to(v.dtype), v[:, m]))
                levels.append(answer(_as_function_of_step(network, tokens, at_output)))
        return torch.stack(levels, dim=1)


def _as_function_of_step(network: nn.Module, tokens: Tensor, at_output: Tensor) -> Callable[[Tensor], Tensor]:
    """step (a scalar tensor) -> what the network gives once its weights have gone `step` against each person's gradient."""
    gradients = _Gradients(network, tokens, at_output)
    biased = {id(layer.weight) for layer in network.modules() if getattr(layer, "bias", None) is not None}

    def run(step: Tensor) -> Tensor:
        def moved(call: _Call, channels_first: bool) -> Tensor:
            change = gradients.output_change(call)
            if id(call.weight) in biased:
                change = change + gradients.bias_change(call)
            return call.output - step * _layout(call.output, change, channels_first)

        with _LayerCalls(moved):
            features: Tensor = network(tokens)
        return features

    return run
