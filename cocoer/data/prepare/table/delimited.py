"""CSV and TSV: a header line, then one person a line."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from cocoer.data.prepare.table.rows import Reading, Row, chosen_columns, table_rows
from cocoer.errors import AnnotationError
from cocoer.files import read_file


def read_delimited(path: Path, reading: Reading) -> Iterator[Row]:
    """The rows of a .csv (comma or semicolon, by the header) or .tsv file, UTF-8. Raises AnnotationError.

    A line with more or fewer values than the header is a faulty row.
    """
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise AnnotationError(f"{path}: wanted UTF-8 text, got other bytes ({err.reason}); save it as UTF-8") from None
    header = text.partition("\n")[0]
    mark = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=mark)  # a line break in quotes stays
    try:
        names = [name.strip() for name in next(lines, [])]
        body = [(f"row {lines.line_num}", values) for values in lines if any(v.strip() for v in values)]
    except csv.Error as err:
        raise AnnotationError(f"{path}: row {lines.line_num}: cannot be read as CSV ({err})") from None
    columns = chosen_columns(reading.columns, names, str(path))
    for where, values in body:
        if len(values) != len(names):
            yield Row(where, fault=f"{len(values)} values for {len(names)} columns")
        else:
            yield from table_rows([(where, dict(zip(names, values, strict=True)))], columns, reading)
