"""Output of commands: a failed write does not stop the work, and no text can control the terminal.

Characters outside the terminal's encoding and control characters in names (escape sequences, bells, line breaks) are printed
escaped. After a closed pipe (`| head -1`) or a full disk, output stops and the work continues.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from cocoer.report.text import escaped

_CURSOR_UP = re.compile("(\x1b\\[A)+")  # what tqdm writes by itself to go back to its bar

MOST_LINES = 8


def shortened(text: str, most: int | None = MOST_LINES) -> str:
    """The first `most` lines of a long message (weights that do not fit name every key); None: all of it."""
    lines = text.split("\n")
    if most is None:
        return text
    return "\n".join(lines if len(lines) <= most else [*lines[: most - 1], f"  ... and {len(lines) - most + 1} more"])


@contextlib.contextmanager
def shown_faults() -> Iterator[None]:
    """While active (--debug), the package's log goes to standard error, with the traceback of every fault that became a row."""
    log, handler = logging.getLogger("cocoer"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class SteadyStream:
    """A text stream whose `write` and `flush` do not raise; everything else is that of the stream inside.

    lost: the error number of the first write that failed, 0 where none did; from then on nothing is written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write with control characters escaped; a carriage return at the beginning stays, because progress bars use it."""
        if not self.lost:
            lead = "\r" if text.startswith("\r") else ""
            shown = text if _CURSOR_UP.fullmatch(text) else lead + escaped(text[len(lead) :])
            try:
                self._stream.write(shown)
            except (OSError, ValueError) as err:
                self._lose(err)
        return len(text)

    def flush(self) -> None:
        """Flush what can be flushed."""
        if not self.lost:
            try:
                self._stream.flush()
            except (OSError, ValueError) as err:
                self._lose(err)

    def _lose(self, err: Exception) -> None:
        """Write nothing more; redirect the buffers to the null device, or the interpreter would report an error at exit."""
        self.lost = (err.errno if isinstance(err, OSError) else None) or errno.EBADF
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)


@contextlib.contextmanager
def steady_streams() -> Iterator[list[SteadyStream]]:
    """While active, standard output and error are steady. Gives both; they are put back at the end."""
    while (
        handle := os.open(os.devnull, os.O_RDWR)
    ) <= 2:  # a standard stream that is closed would else become a file's number
        pass
    os.close(handle)
    before = sys.stdout, sys.stderr
    steady = [SteadyStream(_open(stream, number)) for number, stream in enumerate(before, start=1)]
    sys.stdout, sys.stderr = steady
    try:
        yield steady
    finally:
        for stream in steady:
            stream.flush()
        sys.stdout, sys.stderr = before


def _open(stream: TextIO | None, number: int) -> TextIO:
    """The stream, set to escape characters outside its encoding; the null device where there is no stream."""
    if stream is None:
        return open(number, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    with contextlib.suppress(
        AttributeError, ValueError, OSError
    ):  # a test's stream cannot be set and takes every letter
        stream.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]
    return stream
