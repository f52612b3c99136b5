"""Parquet: one person a row; lists may be lists. Needs pyarrow (`pip install 'cocoer[table]'`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cocoer.data.prepare.table.rows import Reading, Row, chosen_columns, table_rows
from cocoer.errors import AnnotationError
from cocoer.files import open_input


def read_parquet(path: Path, reading: Reading) -> Iterator[Row]:
    """The rows of a .parquet file, in batches. Raises AnnotationError where pyarrow or the file is not to be had."""
    try:
        import pyarrow.lib
        import pyarrow.parquet
    except ImportError:
        raise AnnotationError(f"{path}: Parquet needs pyarrow: pip install 'cocoer[table]'") from None
    try:
        with open_input(path) as source, pyarrow.parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            columns = chosen_columns(reading.columns, names, str(path))
            wanted = {name for text in columns.values() for name in ([text] if text in names else text.split(","))}
            first = 1
            for batch in file.iter_batches(columns=sorted(wanted)):
                rows = batch.to_pylist()
                yield from table_rows(((f"row {first + i}", row) for i, row in enumerate(rows)), columns, reading)
                first += len(rows)
    except (OSError, pyarrow.lib.ArrowException) as err:
        raise AnnotationError(f"{path}: cannot be read as Parquet: {err}") from None
