"""The local engine: this process, or the processes of torchrun, each with every n-th chunk."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from cocoer.inference.recognizer import Recognizer
from cocoer.scale.dataset import write_part
from cocoer.scale.places import place_of
from cocoer.scale.worker import Job, Worker


def annotate_locally(job: Job, chunks: int, recognizer: Recognizer, share: tuple[int, int] = (0, 1)) -> Iterator[int]:
    """Process this process's chunks and write a file for each; yields the images of each file. share: (rank, processes).

    Raises OutputError on a full disk; what is written stays.
    """
    worker, out = Worker(job, recognizer), place_of(job.out)
    run = secrets.token_hex(6)
    rank, processes = share
    for number in range(rank, chunks, processes):
        table = worker.chunk(number)
        write_part(out / f"part-{run}-{number:08d}.parquet", table)
        yield table.num_rows
