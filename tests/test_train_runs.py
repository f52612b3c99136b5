"""Trainings in processes of their own: shared out over the cores, stopped gently, and gone on with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_world import make_world

from cocoer.errors import TrainingError
from cocoer.training import launch as train_runs
from cocoer.training.launch import TrainingRun, is_done, seeds_of, train_all
from cocoer.training.recognition_stage import BEST_FILE
from cocoer.training.signals import EXIT_STOPPED

OBEDIENT = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(75)); print(flush=True); time.sleep(60)"


def runs_in(folder: Path, count: int) -> list[TrainingRun]:
    return seeds_of(TrainingRun(make_world(folder), ()), range(count), folder / "runs")


def replaced(monkeypatch: pytest.MonkeyPatch, code: str) -> list[subprocess.Popen[bytes]]:
    """Trainings become this code; returns the processes that are started."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(run: TrainingRun, _device: str, _threads: int) -> subprocess.Popen[bytes]:
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / train_runs.LOG_FILE).write_text("one\nlast words\n\n")
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # it listens to signals now
        process.stdout.close()
        started.append(process)
        return process

    monkeypatch.setattr(train_runs, "_started", begin)
    return started


def test_an_interrupt_stops_every_training_and_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = replaced(monkeypatch, OBEDIENT)

    sleep, sent = time.sleep, []

    def interrupted(seconds: float) -> None:
        if not sent:  # later calls are subprocess's own, which waits with it
            sent.append(True)
            os.kill(os.getpid(), signal.SIGTERM)  # as a scheduler does; train_all turns it into an interrupt
        sleep(seconds)

    monkeypatch.setattr(train_runs.time, "sleep", interrupted)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train_all(runs_in(tmp_path, 3), "cpu", jobs=2)
    assert [process.returncode for process in started] == [EXIT_STOPPED] * 2  # the third had not begun
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_stopped_training_says_that_it_is_saved_and_a_failed_one_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = runs_in(tmp_path, 2)
    replaced(monkeypatch, f"print(flush=True); raise SystemExit({EXIT_STOPPED})")
    with pytest.raises(TrainingError, match="seed-0: the training was stopped and is saved; the same command goes on"):
        train_all(runs, "cpu")
    started = replaced(monkeypatch, "print(flush=True); raise SystemExit(3)")
    with pytest.raises(TrainingError, match=r"seed-0: the training ended with 3: last words \(all of it: .*train.log"):
        train_all(runs, "cpu")
    assert len(started) == 1  # nothing is begun after a failure


def test_an_interrupted_training_goes_on_and_a_done_one_is_left_alone(tmp_path: Path) -> None:
    (run,) = runs_in(tmp_path, 1)
    first = TrainingRun(run.config_file, (*run.overrides, "run.max_steps=2"))
    assert not is_done(first)
    assert train_all([first], "cpu") == [run.folder / BEST_FILE]
    assert is_done(first) and not is_done(run)  # without the limit there are steps left
    train_all([run], "cpu")
    said = (run.folder / train_runs.LOG_FILE).read_text()
    assert is_done(run) and said.count("$ cocoer train") == 2 and "going on from" in said and "step 2" in said
    train_all([run], "cpu")
    assert (run.folder / train_runs.LOG_FILE).read_text() == said
