"""Which folders the demo world drew, so that nothing else is ever removed to draw it anew."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cocoer.data.index import is_synthetic
from cocoer.errors import OutputError
from cocoer.files import LOCK_NAME, write_text

MARK = ".cocoer-drawn"
"""Lies in the root of a drawn tree from its first image on: the sidecar, which also says so, is written last."""

_PARTS = ("emotic", "CAER-S", "Annotations", "index")


def mark_drawn(root: Path) -> None:
    """Say that what comes into this folder is drawn. Raises OutputError."""
    write_text(root / MARK, "Synthetic scenes, drawn by cocoer, which may replace them.\n")


def is_drawn(root: Path) -> bool:
    """Whether the demo world was drawn into this folder, to the end or not."""
    return (root / MARK).is_file() or is_synthetic(root / "index")


def remove_drawn(root: Path) -> None:
    """Remove a drawn tree, or what there is of one; what else lies in the folder stays. Nothing to do where there is none.

    Raises OutputError where something that was not drawn lies in the place of a part of the tree.
    """
    there = [root / part for part in _PARTS if os.path.lexists(root / part)]
    foreign = [part for part in there if part.is_symlink() or not part.is_dir() or _is_other_tree(part)]
    if foreign or (there and not is_drawn(root)):
        raise OutputError(
            f"{(foreign or there)[0]}: was not drawn by cocoer, and it stays; choose another folder, or move it away"
        )
    for part in there:
        shutil.rmtree(part)
    (root / MARK).unlink(missing_ok=True)
    if root.is_dir() and not set(os.listdir(root)) - {LOCK_NAME}:
        shutil.rmtree(root)


def _is_other_tree(part: Path) -> bool:
    """Whether a folder `emotic` is a whole data set of its own, as `data/emotic` is, and not the images of a drawn tree."""
    return part.name == "emotic" and any((part / name).exists() for name in ("Annotations", "emotic", "cvpr_emotic"))
