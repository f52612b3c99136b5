"""Ray Data as the engine: a pool of actors, each with one recogniser; Ray writes the files and marks the complete ones.

Ray reads chunk numbers only; its actors read the manifest and the images. Finished images are left out before Ray starts
(`dataset.plan`), so Ray's own checkpoint filter, an actor that needs a CPU, does not run.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import secrets
from dataclasses import dataclass
from typing import Any

import pyarrow

from cocoer.errors import EngineError, MissingExtra, OutputError, ScaleError, one_line
from cocoer.scale.places import place_of
from cocoer.scale.worker import Job, Worker

_STARTS = 3
"""Attempts to start Ray on this machine: a busy machine can need more than the 30 seconds that Ray 2.60 waits."""


@dataclass(frozen=True)
class Pool:
    """The actors. size: how many. address: of a cluster; None starts one on this machine. gpus: of each actor, may be a part.

    memory: bytes of the object store of a cluster that is started here.
    """

    size: int
    address: str | None = None
    gpus: float = 0.0
    memory: int = 512 * 1024 * 1024

    def cpus(self, there: float) -> float:
        """Logical CPUs of each actor, where a cluster has `there`: at most one, and one of the cluster's stays free.

        Ray's tasks that write files need it; with all taken a run would wait for ever.
        """
        return max(0.0, min(1.0, math.floor(100 * (there - 1) / self.size) / 100))


def annotate_on_ray(job: Job, chunks: int, pool: Pool, progress: bool = False) -> None:
    """Process all chunks and write their rows. progress: Ray's bars on standard error.

    Raises MissingExtra without ray, OutputError on a full disk, EngineError for any other failure; rows already written stay.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
    try:
        import ray
        import ray.data
        from ray.data.checkpoint import CheckpointConfig
    except ImportError as err:
        raise MissingExtra("ray", err) from None
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    _start(ray, pool)
    try:
        marks = job.work / "commits" / secrets.token_hex(6)  # of this run alone: then Ray has nothing to filter
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = progress
        context.checkpoint_config = CheckpointConfig(
            "id", marks.path, override_filesystem=marks.fs, delete_checkpoint_on_success=False
        )
        numbers = ray.data.range(chunks, override_num_blocks=chunks)
        answers = numbers.map_batches(
            _Actor,
            fn_constructor_args=(job,),
            batch_size=None,  # a block, which is a chunk
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=min(pool.size, chunks)),
            num_cpus=pool.cpus(ray.cluster_resources().get("CPU", 1)),
            num_gpus=pool.gpus or None,
        )
        out = place_of(job.out)
        answers.write_parquet(out.path, filesystem=out.fs, compression="zstd")
    except (ray.exceptions.RayError, OSError, pyarrow.ArrowException) as err:
        raise _told(job, err) from err
    finally:
        ray.shutdown()


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, numbers: pyarrow.Table) -> pyarrow.Table:
        return pyarrow.concat_tables([self._worker.chunk(number) for number in numbers["id"].to_pylist()])


def _start(ray: Any, pool: Pool) -> None:
    """Join the cluster, or start one here; the workers import cocoer from where this process does."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    address = pool.address or os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 would leave a worker nothing on a busy machine
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        cpus = max(cores, pool.size) + 1
        quiet |= {"num_cpus": cpus, "object_store_memory": pool.memory, "include_dashboard": False}
    for tries_left in reversed(range(_STARTS)):
        try:
            ray.init(address=address or "local", **quiet)
            return
        except Exception as err:
            ray.shutdown()
            if not tries_left or address:
                where = f"the Ray cluster at {address}" if address else "Ray on this machine"
                raise ScaleError(
                    f"{where} cannot be reached or started ({one_line(err)}); look at `ray status`, or use"
                    " --engine local"
                ) from err


def _told(job: Job, err: BaseException) -> OutputError | EngineError:
    """The error for the user: the innermost cause of Ray's exception."""
    cause: BaseException = err
    while (inner := getattr(cause, "cause", None) or cause.__cause__) is not None and inner is not cause:
        cause = inner
    said = one_line(cause, 400)
    if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES) or "No space left" in said:
        return OutputError(
            f"{job.out}: cannot be written ({said}); what is written stays: free space, then run the same command"
        )
    return EngineError(
        f"Ray ended the run ({type(cause).__name__}: {said}); what is written is kept: run the same command again"
    )
