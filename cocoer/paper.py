"""The figures that the CocoER paper prints, table by table (`paper.yaml` beside this file), and what others published on the same
data sets. None of them was measured here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from cocoer.errors import PaperError
from cocoer.names import nearest

_TABLE_KEYS = {"title", "dataset", "metric", "note", "rows"}
_ROW_KEYS = {"row", "value", "deviation"}


PUBLISHED: dict[str, tuple[tuple[str, float, str], ...]] = {
    "emotic": (
        ("EMOTIC baseline, as published", 27.38, "the EMOTIC paper (arXiv 2003.13401); AP definition as its authors'"),
        ("EMOTIC baseline, re-implemented, best", 26.02, "Tandon-A/emotic"),
        ("EMOTIC baseline, re-implemented, its notebook's test figure", 25.27, "Tandon-A/emotic, notebook"),
        ("EMOTIC baseline, re-implemented, as users got it", 20.6, "Tandon-A/emotic, issues"),
        ("EMOTIC authors' model, scored with scikit-learn", 18.81, "rkosti/emotic, issues"),
        ("ResNet-18 body + CLIP ViT-B/16 scene", 34.52, "arXiv 2606.22072, its abstract"),
    ),
    "caers": (
        ("CAER-Net-S, as published", 73.51, "the CAER-Net paper (ICCV 2019)"),
        ("CAER-Net-S, community code", 76.81, "ndkhanh360/CAER; a test list of 13,942 images"),
        ("CAER-Net-S, duplicate-free validation list", 77.0, "community figure, +- 1.3; validation, not test"),
    ),
}
"""Data set -> (row, percent, who published it): what others reported, as collected for the data formats of this project."""


@dataclass(frozen=True)
class PaperRow:
    """One row of a table or figure: percent, and the deviation over seeds; None where the paper prints no number."""

    table: str
    row: str
    value: float | None = None
    deviation: float | None = None


@dataclass(frozen=True)
class PaperTable:
    """A table or figure of the paper. dataset and metric: empty where it has several. note: what is odd about it."""

    key: str
    title: str
    dataset: str
    metric: str
    note: str
    rows: tuple[PaperRow, ...]

    @property
    def name(self) -> str:
        """`Table 4a`, or the figure's own name."""
        return self.key if self.key.startswith("Fig.") else f"Table {self.key}"

    def row(self, name: str) -> PaperRow:
        """The row of this name. Raises PaperError for another one."""
        for row in self.rows:
            if row.row == name:
                return row
        raise PaperError(_unknown(f"{self.name}: row", name, [row.row for row in self.rows]))


def paper_table(key: str) -> PaperTable:
    """The table or figure of this key (`1` to `3`, `4a` to `4e`, `5`, `Fig. 2`, `Fig. 3`). Raises PaperError for another one."""
    tables = paper_tables()
    if key not in tables:
        raise PaperError(_unknown("paper table", key, list(tables)))
    return tables[key]


@cache
def paper_tables() -> Mapping[str, PaperTable]:
    """Every table and figure, by key, in the paper's order."""
    text = resources.files("cocoer").joinpath("paper.yaml").read_text(encoding="utf-8")
    return read_tables(yaml.safe_load(text))


def read_tables(tree: Mapping[str, Any]) -> dict[str, PaperTable]:
    """Tables from nested mappings. Raises PaperError for an unknown key, a row twice, or a value that is no percentage."""
    out = {}
    for key, table in tree.items():
        where = f"paper table {key!r}"
        _check_keys(where, table, _TABLE_KEYS, {"title", "rows"})
        rows: list[PaperRow] = []
        for row in table["rows"]:
            _check_keys(f"{where}, {row.get('row', 'a row')!r}", row, _ROW_KEYS, {"row"})
            figure = PaperRow(key, **row)
            number: Any
            for number in (figure.value, figure.deviation):
                if number is not None and not (isinstance(number, float | int) and 0 <= number <= 100):
                    raise PaperError(f"{where}, {figure.row!r}: wanted a percentage, got {number!r}")
            if any(figure.row == other.row for other in rows):
                raise PaperError(f"{where}: two rows are called {figure.row!r}")
            rows.append(figure)
        words = {name: str(table.get(name, "")) for name in ("title", "dataset", "metric", "note")}
        out[key] = PaperTable(key=key, rows=tuple(rows), **words)
    return out


def _check_keys(where: str, mapping: Any, allowed: set[str], needed: set[str]) -> None:
    if not isinstance(mapping, Mapping):
        raise PaperError(f"{where}: wanted the keys {', '.join(sorted(allowed))}, got {mapping!r}")
    if unknown := sorted(set(mapping) - allowed):
        raise PaperError(_unknown(f"{where}: key", unknown[0], sorted(allowed)))
    if missing := sorted(needed - set(mapping)):
        raise PaperError(f"{where}: missing {', '.join(missing)}")


def _unknown(what: str, got: str, choices: list[str]) -> str:
    hint = nearest(got, choices)
    return (
        f"unknown {what} {got!r}" + (f", did you mean {hint!r}?" if hint else "") + f" There are: {'; '.join(choices)}"
    )
