"""Tables, sizes, durations and a person's answer as plain text, for the terminal and for Markdown reports."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from cocoer.names import LEVELS
from cocoer.outputs import LEVEL_SOURCES, SYNTHETIC, ImageResult, PersonPrediction

Cell = str | int | float | None

_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks of Unicode, what turns the direction of writing, half letters; not tab and line feed."""


def escaped(text: str) -> str:
    """The text without anything that a terminal would obey: control characters as \\x1b, \\u2028; tabs and line feeds stay."""
    return _CONTROLS.sub(lambda found: found.group().encode("unicode_escape").decode("ascii"), text)


def printable(text: str) -> str:
    """A name or a message on one line: as `escaped`, and tabs and line feeds too."""
    return escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def display_width(text: str) -> int:
    """Columns that `text` takes on a terminal: wide East Asian letters take two, combining marks none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def cell_text(value: Cell, digits: int = 3) -> str:
    """One table cell: floats with `digits` decimals, None as '-', whole numbers as they are."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.{digits}f}" if math.isfinite(value) else str(value)
    return str(value)


def _aligned(
    header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int
) -> tuple[list[list[str]], list[int], list[bool]]:
    """All cells as text (header first), width of each column, and which columns hold numbers only."""
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(
                f"table row {number}: wanted {len(header)} cells ({', '.join(header)}), got {len(row)}: {row!r}"
            )
    cells = [[str(h) for h in header], *([cell_text(v, digits) for v in row] for row in rows)]
    widths = [max(display_width(row[c]) for row in cells) for c in range(len(header))]
    numeric = [bool(rows) and all(not isinstance(row[c], str) for row in rows) for c in range(len(header))]
    return cells, widths, numeric


def _pad(text: str, width: int, right: bool) -> str:
    space = " " * (width - display_width(text))
    return space + text if right else text + space


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 3) -> str:
    """A plain-text table: two spaces between columns, numbers to the right, a rule under the header, no trailing spaces.

    Raises ValueError where a row has another number of cells than the header.
    """
    cells, widths, numeric = _aligned(header, rows, digits)
    cells.insert(1, ["-" * w for w in widths])
    lines = ("  ".join(_pad(t, w, n) for t, w, n in zip(row, widths, numeric, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell]], digits: int = 3) -> str:
    """A Markdown table, also aligned as text; '|' and line breaks inside cells are escaped.

    Raises ValueError where a row has another number of cells than the header.
    """

    def safe(value: Cell) -> Cell:
        return value.replace("|", "\\|").replace("\n", "<br>") if isinstance(value, str) else value

    cells, widths, numeric = _aligned([str(safe(h)) for h in header], [[safe(v) for v in row] for row in rows], digits)
    widths = [max(3, w) for w in widths]
    cells.insert(1, ["-" * (w - 1) + (":" if n else "-") for w, n in zip(widths, numeric, strict=True)])
    return "\n".join(
        "| " + " | ".join(_pad(t, w, n) for t, w, n in zip(row, widths, numeric, strict=True)) + " |" for row in cells
    )


def human_size(num_bytes: float) -> str:
    """A number of bytes in words: '532 B', '11.8 MB' (1 MB = 1,000,000 bytes)."""
    size = float(num_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if abs(size) < 999.95:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def exclusion_text(person: PersonPrediction) -> str:
    """The exclusion sequence as in the paper's Fig. 5: '(1) Context -> (2) Head -> (3) Body', the last one stays.

    Or why there is none: nothing competed, or the pseudo label is empty.
    """
    if person.competition is None:
        return "none, nothing competed"
    if not person.competition.exclusion:
        return "none, the pseudo label is empty"
    return " -> ".join(f"({i}) {level.title()}" for i, level in enumerate(person.competition.exclusion, start=1))


def _labels(person: PersonPrediction, source: str, most: int = 6) -> str:
    """The labels of a source with probabilities, the most probable first; '!' before those that are struck out."""
    by_name, marked = person.probabilities.get(source, {}), person.inconsistent.get(source, ())
    names = person.ordered(source)
    shown = ["!" * (n in marked) + (f"{n} {by_name[n]:.2f}" if n in by_name else n) for n in names[:most]]
    return ", ".join(shown) + (f", +{len(names) - most} more" if len(names) > most else "") or "-"


def summarize_person(person: PersonPrediction) -> str:
    """One person's answer as a few lines: fused answer, each level with its L_hier, V-I's pseudo label, exclusion sequence.

    A label of a level that neither the pseudo label nor the fused answer shares is marked with '!'.
    """
    track = person.boxes.track if person.boxes is not None else None
    title = f"person {person.person}" + (f" (track {track})" if track is not None else "")
    if person.status == "error":
        return f"{title}: error: {person.message or 'not scored'}"
    if person.status != "ok":
        title += f" [{person.status}]"
    lines = [f"{title}: {_labels(person, 'pred')}"]
    for i, level in enumerate(LEVELS):
        loss = f"L_hier {person.competition.losses[i]:.3f}  " if person.competition else ""
        lines.append(f"  {level:8} {loss}{_labels(person, LEVEL_SOURCES[level])}")
    if "VI" in person.probabilities or person.pseudo_label:
        lines.append(f"  {'V-I':8} {', '.join(person.pseudo_label) or 'none'} (pseudo label)")
    if person.competition:
        lines.append(f"  Exclusion Sequence: {exclusion_text(person)}")
    if person.message:
        lines.append(f"  note     {person.message}")
    return "\n".join(lines)


def summarize(result: ImageResult) -> str:
    """An image's answer for the terminal: its name and size, then `summarize_person` for each person."""
    frame = f", frame {result.frame}" if result.frame is not None else ""
    size = f"{result.width}x{result.height}" if result.width else "not read"
    name = printable(result.image)
    if result.status == "error":
        return f"{name}{frame}: error: {printable(result.message) or 'not scored'}"
    count = len(result.persons)
    said = "no person found" if count == 0 else f"{count} person" + ("s" if count > 1 else "")
    head = f"{name} ({size}{frame}): {said}" + (f"; {printable(result.message)}" if result.message else "")
    remark = [f"  {SYNTHETIC}"] if result.synthetic else []
    return "\n".join([head, *remark, *(summarize_person(person) for person in result.persons)])
