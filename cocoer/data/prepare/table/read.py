"""Choose the reader of an annotation file by its extension, and for JSON by its content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cocoer.data.prepare.table.bold import read_bold
from cocoer.data.prepare.table.coco import read_coco
from cocoer.data.prepare.table.cvat import read_cvat
from cocoer.data.prepare.table.delimited import read_delimited
from cocoer.data.prepare.table.heco import read_heco
from cocoer.data.prepare.table.json_lines import read_json_lines
from cocoer.data.prepare.table.label_studio import read_label_studio
from cocoer.data.prepare.table.parquet import read_parquet
from cocoer.data.prepare.table.rows import Reading, Row
from cocoer.errors import AnnotationError
from cocoer.files import read_json

FORMATS: tuple[str, ...] = ("csv", "tsv", "jsonl", "parquet", "coco", "label-studio", "cvat", "bold", "heco")

_FOLDERS = {"bold": read_bold, "heco": read_heco}
"""Formats whose FILE is a folder."""

_BY_ENDING = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".xml": "cvat",
}


def read_rows(path: Path, reading: Reading, form: str | None = None) -> list[Row]:
    """Every row of an annotation file (of BoLD and HECO: the folder). form: one of `FORMATS`; None = by ending and content.

    Raises AnnotationError where the file is not there, is of no known format, or cannot be read as its format at all.
    """
    if not path.exists():
        raise AnnotationError(f"{path}: no such file")
    if path.is_dir() and form not in _FOLDERS:
        raise AnnotationError(f"{path}: is a folder; for one folder per class say --folder {path}")
    content: Any = None
    if form in (None, "coco", "label-studio") and path.suffix.lower() == ".json":
        content = _json(path)
        form = form or ("label-studio" if isinstance(content, list) else "coco")
    form = form or _BY_ENDING.get(path.suffix.lower())
    if form is None:
        raise AnnotationError(
            f"{path}: the ending {path.suffix!r} names no format; say which it is with --format {'|'.join(FORMATS)}"
        )
    if form == "coco":
        content = _json(path) if content is None else content
        if not isinstance(content, dict):
            raise AnnotationError(f"{path}: wanted COCO JSON, an object; got a list, as Label Studio writes it")
        return list(read_coco(path, content, reading))
    if form == "label-studio":
        content = _json(path) if content is None else content
        if not isinstance(content, list):
            raise AnnotationError(f"{path}: wanted Label Studio's export, a list; got an object, as COCO is one")
        return list(read_label_studio(path, content, reading))
    if form in _FOLDERS:
        return list(_FOLDERS[form](path))
    readers = {"csv": read_delimited, "tsv": read_delimited, "jsonl": read_json_lines, "parquet": read_parquet}
    return list((readers | {"cvat": read_cvat})[form](path, reading))


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, ValueError) as err:
        raise AnnotationError(f"{path}: cannot be read as JSON: {err}") from None
