"""The three backbones have one shape: is it faster to run them together? In turn, as one batched network, on streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from cocoer.benchmark.model import Row, random_model, timed
from cocoer.benchmark.timing import Clock, Task, take_turns
from cocoer.benchmark.variants import person_batch
from cocoer.config import Config
from cocoer.names import LEVELS
from cocoer.runtime import autocast

Together = Callable[[Sequence[Tensor]], list[Tensor]]
"""Crops of each level, L x [B, 3, S, S] -> their feature maps, L x [B, c, g, g]."""


def one_after_another(backbones: Sequence[nn.Module]) -> Together:
    """As the model runs them."""
    return lambda crops: [backbone(crop) for backbone, crop in zip(backbones, crops, strict=True)]


def as_one(backbones: Sequence[nn.Module]) -> Together:
    """One network over stacked weights and crops (`torch.func.vmap`), whose convolutions have one group a level.

    backbones: of one architecture, in eval mode and folded (batch norms keep statistics of their own otherwise).
    """
    weights, buffers = stack_module_state(list(backbones))
    template = deepcopy(backbones[0]).to("meta")

    def single(own: dict[str, Tensor], kept: dict[str, Tensor], crop: Tensor) -> Tensor:
        features: Tensor = functional_call(template, (own, kept), (crop,))
        return features

    batched = vmap(single)
    return lambda crops: list(batched(weights, buffers, torch.stack(list(crops))))


def on_streams(backbones: Sequence[nn.Module]) -> Together:
    """On a GPU: each backbone on a stream of its own, so that small kernels of different levels may overlap."""
    streams = [torch.cuda.Stream() for _ in backbones]

    def run(crops: Sequence[Tensor]) -> list[Tensor]:
        now = torch.cuda.current_stream()
        out = []
        for backbone, crop, stream in zip(backbones, crops, streams, strict=True):
            stream.wait_stream(now)
            with torch.cuda.stream(stream):
                out.append(backbone(crop))
        for features, stream in zip(out, streams, strict=True):
            now.wait_stream(stream)
            features.record_stream(now)
        return out

    return run


def as_graph(run: Together, crops: Sequence[Tensor]) -> Task:
    """On a GPU: `run` on these very crops, recorded as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run(crops)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(crops)
    return graph.replay


def measure_backbones(
    config: Config, device: torch.device, batches: Sequence[int], seconds: float, clock: Clock
) -> Iterator[Row]:
    """Rows per batch size: folded, channels-last backbones (bf16 on a GPU); `ratio` is against one after another."""
    model = random_model(config, device)
    model.fold()
    model.to(memory_format=torch.channels_last)
    backbones = [model.backbones[level] for level in LEVELS]
    gpu = device.type == "cuda"
    precision = "bf16" if gpu else "fp32"
    ways: dict[str, Together] = {"one after another": one_after_another(backbones), "as one (vmap)": as_one(backbones)}
    if gpu:
        ways["on streams"] = on_streams(backbones)
    for persons in batches:
        batch = person_batch(config, persons, device).to(device, channels_last=True)
        crops = (batch.head, batch.body, batch.context)
        tasks = {name: _task(run, crops, device, precision) for name, run in ways.items()}
        if gpu:
            with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                for name in ("one after another", "on streams"):
                    tasks[f"{name}, graph"] = as_graph(ways[name], crops)
        timings = take_turns(tasks, seconds, device, clock=clock)
        for name in tasks:
            times = timed(timings, name, persons, floor="one after another", plain=None)
            yield Row("backbones", name, config.model.mode, str(device), "bfloat16" if gpu else "float32", **times)


def _task(run: Together, crops: Sequence[Tensor], device: torch.device, precision: str) -> Task:
    def task() -> None:
        with torch.inference_mode(), autocast(device, precision):
            run(crops)

    return task
