"""Shared by the studies: stored results, the settings of a results folder, and means over trained models."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scipy import stats

from cocoer.config_file import leaves
from cocoer.errors import ConflictError
from cocoer.files import read_json as _read
from cocoer.files import write_text

Spread = tuple[float, float | None, tuple[float, float] | None]
"""Mean, sample deviation and 95 % interval of the mean (Student's t); one value has neither deviation nor interval."""


def spread_of(values: Sequence[float]) -> Spread:
    """The spread of one value per trained model, in the unit of the values."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None
    deviation = statistics.stdev(values)
    half = float(stats.t.ppf(0.975, len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean, deviation, (mean - half, mean + half)


def data_places(root: Path, crops: Path) -> list[str]:
    """The overrides with which a training reads a demo tree. root: the tree; crops: folder of its crop cache."""
    return [f"data.root={root}", f"data.index={root / 'index'}", f"data.cache={crops}", "data.workers=0"]


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """The whole file or nothing. Raises OutputError where it cannot be written."""
    write_text(file, json.dumps(content, indent=1) + "\n")


def read_json(file: Path) -> dict[str, Any]:
    """A stored result. Raises ConflictError for a truncated or damaged file, and says which."""
    try:
        content = _read(file)
        if not isinstance(content, dict):
            raise ValueError(f"wanted an object, got {type(content).__name__}")
    except (ValueError, OSError) as err:
        raise ConflictError(
            f"{file}: truncated or damaged results file ({err}); delete it and run the same command again, which writes it again"
        ) from None
    return content


def check_settings(
    file: Path, settings: Mapping[str, Any], updated: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> None:
    """Write the settings where there are none. Raises ConflictError where the folder was begun with others.

    updated: completes the stored settings with what was added to them since.
    """
    if not file.is_file():
        write_json(file, settings)
        return
    before, now = (dict(leaves(tree)) for tree in (updated(read_json(file)), json.loads(json.dumps(settings))))
    if unlike := [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]:
        lines = (f"{k}: was {json.dumps(before.get(k))}, is now {json.dumps(now.get(k))}" for k in unlike)
        raise ConflictError(
            f"{file.parent}: was begun with other settings, and one table must not mix two:\n  "
            + "\n  ".join(lines)
            + "\nName another folder with --output, or remove this one"
        )


@contextmanager
def stage(folder: Path, name: str) -> Iterator[None]:
    """Add the seconds that the stage takes to `seconds.json`, interrupted or not."""
    file = folder / "seconds.json"
    before = read_json(file) if file.is_file() else {}
    start = time.monotonic()
    try:
        yield
    finally:
        write_json(file, before | {name: before.get(name, 0.0) + time.monotonic() - start})
