"""A forward pass recorded once per batch size and replayed as one piece of GPU work: no launch of single kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from cocoer.data.batch import Batch
from cocoer.model.level_model import ModelOutput

Result = TypeVar("Result")
Work = Callable[[], ModelOutput]
Record = Callable[[Work], tuple[ModelOutput, Callable[[], object]]]
"""Work on tensors that stay where they are -> its output, and a call that does it again into the same output."""

_WARM_UP = 3  # passes before recording, in which libraries choose their kernels and reserve memory


@dataclass(frozen=True)
class _Recording:
    """One batch size: where its inputs are read from, where its outputs are written, and the call that does it."""

    inputs: Batch
    output: ModelOutput
    replay: Callable[[], object]


class GraphedModel:
    """A forward pass over batches, recorded at the first batch of each size.

    forward: reads nothing but the batch and fixed weights, on `device`, without waiting for results on the way. record: how
    work is recorded; by default as a CUDA graph. Each size holds memory of its own. Answers are copies, so a later call
    does not change them.
    """

    def __init__(
        self, forward: Callable[[Batch], ModelOutput], device: torch.device, record: Record | None = None
    ) -> None:
        self._forward = forward
        self._device = device
        self._record = record_cuda_graph if record is None else record
        self._recordings: dict[int, _Recording] = {}

    def __call__(self, batch: Batch) -> ModelOutput:
        """The answers for `batch`, which may be on any device; its crops must have the side of the recorded ones."""
        found = self._recordings.get(len(batch))
        if found is None:
            inputs = _copied(replace(batch, targets=None, keys=()).to(self._device))
            output, replay = self._record(lambda: self._forward(inputs))
            found = self._recordings[len(batch)] = _Recording(inputs, output, replay)
        for name in ("head", "body", "context", "head_xyxy", "body_xyxy"):
            getattr(found.inputs, name).copy_(getattr(batch, name), non_blocking=True)
        found.replay()
        return _copied(found.output)


def record_cuda_graph(work: Work) -> tuple[ModelOutput, Callable[[], object]]:
    """Record work on the current GPU as a CUDA graph, after some passes on a stream of their own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()
    return output, graph.replay


def _copied(value: Result) -> Result:
    """The same value with copies of its tensors; other entries as they are."""
    if isinstance(value, Tensor):
        return value.clone()  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        entries: dict[str, Any] = {f.name: _copied(getattr(value, f.name)) for f in fields(value)}
        return replace(value, **entries)
    return value
