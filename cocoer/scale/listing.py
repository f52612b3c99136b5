"""The manifest of INPUT: one row per image, nothing decoded. INPUT: folders, buckets, manifests, WebDataset tar shards.

An unusable entry (an unreadable shard or folder, a file name that is not text) becomes a row with a fault, and listing continues.
An input without any usable image is a ScaleError.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow
import pyarrow.compute
import pyarrow.parquet

from cocoer.data.inputs import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from cocoer.errors import ScaleError, one_line
from cocoer.scale.places import Place, is_file, listed, place_of

BOXES = ".boxes.json"
"""How a file of boxes beside an image ends; in a shard, the member's last part."""

MANIFEST = pyarrow.schema(
    {
        "id": pyarrow.string(),  # names the image in the output; once in a data set
        "uri": pyarrow.string(),  # a path or an address; of a shard's member, the shard's
        "offset": pyarrow.int64(),  # bytes before the image in a shard; null: the file is the image
        "size": pyarrow.int64(),  # bytes of the image in a shard
        "boxes": pyarrow.string(),  # JSON, as `data.boxes_file` reads it
        "boxes_uri": pyarrow.string(),  # a file that holds it
        "fault": pyarrow.string(),  # what is wrong; then there is nothing to decode
    }
)

MOST_SHARDS = 1_000_000
"""Shards that one input names by its braces."""

_PART = 65536
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
Row = dict[str, Any]


def list_inputs(inputs: Sequence[str]) -> tuple[pyarrow.Table, int]:
    """The manifest of all inputs, in a fixed order, and how many videos were left out.

    Ids are paths below the input; where there are several, they begin with the input. A manifest brings its own.
    Raises ScaleError for what is missing, holds no image, lacks columns or has an id twice.
    """
    whole = [part for text in inputs for part in _expanded(text)]
    parts: list[pyarrow.RecordBatch] = []
    videos = 0
    for text in whole:
        before = sum(part.num_rows for part in parts)
        prefix = f"{text.rstrip('/')}/" if len(whole) > 1 else ""
        waiting: list[Row] = []
        for row in _rows(text, prefix):
            if row.pop("video", False):
                videos += 1
                continue
            waiting.append(row)
            if len(waiting) == _PART:
                parts.append(pyarrow.RecordBatch.from_pylist(waiting, MANIFEST))
                waiting = []
        parts.append(pyarrow.RecordBatch.from_pylist(waiting, MANIFEST))
        if sum(part.num_rows for part in parts) == before:
            raise ScaleError(
                f"{text}: wanted images ({' '.join(sorted(IMAGE_SUFFIXES))}) or .tar shards in it, found none"
            )
    table = pyarrow.Table.from_batches(parts, MANIFEST)
    _check_ids(table, ", ".join(whole[:3]))
    return table, videos


def _expanded(text: str) -> list[str]:
    """`shard-{000..012}.tar` as WebDataset writes it -> the shards."""
    found = _BRACES.search(text)
    if not found:
        return [text]
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    if len(numbers) > MOST_SHARDS:
        raise ScaleError(f"{text}: names {len(numbers):,} shards; wanted at most {MOST_SHARDS:,}")
    return [_BRACES.sub(f"{number:0{len(first)}}", text, count=1) for number in numbers]


def _rows(text: str, prefix: str) -> Iterator[Row]:
    place = place_of(text)
    suffix = PurePosixPath(place.path).suffix.lower()
    if not is_file(place):
        yield from _folder(place, text, prefix)
    elif suffix == ".parquet":
        yield from _manifest(place)
    elif suffix == ".tar":
        yield from _shard(place, prefix.rstrip("/") or place.name)
    elif suffix in IMAGE_SUFFIXES:
        yield {"id": prefix.rstrip("/") or place.name, "uri": place.uri}
    else:
        raise ScaleError(
            f"{text}: wanted a folder, a bucket, a .parquet manifest, .tar shards or an image, got {suffix!r}"
        )


def _folder(place: Place, text: str, prefix: str) -> Iterator[Row]:
    """Everything below a folder or a bucket's address. Hidden files and links to folders are passed over."""
    if place.local is not None:
        if not place.local.is_dir():
            raise ScaleError(f"{text}: no such file or folder; check the path")
        found = _walk(str(place.local), "")
    else:
        found = _by_folder(place)
    for folder, names in found:
        if isinstance(names, str):
            yield {"id": f"{prefix}{folder}", "uri": (place / folder).uri, "fault": names}
            continue
        there = frozenset(names)
        for name in names:
            below = f"{folder}/{name}" if folder else name
            stem, dot = os.path.splitext(name)
            kind = dot.lower()
            if kind not in IMAGE_SUFFIXES and kind not in VIDEO_SUFFIXES and kind != ".tar":
                continue
            if (shown := os.fsencode(below).decode("utf-8", "backslashreplace")) != below:
                yield {
                    "id": f"{prefix}{shown}",
                    "uri": shown,
                    "fault": f"{shown}: its name is no UTF-8 text; rename the file",
                }
            elif kind in VIDEO_SUFFIXES:
                yield {"video": True}
            elif kind == ".tar":
                yield from _shard(place / below, f"{prefix}{below}")
            else:
                beside = f"{stem}{BOXES}"
                boxes = (place / f"{folder}/{beside}" if folder else place / beside).uri if beside in there else None
                yield {"id": f"{prefix}{below}", "uri": (place / below).uri, "boxes_uri": boxes}


def _walk(top: str, below: str) -> Iterator[tuple[str, list[str] | str]]:
    """(folder, its files' names) of a folder and those below it, by name; (folder, fault) of one that cannot be read."""
    try:
        entries = sorted(os.scandir(os.path.join(top, below)), key=lambda e: e.name)
    except OSError as err:
        yield below, f"{below or top}: cannot be read: {err.strerror or err}"
        return
    shown = [e for e in entries if not e.name.startswith(".")]
    folders = [e.name for e in shown if e.is_dir(follow_symlinks=False)]
    yield below, [e.name for e in shown if not e.is_dir(follow_symlinks=False)]
    del entries, shown
    for name in folders:
        yield from _walk(top, f"{below}/{name}" if below else name)


def _by_folder(place: Place) -> Iterator[tuple[str, list[str] | str]]:
    """The same of a bucket, whose listing is flat."""
    folder, names = "", list[str]()
    for path in sorted(listed(place), key=lambda p: p.rpartition("/")[::2]):
        where, _, name = path.rpartition("/")
        if any(part.startswith(".") for part in path.split("/")):
            continue
        if where != folder:
            yield folder, names
            folder, names = where, []
        names.append(name)
    yield folder, names


def _shard(place: Place, prefix: str) -> Iterator[Row]:
    """The images of a tar shard by their offsets; only headers are read. A shard that ends badly is one more row."""
    images: list[tuple[str, int, int]] = []
    boxes: dict[str, str] = {}
    fault = ""
    try:
        with place.fs.open_input_file(place.path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            end = file.size()
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # or it keeps every header
                if not member.isreg() or PurePosixPath(member.name).name.startswith("."):
                    continue
                if member.name.endswith(BOXES):
                    boxes[member.name.removesuffix(BOXES)] = _text_of(tar, member)
                elif (
                    PurePosixPath(member.name).suffix.lower() in IMAGE_SUFFIXES
                    and member.offset_data + member.size <= end
                ):
                    images.append((member.name, member.offset_data, member.size))
            if end % 512 or any(file.read_at(512, end - 512)):  # tarfile takes half a header for the end
                raise ValueError("no end mark: the file is cut off")
    except (OSError, tarfile.TarError, ValueError, EOFError, OverflowError) as err:
        fault = f"{prefix}: wanted a whole, uncompressed .tar, got {one_line(err)} after {len(images)} images"
    seen: set[str] = set()
    for name, offset, size in images:
        shown = f"{prefix}/{name.encode('utf-8', 'backslashreplace').decode('utf-8')}"
        row = {"id": shown, "uri": place.uri, "offset": offset, "size": size, "boxes": boxes.get(_key(name))}
        while row["id"] in seen:
            row = {
                "id": f"{row['id']}#again",
                "uri": place.uri,
                "fault": f"{shown}: the shard has this name twice; rename one",
            }
        seen.add(str(row["id"]))
        yield row
    if fault:
        yield {"id": prefix, "uri": place.uri, "fault": fault}


def _key(name: str) -> str:
    """What the files of one WebDataset sample share: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"


def _text_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    if member.size > 1 << 20:
        return "larger than 1 MB"  # which is no JSON, and the image's row says so
    file = tar.extractfile(member)
    return file.read().decode("utf-8", "replace") if file else ""


def _manifest(place: Place) -> Iterator[Row]:
    """The rows of a user's manifest: `id`, `uri` (a path is one from the manifest's folder) and perhaps `boxes`."""
    base = place.parent
    try:
        with place.fs.open_input_file(place.path) as source, pyarrow.parquet.ParquetFile(source) as file:
            names = file.schema_arrow.names
            if missing := {"id", "uri"} - set(names):
                raise ScaleError(
                    f"{place.uri}: wanted the columns id, uri and perhaps boxes, got {', '.join(names[:20])}; "
                    f"missing: {', '.join(sorted(missing))}"
                )
            first = 1
            for batch in file.iter_batches(columns=[n for n in ("id", "uri", "boxes") if n in names]):
                for number, row in enumerate(batch.to_pylist(), start=first):
                    if row["id"] in (None, "") or not isinstance(row["uri"], str) or not row["uri"]:
                        raise ScaleError(
                            f"{place.uri}: row {number}: wanted id and uri, got {row['id']!r}, {row['uri']!r}"
                        )
                    boxes = row.get("boxes")
                    text = boxes if boxes is None or isinstance(boxes, str) else json.dumps(boxes, default=str)
                    yield {"id": str(row["id"]), **_uri(row["uri"], base), "boxes": text}
                first += batch.num_rows
    except (OSError, pyarrow.lib.ArrowException) as err:
        raise ScaleError(f"{place.uri}: cannot be read as a Parquet manifest: {one_line(err)}") from None


def _uri(text: str, base: Place) -> Row:
    try:
        return {"uri": place_of(text, base).uri}
    except ScaleError as err:
        return {"uri": text, "fault": str(err)}


def _check_ids(table: pyarrow.Table, where: str) -> None:
    """ScaleError that names the first ids that are there twice."""
    counts = table["id"].value_counts()
    twice = [
        entry["values"] for entry in counts.filter(pyarrow.compute.greater(counts.field("counts"), 1))[:3].to_pylist()
    ]
    if twice:
        raise ScaleError(
            f"{where}: wanted every id once, got {', '.join(map(repr, twice))} twice; give each image its own"
        )
