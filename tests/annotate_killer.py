"""Kills a run of `cocoer annotate --engine ray` at random moments and starts it again until it is done."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORKER, RAYLET, DRIVER = "worker", "raylet", "driver"
_MARKS = {WORKER: "ray::MapWorker", RAYLET: "raylet/raylet "}


def below(top: int) -> dict[int, str]:
    """The processes that this one started, and theirs: number -> command."""
    parents, commands = dict[int, int](), dict[int, str]()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(place.name)] = int((place / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(place.name)] = (place / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:  # it has ended
            continue

    def is_below(number: int) -> bool:
        return number in parents and (parents[number] == top or is_below(parents[number]))

    return {number: command for number, command in commands.items() if is_below(number)}


def victims(driver: int, what: str) -> list[int]:
    """Of a run: its driver, its raylet, or its actors."""
    if what == DRIVER:
        return [driver]
    return [number for number, command in below(driver).items() if _MARKS[what] in command]


def start(words: list[str], log: Path, slow: float, poison: str = "") -> subprocess.Popen[bytes]:
    """The command; it and Ray's workers open images as slowly as that."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "slow_images")))
    env = os.environ | {"PYTHONPATH": path, "SLOW": str(slow), "POISON": poison, "OMP_NUM_THREADS": "1"}
    with open(log, "ab") as file:
        return subprocess.Popen([sys.executable, "-m", "cocoer", "annotate", *words], stdout=file, stderr=file, env=env)


def run_with_kills(
    words: list[str], out: Path, log: Path, kills: list[str], step: int, slow: float, limit: float
) -> list[str]:
    """Start the command, kill -9 what `kills` says, each after up to `step` more files of `out`; start again where it ended.

    Returns what happened, a line each, when a start has ended with 0. Raises AssertionError after `limit` seconds.
    """
    draw, told, waiting = random.Random(22), list[str](), list(kills)
    end = time.monotonic() + limit
    while True:
        begun, driver = time.monotonic(), start(words, log, slow)
        goal = len(list(out.glob("*.parquet"))) + draw.randint(1, step)
        try:
            while driver.poll() is None:
                assert time.monotonic() < end, f"not done in time: {told}\n{log.read_text(errors='replace')[-3000:]}"
                files = len(list(out.glob("*.parquet")))
                if waiting and files >= goal:
                    time.sleep(0.5 * draw.random())
                    if there := victims(driver.pid, waiting[0]):
                        os.kill(draw.choice(there), signal.SIGKILL)
                        told.append(f"{files} files: a {waiting.pop(0)} killed")
                        goal = files + draw.randint(1, step)
                time.sleep(0.1)
        finally:
            driver.kill()
        code = driver.wait()
        told.append(
            f"{len(list(out.glob('*.parquet')))} files: run ended with {code} after {time.monotonic() - begun:.0f} s"
        )
        if code == 0:
            return told
