"""The measured rows of a page of tables as one section of the documentation, written between two marks of a Markdown file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cocoer.files import write_text
from cocoer.outputs import ResultTable, TableRow
from cocoer.report.tables import difference, measured, pipes, published

_LEFT_OUT = ("per_class", "confusion")
"""Tables of many rows that say little on a page of results; the files that the command writes have them."""

REFERENCE = "full model"
"""Name of the row that the tables of ablations begin with: the fused answer, which the first table has."""


def summary(tables: Sequence[ResultTable], remarks: Sequence[str]) -> str:
    """Remarks, one table of every row that we or the paper have a figure for, its commands by number, and the commits.

    A row that only repeats an earlier one under the same name, as a table's point of reference does, stands there once.
    """
    rows: dict[tuple[str, float | None, float | None, str], tuple[ResultTable, TableRow]] = {}
    for table in tables:
        here = [row for row in table.rows if row.ours is not None or row.paper is not None]
        for row in here if table.key not in _LEFT_OUT else ():
            if row.name != REFERENCE:
                rows.setdefault((row.name, row.ours, row.paper, row.command), (table, row))
    measured_rows = [row for _, row in rows.values() if row.ours is not None]
    commands = {c: i for i, c in enumerate(dict.fromkeys(row.command for row in measured_rows), start=1)}
    told = any(row.difference is not None for row in measured_rows)
    lines = [
        (
            table.title.removeprefix("SYNTHETIC: "), row.name, published(row), measured(row),
            *([difference(row)] if told else []), str(row.persons or ""), str(row.seeds or ""), row.definition, row.selection,
            f"[{commands[row.command]}]" if row.ours is not None else "",
        )
        for table, row in rows.values()
    ]  # fmt: skip
    head = (
        "table",
        "row",
        "paper",
        "ours",
        *(["difference"] if told else []),
        "persons",
        "seeds",
        "definition",
        "selected on",
        "command",
    )
    commits = ", ".join(dict.fromkeys(c for row in measured_rows for c in row.commit.split(", ") if c))
    listed = "\n".join(f"{i}. `{command}`" for command, i in commands.items())
    return "\n\n".join([*remarks, pipes([head, *lines]), listed, f"Commit {commits}."])


def publish(file: str | Path, key: str, text: str) -> Path:
    """Replace the text between `<!-- begin KEY -->` and `<!-- end KEY -->` in a Markdown file; returns its path.

    Raises ValueError where the marks are not there once each, in this order.
    """
    file = Path(file)
    begin, end = f"<!-- begin {key} -->", f"<!-- end {key} -->"
    content = file.read_text(encoding="utf-8")
    if content.count(begin) != 1 or content.count(end) != 1 or content.index(begin) > content.index(end):
        raise ValueError(f"{file}: wanted the marks {begin} and {end} once each, to write the tables between them")
    before, _, rest = content.partition(begin)
    after = rest.partition(end)[2]
    write_text(file, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")
    return file
