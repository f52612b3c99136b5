"""Who was at work when its worker died: marks on the shared place, which outlive the process, the machine and the run.

A chunk is marked while it is answered. Whoever finds a chunk marked answers its images one by one, each with a mark that counts;
an image that was begun alone `ALONE` times and never ended is not begun again. So killed workers are found out, whatever killed
them: a decoder's fault, the kernel for want of memory, a power cut.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cocoer.scale.places import Place

ALONE = 2
"""Tries of an image by itself, after one with its chunk; with three in all none is given up for a kill nearby."""


@dataclass(frozen=True)
class Mark:
    """One mark. count: how often this was begun and never ended."""

    place: Place

    @classmethod
    def of(cls, folder: Place, ids: Sequence[str]) -> Mark:
        """The mark of a chunk, or of one image."""
        name = hashlib.blake2b("\n".join(ids).encode("utf-8", "replace"), digest_size=16).hexdigest()
        return cls(folder / f"{len(ids)}-{name}")

    @property
    def count(self) -> int:
        """0 where nobody died. Raises OSError."""
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
        """It was ended, well or with an error. Raises OSError."""
        self.place.delete()
