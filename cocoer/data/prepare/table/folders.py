"""One folder per class, as image-classification data sets lie on disk: `[split/]class/.../image`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cocoer.data.prepare.table.rows import IMAGE_ENDINGS, Row
from cocoer.data.prepare.table.splits import split_named
from cocoer.errors import AnnotationError


def read_folders(root: Path) -> Iterator[Row]:
    """One row an image; a first level whose folders are all named as splits is the split. Raises AnnotationError.

    An image beside the class folders is a faulty row, because it has no label.
    """
    if not root.is_dir():
        raise AnnotationError(f"--folder {root}: wanted a folder with one folder per class, got none")
    top = sorted(p for p in root.iterdir() if p.is_dir())
    by_split = bool(top) and all(split_named(p.name) for p in top)
    found = False
    for path in sorted(p for p in root.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS):
        found = True
        inside = path.relative_to(root).parts
        split = inside[0] if by_split else ""
        rest = inside[1:] if split else inside
        name = path.relative_to(root).as_posix()
        if len(rest) < 2:
            yield Row(name, name, fault="is not in a class folder")
        else:
            yield Row(name, name, (rest[0],), split=split)
    if not found:
        raise AnnotationError(
            f"--folder {root}: wanted images ({', '.join(IMAGE_ENDINGS)}) in class folders, found none"
        )
