"""Tandon-A/emotic's arrays of finished crops, beside its CSV files: they become a crop cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cocoer.boxes import scale_box
from cocoer.data.array_file import map_array
from cocoer.data.batch import PersonRecord
from cocoer.data.cache import write_cache
from cocoer.data.people import HEAD_IN_BODY
from cocoer.data.prepare.derived.reading import Reading, RowError
from cocoer.data.prepare.derived.tandon_csv import literal, tandon_row, tandon_table
from cocoer.errors import DerivedError
from cocoer.names import BODY, CONTEXT, HEAD, SPLITS


def read_tandon_npy(source: Path, reading: Reading, dataset: str) -> None:
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
        rows = tandon_table(table)
        context, body = _array(source, split, "context"), _array(source, split, "body")
        face = _array(source, split, "face") if (source / f"{split}_face_arr.npy").is_file() else None
        if {len(a) for a in (context, body) + (() if face is None else (face,))} != {len(rows)}:
            raise DerivedError(
                f"{source}: {split}: {len(context)} context and {len(body)} body crops, {len(rows)} rows in the CSV"
            )
        kept: list[int] = []
        first = len(reading.records)

        def take(where: str, i: int, split: str = split, rows: Any = rows, kept: list[int] = kept) -> None:
            tandon_row(where, rows[i], split, reading, _stored_size(rows[i]))
            kept.append(i)

        reading.rows(((f"{table.name} row {i + 2}", i) for i in range(len(rows))), take)
        _write_crops(reading, split, reading.records[first:], kept, context, body, face)


def _stored_size(row: dict[str, str]) -> tuple[int, int]:
    """(width, height) of the CSV; its two numbers exchanged where only that way the body fits (emodb_small)."""
    size, box = literal(row.get("Image Size") or ""), literal(row["BBox"])
    if not isinstance(size, list | tuple) or len(size) != 2 or not isinstance(box, list | tuple) or len(box) != 4:
        raise RowError(
            f"wanted Image Size [w, h] and BBox [x1, y1, x2, y2], got {row.get('Image Size')!r}, {row['BBox']!r}"
        )
    width, height = int(size[0]), int(size[1])
    fits, fits_swapped = (box[2] <= w and box[3] <= h for w, h in ((width, height), (height, width)))
    return (height, width) if fits_swapped and not fits else (width, height)


def _write_crops(
    reading: Reading, split: str, records: list[PersonRecord], kept: list[int], context: Any, body: Any, face: Any
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


def _array(folder: Path, split: str, name: str) -> np.ndarray[Any, Any]:
    path = folder / f"{split}_{name}_arr.npy"
    try:
        array = map_array(path)
    except (OSError, ValueError) as err:
        raise DerivedError(str(err)) from None
    if array.ndim != 4 or array.shape[3] != 3 or array.dtype != np.uint8:
        raise DerivedError(f"{path}: wanted uint8 [N, H, W, 3], got {array.dtype} {array.shape}")
    return array
