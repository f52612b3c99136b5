"""Which paths may be one file, however they are written, and which files a command reads and so never writes."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cocoer.errors import OverwritesInput

_inputs: set[str] = set()
"""Marks of the files that the command of this process reads."""


def path_marks(path: Path) -> Iterator[str]:
    """Texts that name a file however its path is written: two paths share one where they may be one file.

    The entry itself with its folder's links resolved, what it leads to at the end of all links, and its number on its disk
    (hard links, bind mounts). Upper and lower case, and the two Unicode spellings of a letter, count as the same.
    """
    entry = Path(os.path.realpath(path.parent)) / path.name
    yield same_name(str(entry))
    if entry.is_symlink():
        yield same_name(os.path.realpath(entry))
    try:
        found = os.stat(entry)
    except OSError:
        return
    yield f"{found.st_dev}:{found.st_ino}"


def same_name(text: str) -> str:
    """The text, the same for names that a file system may take for one: case, Unicode spelling, dots and spaces at the end."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return "/".join(part.rstrip(". ") or part for part in folded.split("/"))


@contextmanager
def keep_inputs(paths: Iterable[Path]) -> Iterator[None]:
    """While active, `refuse_input` refuses these files (those of them that are there), and so does every writer of `files`."""
    added = {mark for path in paths if os.path.lexists(path) for mark in path_marks(path)} - _inputs
    _inputs.update(added)
    try:
        yield
    finally:
        _inputs.difference_update(added)


def refuse_input(path: Path, others: Iterable[Path] = ()) -> None:
    """Raise OverwritesInput where `path` is, or may be, a kept input or one of `others`; one look where nothing stands there."""
    if not os.path.lexists(path):
        return
    marks = set(path_marks(path))
    if not marks.isdisjoint(_inputs) or any(not marks.isdisjoint(path_marks(other)) for other in others):
        raise OverwritesInput(
            f"{path}: is read by this command, and an input is never written over; name another place"
        )
