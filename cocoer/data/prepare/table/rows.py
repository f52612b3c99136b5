"""The rows that every annotation reader yields, one per person, and how table columns map to them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cocoer.errors import AnnotationError
from cocoer.files import parse_json
from cocoer.names import nearest

Convention = Literal["xyxy", "xywh", "cxcywh"]
Unit = Literal["pixels", "fraction", "percent"]

CONVENTIONS: tuple[Convention, ...] = ("xyxy", "xywh", "cxcywh")
UNITS: tuple[Unit, ...] = ("pixels", "fraction", "percent")
KEYS: tuple[str, ...] = ("image", "body", "head", "labels", "split", "group")
"""What `--columns` may map; `group` holds what must not be cut in two by a split: a video, a subject."""

_USUAL: dict[str, tuple[str, ...]] = {
    "image": ("image", "file", "filename", "file_name", "path", "image_path", "img"),
    "body": ("body", "bbox", "box", "body_bbox", "body_box", "x1,y1,x2,y2", "xmin,ymin,xmax,ymax"),
    "head": ("head", "face", "head_bbox", "face_bbox", "head_box", "face_box"),
    "labels": ("labels", "label", "emotion", "emotions", "class", "category"),
    "split": ("split", "subset", "partition", "set"),
    "group": ("group", "video", "clip", "subject"),
}
"""Column names that are recognised without `--columns`."""


IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Row:
    """One annotated person, as written. where: the place in the file, for messages.

    body, head: numbers in `convention` and `unit`, or None where nothing is said. split, group: empty where nothing is said.
    fault: why the row cannot be read, or empty.
    """

    where: str
    image: str = ""
    labels: tuple[str, ...] = ()
    body: tuple[float, ...] | None = None
    head: tuple[float, ...] | None = None
    split: str = ""
    group: str = ""
    convention: Convention = "xyxy"
    unit: Unit = "pixels"
    fault: str = ""


@dataclass(frozen=True)
class Reading:
    """How a file is to be read. columns: what `--columns` maps. convention, unit: of boxes, where the format leaves them open."""

    columns: Mapping[str, str] = field(default_factory=dict)
    convention: Convention = "xyxy"
    unit: Unit = "pixels"


def parse_columns(words: Sequence[str]) -> dict[str, str]:
    """`image=file body=x1,y1,x2,y2` as a mapping. Raises AnnotationError for another key (nearest offered) or no `=`."""
    out: dict[str, str] = {}
    for word in words:
        key, equals, column = word.partition("=")
        if key not in KEYS or not equals or not column:
            near = nearest(key, KEYS)
            raise AnnotationError(
                f"--columns: wanted {'|'.join(KEYS)}=COLUMN, got {word!r}"
                + (f"; did you mean {near}=?" if near else "")
            )
        if key in out:
            raise AnnotationError(f"--columns: {key} is given twice: {out[key]} and {column}")
        out[key] = column
    return out


def chosen_columns(given: Mapping[str, str], names: Sequence[str], where: str) -> dict[str, str]:
    """The columns of a table by key: those that were given, else those with a usual name.

    Raises AnnotationError for a given column that is not there (nearest offered), and where image or labels are not found.
    """
    for key, wanted in given.items():
        for name in wanted.split(",") if wanted not in names else ():
            known_column(f"{where}: --columns {key}={wanted}", name, names, f"no column {name!r}", "The columns are")
    folded = {name.casefold(): name for name in names}
    out = dict(given)
    for key, usual in _USUAL.items():
        for choice in usual if key not in out else ():
            if all(part in folded for part in choice.split(",")):
                out[key] = ",".join(folded[part] for part in choice.split(","))
                break
    if missing := [key for key in ("image", "labels") if key not in out]:
        raise AnnotationError(
            f"{where}: wanted columns for {' and '.join(missing)}: say --columns {missing[0]}=NAME; the columns are:"
            f" {', '.join(names)}"
        )
    return out


def known_column(where: str, name: str, known: Iterable[str], fault: str, all_are: str) -> None:
    """AnnotationError unless `name` is one of `known`: the fault, the nearest name, and all there are."""
    if name not in (there := list(known)):
        near = nearest(name, there)
        said = f"{where}: {fault}" + (f"; did you mean {near!r}?" if near else "")
        raise AnnotationError(f"{said} {all_are}: {', '.join(there) or 'none'}")


def table_rows(
    rows: Iterable[tuple[str, Mapping[str, Any]]], columns: Mapping[str, str], reading: Reading
) -> Iterator[Row]:
    """(where, column -> value) as rows; a value that cannot be read becomes the row's fault."""
    for where, values in rows:
        try:
            yield Row(
                where,
                image_name(values.get(columns["image"])),
                labels_in(_value(values, columns["labels"])),
                box_in(_value(values, columns.get("body")), "body"),
                box_in(_value(values, columns.get("head")), "head"),
                text_in(values.get(columns.get("split", ""))),
                text_in(values.get(columns.get("group", ""))),
                reading.convention,
                reading.unit,
            )
        except ValueError as err:
            yield Row(where, text_in(values.get(columns["image"])), fault=str(err))


def _value(values: Mapping[str, Any], column: str | None) -> Any:
    """The value of a column, or the list of those of several that are joined by commas."""
    if column is None:
        return None
    return values[column] if column in values else [values.get(name) for name in column.split(",")]


def is_empty(value: Any) -> bool:
    """Whether a table says nothing there: nothing, blanks, NaN, `None`, `null`."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().casefold() in ("", "nan", "none", "null", "[]")


def text_in(value: Any) -> str:
    """A value as text; empty where there is none."""
    return "" if is_empty(value) else str(value).strip()


def image_name(value: Any) -> str:
    """An image's path with forward slashes. Raises ValueError where there is none, or where it is no path."""
    if isinstance(value, Mapping):
        raise ValueError("image: wanted a path, got an image that is stored in the table; save it as a file first")
    if is_empty(value):
        raise ValueError("image: no path")
    return str(value).strip().replace("\\", "/")


def labels_in(value: Any) -> tuple[str, ...]:
    """The labels in a value: a list (also written as JSON), or a text with `|` or `;` between them; each once."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = parse_json(value)
        except ValueError:
            value = value.strip().strip("[]").replace("'", "").replace('"', "").replace(",", "|")
    if hasattr(value, "tolist"):
        value = value.tolist()
    parts = value if isinstance(value, list | tuple) else [] if is_empty(value) else re.split(r"[|;]", str(value))
    return tuple(dict.fromkeys(str(part).strip() for part in parts if not is_empty(part)))


def box_in(value: Any, name: str) -> tuple[float, ...] | None:
    """The four numbers of a box: a list, or a text with commas or blanks between them; None for nothing or all zeros.

    Raises ValueError for another count and for what is no finite number.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        value = [] if is_empty(value) else re.split(r"[\s,;]+", value.strip().strip("[]()").strip())
    if value is None or (isinstance(value, float) and math.isnan(value)) or all(is_empty(v) for v in value):
        return None
    try:
        numbers = tuple(float(v) for v in value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} box: wanted four numbers, got {value!r}") from None
    if len(numbers) != 4:
        raise ValueError(f"{name} box: {len(numbers)} values instead of 4")
    if not all(math.isfinite(v) for v in numbers):
        raise ValueError(f"{name} box: NaN or infinite")
    return numbers if any(numbers) else None
