"""torch.compile, with one clear error where a machine cannot compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def compiled(model: nn.Module, device: torch.device, inference: bool = False) -> Callable[..., Any]:
    """The model through torch.compile; compiled when it is first called, and again for a second batch size.

    inference: the weights are final, so on a CPU they are laid out once for the kernels ("freezing").
    Raises ValueError where this machine cannot compile, for instance without a C++ compiler.
    """
    _require_compiler(device)
    run = torch.compile(model)
    if not inference or device.type != "cpu":
        return run
    from torch._inductor import config  # here: it takes a second, and few programs compile

    def frozen(*inputs: Any) -> Any:
        # not `options={"freezing": True}`: the tracer, which decides what is a constant, does not see those (torch 2.15)
        with config.patch(freezing=True):
            return run(*inputs)

    return frozen


def _require_compiler(device: torch.device) -> None:
    """Compile something of no size. Raises ValueError with the reason where that fails."""

    def nothing(x: Tensor) -> Tensor:
        return x + 1

    try:
        torch.compile(nothing)(torch.zeros(2, device=device))
    except Exception as err:  # noqa: BLE001 - dynamo, inductor and triton each have error types of their own
        reason = next((line for line in str(err).splitlines() if line.strip()), type(err).__name__)
        needed = "a C++ compiler (g++)" if device.type == "cpu" else "triton and a C compiler (gcc)"
        raise ValueError(
            f"compile: torch.compile does not work here: {reason.strip()[:200]}. It wants {needed};"
            " install that, or set optim.compile and inference.compile to false"
        ) from None
