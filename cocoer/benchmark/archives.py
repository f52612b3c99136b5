"""`cocoer annotate` by each engine on the same images: rate, time until the first file, memory of a worker.

Whole commands in processes of their own, one after another, as a user types them; the demonstration's weights and images, because
detection needs something to find. The rate is that of the files after each worker's first, by the times of their writing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cocoer.benchmark.model import Row

LOCAL, TORCHRUN, RAY_ONE, RAY_TWO = "local", "torchrun, 2 processes", "ray, 1 actor", "ray, 2 actors"
LOCAL_CORE, RAY_CORE = "local, one core", "ray, 1 actor, one core"
_LIMIT = 1800.0  # seconds of one command
_MODULE = (sys.executable, "-m")


@dataclass(frozen=True)
class Engine:
    """A way to run `cocoer annotate`. start: the command before it; words: its options. cores: of it all; 0: every one.

    base: the engine whose rate is 1.
    """

    name: str
    start: tuple[str, ...] = (*_MODULE, "cocoer")
    words: tuple[str, ...] = ()
    workers: int = 1
    cores: int = 0
    base: str | None = None


_RAY = ("--engine", "ray", "--actors")
_TORCHRUN = (*_MODULE, "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cocoer")
ENGINES = (
    Engine(LOCAL),
    Engine(TORCHRUN, start=_TORCHRUN, workers=2, base=LOCAL),
    Engine(RAY_ONE, words=(*_RAY, "1"), base=LOCAL),
    Engine(LOCAL_CORE, cores=1),
    Engine(RAY_CORE, words=(*_RAY, "1"), cores=1, base=LOCAL_CORE),
    Engine(RAY_TWO, words=(*_RAY, "2"), workers=2, cores=2, base=RAY_CORE),
)


@dataclass(frozen=True)
class Measured:
    """Of one command. start: seconds until the first file. rate: images/s from then on. memory: MB of its largest worker.

    cpu: seconds of processor time of all workers, their start included.
    """

    start: float
    rate: float
    memory: float
    cpu: float


def measure_archives(checkpoint: Path, images: Sequence[Path], count: int = 2048, chunk: int = 64) -> Iterator[Row]:
    """`count` images by each engine: a row of wall time an image, whose `floor_ms` is the start, and one of processor time.

    A worker reads ahead in a thread, so that one worker uses more than one core where it may. That is how users run it, and
    how the engines are compared; what a second actor brings is measured with one core an actor.
    The second row is the difference of two runs, so that starts cancel out; a busy machine changes it little.
    `ratio`: rate over that of `base`. `batch`: images of a chunk.

    Raises ValueError without images or with too few for a rate, RuntimeError where a command fails.
    """
    if not images or count < 16 * chunk:
        raise ValueError(
            f"scale: wanted demonstration images (test_imgs/demo_*.jpg) and at least {16 * chunk} copies, got {count}"
        )
    found: dict[str, tuple[Measured, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_copies(Path(folder) / str(number), images, number) for number in (count // 4, count))
        out = Path(folder) / "out"
        options = ["--output", str(out), "--checkpoint", str(checkpoint), "--device", "cpu", "--chunk", str(chunk)]
        for engine in ENGINES:
            measured = []
            for photos, number in ((few, count // 4), (many, count)):
                command = [*engine.start, "annotate", str(photos), *options, "--quiet", *engine.words]
                with only_cores(engine.cores):
                    measured.append(measure_command(command, out, number, chunk, engine.workers))
                shutil.rmtree(out)
            found[engine.name] = measured[1], (measured[1].cpu - measured[0].cpu) / (count - count // 4)
            yield from archive_rows(engine, found, count, chunk)


@contextlib.contextmanager
def only_cores(cores: int) -> Iterator[None]:
    """Processes started meanwhile run on so many cores; 0: on all. Linux; elsewhere nothing happens."""
    if sys.platform == "linux" and cores:
        there = os.sched_getaffinity(0)
        os.sched_setaffinity(0, sorted(there)[:cores])
        try:
            yield
        finally:
            os.sched_setaffinity(0, there)
    else:
        yield


def _copies(folder: Path, images: Sequence[Path], count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06d}.jpg").write_bytes(images[number % len(images)].read_bytes())
    return folder


def archive_rows(engine: Engine, found: Mapping[str, tuple[Measured, float]], count: int, chunk: int) -> Iterator[Row]:
    """Of an engine: wall time and processor time, against its base. found: of each engine, with the seconds an image."""
    mine, cpu = found[engine.name]
    first = Row("archive", engine.name, "paper", "cpu", "float32", chunk, total_ms=1000 / mine.rate, work=count)
    ratio = cpu_ratio = None
    if engine.base is not None:
        base, base_cpu = found[engine.base]
        ratio, cpu_ratio = mine.rate / base.rate, base_cpu / cpu
    yield replace(first, floor_ms=1000 * mine.start, ratio=ratio, peak_mb=mine.memory)
    yield replace(first, variant=f"{engine.name}: processor time", total_ms=1000 * cpu, ratio=cpu_ratio)


def measure_command(command: Sequence[str], out: Path, count: int, chunk: int, workers: int) -> Measured:
    """Run a command that writes `count` images' rows to `out`, a file a chunk, by so many workers. Raises RuntimeError."""
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    mark = b"ray::MapWorker" if "ray" in command else b"annotate"
    begun, seen = time.time(), dict[int, tuple[float, float]]()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=env)
        try:
            while process.poll() is None:
                if time.time() - begun > _LIMIT:
                    raise RuntimeError(f"{' '.join(command)}: took longer than {_LIMIT:.0f} s")
                seen |= _workers(process.pid, mark)
                time.sleep(0.1)
        finally:
            process.kill()
        if process.wait():
            said.seek(0)
            end = said.read()[-1000:].decode(errors="replace")
            raise RuntimeError(f"{' '.join(command)}: ended with {process.returncode}: {end}")
    times = sorted(part.stat().st_mtime for part in out.glob("*.parquet"))
    rate = (count - workers * chunk) / (times[-1] - times[workers - 1])
    memory, cpu = max(memory for memory, _ in seen.values()), sum(cpu for _, cpu in seen.values())
    return Measured(times[0] - begun, rate, memory, cpu)


def _workers(top: int, mark: bytes) -> dict[int, tuple[float, float]]:
    """Highest memory (MB) and processor time (s) of the processes with `mark` in their command, `top` or below it; Linux."""
    parents, found = dict[int, int](), dict[int, tuple[float, float]]()
    ticks = 100  # without /proc nothing is found, so on Windows it does not matter
    if sys.platform != "win32":
        ticks = os.sysconf("SC_CLK_TCK")
    for place in Path("/proc").glob("[0-9]*"):
        try:
            stat = (place / "stat").read_text().rpartition(")")[2].split()
            parents[int(place.name)] = int(stat[1])
            if mark in (place / "cmdline").read_bytes():
                memory = float((place / "status").read_text().split("VmHWM:")[1].split()[0]) / 1024
                found[int(place.name)] = memory, (int(stat[11]) + int(stat[12])) / ticks
        except (OSError, IndexError):  # it has ended
            continue

    def below(number: int) -> bool:
        return number == top or (number in parents and below(parents[number]))

    return {number: facts for number, facts in found.items() if below(number)}
