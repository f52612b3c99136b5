"""Tandon-A/emotic's CSV files: boxes, labels and VAD as Python literals, as pandas wrote them."""

from __future__ import annotations

import ast
import csv
import re
from pathlib import Path
from typing import Any

from cocoer.data.prepare.derived.reading import Reading, RowError, split_of, vad_or_none
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.errors import DerivedError
from cocoer.files import open_table
from cocoer.names import canonical_class

_LONGEST_LITERAL = 5000  # letters; 26 categories have 400


def literal(text: str) -> Any:
    """A Python literal as pandas wrote it, also by numpy 2 (`np.int64(5)`); "" is None. Raises ValueError for anything else."""
    plain = re.sub(r"(?:np\.|numpy\.)?(?:u?int|float)\d+\(([^()]*)\)", r"\1", text.strip())
    plain = re.sub(r"\bnan\b", "None", plain)
    if not plain:
        return None
    try:
        if len(plain) > _LONGEST_LITERAL:
            raise ValueError
        return ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise RowError(f"wanted a Python literal, got {text[:60]!r}") from None


def read_tandon_csv(source: Path, reading: Reading, dataset: str) -> None:
    """`{split}.csv`, one or a folder of them. Folder is relative to the image root; heads are estimated."""
    files = sorted(source.glob("*.csv")) if source.is_dir() else [source]
    for path in files:
        split = split_of(path)
        reading.rows(
            ((f"{path.name} row {n}", row) for n, row in enumerate(tandon_table(path), start=2)),
            lambda where, row, split=split: tandon_row(where, row, split, reading),  # type: ignore[misc]
        )


def tandon_table(path: Path) -> list[dict[str, str]]:
    """The rows of one CSV, column -> text. Raises DerivedError for another table, OSError, UnicodeDecodeError, csv.Error."""
    with open_table(path) as file:
        reader = csv.DictReader(file)
        wanted = ("Folder", "Filename", "BBox", "Categorical_Labels")
        missing = [n for n in wanted if n not in (reader.fieldnames or ())]
        if missing:
            raise DerivedError(f"{path}: wanted the columns of Tandon-A's CSV; missing: {', '.join(missing)}")
        return list(reader)


def tandon_row(
    where: str, row: dict[str, str], split: str, reading: Reading, size: tuple[int, int] | None = None
) -> None:
    """One row of the CSV into `reading`. size: (width, height) where the image need not be there. Raises RowError."""
    image = f"{row['Folder']}/{row['Filename']}".replace("\\", "/")
    if not (reading.root / image).is_file() and (reading.root / "emotic" / image).is_file():
        image = f"emotic/{image}"
    labels = [canonical_class(str(n), EMOTIC_CLASSES) for n in literal(row["Categorical_Labels"]) or ()]
    if not labels:
        raise RowError("no category")
    body = literal(row["BBox"])
    if not isinstance(body, list | tuple) or len(body) != 4:
        raise RowError(f"BBox: wanted four numbers, got {row['BBox']!r}")
    reading.add(where, image, body, None, labels, vad_or_none(literal(row.get("Continuous_Labels") or "")), split, size)
