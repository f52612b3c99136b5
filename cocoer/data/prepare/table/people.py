"""Rows -> persons: image found, labels in the list, boxes in pixels of the decoded image; or the reason why not."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cocoer.boxes import Box, as_box, clip_box
from cocoer.data.files import FileFacts
from cocoer.data.prepare.table.rows import Convention, Reading, Row, Unit
from cocoer.datasets import DatasetEntry, LabelKind
from cocoer.errors import AnnotationError
from cocoer.names import ClassNames, canonical_class, folded

MIN_SIDE = 1.0
"""Pixels. What is left of a box inside the image must be at least this wide and high."""

NO_LABEL = "no label"
"""The one reason that is a rule of the selection and no fault of the data."""


@dataclass
class Person:
    """One row on the way into the index. body, head: xyxy, pixels of the image, inside it, or None where nothing is said."""

    row: Row
    path: str
    reason: str
    labels: tuple[str, ...] = ()
    body: Box | None = None
    head: Box | None = None
    split: str = ""


def find_images(rows: Sequence[Row], root: Path) -> list[Person]:
    """Each row with its image's path below `root`; a path that leaves it is a fault.

    Where a file is not there, the name without the eight digits that Label Studio puts before an upload is tried.
    """
    out = []
    for row in rows:
        path, reason = row.image, row.fault
        if not reason:
            if Path(path).is_absolute():
                inside = Path(path).is_relative_to(root.resolve())
                path = Path(path).relative_to(root.resolve()).as_posix() if inside else path
                reason = "" if inside else "image lies outside --root"
            elif ".." in PurePosixPath(path).parts:
                reason = "image lies outside --root"
            else:
                path = PurePosixPath(path).as_posix()
                plain = re.sub(r"^(.*/)?[0-9a-f]{8}-", r"\1", path)
                path = plain if plain != path and not (root / path).is_file() and (root / plain).is_file() else path
        out.append(Person(row, path, reason))
    return out


def find_classes(
    people: Sequence[Person], kind: LabelKind | None, classes: Sequence[str] | None, name: str
) -> DatasetEntry:
    """The data set that the rows make: their labels in alphabetical order unless `classes` are given.

    kind: None = `single` where every labelled row has one label. Raises AnnotationError for fewer than two classes.
    """
    spellings = Counter(label for p in people if not p.reason for label in p.row.labels)
    chosen: dict[str, str] = {}
    for label, _ in spellings.most_common():
        chosen.setdefault(folded(label), label)
    names = tuple(classes) if classes is not None else tuple(sorted(chosen.values(), key=str.casefold))
    if len(names) < 2:
        raise AnnotationError(
            f"wanted two classes or more, got {len(names)} ({', '.join(names) or 'no label at all'}); with one class nothing is"
            " to be learned. Another column, attribute or control may hold the emotions: --columns labels=NAME"
        )
    several = any(len(p.row.labels) > 1 for p in people if not p.reason)
    return DatasetEntry(name, names, kind or ("multi" if several else "single"), name)


def judge_labels(people: Sequence[Person], classes: ClassNames) -> None:
    """Labels in the listed spelling, or the reason why a person is left out (the nearest class offered)."""
    for person in people:
        if person.reason:
            continue
        if not person.row.labels:
            person.reason = NO_LABEL
            continue
        try:
            found = {canonical_class(label, classes) for label in person.row.labels}
        except ValueError as err:
            person.reason = str(err).partition(" The classes are")[0].rstrip(".")
            continue
        person.labels = tuple(name for name in classes if name in found)
        if not classes.multi_label and len(found) > 1:
            person.reason = f"{len(found)} labels where one is wanted: {', '.join(person.labels)}"


def judge_boxes(people: Sequence[Person], facts: Mapping[str, FileFacts]) -> int:
    """Boxes in pixels, cut at the image's border; returns how many were cut. Or the reason why a person is left out."""
    clipped = 0
    for person in people:
        fact = facts.get(person.path)
        if person.reason or fact is None:
            continue
        if fact.error:
            person.reason = fact.error
            continue
        for name in ("body", "head"):
            values = getattr(person.row, name)
            if values is None:
                continue
            try:
                whole = in_pixels(values, person.row.convention, person.row.unit, fact.width, fact.height)
                box = clip_box(as_box(whole), fact.width, fact.height)
                if min(box[2] - box[0], box[3] - box[1]) < MIN_SIDE:
                    raise ValueError("under one pixel inside the image")
            except ValueError as err:
                person.reason = f"{name} box: {_short(str(err))}"
                break
            clipped += box != whole
            setattr(person, name, box)
    return clipped


def in_pixels(
    values: Sequence[float], convention: Convention, unit: Unit, width: int, height: int
) -> tuple[float, ...]:
    """Four numbers in a convention and unit as x1, y1, x2, y2 in pixels of a width x height image; nothing is checked."""
    scale = {"pixels": 1.0, "fraction": 1.0, "percent": 0.01}[unit]
    wide, high = (1.0, 1.0) if unit == "pixels" else (float(width), float(height))
    a, b, c, d = (v * scale * side for v, side in zip(values, (wide, high, wide, high), strict=True))
    if convention == "xyxy":
        return a, b, c, d
    return (a, b, a + c, b + d) if convention == "xywh" else (a - c / 2, b - d / 2, a + c / 2, b + d / 2)


def _short(why: str) -> str:
    """The reason without this box's numbers, so that rows with one fault are counted together."""
    words = {"outside the image": "outside the image", "x1 < x2": "inverted or empty", "finite": "NaN or infinite"}
    return next((said for mark, said in words.items() if mark in why), why)


def check_convention(people: Sequence[Person], facts: Mapping[str, FileFacts], reading: Reading, said: bool) -> None:
    """AnnotationError where boxes seem to be written in another convention than the one that is assumed.

    said: the caller named convention and unit, so there is nothing to guess. A file is suspected where some boxes are inverted
    as x1, y1, x2, y2 and all fit their images as x, y, width, height, or where no number is above 1.
    """
    boxes = [
        (p, p.row.body, facts[p.path])
        for p in people
        if p.row.body
        and not p.reason
        and not facts[p.path].error
        and p.row.convention == "xyxy"
        and p.row.unit == "pixels"
    ]
    if said or not boxes or reading.convention != "xyxy":
        return
    where = f"first {boxes[0][0].row.where}: {list(boxes[0][1])}"
    if all(max(values) <= 1.0 for _, values, _ in boxes):
        raise AnnotationError(
            f"{len(boxes)} boxes have no number above 1 ({where}): they seem to be fractions of the image; say --unit fraction,"
            " or --unit pixels if they are really so small"
        )
    inverted = [(p, values) for p, values, _ in boxes if values[2] <= values[0] or values[3] <= values[1]]
    fits = all(v[0] + v[2] <= f.width + 1 and v[1] + v[3] <= f.height + 1 for _, v, f in boxes)
    if inverted and fits:
        person, values = inverted[0]
        raise AnnotationError(
            f"{len(inverted)} of {len(boxes)} boxes are none as x1, y1, x2, y2 (first {person.row.where}: {list(values)}), and"
            " all of them fit their images as x, y, width, height; say --boxes xywh, or --boxes xyxy to leave those out"
        )
