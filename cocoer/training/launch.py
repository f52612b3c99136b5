"""Run several trainings, each `cocoer train` in its own process: finished ones are skipped, interrupted ones continue.

A process per run keeps one run's threads, signals and memory out of another's, and lets small runs share the cores.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from cocoer.config import Config, check_classes, config_from_dict, load_config
from cocoer.data.files import available_cores
from cocoer.errors import TrainingError
from cocoer.ideas import plugin_words
from cocoer.model.checkpoint import read_metadata
from cocoer.training.recognition_stage import BEST_FILE, LAST_FILE
from cocoer.training.resume import MAY_DIFFER, config_differences
from cocoer.training.signals import EXIT_STOPPED

LOG_FILE = "train.log"
_POLL = 0.2  # seconds between looks at the processes
_PATIENCE = 120.0  # seconds that a stopped run may take to save its state


@dataclass(frozen=True)
class TrainingRun:
    """One training. overrides: `a.b=c` over the config file, `run.dir` (where it writes) and `run.seed` among them.

    note: stored in its weights.
    """

    config_file: Path
    overrides: tuple[str, ...]
    note: str = ""

    @property
    def config(self) -> Config:
        """The resolved config. Raises ConfigError."""
        return load_config(self.config_file, self.overrides)

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return Path(self.config.run.dir)

    @property
    def weights(self) -> Path:
        """What it leaves."""
        return self.folder / BEST_FILE

    def words(self, device: str = "auto", threads: int = 0) -> list[str]:
        """The command without the interpreter; it goes on where an earlier one was interrupted."""
        changes = [*self.overrides, *([f"run.threads={threads}"] if threads else [])]
        words = ["train", "--config", str(self.config_file), "--resume", "latest", "--device", device]
        return [*words, *(["--note", self.note] if self.note else []), "--set", *changes]


def is_done(run: TrainingRun) -> bool:
    """Whether the run has reached its last epoch, or max_steps, with this config.

    Raises TrainingError where its folder holds a run of another config, CheckpointError where its weights are damaged.
    """
    config, last = run.config, run.folder / LAST_FILE
    if not (last.is_file() and run.weights.is_file()):
        return False
    metadata = read_metadata(last)
    check_classes(metadata, config.classes, f"weights {last}")
    stored = config_from_dict(metadata["config"], f"config in {last}")
    unlike = config_differences(stored, config, [key for key in MAY_DIFFER if key not in ("data.root", "data.index")])
    if unlike:
        raise TrainingError(
            f"{run.folder}: holds a run of another config:\n  "
            + "\n  ".join(unlike)
            + "\nGive another folder (run.dir), or remove this one"
        )
    reached = metadata["metrics"]
    limit = config.run.max_steps
    return int(reached["epoch"]) >= config.optim.epochs or (limit is not None and int(reached["step"]) >= limit)


def train_all(runs: Sequence[TrainingRun], device: str = "auto", jobs: int = 1) -> list[Path]:
    """Train those that are not done, `jobs` at a time, and return the best weights of all runs in order.

    device: as `train.py` takes it. With several jobs every process gets its share of the cores.
    Raises TrainingError when one fails or is stopped; the others are then stopped too, and saved. KeyboardInterrupt and
    SIGTERM also stop and save them.
    """
    waiting = [run for run in runs if not is_done(run)]
    threads = max(1, available_cores() // jobs) if jobs > 1 else 0
    running: dict[subprocess.Popen[bytes], TrainingRun] = {}
    bar = tqdm(total=len(runs), initial=len(runs) - len(waiting), desc="trainings", disable=None)
    with bar, _interruptible():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    running[_started(run, device, threads)] = run
                ended = [process for process in running if process.poll() is not None]
                for process in ended:
                    _check(process.returncode, running.pop(process))
                    bar.update()
                if not ended:
                    time.sleep(_POLL)
        finally:
            _stop(running)
    return [run.weights for run in runs]


def _started(run: TrainingRun, device: str, threads: int) -> subprocess.Popen[bytes]:
    """The run's process; everything it says goes to its log. The working folder is the caller's, as its paths are."""
    run.folder.mkdir(parents=True, exist_ok=True)
    words = run.words(device, threads)
    with open(run.folder / LOG_FILE, "ab") as log:
        log.write(f"$ cocoer {shlex.join(words)}\n".encode())
        log.flush()
        command = [sys.executable, "-m", "cocoer", *words, *plugin_words()]
        # a session of its own: Ctrl-C reaches this process alone, which then stops the trainings gently
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
        )


def _check(code: int, run: TrainingRun) -> None:
    """TrainingError unless the process ended well."""
    log = run.folder / LOG_FILE
    if code == EXIT_STOPPED:
        raise TrainingError(f"{run.folder}: the training was stopped and is saved; the same command goes on with it")
    if code:
        lines = log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise TrainingError(f"{run.folder}: the training ended with {code}: {last} (all of it: {log})")


def _stop(running: dict[subprocess.Popen[bytes], TrainingRun]) -> None:
    """Ask every process to save and end, and wait for it."""
    for process in running:
        process.send_signal(signal.SIGTERM)
    for process in running:
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def _interruptible() -> Iterator[None]:
    """While active, SIGTERM ends this process as Ctrl-C does, so that the trainings are stopped and saved."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def seeds_of(run: TrainingRun, seeds: Sequence[int], folder: Path) -> list[TrainingRun]:
    """The run once per seed, each in `folder/seed-N`, where `train.py` puts several seeds too."""
    return [
        replace(run, overrides=(*run.overrides, f"run.dir={json.dumps(str(folder / f'seed-{s}'))}", f"run.seed={s}"))
        for s in seeds
    ]
