"""Results tables as Markdown, CSV, LaTeX and one self-contained HTML page; the same rows in each, none left out.

A table reads as the paper's do: row, paper, ours, difference. Facts that all measured rows share (persons, seeds,
definition, selection split, commit, command) stand once below the title; facts that differ have a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from cocoer.files import write_text
from cocoer.outputs import ResultTable, TableRow
from cocoer.report.canvas import data_uri
from cocoer.report.plots import as_image, bar_figure, save
from cocoer.report.templates import render
from cocoer.report.text import table as columns
from cocoer.spreadsheet import csv_text

FILES = ("tables.md", "tables.csv", "tables.tex", "tables.html")

_COMMIT = 10  # characters of a revision that are shown; the CSV has them all
_NUMBERS = ("paper", "published", "ours", "difference", "persons", "seeds")
_FACTS = ("persons", "seeds", "definition", "selected on", "commit", "command")
_COMMAND = "Command: "
_LONGEST_OPEN = 30
"""Rows of a grid; a longer one is folded on the page, below its figure."""
_CSV_COLUMNS = (
    "table", "row", "paper", "paper_deviation", "paper_source", "ours", "deviation", "low", "high", "difference", "persons",
    "seeds", "definition", "selected_on", "commit", "command", "note",
)  # fmt: skip


def write_tables(
    tables: Sequence[ResultTable],
    folder: str | Path,
    heading: str,
    remarks: Sequence[str] = (),
    figures: Mapping[str, Figure] | None = None,
) -> list[Path]:
    """Write `FILES` into `folder` and return their paths. remarks: paragraphs below the heading, such as the data's release.

    figures: by a table's key, drawn below it on the page, and beside it as PNG and PDF.
    """
    folder, figures = Path(folder), figures or {}
    texts = (
        as_markdown(tables, heading, remarks),
        as_csv(tables),
        as_latex(tables, heading),
        as_html(tables, heading, remarks, figures),
    )
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return paths + [path for key, figure in figures.items() for path in save(figure, folder / f"{key}.png")]


def number(value: float | None) -> str:
    """Two decimals, a real minus kept plain; empty for a missing value."""
    return "" if value is None else f"{value:.2f}"


def published(row: TableRow) -> str:
    """The paper's figure as text, with its deviation where it gives one; empty where none was published."""
    return number(row.paper) + (f" ± {row.paper_deviation:.2f}" if row.paper_deviation is not None else "")


def measured(row: TableRow) -> str:
    """Ours as text: with the deviation over seeds, or for one seed with the interval over persons; empty where there is none."""
    if row.ours is None:
        return ""
    if row.deviation is not None:
        return f"{row.ours:.2f} ± {row.deviation:.2f}"
    if row.interval is not None:
        return f"{row.ours:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
    return number(row.ours)


def difference(row: TableRow) -> str:
    """Ours minus the paper's, with its sign; empty where the two cannot be compared."""
    return "" if row.difference is None else f"{row.difference:+.2f}"


def _commit(row: TableRow) -> str:
    """The revisions, shortened, each with its mark for changed files."""
    out = []
    for revision in filter(None, row.commit.split(", ")):
        digits, plus, changes = revision.partition("+")
        out.append(digits[:_COMMIT] + plus + changes)
    return ", ".join(out)


def _notes(row: TableRow, table: ResultTable) -> str:
    """The note, and who published the paper's figure; what an unmeasured row needs is said once for its table."""
    note = "" if table.missing and row.ours is None else row.note
    return "; ".join(part for part in (note, f"figure: {row.source}" if row.source else "") if part)


def _fact(row: TableRow, name: str) -> str:
    texts = {
        "persons": str(row.persons or ""), "seeds": str(row.seeds or ""), "definition": row.definition,
        "selected on": row.selection, "commit": _commit(row), "command": row.command,
    }  # fmt: skip
    return texts[name]


@dataclass(frozen=True)
class Line:
    """A row as it is shown: its name, its other cells in the order of `Layout.columns`, its note."""

    name: str
    cells: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Layout:
    """A table as it is shown. columns: after the row's name. said: sentences of what is the same in every row.

    commands: those that differ from row to row, in the order of their numbers; the only one of a table stands in `said`.
    """

    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    said: tuple[str, ...]
    commands: tuple[str, ...]


def layout(table: ResultTable) -> Layout:
    """What a table shows: columns that say something, and once what all measured rows have in common."""
    done = [row for row in table.rows if row.ours is not None]
    facts = {name: list(dict.fromkeys(_fact(row, name) for row in done)) for name in _FACTS}
    varying = tuple(name for name in _FACTS if len(facts[name]) > 1)
    quoted = "published" if table.quoted else "paper"
    columns = tuple(
        name
        for name, text in ((quoted, published), ("ours", measured), ("difference", difference))
        if any(text(row) for row in table.rows)
    )
    commands = tuple(c for c in facts["command"] if c) if "command" in varying else ()
    lines = []
    for row in table.rows:
        texts = {quoted: published(row), "ours": measured(row), "difference": difference(row)}
        for name in varying:
            texts[name] = "" if row.ours is None else _fact(row, name)
        if texts.get("command"):
            texts["command"] = f"[{commands.index(texts['command']) + 1}]"
        lines.append(Line(row.name, tuple(texts[name] for name in (*columns, *varying)), _notes(row, table)))
    return Layout((*columns, *varying), tuple(lines), tuple(_said(table, facts, bool(done))), commands)


def _said(table: ResultTable, facts: dict[str, list[str]], done: bool) -> list[str]:
    """Sentences: what all measured rows have in common, and what the rows without ours need."""
    alone = {name: values[0] for name, values in facts.items() if len(values) == 1 and values[0]}
    words = {
        "persons": "{} persons",
        "seeds": "{} seeds",
        "definition": "{}",
        "selected on": "selected on {}",
        "commit": "commit {}",
    }
    shared = [text.format(alone[name]) for name, text in words.items() if name in alone]
    out = (
        [f"{'; '.join(shared)}.".replace("1 seeds", "1 seed").replace("on nothing trained", "nothing")]
        if shared
        else []
    )
    if "command" in alone:
        out.append(_COMMAND + alone["command"])
    if not done and not table.quoted and any(row.paper is not None for row in table.rows):
        out.append("No results of ours are available yet.")
    return [*out, table.missing] if table.missing else out


def as_markdown(tables: Sequence[ResultTable], heading: str, remarks: Sequence[str] = ()) -> str:
    """One pipe table per result table, its commands in a numbered list below it."""
    parts = [f"# {heading}", *remarks]
    for table in tables:
        shown = layout(table)
        parts += [
            f"## {table.title}",
            table.caption,
            " ".join(f"Command: `{s.removeprefix(_COMMAND)}`" if s.startswith(_COMMAND) else s for s in shown.said),
        ]
        if table.grid:
            parts.append(pipes(table.grid))
        notes = any(line.note for line in shown.lines)
        head = ("row", *shown.columns, *(("note",) if notes else ()))
        if not shown.lines:
            continue
        parts.append(
            pipes([head, *((line.name, *line.cells, *((line.note,) if notes else ())) for line in shown.lines)])
        )
        parts.append("\n".join(f"{i}. `{command}`" for i, command in enumerate(shown.commands, start=1)))
    return "\n\n".join(part for part in parts if part) + "\n"


def as_text(tables: Sequence[ResultTable]) -> str:
    """Every table for the terminal: title, what all rows share, rows. Captions, notes and commands are in the files."""
    parts = []
    for table in tables:
        shown = layout(table)
        rows = [(line.name, *line.cells) for line in shown.lines]
        said = [text for text in shown.said if not text.startswith(_COMMAND)]
        parts.append("\n".join([table.title, *said, columns(("row", *shown.columns), rows)]))
    return "\n\n".join(parts)


def pipes(grid: Sequence[Sequence[str]]) -> str:
    """A grid as a pipe table."""
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid)
    return "\n".join([head, "|" + "---|" * len(grid[0]), *body])


def as_csv(tables: Sequence[ResultTable]) -> str:
    """One line a row with every field in full; numbers as they are, so they can be computed with."""
    rows: list[Sequence[object]] = [_CSV_COLUMNS]
    for table in tables:
        for row in table.rows:
            rows.append((
                table.title, row.name, row.paper, row.paper_deviation, row.source, row.ours, row.deviation,
                *(row.interval or (None, None)), row.difference, row.persons, row.seeds, row.definition, row.selection,
                row.commit, row.command, row.note,
            ))  # fmt: skip
        for name, *values in table.grid[1:]:
            for column, value in zip(table.grid[0][1:], values, strict=True):
                rows.append((table.title, f"{name}: {column}", "", "", "", value, *[""] * 10, table.grid[0][0]))
    return csv_text(rows)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(tables: Sequence[ResultTable], heading: str) -> str:
    """One booktabs table per result table, ready to be pasted; commands, commits and notes as comments, so nothing is lost."""
    parts = [f"% {heading}", "% needs \\usepackage{booktabs}; each table is independent"]
    for table in tables:
        shown = layout(table)
        kept = [i for i, column in enumerate(shown.columns) if column not in ("commit", "command")]
        columns = [shown.columns[i] for i in kept]
        body = [[line.name, *(line.cells[i] for i in kept)] for line in shown.lines]
        align = "l" + "".join("r" if column in _NUMBERS else "l" for column in columns)
        caption = f"{_unnumbered(table.title)}. {table.caption}".strip()
        if table.grid:
            parts.append(
                _tabular(
                    table.grid[0], table.grid[1:], "l" + "r" * (len(table.grid[0]) - 1), caption, f"{table.key}-grid"
                )
            )
        if body:
            parts.append(_tabular(["", *columns], body, align, caption, table.key))
        comments = [*shown.said, *(f"[{i}] {c}" for i, c in enumerate(shown.commands, start=1))]
        comments += [f"{line.name}: {line.note}" for line in shown.lines if line.note]
        parts.append("\n".join(f"% {comment}" for comment in comments))
    return "\n\n".join(part for part in parts if part) + "\n"


def _unnumbered(title: str) -> str:
    """ "Table 4a: sizes" -> "sizes (the paper's Table 4a)", for LaTeX numbers tables itself."""
    number, _, rest = title.partition(": ")
    return f"{rest} (the paper's {number})" if rest and number.startswith(("Table ", "Fig. ")) else title


def _tabular(head: Sequence[str], body: Sequence[Sequence[str]], align: str, caption: str, key: str) -> str:
    """One floating table; the caption above it, as tables have."""
    rows = [" & ".join(tex(text) for text in line) + r" \\" for line in (head, *body)]
    lines = [
        r"\begin{table}[htbp]",
        r"\centering\small",
        rf"\caption{{{tex(caption)}}}",
        rf"\label{{tab:{key.replace('_', '-')}}}",
    ]
    lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", rows[0], r"\midrule", *rows[1:], r"\bottomrule"]
    return "\n".join([*lines, r"\end{tabular}", r"\end{table}"])


def plot(table: ResultTable) -> Image.Image | None:
    """Bars of the measured rows, whiskers where there is an interval or a deviation; None for fewer than two rows."""
    rows = [row for row in table.rows if row.ours is not None]
    if not table.plotted or len(rows) < 2:
        return None
    whiskers = {}
    for row in rows:
        if row.ours is not None and row.deviation is not None:
            whiskers[row.name] = (row.ours - row.deviation, row.ours + row.deviation)
        elif row.interval is not None:
            whiskers[row.name] = row.interval
    values = {row.name: row.ours for row in rows if row.ours is not None}
    return as_image(bar_figure(values, table.title, "percent", whiskers, table.reference))


def as_html(
    tables: Sequence[ResultTable],
    heading: str,
    remarks: Sequence[str] = (),
    figures: Mapping[str, Figure] | None = None,
) -> str:
    """The page: no outside file, font or script; plots are PNG inside it. The first remark is set off as the warning it is."""
    sections = [
        {
            "table": table, "layout": layout(table), "plot": _plot_data(table, figures or {}), "grid": _shaded(table),
            "numbers": _number_columns(table.grid), "folded": len(table.grid) > _LONGEST_OPEN,
        }
        for table in tables
    ]  # fmt: skip
    return str(render("tables.html", sections=sections, heading=heading, remarks=remarks, numbers=_NUMBERS))


def _plot_data(table: ResultTable, figures: Mapping[str, Figure]) -> dict[str, object] | None:
    """The plot as a data URI (PNG) with its size in pixels, or None."""
    image = as_image(figures[table.key]) if table.key in figures else plot(table)
    if image is None:
        return None
    return {"uri": data_uri(image, "PNG", optimize=True), "width": image.width, "height": image.height}


def _shaded(table: ResultTable) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The grid's rows: name, and each cell with its background and whether it is a number.

    A matrix beside rows (a confusion matrix) is the darker the larger its percentages; a grid that stands alone is plain.
    """
    return [
        (name, [(text, _shade(text) if table.rows else "", len(cells) > 1 and _is_number(text)) for text in cells])
        for name, *cells in table.grid[1:]
    ]


def _number_columns(grid: Sequence[Sequence[str]]) -> list[bool]:
    """Whether each column of a grid holds numbers, so that its head stands over them."""
    rows = grid[1:]
    return [
        place > 0 and len(grid[0]) > 2 and all(_is_number(row[place]) for row in rows)
        for place in range(len(grid[0] if grid else ()))
    ]


def _is_number(text: str) -> bool:
    """Whether a cell is a number, perhaps with its interval, or empty."""
    return not text.strip("0123456789.,-+[] ") or text == "nan"


def _shade(percent: str) -> str:
    """Strength of the background, light enough for dark letters at 100."""
    try:
        share = min(1.0, max(0.0, float(percent) / 100))
    except ValueError:
        share = 0.0
    return f"{0.55 * share:.3f}"
