"""CSV cells that a spreadsheet cannot execute as formulas."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

_RUN = frozenset("=+-@|\uff1d\uff0b\uff0d\uff20")
"""A text that begins so is a formula to some spreadsheet (the last four are the full-width forms)."""

_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\u00ad\x00"


def cell(value: Any) -> Any:
    """The value of one cell: a text that a spreadsheet could run gets an apostrophe in front, everything else stays.

    Spaces, tabs, line ends and letters that take no room are looked through, for spreadsheets do so too; a text that begins
    with a tab or a line end gets the apostrophe in any case.
    """
    if not isinstance(value, str) or not value:
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # which csv does not put in quotes: a row of its own
    seen = value.lstrip().lstrip(_UNSEEN).lstrip()
    return f"'{value}" if (seen[:1] and seen[0] in _RUN) or value[0] in "\t\r\n" else value


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """The rows as a CSV text, each value as `cell` gives it, None as an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(map(cell, row) for row in rows)
    return buffer.getvalue()
