"""Results on disk: JSON and PNG per image, and for a batch one JSONL and one CSV. Same results, same bytes.

Every file is written beside its place and renamed, so a full disk or a killed run leaves whole files only. `results.jsonl`
grows line by line and is what `--resume` continues; the CSV is made from it at the end.
"""

from __future__ import annotations

import contextlib
import heapq
import io
import itertools
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from cocoer.errors import OutputError
from cocoer.files import cannot_write, parse_json, write_bytes, write_file
from cocoer.outputs import SOURCES, ImageResult
from cocoer.own_files import is_own, note_of, pdf_notes
from cocoer.report import exchange
from cocoer.report.draw import draw_result
from cocoer.report.figure import draw_case_study
from cocoer.report.people_table import table_columns, table_line, write_csv

FORMATS: tuple[str, ...] = ("json", "csv", "png")
"""Written unless others are asked for."""

EXCHANGE: tuple[str, ...] = tuple(exchange.PLACES)
"""Written when asked for (`exchange`)."""

ROWS = "results.jsonl"
TABLE = "results.csv"


def write_json(path: Path, tree: Mapping[str, Any]) -> None:
    """The mapping as indented JSON, UTF-8. Raises OutputError."""
    text = json.dumps(tree, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # half a letter (U+D800) becomes its JSON escape


def prepare_folder(folder: Path) -> None:
    """Make the output folder and see that it can be written. Raises OutputError."""
    write_bytes(folder / ".cocoer-probe", b"x")
    (folder / ".cocoer-probe").unlink(missing_ok=True)


class RowsFile:
    """`results.jsonl`, one image or frame a line, appended as results come.

    numbered: each line also holds the item's position, for the shares of several processes.
    """

    def __init__(self, path: Path, numbered: bool = False) -> None:
        self.path, self._numbered = path, numbered
        try:
            self._file = open(path, "ab")  # noqa: SIM115 - closed by close()
        except OSError as err:
            raise cannot_write(path, err) from err

    def add(self, result: ImageResult, position: int) -> None:
        """Append one result. Raises OutputError on a full disk."""
        row: dict[str, Any] = result.to_dict()
        line = json.dumps(
            {"position": position, "row": row} if self._numbered else row, ensure_ascii=False, allow_nan=False
        )
        start = self._file.tell()
        try:
            self._file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            self._file.flush()
        except OSError as err:
            self._cut(start)
            raise cannot_write(self.path, err) from err

    def _cut(self, length: int) -> None:
        """Take back a line of which only a part fitted on the disk."""
        with contextlib.suppress(OSError):
            os.truncate(self.path, length)

    def close(self) -> None:
        """Flush and close."""
        with contextlib.suppress(OSError):
            self._file.close()


def _drop_torn_line(path: Path) -> None:
    """Cut the file after its last newline. Raises ValueError where what follows was not written by a run of ours."""
    with open(path, "rb+") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            block = file.read(end - start)
            found = block.rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        file.seek(end)
        if not _is_torn_row(file.read(1 << 16)):
            raise ValueError(f"{path}: ends in a line that cocoer did not write, and it stays; choose another --output")
        file.truncate(end)


def _is_torn_row(start: bytes) -> bool:
    """Whether this is how a row begins whose writing was ended, or the zeros that a power cut leaves in its place."""
    return not start.strip(b"\0") or any(start.startswith(key[: len(start)]) for key in (b'{"image"', b'{"position"'))


def read_rows(path: Path, numbered: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """(position or line number, row) of every whole line. Raises OutputError for a line that is no JSON."""
    with open(path, "rb") as lines:
        for number, line in enumerate(lines):
            if not line.endswith(b"\n"):
                return
            try:
                tree = parse_json(line)
                place, row = (tree["position"], tree["row"]) if numbered else (number, tree)
                if not isinstance(place, int) or not _is_row(row):
                    raise ValueError
                yield place, row
            except (ValueError, KeyError, TypeError):
                raise OutputError(
                    f"{path}: line {number + 1} is not a row that inference.py wrote; remove the file, or run without --resume"
                ) from None


def _is_row(row: Any) -> bool:
    """Whether a JSON value has the form of `ImageResult.to_dict`, as far as a table is made of it."""
    if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not isinstance(row.get("model", {}), dict):
        return False
    return isinstance(row.get("persons"), list) and all(map(_is_person, row["persons"]))


def _is_person(person: Any) -> bool:
    if not isinstance(person, dict) or not isinstance(person.get("boxes"), dict | None):
        return False
    names = [person.get(key) for key in (*SOURCES, "emo_process")]
    if not all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in names):
        return False
    by_source = person.get("probabilities")
    return (
        isinstance(person.get("losses"), dict)
        and isinstance(by_source, dict)
        and all(isinstance(values, dict) for values in by_source.values())
        and (not by_source or "pred" in by_source)
    )


def row_key(row: Mapping[str, Any]) -> str:
    """Names the image or frame of a row, as `InputItem.key` does."""
    return str(row["image"]) if row.get("frame") is None else f"{row['image']}#{row['frame']}"


def table_lines(rows: Path) -> Iterator[dict[str, Any]]:
    """The lines of the table of a JSONL, one per person, in order."""
    for _, row in read_rows(rows):
        for person in row["persons"] or [None]:
            yield table_line(row, person)


def _classes(rows: Path) -> list[str]:
    """The class names, from the first scored person."""
    for _, row in read_rows(rows):
        for person in row["persons"]:
            if person["probabilities"]:
                return list(person["probabilities"]["pred"])
    return []


def consolidate(folder: Path) -> None:
    """Put the shares that several processes left in a folder behind the rows of its results.jsonl, each row once.

    Shares are merged in input order; only one line of each is in memory. Raises OutputError; then all files are as before.
    """
    parts = sorted(folder.glob("results.part*of*.jsonl"))
    if not parts:
        return
    rows = folder / ROWS

    def fill(unfinished: Path) -> None:
        seen: set[str] = set()
        with open(unfinished, "wb") as file:
            for row in _all_rows(rows, parts):
                if (key := row_key(row)) not in seen:
                    seen.add(key)
                    file.write(
                        json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"
                    )

    write_file(rows, fill)
    for part in parts:
        part.unlink(missing_ok=True)


def _all_rows(rows: Path, parts: list[Path]) -> Iterator[dict[str, Any]]:
    """The rows of a results.jsonl, then those of the shares by position."""
    if rows.exists():
        yield from (row for _, row in read_rows(rows))
    shares = [read_rows(part, numbered=True) for part in parts]
    yield from (row for _, row in heapq.merge(*shares, key=lambda pair: pair[0]))


def start_over(folder: Path, resume: bool, is_input: IsInput = lambda path: False) -> set[str]:
    """Make a folder ready, in one process before the others begin; returns the keys of what is done already.

    resume: keep and tidy up what an earlier run left. Otherwise its rows are removed. Raises OutputError; ValueError where a
    file that is not cocoer's, or that the run reads, stands in the place of the rows or the table.
    """
    prepare_folder(folder)
    for place in (folder / ROWS, folder / TABLE):
        taken = os.path.lexists(place) and not (place.is_file() and (resume or _is_own_table(place)))
        if taken or (os.path.lexists(place) and is_input(place)):
            raise ValueError(f"{place}: is not a file that cocoer wrote, and it stays; choose another --output")
    try:
        if resume:
            consolidate(folder)
            if (folder / ROWS).exists():
                _drop_torn_line(folder / ROWS)
                return {row_key(row) for _, row in read_rows(folder / ROWS)}
            return set()
        for old in (folder / ROWS, folder / TABLE, *folder.glob("results.part*of*.jsonl")):
            old.unlink(missing_ok=True)
    except OSError as err:
        raise err if isinstance(err, OutputError) else cannot_write(folder, err) from err
    return set()


def _is_own_table(path: Path) -> bool:
    """Whether a results file is one that cocoer wrote (or empty)."""
    try:
        with open(path, "rb") as file:
            first = file.readline(1 << 24)
        if path.name == TABLE:
            return not first or first.startswith(b"image,frame,width,height,person")
        return (
            _is_torn_row(first)
            if not first.endswith(b"\n")
            else parse_json(first).keys() >= {"image", "status", "persons"}
        )
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def check_same_weights(folder: Path, sha256: str) -> None:
    """ValueError where the rows that are to be continued were made by other weights than those with this checksum."""
    if (folder / ROWS).is_file():
        for _, row in read_rows(folder / ROWS):
            before = row.get("model", {})
            if before.get("sha256", sha256) != sha256:
                raise ValueError(
                    f"--resume: {folder / ROWS} was made with other weights ({before.get('weights')}, SHA-256 "
                    f"{before['sha256'][:12]}..., now {sha256[:12]}...); use the same, or another --output"
                )
            return


def write_png(path: Path, image: Image.Image, key: str) -> None:
    """The image as PNG; its notes say that cocoer drew it and for which input, never when. Raises OutputError."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=4, pnginfo=note_of(key))
    write_bytes(path, buffer.getvalue())


def write_pdf(path: Path, image: Image.Image, key: str) -> None:
    """The image as a PDF of one page at 200 pixels per inch, with the notes of `write_png`. Raises OutputError."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "PDF", resolution=200.0, quality=95, subsampling=0, **pdf_notes(key))
    write_bytes(path, buffer.getvalue())


IsInput = Callable[[Path], bool]
"""Whether a path is one of the files that the run reads; nothing is written there."""


def free_name(names: Callable[[str], Sequence[Path]], stem: str, may_write: Callable[[Path], bool]) -> str:
    """`stem`, or where one of its files is not ours to write, the first of `stem.cocoer`, `stem.cocoer2`, ... that is free."""
    for number in itertools.count():
        candidate = stem if number == 0 else f"{stem}.cocoer{number if number > 1 else ''}"
        if all(may_write(path) for path in names(candidate)):
            return candidate
    raise AssertionError("a name is free at last")


class ResultFolder:
    """The output of one run, made ready by `start_over`: `add` what comes, `close`, then `finish`.

    formats: of `FORMATS` and `EXCHANGE`. figure: also the case-study panel of every person. batch: also `results.jsonl`, and what
    is made from it.
    share: (rank, processes) where several processes write into one folder; each keeps its rows in a file of its own until
    `finish` of rank 0 puts them together.
    is_input: what must never be written to. A file that stands there and is not cocoer's answer for the same input is left
    alone as well; the answer then gets another name.
    """

    def __init__(
        self,
        folder: Path,
        formats: Collection[str],
        figure: bool = False,
        batch: bool = True,
        share: tuple[int, int] = (0, 1),
        is_input: IsInput = lambda path: False,
    ) -> None:
        self._is_input = is_input
        for place in (folder / exchange.PLACES[name] for name in EXCHANGE if name in formats):
            if os.path.lexists(place) and (is_input(place) or not exchange.is_own(place)):
                raise ValueError(f"{place}: is not a file that cocoer wrote, and it stays; choose another --output")
        self.folder, self._formats, self._figure, self._batch = folder, frozenset(formats), figure, batch
        rank, processes = share
        name = ROWS if processes == 1 else f"results.part{rank}of{processes}.jsonl"
        self._rows = RowsFile(folder / name, numbered=processes > 1) if batch else None

    @property
    def wants_image(self) -> bool:
        """Whether `add` needs the image itself."""
        return "png" in self._formats or self._figure

    def add(self, result: ImageResult, stem: str, position: int, image: Image.Image | None) -> list[Path]:
        """Write one result; returns its files. The row comes last, so a row in results.jsonl means that the files are there."""
        key = result.image if result.frame is None else f"{result.image}#{result.frame}"
        persons = [person.person for person in result.persons] if image is not None and self._figure else []
        png = image is not None and "png" in self._formats

        def names(stem: str) -> list[Path]:
            endings = [".json"] * ("json" in self._formats) + [".png"] * png
            endings += [f".figure{n}{suffix}" for n in persons for suffix in (".png", ".pdf")]
            return [self.folder / f"{stem}{ending}" for ending in endings]

        files = names(free_name(names, stem, lambda path: self._may_write(path, key)))
        waiting = iter(files)
        if "json" in self._formats:
            write_json(next(waiting), result.to_dict())
        if image is not None and png:
            write_png(next(waiting), draw_result(image, result), key)
        if image is not None:
            for place in range(len(persons)):
                panel = draw_case_study(image, result, place)
                write_png(next(waiting), panel, key)
                write_pdf(next(waiting), panel, key)
        if self._rows:
            self._rows.add(result, position)
        return files

    def _may_write(self, path: Path, key: str) -> bool:
        """Whether a file may be made here: no input, and nothing there but an earlier answer for the same input."""
        return not self._is_input(path) and (not os.path.lexists(path) or is_own(path, key))

    def close(self) -> None:
        """Close this process's rows; call before `finish`, in every process."""
        if self._rows:
            self._rows.close()

    def finish(self) -> list[Path]:
        """In rank 0, when every process has closed: one results.jsonl from all shares, and the CSV. Returns the files."""
        if not self._batch:
            return []
        rows = self.folder / ROWS
        consolidate(self.folder)
        written = [rows]
        for name in (name for name in ("csv", *EXCHANGE) if name in self._formats):
            place = self.folder / (TABLE if name == "csv" else exchange.PLACES[name])
            written.append(place)
            if name in ("csv", "parquet"):
                write = write_csv if name == "csv" else exchange.write_parquet
                write(table_lines(rows), table_columns(_classes(rows)), place)
            else:
                document = exchange.write_coco if name == "coco" else exchange.write_label_studio
                document((row for _, row in read_rows(rows)), place)
        return written
