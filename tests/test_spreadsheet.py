"""A spreadsheet that opens a CSV of ours runs nothing of it."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from cocoer.report.people_table import table_columns, table_line, write_csv
from cocoer.spreadsheet import cell

FORMULAS = [
    "=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", " =1", "\ufeff=1", "\u200b=1", "=cmd|'/c calc'!A0", "|calc",
    "\uff1d1",
    "\u00a0=1", "\ttext", "-photo.jpg", "=HYPERLINK(\"http://x\")", "\x00=1",
]  # fmt: skip


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_could_run_gets_an_apostrophe(text: str) -> None:
    assert cell(text) == "'" + text.replace("\r", "\n")


@pytest.mark.parametrize("value", ["", "a=1", "photo-1.jpg", "'=1", -1, -0.5, None, 3, "Doubt/Confusion", "1e-5", " a"])
def test_everything_else_stays(value: object) -> None:
    assert cell(value) == value and type(cell(value)) is type(value)


def test_names_messages_and_tracks_of_a_results_table_run_nothing(tmp_path: Path) -> None:
    row = {
        "image": "=cmd|'/c calc'!A0.jpg", "frame": None, "width": 8, "height": 8, "status": "error",
        "message": "@x\r=1", "persons": [],
    }  # fmt: skip
    write_csv([table_line(row, None)], table_columns(()), tmp_path / "r.csv")
    cells = [c for line in csv.reader(io.StringIO((tmp_path / "r.csv").read_bytes().decode())) for c in line]
    assert "'=cmd|'/c calc'!A0.jpg" in cells and not [c for c in cells if c[:1] in "=+-@\t" and c]
