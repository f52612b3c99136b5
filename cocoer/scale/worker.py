"""A worker of every engine: one recogniser, rows of the manifest in, rows of the data set out."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from cocoer.data.boxes_file import parse_boxes, persons_of_one
from cocoer.data.inputs import InputItem
from cocoer.errors import BoxesError, ScaleError, one_line
from cocoer.inference.pipeline import predict_many, share_cores
from cocoer.inference.recognizer import Recognizer
from cocoer.outputs import ImageResult
from cocoer.scale.places import Place, place_of
from cocoer.scale.rows import row_of, row_schema
from cocoer.scale.tries import ALONE, Mark

MOST_BYTES = 512 * 1024 * 1024
"""Bytes of one image in a bucket or a shard; a local file is read as its decoder likes."""


@dataclass(frozen=True)
class Job:
    """What every worker must know, as plain values.

    out: the data set. options: of `Recognizer.from_options`, in its order. sha256: of the weights that the run began with.
    roots: folders below which local images must lie; empty: anywhere. metadata: of every file of the data set.
    """

    out: str
    options: tuple[Any, ...]
    sha256: str
    roots: tuple[str, ...] = ()
    metadata: Mapping[str, str] | None = None

    @property
    def work(self) -> Place:
        """The folder of the run's own files; its name begins with `_`, so that readers of data sets pass it over."""
        return place_of(self.out) / "_cocoer"

    @property
    def todo(self) -> Place:
        """The manifest of the unfinished images, one row group per chunk."""
        return self.work / "todo.parquet"


class Worker:
    """Processes chunks. recognizer: None loads the job's. Raises as `Recognizer.from_options`; ScaleError for other weights."""

    def __init__(self, job: Job, recognizer: Recognizer | None = None) -> None:
        self.job = job
        self.recognizer = recognizer or Recognizer.from_options(*job.options)
        if self.recognizer.about["sha256"] != job.sha256:
            raise ScaleError(
                f"the weights here ({self.recognizer.about['sha256'][:12]}...) are not those that the run began with"
                f" ({job.sha256[:12]}...); give all machines the same file"
            )
        share_cores(self.recognizer)
        self.schema = row_schema(self.recognizer.config.classes, job.metadata)
        self._tries = job.work / "tries"

    @cached_property
    def _todo(self) -> Any:
        return pyarrow.parquet.ParquetFile(self.job.todo.fs.open_input_file(self.job.todo.path))

    def chunk(self, number: int) -> pyarrow.Table:
        """The rows of the chunk with this number."""
        return self.answer(self._todo.read_row_group(number).to_pylist())

    def answer(self, rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
        """One row an image, in order. An image that crashed its worker `1 + ALONE` times becomes an error row."""
        mark = Mark.of(self._tries, [row["id"] for row in rows])
        died, out = mark.count, list[dict[str, Any]]()
        mark.begin()
        if not died:
            out = self._answers(rows)
        else:
            for row in rows:
                out.append(self._alone(row))
        mark.end()
        return pyarrow.Table.from_pylist(out, self.schema)

    def _alone(self, row: Mapping[str, Any]) -> dict[str, Any]:
        own = Mark.of(self._tries, [row["id"]])
        if (tries := own.count) >= ALONE:
            message = (
                f"{row['id']}: its worker died {1 + tries} times at it (a decoder's fault, or no memory left); it is left out:"
                " open it alone with `cocoer predict`"
            )
            return row_of(row["id"], row["uri"], ImageResult(row["id"], 0, 0, (), "error", message))
        own.begin()
        [answer] = self._answers([row])
        own.end()
        return answer

    def _answers(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Persons are batched over the images of a chunk; reading, decoding and detection run ahead in a thread."""
        results = predict_many(self.recognizer, self._items(rows), lambda item: _persons(rows[item.position]))
        return [row_of(row["id"], row["uri"], result) for row, (result, *_) in zip(rows, results, strict=True)]

    def _items(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[InputItem]:
        for position, row in enumerate(rows):
            source: Path | io.BytesIO | None = None
            fault = row["fault"] or ""
            try:
                source = None if fault else _source(row, self.job.roots)
            except (OSError, ScaleError, ValueError) as err:
                fault = f"{row['id']}: cannot be read: {one_line(err)}"
            yield InputItem(position, row["id"], row["id"], source, fault=fault)


class _Bytes(io.BytesIO):
    """An image in memory that messages can name."""

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self.name = name


def _source(row: Mapping[str, Any], roots: Sequence[str]) -> Path | _Bytes:
    place = place_of(row["uri"])
    local = place.local
    if local is not None:
        if roots and not any(local.resolve().is_relative_to(root) for root in roots):
            raise ScaleError(
                f"{local} lies neither below the manifest's folder nor below the working folder; if you trust the manifest, add"
                " --set data.allow_outside=true"
            )
        if row["offset"] is None:
            if not local.is_file():  # reading a pipe could wait for ever
                raise ScaleError(f"{local}: no such file" if not local.exists() else f"{local}: is no file")
            return local
    size = row["size"] if row["offset"] is not None else place.size()
    if size > MOST_BYTES:
        raise ScaleError(f"wanted at most {MOST_BYTES >> 20} MB, got {size >> 20} MB")
    data = place.read(row["offset"] or 0, size)
    if len(data) != size:
        raise ScaleError(f"wanted {size} bytes of {place.uri}, got {len(data)}: the file is cut off or has changed")
    return _Bytes(data, row["id"])


def _persons(row: Mapping[str, Any]) -> list[Any] | None:
    """The boxes that came with the row. Raises BoxesError."""
    if row["boxes"] is not None:
        where = f"boxes of {row['id']}"
        return persons_of_one(parse_boxes(row["boxes"].encode(), where), row["id"], None, where)
    if row["boxes_uri"] is None:
        return None
    where = f"boxes file {row['boxes_uri']}"
    try:
        place = place_of(row["boxes_uri"])
        data = place.read(0, min(place.size(), MOST_BYTES))
    except (OSError, ScaleError) as err:
        raise BoxesError(f"{where}: cannot be read: {one_line(err)}") from None
    return persons_of_one(parse_boxes(data, where), row["id"], Path(row["uri"]), where)
