"""The table of people: one line per person; an image without persons, or with an error, has one line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cocoer.files import write_file
from cocoer.names import LEVELS
from cocoer.outputs import SOURCES
from cocoer.spreadsheet import cell

_BOX = ("x1", "y1", "x2", "y2")


def write_csv(lines: Iterable[Mapping[str, Any]], header: Sequence[str], place: Path) -> None:
    """The lines, as `table_line` makes them, as a CSV file. Raises OutputError."""

    def fill(unfinished: Path) -> None:
        with open(unfinished, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
            writer.writerow({name: cell(name) for name in header})
            writer.writerows({name: cell(value) for name, value in line.items()} for line in lines)

    write_file(place, fill)


def table_columns(classes: Sequence[str]) -> list[str]:
    """The columns of a table of people, in order. classes: the names of the emotions."""
    return [
        *("image", "frame", "width", "height", "person", "track", "status", "message", "synthetic"),
        *SOURCES,
        "exclusion",
        *(f"L_hier_{level}" for level in LEVELS),
        *(f"{box}_{side}" for box in ("body", "head") for side in _BOX),
        *("body_source", "head_source", "body_score", "head_score"),
        *(f"p_{name}" for name in classes),
    ]


def table_line(row: Mapping[str, Any], person: Mapping[str, Any] | None) -> dict[str, Any]:
    """One line of the table: an image, as `ImageResult.to_dict` gives it, with one of its persons or none."""
    cells: dict[str, Any] = {
        name: row.get(name, "") for name in ("image", "frame", "width", "height", "status", "message")
    }
    cells["synthetic"] = str(bool(row.get("synthetic"))).lower()
    if person is None:
        return cells
    cells |= {name: person.get(name, "") for name in ("person", "track", "status", "message")}
    cells |= {source: "|".join(person[source]) for source in SOURCES}
    cells["exclusion"] = "|".join(person["emo_process"])
    cells |= {f"L_hier_{level}": value for level, value in person["losses"].items()}
    boxes = person["boxes"] or {}
    for name in ("body", "head"):
        cells |= {f"{name}_{side}": v for side, v in zip(_BOX, boxes.get(name, ()), strict=False)}
        cells[f"{name}_source"] = boxes.get(f"{name}_source", "")
        score = boxes.get(f"{name}_score")
        cells[f"{name}_score"] = "" if score is None else score
    cells |= {f"p_{name}": p for name, p in person["probabilities"].get("pred", {}).items()}
    return cells
