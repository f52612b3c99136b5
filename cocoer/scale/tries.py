"""Images that crash their worker, found by marks in the output folder, which survive the process, the machine and the run.

A chunk has a mark while a worker processes it. A worker that finds a mark processes the chunk's images one by one, each with a
counting mark; an image that was started alone `ALONE` times and never finished is not started again. This covers every cause:
a decoder's fault, the kernel's out-of-memory killer, a power cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cocoer.scale.places import Place

ALONE = 2
"""Attempts for an image alone, after one with its chunk: three in total, so an unrelated kill does not exclude an image."""


@dataclass(frozen=True)
class Mark:
    """One mark. count: how often the work was started and not finished."""

    place: Place

    @classmethod
    def of(cls, folder: Place, ids: Sequence[str]) -> Mark:
        """The mark of a chunk, or of one image."""
        name = hashlib.blake2b("\n".join(ids).encode("utf-8", "replace"), digest_size=16).hexdigest()
        return cls(folder / f"{len(ids)}-{name}")

    @property
    def count(self) -> int:
        """0 if no worker died. Raises OSError."""
        try:
            return int(self.place.read() or b"1")
        except FileNotFoundError:
            return 0
        except ValueError:
            return 1

    def begin(self) -> None:
        """Count one more. Raises OSError."""
        self.place.note(str(self.count + 1).encode())

    def end(self) -> None:
        """Remove the mark: the work has finished, with or without an error. Raises OSError."""
        self.place.delete()
