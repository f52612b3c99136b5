"""The output: a Parquet data set with one row per image, its provenance, and the part of a manifest that is still to do.

`OUT/*.parquet` are the rows; `OUT/_cocoer/` holds run.json (config, weights' SHA-256, version) and, until the run ends, its work.
A file counts when its footer can be read and no engine left it marked as unfinished; the ids in files that count are done.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from cocoer import __version__
from cocoer.config import config_to_dict
from cocoer.errors import OutputError, ScaleError
from cocoer.files import parse_json
from cocoer.inference.recognizer import Recognizer
from cocoer.provenance import git_revision
from cocoer.scale.listing import MANIFEST
from cocoer.scale.places import Place

NOTE = b"cocoer"
"""Under this key every file of a data set says what it was made with."""

PENDING = ".pending.parquet"
"""How Ray's mark of a file that is being written ends; without `.pending` it says that the file is whole."""

_RUN = "run.json"
_OUR_NAMES = re.compile(r"part-[0-9a-f]+-\d+\.parquet|(?:[0-9A-Za-z]+_)?[0-9a-f]{32}_\d{6}[-\d]*\.parquet")
"""What the engines call their files: the local one, and Ray's, which begin with a word of its own where it keeps checkpoints."""


def run_facts(recognizer: Recognizer, inputs: Sequence[str]) -> dict[str, Any]:
    """How a data set is made: weights, config, inputs, version."""
    about = recognizer.about
    config = config_to_dict(recognizer.config)
    return {
        "program": "cocoer annotate",
        "version": __version__,
        "revision": git_revision(),
        "weights": {name: about[name] for name in ("weights", "sha256", "dataset", "mode", "synthetic")},
        "classes": list(recognizer.config.classes),
        "config": config,
        "inputs": list(inputs),
    }


def begin(out: Place, facts: Mapping[str, Any]) -> None:
    """Write run.json, or compare with an earlier one. Raises ScaleError for other weights, settings or inputs."""
    place = out / "_cocoer" / _RUN
    before = facts_of(out)
    if before is None:
        if any(not file.name.startswith(".") for file in out.files()):
            raise ScaleError(
                f"{out.uri}: holds files that cocoer annotate did not write, and they stay; choose another --output"
            )
        place.write(json.dumps(facts, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        return
    for what, old, new in (
        ("weights", before["weights"]["sha256"][:12], facts["weights"]["sha256"][:12]),
        ("inputs", before["inputs"], facts["inputs"]),
        *_changed(before["config"], facts["config"]),
    ):
        if old != new:
            raise ScaleError(
                f"{out.uri}: was begun with {what} {_shown(old)}, now {_shown(new)}; one data set has one answer: give the same,"
                " or another --output"
            )


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The settings that predictions depend on: all but the batch size."""
    for section in ("data", "model", "inference"):
        for key in sorted(before[section].keys() | now[section].keys()):
            if (section, key) != ("inference", "batch_size"):
                yield f"{section}.{key}", before[section].get(key), now[section].get(key)


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def facts_of(out: Place) -> dict[str, Any] | None:
    """The run.json of a data set; None where there is none. Raises ScaleError for one that cannot be read."""
    place = out / "_cocoer" / _RUN
    try:
        found = parse_json(place.read())
        if not isinstance(found, dict) or found.get("program") != "cocoer annotate":
            raise ValueError("not written by cocoer annotate")
        sections = [found["config"][name] for name in ("data", "model", "inference")]
        if not all(isinstance(section, dict) for section in sections) or not isinstance(
            found["weights"]["sha256"], str
        ):
            raise TypeError("values of another kind")
        return found | {"inputs": found["inputs"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ScaleError(f"{place.uri}: cannot be read ({err}); restore it, or choose another --output") from None


def parts_of(out: Place) -> list[Place]:
    """The files with rows, by name."""
    return [file for file in out.files() if file.name.endswith(".parquet") and file.name[0] not in "._"]


def settle(out: Place, retry_errors: bool = False) -> tuple[pyarrow.ChunkedArray, list[str]]:
    """Clean up after a killed run before another begins. Returns the finished ids, and remarks for the user.

    Files that an engine marked as unfinished, and files without a footer, are removed. An id in two files (a worker outlived the
    killed run) keeps its first row. retry_errors: rows with an error are removed too, so these images are processed again.
    Raises ScaleError for a .parquet file that somebody else has put there, which stays.
    """
    remarks = []
    marks = (out / "_cocoer" / "commits").files(recursive=True)
    unfinished = tuple(mark.name.removesuffix(PENDING) for mark in marks if mark.name.endswith(PENDING))
    parts, ids, statuses = [], [], []
    torn = 0
    for part in parts_of(out):
        marked = bool(unfinished) and part.name.startswith(unfinished)
        try:
            if marked:
                raise pyarrow.ArrowInvalid("marked as unfinished")
            table = _columns(part, ["id", "status"])
        except pyarrow.ArrowInvalid:
            if not marked and not _OUR_NAMES.fullmatch(part.name):
                raise _foreign(part) from None
            part.delete()
            torn += 1
            continue
        if table.num_columns < 2 or not (NOTE in (table.schema.metadata or {}) or _OUR_NAMES.fullmatch(part.name)):
            raise _foreign(part)
        parts.append(part)
        ids.append(table["id"].combine_chunks())
        statuses.append(table["status"].combine_chunks())
    (
        out / "_cocoer" / "commits"
    ).delete_folder()  # a worker that is still alive can no longer mark its file as complete
    if torn:
        remarks.append(f"{torn} unfinished files of an earlier run were removed; their images are done again")
    every = pyarrow.chunked_array(ids, pyarrow.string())
    if len(every) != len(every.unique()) or retry_errors:
        kept, seen = [], set[str]()
        for part, names, status in zip(parts, ids, statuses, strict=True):
            keep = []
            for name, state in zip(names.to_pylist(), status.to_pylist(), strict=True):
                keep.append(name not in seen and not (retry_errors and state == "error"))
                seen.add(name)
            if not all(keep):
                _rewrite(part, keep)
            kept.append(names.filter(pyarrow.array(keep)))
        remarks.append(f"{len(every) - sum(map(len, kept))} rows (doubled or with errors) were removed")
        every = pyarrow.chunked_array(kept, pyarrow.string())
    return every, remarks


def _foreign(part: Place) -> ScaleError:
    return ScaleError(
        f"{part.uri}: is no file of this data set, and it stays; move it elsewhere, for readers take every .parquet of the folder"
    )


def _columns(part: Place, names: Sequence[str]) -> pyarrow.Table:
    """Columns of one file. Raises ArrowInvalid where it is not whole, OSError."""
    with part.fs.open_input_file(part.path) as source, pyarrow.parquet.ParquetFile(source) as file:
        return file.read(columns=list(names))


def _rewrite(part: Place, keep: Sequence[bool]) -> None:
    with part.fs.open_input_file(part.path) as file:
        table = pyarrow.parquet.read_table(file)
    write_part(part, table.filter(pyarrow.array(keep)))


def write_part(part: Place, table: pyarrow.Table) -> None:
    """One file of the data set, whole or not at all. Raises OutputError."""
    buffer = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, buffer, compression="zstd")
    part.write(buffer.getvalue().to_pybytes())


def plan(manifest: pyarrow.Table, done: pyarrow.ChunkedArray, chunk: int, todo: Place) -> tuple[int, int]:
    """Write the unfinished part of a manifest to `todo`, one row group per chunk. Returns the numbers of chunks and images.

    Chunks are cut from the whole manifest, so that a chunk that killed its worker is the same chunk in the next run.
    """
    left = pyarrow.compute.invert(pyarrow.compute.is_in(manifest["id"], value_set=done.combine_chunks()))
    buffer = pyarrow.BufferOutputStream()
    chunks = images = 0
    with pyarrow.parquet.ParquetWriter(buffer, MANIFEST) as writer:
        for start in range(0, manifest.num_rows, chunk):
            rows = manifest.slice(start, chunk).filter(left.slice(start, chunk))
            if rows.num_rows:
                writer.write_table(rows, row_group_size=chunk)
                chunks, images = chunks + 1, images + rows.num_rows
    todo.write(buffer.getvalue().to_pybytes())
    return chunks, images


@dataclass(frozen=True)
class Totals:
    """What a data set holds. failed: images with an error, and images of which a person has one."""

    images: int
    persons: int
    failed: int


def finish(out: Place, manifest: pyarrow.Table) -> Totals:
    """Count the data set, check that it has every image of the manifest exactly once, and remove the run's work.

    Raises OutputError where it has not; the next run of the same command does the rest.
    """
    done, _ = settle(out)
    missing = pyarrow.compute.invert(pyarrow.compute.is_in(manifest["id"], value_set=done.combine_chunks()))
    if lacking := pyarrow.compute.sum(missing).as_py():
        raise OutputError(f"{out.uri}: {lacking} images have no row yet; run the same command again")
    images = persons = failed = 0
    for part in parts_of(out):
        table = _columns(part, ["status", "persons.list.element.status"])
        states = table["persons"].to_pylist()
        images += table.num_rows
        persons += sum(map(len, states))
        failed += sum(
            status == "error" or any(person["status"] == "error" for person in people)
            for status, people in zip(table["status"].to_pylist(), states, strict=True)
        )
    for name in ("tries", "commits"):
        (out / "_cocoer" / name).delete_folder()
    (out / "_cocoer" / "todo.parquet").delete()
    return Totals(images, persons, failed)
