"""The person index on disk: one JSON object a line and split, and a sidecar that says how it was made
(docs/data.md#the-index).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cocoer.data.batch import PersonRecord
from cocoer.data.decode import image_path
from cocoer.errors import IndexFileError, listed
from cocoer.files import parse_json, read_json, read_lines, write_bytes
from cocoer.names import SPLITS, canonical_class
from cocoer.paths import refuse_input
from cocoer.weights import places

SIDECAR = "sidecar.json"

_ROUNDING = 0.01  # boxes are written with two decimals


def split_path(index: str | Path, split: str) -> Path:
    """The file of one split: `index` is a folder, or already the file; a relative one as `weights.places.given` finds it."""
    index = places.given(index)
    return index if index.suffix == ".jsonl" else index / f"{split}.jsonl"


def read_index(index: str | Path, split: str, classes: Sequence[str] | None = None) -> list[PersonRecord]:
    """The persons of one split, in the order of the file.

    index: folder with `{split}.jsonl`, or a .jsonl file of which the lines of that split are taken.
    classes: where given, every label must be one of them (case and spaces aside) and comes back in that spelling.
    Raises IndexFileError that lists the faulty rows: broken JSON, missing key, box outside the image, unknown class,
    a person twice.
    """
    path = split_path(index, split)
    persons = [p for p in read_records(path, classes) if p.split == split]
    if not persons:
        raise IndexFileError(f"{path}: wanted persons of split {split!r}, got none; choose another split")
    return persons


def read_records(path: str | Path, classes: Sequence[str] | None = None) -> list[PersonRecord]:
    """All persons of one .jsonl file. Raises IndexFileError as `read_index` does."""
    path = Path(path)
    try:
        lines = list(read_lines(path))
    except FileNotFoundError:
        raise IndexFileError(
            f"{path}: no such person index; cocoer prepare emotic, caers, table or demo writes one"
        ) from None
    except (OSError, UnicodeDecodeError) as err:
        raise IndexFileError(f"{path}: cannot be read as a person index: {err}") from None
    records: list[PersonRecord] = []
    faults: list[str] = []
    seen: dict[tuple[str, str], int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _checked(PersonRecord.from_line(line, f"row {number}"), number, classes)
            first = seen.setdefault((record.split, record.key), number)
            if first != number:
                raise ValueError(f"row {number}: person {record.key} is already in row {first}")
            records.append(record)
        except (ValueError, TypeError, OverflowError) as err:
            faults.append(str(err) if str(err).startswith("row") else f"row {number}: {err}")
    if faults:
        raise IndexFileError(f"{path}: {len(faults)} faulty rows:\n  {listed(faults)}")
    return records


def _checked(record: PersonRecord, number: int, classes: Sequence[str] | None) -> PersonRecord:
    """The record, its labels in the listed spelling; ValueError that names the row."""
    if record.width < 1 or record.height < 1:
        raise ValueError(f"row {number}: wanted an image of at least 1x1 pixels, got {record.width}x{record.height}")
    for name, box in (("body", record.body), ("head", record.head)):
        inside = (
            box[0] >= 0 and box[1] >= 0 and box[2] <= record.width + _ROUNDING and box[3] <= record.height + _ROUNDING
        )
        if not inside:
            raise ValueError(
                f"row {number}: {name} {list(box)} leaves the image ({record.width}x{record.height} pixels)"
            )
    if classes is not None:
        return replace(record, labels=tuple(canonical_class(label, classes) for label in record.labels))
    return record


def check_index_folder(folder: str | Path) -> None:
    """Raise where `write_index` must not write: OverwritesInput over an input, IndexFileError over files that are no index.

    An earlier index is known by its rows, and its sidecar by its content or by the rows beside it; other files of these names
    are not ours, and they stay.
    """
    folder = Path(folder)
    ours = any(_begins_an_index(folder / f"{split}.jsonl") for split in SPLITS) or "skipped" in sidecar_of(folder)
    for name in (*(f"{split}.jsonl" for split in SPLITS), SIDECAR):
        path = folder / name
        refuse_input(path)
        if os.path.lexists(path) and not (ours if name == SIDECAR else _begins_an_index(path)):
            raise IndexFileError(
                f"{path}: is no part of an index, and an index would be written over it; choose another --output"
            )


def _begins_an_index(path: Path) -> bool:
    """Whether the first line is a person as `write_index` writes one."""
    try:
        first = parse_json(next(read_lines(path), ""))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and first.keys() >= {"image", "person", "body", "head", "head_source", "split"}


def write_index(folder: str | Path, records: Iterable[PersonRecord], sidecar: Mapping[str, Any]) -> dict[str, Path]:
    """Write `{split}.jsonl` for every split that has persons, and the sidecar; returns the paths by name.

    A file appears only when it is complete, and a split that has no persons now loses its old file.
    Raises as `check_index_folder` does, and OutputError.
    """
    folder = Path(folder)
    check_index_folder(folder)
    folder.mkdir(parents=True, exist_ok=True)
    by_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    for record in records:
        by_split[record.split].append(record.to_line())
    written: dict[str, Path] = {}
    for split, lines in by_split.items():
        path = folder / f"{split}.jsonl"
        if lines:
            write_bytes(path, _as_bytes("\n".join(lines) + "\n"))
            written[split] = path
        else:
            path.unlink(missing_ok=True)
    write_bytes(folder / SIDECAR, _as_bytes(json.dumps(sidecar, indent=1, ensure_ascii=False) + "\n"))
    return written | {"sidecar": folder / SIDECAR}


def data_lines(records: Iterable[PersonRecord], root: str | Path, allow_outside: bool = False) -> Iterator[bytes]:
    """What a hash of persons is made of: every line of the index, then name and size in bytes of every image.

    Raises OSError for an image that is not below `root`.
    """
    images: set[str] = set()
    for record in records:
        images.add(record.image)
        yield record.to_line().encode()
    for name in sorted(images):
        yield f"{name} {image_path(root, name, allow_outside).stat().st_size}".encode()


def _as_bytes(text: str) -> bytes:
    """JSON as UTF-8; what a file name holds besides UTF-8 (U+DC80 to U+DCFF in Python) as JSON's escape, which reads back."""
    return text.encode("utf-8", "backslashreplace")


def is_synthetic(index: str | Path, root: str | Path | None = None) -> bool:
    """Whether a person index, or the drawn tree `root` that it was prepared from, says that its images are synthetic.

    index: folder with train.jsonl ..., or one .jsonl file. Missing sidecars say nothing.
    """
    place = places.given(index)
    folders = [place if place.is_dir() else place.parent]
    if root is not None:
        images = places.given(root)
        folders += [images, images / "index", images.parent / "index"]
    return any(sidecar_of(folder).get("synthetic") is True for folder in folders)


def sidecar_of(folder: Path) -> dict[str, Any]:
    """What a folder's sidecar says; nothing where there is none that can be read."""
    try:
        said = read_json(folder / SIDECAR)
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def data_root_of(index: str | Path) -> Path:
    """The folder to which an index's image paths are relative: as its sidecar says, else the folder that holds the index.

    index: folder with train.jsonl ..., or one .jsonl file. A relative folder in the sidecar is one of the current directory.
    """
    folder = Path(index) if Path(index).is_dir() else Path(index).parent
    said = sidecar_of(folder).get("data_root")
    return Path(said) if isinstance(said, str) and said else folder.parent
