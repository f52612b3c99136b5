"""Shared by the readers of derived formats: the records, the skipped rows with their reasons, and common fields.

No derived file has all that an index needs; what is missing is estimated and marked so (heads), or taken from the image (sizes).
A row that cannot be used is left out with its reason; a file of another format is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cocoer.boxes import Box, as_box
from cocoer.data.batch import PersonRecord
from cocoer.data.decode import image_path, image_size
from cocoer.data.people import complete_boxes
from cocoer.errors import DerivedError, ImageError
from cocoer.names import SPLITS


class RowError(ValueError):
    """One row that is left out."""


@dataclass
class Reading:
    """Records and left-out rows, as they come."""

    root: Path
    records: list[PersonRecord] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _persons: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(
        self, where: str, image: str, body: Sequence[float] | None, head: Sequence[float] | None,
        labels: Sequence[str], vad: tuple[float, float, float] | None, split: str, size: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """One person; a missing box is estimated. size: where the image need not be there.

        Raises RowError or ValueError where that does not work.
        """
        if size is not None:
            self._sizes[image] = size
        if image not in self._sizes:
            try:
                self._sizes[image] = image_size(image_path(self.root, image, follow_links=True))
            except ImageError as err:
                raise RowError(str(err)) from None
        width, height = self._sizes[image]
        people = complete_boxes(_box(body), _box(head), width, height)
        number = self._persons.get((split, image), 0)
        self._persons[split, image] = number + 1
        # Rounded as the index file rounds, so that what is made of these records fits the ones read back.
        body_box, head_box = (as_box([round(v, 2) for v in box]) for box in (people.body, people.head))
        self.records.append(
            PersonRecord(
                image, width, height, number, body_box, head_box, people.head_source, tuple(labels), vad, split
            )
        )

    def rows(self, rows: Iterable[tuple[str, Any]], take: Callable[[str, Any], None]) -> None:
        """`take` every (where, row); the ones that fail are left out with their reason."""
        for where, row in rows:
            try:
                take(where, row)
            except (ValueError, KeyError, TypeError, SyntaxError, IndexError, OverflowError) as err:
                reason = f"no {err}" if isinstance(err, KeyError) else str(err)
                self.skipped.append({"where": where, "reason": reason})


def _box(values: Sequence[float] | None) -> Box | None:
    """None stays None; `0, 0, 0, 0` means none."""
    return None if values is None or not any(values) else as_box(values)


def split_of(path: Path) -> str:
    """The split that a file's name begins with or holds."""
    found = next((s for s in SPLITS if s in path.stem.lower()), None)
    if found is None:
        raise DerivedError(f"{path}: wanted a file name with train, val or test in it")
    return found


def vad_or_none(values: Any) -> tuple[float, float, float] | None:
    """Three finite numbers in 1..10, or None where one is missing (None, "None", NaN). Raises for a value outside."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        return None
    numbers = [math.nan if v is None or v == "None" else float(v) for v in values]
    if not all(math.isfinite(v) for v in numbers):
        return None
    if min(numbers) < 1 or max(numbers) > 10:
        raise RowError(f"wanted valence, arousal and dominance in 1..10, got {numbers}")
    return numbers[0], numbers[1], numbers[2]
