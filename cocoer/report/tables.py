"""Results tables as Markdown, CSV, LaTeX and one self-contained HTML page; the same rows in each, none left out."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from cocoer.outputs import ResultTable, TableRow
from cocoer.report.plots import as_image, bar_figure

NOT_AT_HAND = "not at hand"
FILES = ("tables.md", "tables.csv", "tables.tex", "tables.html")

_COLUMNS = (
    "row", "paper", "ours", "difference", "persons", "seeds", "definition", "selected on", "commit", "command", "note",
)  # fmt: skip
_COMMIT = 10  # characters of a revision that are shown; the CSV has them all

_NUMBERS = ("paper", "ours", "difference", "persons", "seeds")

_STYLE = """
:root { --ink: #1a1d21; --grey: #5f666e; --rule: #d6dadf; --warn: #a24b00; --link: #1f62b4; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.45 system-ui, sans-serif; color: var(--ink); background: #f4f5f7; }
header, section { max-width: 1280px; margin: 0 auto 16px; padding: 16px; background: #fff; border: 1px solid var(--rule);
  border-radius: 8px; }
header { margin-top: 16px; } h1 { font-size: 1.4rem; margin: 0 0 6px; } h2 { font-size: 1.1rem; margin: 0 0 4px; }
p { margin: 4px 0 8px; color: var(--grey); max-width: 85ch; } .warn { color: var(--warn); font-weight: 600; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; } a { color: var(--link); }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-top: 1px solid var(--rule); }
thead th { border-top: 0; color: var(--grey); font-weight: 600; white-space: nowrap; }
tbody th { font-weight: 500; min-width: 17em; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.ours { font-weight: 600; } .empty { color: var(--grey); white-space: nowrap; font-weight: 400; }
.note { display: block; color: var(--grey); font-size: .82rem; font-weight: 400; overflow-wrap: anywhere; }
.grid { width: auto; margin-bottom: 12px; } .grid td, .grid th { padding: 4px 10px; }
code { font-size: .82rem; overflow-wrap: anywhere; }
img { display: block; width: 100%; max-width: 1000px; min-width: 620px; height: auto; margin: 12px 0 0; }
summary { cursor: pointer; color: var(--grey); font-size: .88rem; margin-top: 8px; } ol { padding-left: 2.4em; margin: 6px 0; }
.up { float: right; font-size: .82rem; }
@media (max-width: 720px) {
  header, section { border-radius: 0; border-width: 1px 0; padding: 12px; margin-bottom: 10px; }
  .rows, .rows tbody, .rows tr, .rows th, .rows td { display: block; width: auto; }
  .rows thead, .rows td.gap { display: none; }
  .rows tr { border-top: 1px solid var(--rule); padding: 6px 0; }
  .rows th, .rows td { border: 0; padding: 0; text-align: left; white-space: normal; }
  .rows td::before { content: attr(data-label) ": "; color: var(--grey); font-weight: 400; }
  .rows td { display: inline; margin-right: 1em; font-size: .84rem; }
  .rows td.ours { display: block; font-size: 1rem; }
}
"""


def write_tables(
    tables: Sequence[ResultTable], folder: str | Path, heading: str, remarks: Sequence[str] = ()
) -> list[Path]:
    """Write `FILES` into `folder` and return their paths. remarks: paragraphs below the heading, such as the data's release."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    texts = (
        as_markdown(tables, heading, remarks),
        as_csv(tables),
        as_latex(tables, heading),
        as_html(tables, heading, remarks),
    )
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text, encoding="utf-8", newline="")
    return paths


def number(value: float | None) -> str:
    """Two decimals, a real minus kept plain; empty for a missing value."""
    return "" if value is None else f"{value:.2f}"


def measured(row: TableRow) -> str:
    """Ours as text: with the deviation over seeds, or for one seed with the interval over persons."""
    if row.ours is None:
        return "not measured"
    if row.deviation is not None:
        return f"{row.ours:.2f} ± {row.deviation:.2f}"
    if row.interval is not None:
        return f"{row.ours:.2f} [{row.interval[0]:.2f}, {row.interval[1]:.2f}]"
    return number(row.ours)


def _published(row: TableRow) -> str:
    return number(row.paper) or NOT_AT_HAND


def _difference(row: TableRow) -> str:
    return "" if row.difference is None else f"{row.difference:+.2f}"


def _commit(row: TableRow) -> str:
    """The revisions, shortened, each with its mark for changed files."""
    out = []
    for revision in filter(None, row.commit.split(", ")):
        digits, plus, changes = revision.partition("+")
        out.append(digits[:_COMMIT] + plus + changes)
    return ", ".join(out)


def _notes(row: TableRow) -> str:
    """The note, and who published the paper's figure."""
    return "; ".join(part for part in (row.note, f"figure: {row.source}" if row.source else "") if part)


def _commands(table: ResultTable) -> dict[str, int]:
    """Each different command of a table with its number, from 1."""
    found = dict.fromkeys(row.command for row in table.rows if row.command)
    return {command: i for i, command in enumerate(found, start=1)}


def _cells(row: TableRow, commands: dict[str, int]) -> list[str]:
    """The row as short texts, in the order of `_COLUMNS`; the command as its number."""
    return [
        row.name, _published(row), measured(row), _difference(row), str(row.persons or ""), str(row.seeds or ""),
        row.definition, row.selection, _commit(row), f"[{commands[row.command]}]" if row.command else "", _notes(row),
    ]  # fmt: skip


def as_markdown(tables: Sequence[ResultTable], heading: str, remarks: Sequence[str] = ()) -> str:
    """One pipe table per result table, its commands in a numbered list below it."""
    parts = [f"# {heading}", *remarks]
    for table in tables:
        commands = _commands(table)
        lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
        lines += ["| " + " | ".join(c.replace("|", "\\|") for c in _cells(r, commands)) + " |" for r in table.rows]
        parts += [f"## {table.title}", table.caption]
        if table.grid:
            parts.append(pipes(table.grid))
        parts.append("\n".join(lines))
        parts.append("\n".join(f"{i}. `{command}`" for command, i in commands.items()))
    return "\n\n".join(part for part in parts if part) + "\n"


def pipes(grid: Sequence[Sequence[str]]) -> str:
    """A grid as a pipe table."""
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in grid)
    return "\n".join([head, "|" + "---|" * len(grid[0]), *body])


def as_csv(tables: Sequence[ResultTable]) -> str:
    """One line a row with every field in full; numbers as they are, so they can be computed with."""
    buffer = io.StringIO()
    lines = csv.writer(buffer, lineterminator="\n")
    lines.writerow(
        ["table", "row", "paper", "paper_source", "ours", "deviation", "low", "high", "difference", "persons", "seeds",
         "definition", "selected_on", "commit", "command", "note"]
    )  # fmt: skip
    for table in tables:
        for row in table.rows:
            low, high = row.interval or (None, None)
            paper = NOT_AT_HAND if row.paper is None else row.paper
            lines.writerow(
                [table.title, row.name, paper, row.source, row.ours, row.deviation, low, high, row.difference,
                 row.persons, row.seeds, row.definition, row.selection, row.commit, row.command, row.note]
            )  # fmt: skip
        for name, *cells in table.grid[1:]:
            for column, cell in zip(table.grid[0][1:], cells, strict=True):
                lines.writerow([table.title, f"{name}: {column}", NOT_AT_HAND, "", cell, *[""] * 10, table.grid[0][0]])
    return buffer.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
}  # fmt: skip


def _tex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def as_latex(tables: Sequence[ResultTable], heading: str) -> str:
    """One booktabs table per result table; commands and notes as comments, so that nothing is lost."""
    parts = [f"% {heading}", "% needs \\usepackage{booktabs}"]
    for table in tables:
        commands = _commands(table)
        lines = [r"\begin{table}[t]", r"\centering\small", r"\begin{tabular}{lrrrrlll}", r"\toprule"]
        lines += [r" & paper & ours & difference & persons & definition & selected on & commit \\", r"\midrule"]
        for row in table.rows:
            shown = [row.name, _published(row), measured(row), _difference(row), str(row.persons or "")]
            shown += [row.definition, row.selection, _commit(row)]
            lines.append(" & ".join(_tex(text) for text in shown) + r" \\")
            if row.note or row.source:
                lines.append(f"% {_notes(row)}")
        lines += [
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{_tex(heading)}. {_tex(table.title)}. {_tex(table.caption)}}}",
        ]
        lines += [rf"\label{{tab:{table.key.replace('_', '-')}}}", r"\end{table}"]
        if table.grid:
            lines += [
                r"\begin{table}[t]",
                r"\centering\small",
                rf"\begin{{tabular}}{{l{'r' * (len(table.grid[0]) - 1)}}}",
            ]
            cells = [" & ".join(_tex(text) for text in line) + r" \\" for line in table.grid]
            lines += [r"\toprule", cells[0], r"\midrule", *cells[1:], r"\bottomrule", r"\end{tabular}"]
            lines += [rf"\caption{{{_tex(table.title)}. {_tex(table.caption)}}}", r"\end{table}"]
        lines += [f"% command: {command}" for command in commands]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


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


def _image(table: ResultTable) -> str:
    """The plot as an <img> with its data inside, or nothing."""
    image = plot(table)
    if image is None:
        return ""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    size = f'width="{image.width}" height="{image.height}"'
    words = f"{escape(table.title, quote=True)}: bars of the table above"
    return f'<div class="wide"><img src="data:image/png;base64,{data}" {size} alt="{words}"></div>'


def _html_rows(table: ResultTable, commands: dict[str, int]) -> Iterator[str]:
    """<tr> by <tr>; the note stands under the row's name. Each cell carries its column's name, for narrow screens."""
    for row in table.rows:
        name, *cells, note = _cells(row, commands)
        notes = f'<span class="note">{escape(note)}</span>' if note else ""
        out = [f'<th scope="row">{escape(name)}{notes}</th>']
        for column, text in zip(_COLUMNS[1:], cells, strict=False):
            kinds = ["number"] if column in _NUMBERS else []
            kinds += ["ours"] if column == "ours" else []
            kinds += ["empty"] if text in (NOT_AT_HAND, "not measured", "") else []
            kinds += [] if text else ["gap"]
            out.append(f'<td class="{" ".join(kinds)}" data-label="{column}">{escape(text) or "-"}</td>')
        yield f"<tr>{''.join(out)}</tr>"


def _section(table: ResultTable) -> str:
    commands = _commands(table)
    head = "".join(f'<th scope="col"{" class=number" * (c in _NUMBERS)}>{escape(c)}</th>' for c in _COLUMNS[:-1])
    listed = "".join(f"<li><code>{escape(command)}</code></li>" for command in commands)
    many = "1 command" if len(commands) == 1 else f"{len(commands)} commands"
    below = f"<details><summary>{many}</summary><ol>{listed}</ol></details>" if commands else ""
    body = "".join(_html_rows(table, commands))
    return (
        f'<section id="{table.key}"><a class="up" href="#top">up</a><h2>{escape(table.title)}</h2>'
        f'<p>{escape(table.caption)}</p>{_html_grid(table)}<div class="wide"><table class="rows">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{_image(table)}{below}</section>"
    )


def _html_grid(table: ResultTable) -> str:
    """The grid as a table whose cells are the darker the larger their number."""
    if not table.grid:
        return ""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in table.grid[0])
    lines = []
    for name, *cells in table.grid[1:]:
        shown = "".join(f'<td class="number" style="background:{_shade(text)}">{escape(text)}</td>' for text in cells)
        lines.append(f'<tr><th scope="row">{escape(name)}</th>{shown}</tr>')
    body = "".join(lines)
    return f'<div class="wide"><table class="grid"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _shade(percent: str) -> str:
    """A background for a percentage, light enough for dark letters at 100."""
    try:
        share = min(1.0, max(0.0, float(percent) / 100))
    except ValueError:
        share = 0.0
    return f"rgb(38 110 190 / {0.55 * share:.3f})"


def as_html(tables: Sequence[ResultTable], heading: str, remarks: Sequence[str] = ()) -> str:
    """The page: no outside file, font or script; plots are PNG inside it. The first remark is set off as the warning it is."""
    links = "".join(f'<a href="#{t.key}">{escape(t.title.removeprefix("SYNTHETIC: "))}</a>' for t in tables)
    said = "".join(f"<p{' class=warn' if not i else ''}>{escape(text)}</p>" for i, text in enumerate(remarks))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(heading)}</title><style>{_STYLE}</style></head><body>"
        f'<header id="top"><h1>{escape(heading)}</h1>{said}<nav>{links}</nav></header>'
        f"{''.join(_section(table) for table in tables)}</body></html>\n"
    )
