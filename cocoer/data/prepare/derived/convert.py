"""Convert a derived file or folder, in one of the known formats, to person records and a sidecar."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cocoer.data.batch import PersonRecord
from cocoer.data.prepare.derived.coco import read_coco_json
from cocoer.data.prepare.derived.reading import Reading
from cocoer.data.prepare.derived.tandon_csv import read_tandon_csv
from cocoer.data.prepare.derived.tandon_npy import read_tandon_npy
from cocoer.errors import DerivedError
from cocoer.names import SPLITS

FORMATS: dict[str, Callable[[Path, Reading, str], None]] = {
    "tandon-csv": read_tandon_csv,
    "tandon-npy": read_tandon_npy,
    "coco": read_coco_json,
}
"""Name on the command line -> reader."""


def convert(source: Path, form: str, root: Path, dataset: str = "emotic") -> tuple[list[PersonRecord], dict[str, Any]]:
    """Records and sidecar of one derived file or folder, whose images lie below `root`.

    form: a key of `FORMATS`. Raises DerivedError for what cannot be read at all.
    """
    if form not in FORMATS:
        raise DerivedError(f"unknown format {form!r}; the formats are: {', '.join(FORMATS)}")
    if not source.exists():
        raise DerivedError(f"{source}: no such file or folder")
    if source.is_file() and source.suffix in (".pkl", ".pickle"):
        raise DerivedError(
            f"{source}: is a pickle, which is not read, because reading one can run any code. If you made it yourself, unpack it"
            " where you made it: `python scripts/unpack_release_pickles.py SOURCE OUTPUT` writes images and an index"
        )
    reading = Reading(root)
    try:
        FORMATS[form](source, reading, dataset)
    except (OSError, UnicodeDecodeError, csv.Error, MemoryError) as err:
        raise DerivedError(f"{source}: {err}") from None
    if not reading.records:
        reasons = "\n  ".join(f"{r['where']}: {r['reason']}" for r in reading.skipped[:5])
        raise DerivedError(f"{source}: no person could be used\n  {reasons}")
    return reading.records, {
        "dataset": dataset, "converted_from": form, "file": source.name,
        "counts": {s: sum(r.split == s for r in reading.records) for s in SPLITS}, "skipped": reading.skipped,
    }  # fmt: skip
