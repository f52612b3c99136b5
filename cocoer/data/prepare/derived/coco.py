"""COCO-style JSON, as DSCT has it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cocoer.data.prepare.derived.reading import Reading, RowError, split_of, vad_or_none
from cocoer.datasets import DatasetEntry, find_dataset
from cocoer.errors import DerivedError
from cocoer.files import read_json
from cocoer.names import canonical_class


def read_coco_json(source: Path, reading: Reading, dataset: str) -> None:
    """COCO-style JSON: `bbox` is the head, x y w h (as DSCT has it); `category_id` is the label, see `_label_rule`.

    The body is `body_bbox` (x y w h) where there is one, else an estimate from the head. VAD may be the text "None".
    """
    split = split_of(source)
    try:
        content = read_json(source)
        names = {image["id"]: str(image["file_name"]).replace("\\", "/") for image in content["images"]}
        rows = [(f"annotation {a.get('id', n)}", a) for n, a in enumerate(content["annotations"])]
        numbers = [a.get("category_id") for _, a in rows]
        known = {int(c["id"]): str(c["name"]) for c in content.get("categories") or ()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as err:
        raise DerivedError(f"{source}: wanted COCO-style JSON with images and annotations ({err})") from None

    labels_of = _label_rule(source, known, [n for n in numbers if type(n) is int], find_dataset(dataset))

    def take(where: str, row: dict[str, Any]) -> None:
        labels = labels_of(int(row["category_id"]))
        vad = row.get("vad") or [row.get(n) for n in ("valence", "arousal", "dominance")]
        reading.add(
            where,
            names[row["image_id"]],
            _xywh(row.get("body_bbox")),
            _xywh(row["bbox"]),
            labels,
            vad_or_none(vad),
            split,
        )

    reading.rows(rows, take)


def _label_rule(
    source: Path, known: dict[int, str], numbers: Sequence[int], entry: DatasetEntry
) -> Callable[[int], tuple[str, ...]]:
    """What a `category_id` means in this file: the name of its category, or DSCT's label bits.

    known: the file's categories, id -> name. DSCT's EMOTIC file is the only one with bits: its numbers are larger than any
    id of a category (or than 26, where it lists none), and its categories are EMOTIC's classes.
    Raises DerivedError for numbers that are neither, and for categories of another data set.
    """
    names = entry.class_names
    most = max(known, default=len(names))
    bits = entry.name == "emotic" and any(number > most for number in numbers)
    odd = sorted({name for name in known.values() if not _is_class(name, names)})
    if odd:
        raise DerivedError(
            f"{source}: has the categories {', '.join(odd[:4])}{' ...' if len(odd) > 4 else ''}, which are no classes of"
            f" {entry.name} ({', '.join(names)}); rename them in `categories`, or choose another --dataset"
        )
    if bits:
        return lambda number: labels_of_bits(number, names)
    if not known:
        raise DerivedError(
            f"{source}: the meaning of category_id is not given. Wanted `categories` with id and name; numbers without them are"
            " read as label bits only in DSCT's EMOTIC file"
        )

    def named(number: int) -> tuple[str, ...]:
        if number not in known:
            raise RowError(f"category_id: wanted one of {', '.join(map(str, sorted(known)))}, got {number}")
        return (canonical_class(known[number], names),)

    return named


def _is_class(name: str, names: Sequence[str]) -> bool:
    try:
        return bool(canonical_class(name, names))
    except ValueError:
        return False


def labels_of_bits(number: int, classes: Sequence[str]) -> tuple[str, ...]:
    """Class names of a label string read as one binary number, the first class being its highest bit."""
    if not 0 < number < 2 ** len(classes):
        raise RowError(
            f"category_id: wanted the number of a {len(classes)}-bit label string, 1..{2 ** len(classes) - 1}, got {number}"
        )
    return tuple(c for c, bit in zip(classes, f"{number:0{len(classes)}b}", strict=True) if bit == "1")


def _xywh(values: Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != 4:
        raise RowError(f"bbox: wanted x, y, w, h, got {values!r}")
    x, y, w, h = (float(v) for v in values)
    return x, y, x + w, y + h
