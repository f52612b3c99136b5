"""The table of people from a data set that `cocoer annotate` wrote: Parquet or CSV, the columns of `cocoer predict --format`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoer.errors import MissingExtra, OutputError
from cocoer.files import parse_json
from cocoer.report.exchange import write_parquet
from cocoer.report.people_table import table_columns, table_line, write_csv

if TYPE_CHECKING:
    from cocoer.scale.places import Place


def flatten(dataset: str, table: Path) -> int:
    """Write the table, one line a person; an image without one, or that failed, has one line without. Returns the lines.

    dataset: its folder or address. table: `.parquet` or `.csv`. Lines come in the order of the files.

    Raises OutputError, ScaleError for an address that cannot be opened, ValueError, MissingExtra.
    """
    try:
        from cocoer.scale.places import place_of
    except ImportError as err:
        raise MissingExtra("table", err) from None
    if table.suffix not in (".parquet", ".csv"):
        raise ValueError(f"{table}: wanted a name that ends in .parquet or .csv")
    place = place_of(dataset)
    if table.suffix == ".parquet" and place.local is not None and table.resolve().parent == place.local.resolve():
        raise ValueError(
            f"{table}: lies in the data set's own folder, whose readers take every .parquet; name another folder"
        )
    try:
        classes = parse_json((place / "_cocoer/run.json").read())["classes"]
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(
            f"{dataset}: wanted a folder that `cocoer annotate` wrote, found no _cocoer/run.json in it"
        ) from None
    header = table_columns(classes)
    count = 0

    def lines() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in dataset_rows(place):
            for person in row["persons"] or [None]:
                count += 1
                yield table_line(row, person)

    write = write_csv if table.suffix == ".csv" else write_parquet
    write(lines(), header, table)
    return count


def dataset_rows(dataset: Place) -> Iterator[dict[str, Any]]:
    """The rows of a data set as `ImageResult.to_dict` writes images, a batch in memory. Raises OutputError for a torn file."""
    import pyarrow
    import pyarrow.parquet

    for part in dataset.files():
        if not part.name.endswith(".parquet") or part.name[0] in "._":
            continue
        try:
            with part.fs.open_input_file(part.path) as source, pyarrow.parquet.ParquetFile(source) as file:
                for batch in file.iter_batches(batch_size=512):
                    yield from map(_image, batch.to_pylist())
        except (LookupError, TypeError, AttributeError) as err:
            raise OutputError(
                f"{part.uri}: is no file of a data set that `cocoer annotate` wrote ({type(err).__name__}: {err}); move it away"
            ) from None
        except pyarrow.ArrowInvalid as err:
            raise OutputError(
                f"{part.uri}: cannot be read ({err}); run `cocoer annotate` again, which puts it right"
            ) from None


def _image(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "image": row["id"], "persons": [_person(person) for person in row["persons"]]}


def _person(person: Mapping[str, Any]) -> dict[str, Any]:
    """A person as `PersonPrediction.to_dict` has it: numbers of the width in which they were rounded, empty for null."""
    boxes, probabilities = person["boxes"], person["probabilities"] or {}
    return {
        **{name: "" if value is None else value for name, value in person.items()},
        "losses": _rounded(person["losses"] or {}, 6),
        "probabilities": {s: _rounded(by, 6) for s, by in probabilities.items() if by is not None},
        "boxes": None
        if boxes is None
        else boxes
        | {name: [round(v, 2) for v in boxes[name]] for name in ("body", "head")}
        | _rounded({name: boxes[name] for name in ("body_score", "head_score")}, 6),
    }


def _rounded(values: Mapping[str, float | None], digits: int) -> dict[str, float | None]:
    return {name: None if value is None else round(value, digits) for name, value in values.items()}
