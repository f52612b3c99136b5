"""HECO (Human Emotion in COntext) as its readers describe it. Untested on the real files: they are given on request only.

    Labels/HECO_Labels.csv    header with Image, xmin, ymin, xmax, ymax (body, pixels), Category, Valence, Arousal, Dominance,
                              Label_SA, Label_CA; one line per person
    Data/                     the images; `Images/` in some copies

Folder, file and column names are those that published readers of the data set use (TristanCladiere/BENet on GitHub:
README.md, tools/heco_csv_to_json.py); `Happinesst`, a slip in one line of the file that its README reports, counts as Happiness.
There are no splits and no heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cocoer.data.prepare.table.delimited import read_delimited
from cocoer.data.prepare.table.rows import Reading, Row
from cocoer.errors import AnnotationError

_COLUMNS = {"image": "Image", "body": "xmin,ymin,xmax,ymax", "labels": "Category"}
_FOLDERS = ("Data", "Images")


def read_heco(folder: Path) -> Iterator[Row]:
    """One row per annotated person; image paths are relative to `folder`. Raises AnnotationError where the layout is another."""
    file = folder / "Labels" / "HECO_Labels.csv"
    images = next((name for name in _FOLDERS if (folder / name).is_dir()), None)
    if not file.is_file() or images is None:
        raise AnnotationError(
            f"{folder}: wanted HECO's Labels/HECO_Labels.csv and its images in Data/, found otherwise"
        )
    for row in read_delimited(file, Reading(_COLUMNS)):
        yield replace(row, image=f"{images}/{row.image}") if row.image else row
