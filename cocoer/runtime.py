"""Where a run happens: process, device, random numbers. One process, or several started by torchrun or SLURM."""

from __future__ import annotations

import os
import platform
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from cocoer.provenance import git_revision, library_versions


@dataclass(frozen=True)
class Runtime:
    """This process among all processes of the run. rank: 0..world_size - 1; rank 0 writes files and logs."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def share(self) -> tuple[int, int]:
        """(rank, processes): which part of the persons is this process's."""
        return self.rank, self.world_size

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the processes; every process gets it. In place where there are several."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, in order of rank, on every process."""
        if self.world_size == 1:
            return [value]
        out: list[Any] = [None] * self.world_size
        dist.all_gather_object(out, value)
        return out

    def from_main(self, value: Any) -> Any:
        """The value of rank 0, on every process."""
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def choose_device(name: str = "auto") -> torch.device:
    """`auto` = the first GPU where there is one, else the CPU; `cpu`, `cuda` or `cuda:N`.

    Raises ValueError for another name or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise ValueError(f"device: wanted auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device: {name!r} was asked for, but torch sees no GPU; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: {name!r} was asked for, but torch sees {torch.cuda.device_count()} GPUs, from cuda:0 on"
        )
    return device


@contextmanager
def start_runtime(device: str = "auto", threads: int = 0) -> Iterator[Runtime]:
    """Join the other processes where torchrun (or SLURM's variables RANK, WORLD_SIZE, LOCAL_RANK) says there are any.

    gloo carries CPU tensors and nccl GPU tensors. threads: CPU threads of torch, 0 = as torch chooses.
    Raises ValueError as `choose_device` does, and where a machine has more processes than GPUs.
    """
    if threads:
        torch.set_num_threads(threads)
    chosen = choose_device(device)
    world_size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if chosen.type == "cuda":
        here, there = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        if here > there:  # NCCL would stop with "Duplicate GPU detected", or wait
            raise ValueError(
                f"{here} processes on this machine, but torch sees {there} GPU{'s' * (there != 1)}: each process"
                f" wants its own; start {there} (--nproc-per-node {there}), or use --device cpu"
            )
        local = int(os.environ.get("LOCAL_RANK", "0")) % there
        chosen = chosen if device.startswith("cuda:") else torch.device("cuda", local)
        use_gpu(chosen)
    if world_size == 1 or dist.is_initialized():  # joined already: that group is used, and left to whoever joined it
        yield Runtime(rank, world_size, chosen)
        return
    _join("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Runtime(rank, world_size, chosen)
    finally:
        dist.destroy_process_group()


def use_gpu(device: torch.device) -> None:
    """Make it this process's GPU, and let cuDNN try out its kernels: crops have one size, so the search pays."""
    torch.cuda.set_device(device)
    torch.backends.cudnn.set_flags(_benchmark=True)


def _join(backend: str) -> None:
    """Meet the other processes, in a part of torchrun's store that belongs to this start of them.

    After an elastic restart the store still holds the addresses of the processes that died (torch 2.15; pytorch issue 135712),
    and gloo would wait for them for half an hour. Where torchrun's store is not shared (TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1),
    each start has a new one, and the counts of a machine that came back and of one that stayed need not agree.
    """
    store, rank, world_size = next(iter(rendezvous("env://")))
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if shared else "0"
    own = PrefixStore(f"start {attempt}", store)
    dist.init_process_group(backend, store=own, rank=rank, world_size=world_size)


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """Autocast to bf16 if requested (the workspace stays in float32), else a null context."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def seed_everything(seed: int, stream: int = 0) -> None:
    """Seed torch, numpy and python from (seed, stream); streams do not overlap, so every process can have its own."""
    words = np.random.SeedSequence((seed, stream)).generate_state(3)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 - libraries may draw from it
    random.seed(int(words[2]))


def random_state(device: torch.device) -> dict[str, Any]:
    """State of every global random generator, as tensors and plain numbers (so that it loads without running code)."""
    name, words, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002
    version, inner, gauss_next = random.getstate()
    out: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(words, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(inner), gauss_next],
    }
    if device.type == "cuda":
        out["cuda"] = torch.cuda.get_rng_state(device)
    return out


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """The reverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    name, words, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, inner, gauss_next = state["python"]
    random.setstate((version, tuple(inner), gauss_next))
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def memory_gib(device: torch.device) -> float:
    """Peak memory so far, GiB: of the GPU, or of this process on the CPU."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device) / 2**30)
    return peak_memory_bytes() / 2**30


def peak_memory_bytes() -> int:
    """The most memory that this process had so far; 0 on Windows, where Python itself cannot tell."""
    if sys.platform == "win32":
        peak = 0
    else:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def environment(runtime: Runtime) -> dict[str, Any]:
    """What a run folder keeps about the machine: command, revision, versions, device, processes, threads."""
    device = runtime.device
    return {
        "command": [os.path.basename(sys.executable), *sys.argv],
        "git_revision": git_revision(),
        "libraries": library_versions(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})",
        "processes": runtime.world_size,
        "threads": torch.get_num_threads(),
    }
