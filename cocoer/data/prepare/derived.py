"""Files that others derived from EMOTIC and CAER-S -> person records: CSV, arrays, COCO-style JSON.

None of them has all that an index needs; what is missing is estimated and marked so (heads), or taken from the image (sizes).
A row that cannot be used is left out with its reason; a file of another format is refused.
"""

from __future__ import annotations

import ast
import csv
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoer.boxes import Box, as_box, scale_box
from cocoer.data.batch import PersonRecord
from cocoer.data.cache import write_cache
from cocoer.data.decode import image_path, image_size
from cocoer.data.people import HEAD_IN_BODY, complete_boxes
from cocoer.datasets import EMOTIC_CLASSES, DatasetEntry, find_dataset
from cocoer.errors import DerivedError, ImageError
from cocoer.names import BODY, CONTEXT, HEAD, SPLITS, canonical_class

_LONGEST_LITERAL = 5000  # letters; 26 categories have 400


class _RowError(ValueError):
    """One row that is left out."""


@dataclass
class _Reading:
    """Records and left-out rows, as they come."""

    root: Path
    records: list[PersonRecord] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _persons: dict[tuple[str, str], int] = field(default_factory=dict)

    def add(
        self, where: str, image: str, body: Sequence[float] | None, head: Sequence[float] | None,
        labels: Sequence[str], vad: tuple[float, float, float] | None, split: str, size: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """One person; a missing box is estimated. size: where the image need not be there.

        Raises _RowError or ValueError where that does not work.
        """
        if size is not None:
            self._sizes[image] = size
        if image not in self._sizes:
            try:
                self._sizes[image] = image_size(image_path(self.root, image, follow_links=True))
            except ImageError as err:
                raise _RowError(str(err)) from None
        width, height = self._sizes[image]
        people = complete_boxes(_box(body), _box(head), width, height)
        number = self._persons.get((split, image), 0)
        self._persons[split, image] = number + 1
        # Rounded as the index file rounds, so that what is made of these records fits the ones read back.
        body_box, head_box = (as_box([round(v, 2) for v in box]) for box in (people.body, people.head))
        self.records.append(
            PersonRecord(
                image, width, height, number, body_box, head_box, people.head_source, tuple(labels), vad, split
            )
        )

    def rows(self, rows: Iterable[tuple[str, Any]], take: Callable[[str, Any], None]) -> None:
        """`take` every (where, row); the ones that fail are left out with their reason."""
        for where, row in rows:
            try:
                take(where, row)
            except (ValueError, KeyError, TypeError, SyntaxError, IndexError, OverflowError) as err:
                reason = f"no {err}" if isinstance(err, KeyError) else str(err)
                self.skipped.append({"where": where, "reason": reason})


def _box(values: Sequence[float] | None) -> Box | None:
    """None stays None; `0, 0, 0, 0` means none."""
    return None if values is None or not any(values) else as_box(values)


def convert(source: Path, form: str, root: Path, dataset: str = "emotic") -> tuple[list[PersonRecord], dict[str, Any]]:
    """Records and sidecar of one derived file or folder, whose images lie below `root`.

    form: a key of `FORMATS`. Raises DerivedError for what cannot be read at all.
    """
    if form not in FORMATS:
        raise DerivedError(f"unknown format {form!r}; the formats are: {', '.join(FORMATS)}")
    if not source.exists():
        raise DerivedError(f"{source}: no such file or folder")
    if source.is_file() and source.suffix in (".pkl", ".pickle"):
        raise DerivedError(
            f"{source}: is a pickle, which is not read, because reading one can run any code. If you made it yourself, unpack it"
            " where you made it: `python scripts/unpack_release_pickles.py SOURCE OUTPUT` writes images and an index"
        )
    reading = _Reading(root)
    try:
        FORMATS[form](source, reading, dataset)
    except (OSError, UnicodeDecodeError, csv.Error, MemoryError) as err:
        raise DerivedError(f"{source}: {err}") from None
    if not reading.records:
        reasons = "\n  ".join(f"{r['where']}: {r['reason']}" for r in reading.skipped[:5])
        raise DerivedError(f"{source}: no person could be used\n  {reasons}")
    return reading.records, {
        "dataset": dataset, "converted_from": form, "file": source.name,
        "counts": {s: sum(r.split == s for r in reading.records) for s in SPLITS}, "skipped": reading.skipped,
    }  # fmt: skip


# ------------------------------------------------------------------------------------------------------ Tandon-A/emotic


def literal(text: str) -> Any:
    """A Python literal as pandas wrote it, also by numpy 2 (`np.int64(5)`); "" is None. Raises ValueError for anything else."""
    plain = re.sub(r"(?:np\.|numpy\.)?(?:u?int|float)\d+\(([^()]*)\)", r"\1", text.strip())
    plain = re.sub(r"\bnan\b", "None", plain)
    if not plain:
        return None
    try:
        if len(plain) > _LONGEST_LITERAL:
            raise ValueError
        return ast.literal_eval(plain)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        raise _RowError(f"wanted a Python literal, got {text[:60]!r}") from None


def _split_of(path: Path) -> str:
    """The split that a file's name begins with or holds."""
    found = next((s for s in SPLITS if s in path.stem.lower()), None)
    if found is None:
        raise DerivedError(f"{path}: wanted a file name with train, val or test in it")
    return found


def _tandon_csv(source: Path, reading: _Reading, dataset: str) -> None:
    """`{split}.csv`, one or a folder of them. Folder is relative to the image root; heads are estimated."""
    files = sorted(source.glob("*.csv")) if source.is_dir() else [source]
    for path in files:
        split = _split_of(path)
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            wanted = ("Folder", "Filename", "BBox", "Categorical_Labels")
            missing = [n for n in wanted if n not in (reader.fieldnames or ())]
            if missing:
                raise DerivedError(f"{path}: wanted the columns of Tandon-A's CSV; missing: {', '.join(missing)}")
            reading.rows(
                ((f"{path.name} row {n}", row) for n, row in enumerate(reader, start=2)),
                lambda where, row, split=split: _tandon_row(where, row, split, reading),  # type: ignore[misc]
            )


def _tandon_row(
    where: str, row: dict[str, str], split: str, reading: _Reading, size: tuple[int, int] | None = None
) -> None:
    image = f"{row['Folder']}/{row['Filename']}".replace("\\", "/")
    if not (reading.root / image).is_file() and (reading.root / "emotic" / image).is_file():
        image = f"emotic/{image}"
    labels = [canonical_class(str(n), EMOTIC_CLASSES) for n in literal(row["Categorical_Labels"]) or ()]
    if not labels:
        raise _RowError("no category")
    body = literal(row["BBox"])
    if not isinstance(body, list | tuple) or len(body) != 4:
        raise _RowError(f"BBox: wanted four numbers, got {row['BBox']!r}")
    reading.add(where, image, body, None, labels, vad_or_none(literal(row.get("Continuous_Labels") or "")), split, size)


def vad_or_none(values: Any) -> tuple[float, float, float] | None:
    """Three finite numbers in 1..10, or None where one is missing (None, "None", NaN). Raises for a value outside."""
    if not isinstance(values, list | tuple) or len(values) != 3:
        return None
    numbers = [math.nan if v is None or v == "None" else float(v) for v in values]
    if not all(math.isfinite(v) for v in numbers):
        return None
    if min(numbers) < 1 or max(numbers) > 10:
        raise _RowError(f"wanted valence, arousal and dominance in 1..10, got {numbers}")
    return numbers[0], numbers[1], numbers[2]


def _tandon_npy(source: Path, reading: _Reading, dataset: str) -> None:
    """`{split}_{context,body,cat}_arr.npy` beside `{split}.csv`; in the variant with faces also `{split}_face_arr.npy`.

    The arrays hold finished crops, so they become a crop cache: `data.cache` = `<root>/cache` with `data.image_size` 224
    then trains on them without any image. The boxes come from the CSV, whose row i is the array's row i. Without a face
    array the head crop is cut from the body crop, where heads usually are.
    """
    splits = [s for s in SPLITS if (source / f"{s}_context_arr.npy").is_file()]
    if not splits:
        raise DerivedError(f"{source}: wanted train_context_arr.npy (or val, test) in it, found none")
    for split in splits:
        table = source / f"{split}.csv"
        if not table.is_file():
            raise DerivedError(f"{table}: no such file; the arrays hold crops alone, their boxes are in this CSV")
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        context, body = _array(source, split, "context", 4), _array(source, split, "body", 4)
        face = _array(source, split, "face", 4) if (source / f"{split}_face_arr.npy").is_file() else None
        if {len(a) for a in (context, body) + (() if face is None else (face,))} != {len(rows)}:
            raise DerivedError(
                f"{source}: {split}: {len(context)} context and {len(body)} body crops, {len(rows)} rows in the CSV"
            )
        kept: list[int] = []
        first = len(reading.records)

        def take(where: str, i: int, split: str = split, rows: Any = rows, kept: list[int] = kept) -> None:
            _tandon_row(where, rows[i], split, reading, _stored_size(rows[i]))
            kept.append(i)

        reading.rows(((f"{table.name} row {i + 2}", i) for i in range(len(rows))), take)
        _write_crops(reading, split, reading.records[first:], kept, context, body, face)


def _stored_size(row: dict[str, str]) -> tuple[int, int]:
    """(width, height) of the CSV; its two numbers exchanged where only that way the body fits (emodb_small)."""
    size, box = literal(row.get("Image Size") or ""), literal(row["BBox"])
    if not isinstance(size, list | tuple) or len(size) != 2 or not isinstance(box, list | tuple) or len(box) != 4:
        raise _RowError(
            f"wanted Image Size [w, h] and BBox [x1, y1, x2, y2], got {row.get('Image Size')!r}, {row['BBox']!r}"
        )
    width, height = int(size[0]), int(size[1])
    fits, fits_swapped = (box[2] <= w and box[3] <= h for w, h in ((width, height), (height, width)))
    return (height, width) if fits_swapped and not fits else (width, height)


def _write_crops(
    reading: _Reading, split: str, records: list[PersonRecord], kept: list[int], context: Any, body: Any, face: Any
) -> None:
    """The kept rows of the arrays as a crop cache below the root."""
    size = int(context.shape[1])

    def resized(crop: Any) -> Any:
        return np.asarray(Image.fromarray(np.ascontiguousarray(crop)).resize((size, size), Image.Resampling.BILINEAR))

    def fill(pixels: Any, boxes: Any) -> None:
        high, wide = body.shape[1:3]
        x1, y1, x2, y2 = (round(v * side) for v, side in zip(HEAD_IN_BODY, (wide, high, wide, high), strict=True))
        for place, (i, record) in enumerate(zip(kept, records, strict=True)):
            has_face = face is not None and face[i].any()
            pixels[place, HEAD] = resized(face[i] if has_face else body[i, y1:y2, x1:x2])
            pixels[place, BODY], pixels[place, CONTEXT] = resized(body[i]), resized(context[i])
            for level, box in ((0, record.head), (1, record.body)):
                boxes[place, level] = scale_box(box, record.width, record.height, size)

    if records:
        write_cache(reading.root / "cache", split, records, size, fill)


def _array(folder: Path, split: str, name: str, dims: int) -> np.ndarray[Any, Any]:
    path = folder / f"{split}_{name}_arr.npy"
    try:
        array: np.ndarray[Any, Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, OverflowError, MemoryError) as err:
        raise DerivedError(f"{path}: wanted a plain array ({err})") from None
    if array.ndim != dims or array.shape[3] != 3 or array.dtype != np.uint8:
        raise DerivedError(f"{path}: wanted uint8 [N, H, W, 3], got {array.dtype} {array.shape}")
    return array


# ------------------------------------------------------------------------------------------------------------ COCO-style


def _coco_json(source: Path, reading: _Reading, dataset: str) -> None:
    """COCO-style JSON: `bbox` is the head, x y w h (as DSCT has it); `category_id` is the label, see `_label_rule`.

    The body is `body_bbox` (x y w h) where there is one, else an estimate from the head. VAD may be the text "None".
    """
    split = _split_of(source)
    try:
        content = json.loads(source.read_text(encoding="utf-8"))
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
    bits = entry.name == "emotic" and max(numbers, default=0) > most
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
            f"{source}: nothing says what its category_id means. Wanted `categories` with id and name; numbers without them are"
            " read as label bits only in DSCT's EMOTIC file"
        )

    def named(number: int) -> tuple[str, ...]:
        if number not in known:
            raise _RowError(f"category_id: wanted one of {', '.join(map(str, sorted(known)))}, got {number}")
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
        raise _RowError(
            f"category_id: wanted the number of a {len(classes)}-bit label string, 1..{2 ** len(classes) - 1}, got {number}"
        )
    return tuple(c for c, bit in zip(classes, f"{number:0{len(classes)}b}", strict=True) if bit == "1")


def _xywh(values: Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    if len(values) != 4:
        raise _RowError(f"bbox: wanted x, y, w, h, got {values!r}")
    x, y, w, h = (float(v) for v in values)
    return x, y, x + w, y + h


FORMATS: dict[str, Callable[[Path, _Reading, str], None]] = {
    "tandon-csv": _tandon_csv,
    "tandon-npy": _tandon_npy,
    "coco": _coco_json,
}
"""Name on the command line -> reader."""
