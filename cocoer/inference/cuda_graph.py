"""A forward pass recorded once per batch size and replayed as one piece of GPU work: no launch of single kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from threading import Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

from cocoer.data.batch import Batch
from cocoer.export.onnx_file import INPUTS
from cocoer.model.level_model import ModelOutput

Result = TypeVar("Result")
Work = Callable[[], ModelOutput]
Record = Callable[[Work], tuple[ModelOutput, Callable[[], object]]]
"""Work on tensors that stay where they are -> its output, and a call that does it again into the same output."""

_WARM_UP = 3  # passes before recording, in which libraries choose their kernels and reserve memory
_LARGEST = 64


def recorded_size(persons: int) -> int | None:
    """The next power of two, so that few sizes are recorded; None above 64 persons, whose kernels outlast their launches."""
    return 1 << (persons - 1).bit_length() if persons <= _LARGEST else None


@dataclass(frozen=True)
class _Recording:
    """One batch size: where its inputs are read from, where its outputs are written, and the call that does it."""

    inputs: Batch
    output: ModelOutput
    replay: Callable[[], object]


class GraphedModel:
    """A forward pass over batches, recorded at the first batch of each size.

    forward: reads nothing but the batch and fixed weights, on `device`, without waiting for results on the way. size_of: the
    size at which a number of persons is recorded, at least that number, or None to run them as they are; by default each
    number has a recording. record: how work is recorded; by default as CUDA graphs that share their memory. What a
    recording has more than the batch is filled with the last person and left out of the answer. Answers are copies, so a
    later call does not change them.
    """

    def __init__(
        self,
        forward: Callable[[Batch], ModelOutput],
        device: torch.device,
        size_of: Callable[[int], int | None] = int,
        record: Record | None = None,
    ) -> None:
        self._forward = forward
        self._device = device
        self._size_of = size_of
        self._record = CudaGraphs(device) if record is None else record
        self._recordings: dict[int, _Recording] = {}
        self._one_at_a_time = Lock()  # threads share the recordings' inputs and outputs

    def __call__(self, batch: Batch) -> ModelOutput:
        """The answers for `batch`, which may be on any device; its crops must have the side of the recorded ones."""
        size = self._size_of(len(batch))
        if size is None:
            return self._forward(batch)
        with self._one_at_a_time:
            return self._replayed(batch, size)

    def _replayed(self, batch: Batch, size: int) -> ModelOutput:
        persons = len(batch)
        found = self._recordings.get(size)
        if found is None:
            whole = replace(batch, targets=None, keys=()).to(self._device)
            inputs = _first(_repeated(whole, size), size)  # tensors of its own
            output, replay = self._record(lambda: self._forward(inputs))
            found = self._recordings[size] = _Recording(inputs, output, replay)
        for name in INPUTS:
            given, kept = getattr(batch, name), getattr(found.inputs, name)
            kept[:persons].copy_(given, non_blocking=True)
            if size > persons:
                kept[persons:].copy_(kept[persons - 1 : persons].expand_as(kept[persons:]))
        found.replay()
        return _first(found.output, persons)


class CudaGraphs:
    """Records work on one GPU as CUDA graphs. They share one pool of memory: only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def __call__(self, work: Work) -> tuple[ModelOutput, Callable[[], object]]:
        """As `Record`, after some passes on a stream of their own. Other threads may use the GPU meanwhile."""
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    work()
            torch.cuda.current_stream().wait_stream(stream)
            if self._pool is None:
                self._pool = torch.cuda.graph_pool_handle()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
                output = work()
        return output, lambda: self._replay(graph)

    def _replay(self, graph: torch.cuda.CUDAGraph) -> None:
        with torch.cuda.device(self._device):
            graph.replay()


def _repeated(batch: Batch, size: int) -> Batch:
    """The batch with its last person again until there are `size`."""
    numbers = torch.arange(size, device=batch.head.device).clamp(max=len(batch) - 1)
    return replace(batch, **{name: getattr(batch, name)[numbers] for name in INPUTS})


def _first(value: Result, persons: int) -> Result:
    """The same value with copies of its tensors' first rows, one a person; other entries as they are."""
    if isinstance(value, Tensor):
        return value[:persons].clone()  # type: ignore[return-value]
    if is_dataclass(value) and not isinstance(value, type):
        entries: dict[str, Any] = {f.name: _first(getattr(value, f.name), persons) for f in fields(value)}
        return replace(value, **entries)
    return value
