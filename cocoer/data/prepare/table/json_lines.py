"""JSON lines: one object a line, one person an object."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cocoer.data.prepare.table.rows import Reading, Row, chosen_columns, table_rows
from cocoer.errors import AnnotationError
from cocoer.files import parse_json, read_lines


def read_json_lines(path: Path, reading: Reading) -> Iterator[Row]:
    """The rows of a .jsonl file; a line that is no object is a faulty row. Raises AnnotationError."""
    found: list[tuple[str, dict[str, Any] | str]] = []
    try:
        lines = list(read_lines(path))
    except UnicodeDecodeError as err:
        raise AnnotationError(f"{path}: wanted UTF-8 text, got other bytes ({err.reason}); save it as UTF-8") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
            found.append(
                (f"row {number}", value if isinstance(value, dict) else f"wanted an object, got {line[:40]!r}")
            )
        except ValueError as err:
            found.append((f"row {number}", f"no JSON ({err})"))
    names = list(dict.fromkeys(key for _, value in found if isinstance(value, dict) for key in value))
    if not names:
        raise AnnotationError(f"{path}: wanted one JSON object a line, found none")
    columns = chosen_columns(reading.columns, names, str(path))
    for where, value in found:
        if isinstance(value, str):
            yield Row(where, fault=value)
        else:
            yield from table_rows([(where, value)], columns, reading)
