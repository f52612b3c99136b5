"""SIGTERM and SIGUSR1: a run that is asked to stop has one exit code, whatever it is doing. Never imports torch."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

EXIT_STOPPED = 75
"""Exit code of a run that a signal stopped; what it saved is whole (sysexits' EX_TEMPFAIL: start it again)."""

if sys.platform == "win32":
    CAUGHT: tuple[signal.Signals, ...] = (signal.SIGTERM,)
else:
    CAUGHT = (signal.SIGTERM, signal.SIGUSR1)


def leave_on_signals() -> None:
    """From now on the signals end the program with `EXIT_STOPPED`, until a `StopSignals` takes them over.

    For the time in which there is nothing to save: while torch is loaded, weights and indexes are read, a report is written.
    """
    for number in CAUGHT:
        signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    name = signal.Signals(number).name
    print(f"stopped by {name}, not in training; go on with --resume latest", file=sys.stderr, flush=True)
    sys.exit(EXIT_STOPPED)


class StopSignals:
    """While active, SIGTERM and SIGUSR1 set `received` instead of ending the process; a step is always finished first."""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[int, Any] = {}

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in CAUGHT}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def shield_worker(_worker: int) -> None:
    """For a loader's `worker_init_fn`: a stop signal to the whole process group must not kill a worker in mid-batch.

    The main process then ends its workers itself, after it has saved.
    """
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_BLOCK, CAUGHT)
