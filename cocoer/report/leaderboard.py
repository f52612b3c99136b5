"""The leaderboard: results (`result.json`) side by side where they are of the same persons, and what others published."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cocoer.errors import TableError, one_line
from cocoer.files import read_json
from cocoer.outputs import ResultTable, TableRow
from cocoer.paper import PUBLISHED

Result = dict[str, Any]

_FORMAT = 1
MOST_BYTES = 2**26
"""Bytes of a `result.json`; one with groups and all damages has some hundred thousand."""
_TYPES: dict[str, dict[str, Any]] = {
    "": {
        "name": str,
        "synthetic": bool,
        "metric": str,
        "definition": str,
        "command": str,
        "versions": dict,
        "revision": str,
    },
    "data": {"classes": list, "dataset": str, "title": str | None, "split": str, "persons": int, "sha256": str},
    "model": {"settings": str, "seed": int | None, "selected_on": str | None},
}

_NEEDED = (
    "name",
    "synthetic",
    "data",
    "model",
    "metric",
    "definition",
    "interval",
    "command",
    "versions",
    "revision",
    "numbers",
)


def read_result(path: str | Path) -> Result:
    """A `result.json` of `cocoer evaluate`. Raises TableError for anything else, and says what it is."""
    try:
        content = read_json(path, MOST_BYTES)
    except (OSError, ValueError) as err:
        raise TableError(f"{path}: cannot be read as a result ({one_line(err)}); `cocoer evaluate` writes it") from None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        got = content.get("format") if isinstance(content, dict) else type(content).__name__
        remedy = (
            "another version of cocoer wrote it: evaluate again with this one"
            if isinstance(got, int)
            else "give the result.json that `cocoer evaluate` writes beside evaluation.json"
        )
        raise TableError(f"{path}: wanted a result of format {_FORMAT}, got format {got!r}; {remedy}")
    if missing := [name for name in _NEEDED if name not in content]:
        raise TableError(f"{path}: a result without {', '.join(missing)}; evaluate again")
    with undamaged(path):
        low, value, high = (content["numbers"]["headline"][end] for end in ("low", "value", "high"))
        if not all(isinstance(v, int | float) for v in (low, value, high)) or not 0 <= low <= value <= high <= 1:
            raise ValueError(f"headline {low}, {value}, {high}")
        if not content["name"] or content["data"]["persons"] < 1:
            raise ValueError(f"name {content['name']!r}, {content['data']['persons']} persons")
        for section, kinds in _TYPES.items():
            for name, kind in kinds.items():
                found = (content[section] if section else content)[name]
                if not isinstance(found, kind):
                    raise TypeError(f"{section} {name} is a {type(found).__name__}".strip())
    return content


@contextmanager
def undamaged(path: str | Path) -> Iterator[None]:
    """What goes wrong with the content of a result is a TableError that names its file."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as err:
        if isinstance(err, TableError):
            raise
        said = f"{type(err).__name__}: {one_line(err)}"
        raise TableError(f"{path}: a damaged result ({said}); evaluate again") from None


def leaderboard(results: Sequence[Result]) -> list[ResultTable]:
    """One table for each data set, split, hash of the data, list of classes and definition of the metric, for only these can be
    compared; best first. Seeds of one setting become one row.

    Below, what others published on each data set, quoted. Raises TableError where one result is given twice.
    """
    places: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        data = result["data"]
        same = (*(data[name] for name in ("dataset", "split", "sha256")), tuple(data["classes"]), result["metric"])
        places.setdefault((*same, result["definition"]), []).append(result)
    tables = [_table(number, here) for number, here in enumerate(places.values(), start=1)]
    for dataset in dict.fromkeys(result["data"]["dataset"] for result in results):
        if dataset in PUBLISHED:
            tables.append(published_table(dataset, [r for r in results if r["data"]["dataset"] == dataset]))
    return tables


def _table(number: int, results: Sequence[Result]) -> ResultTable:
    """The rows of results of the same persons."""
    data, metric = results[0]["data"], results[0]["metric"]
    synthetic = any(result["synthetic"] for result in results)
    runs: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        runs.setdefault((result["name"], result["model"]["settings"]), []).append(result)
    rows = sorted((_row(name, found) for (name, _), found in runs.items()), key=lambda row: -(row.ours or 0.0))
    of = f"{data['title'] or data['dataset']}, {data['split']}, {data['persons']} persons"
    title = f"{'SYNTHETIC: ' if synthetic else ''}{of}: {metric}"
    caption = f"{results[0]['definition'].capitalize()}. Percent, with the 95 % interval over persons or the deviation of seeds."
    caption += f" {len(data['classes'])} classes; hash of the data {data['sha256'][:16]}."
    return ResultTable(f"leaderboard-{number}", title, caption, tuple(rows), plotted=True)


def _row(name: str, runs: Sequence[Result]) -> TableRow:
    seeds = [run["model"]["seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        raise TableError(
            f"results: {name!r} with seed {max(seeds, key=seeds.count)} is there twice on the same persons; give it once, or"
            " another name (`cocoer evaluate --name`)"
        )
    headlines = [run["numbers"]["headline"] for run in runs]
    values = [100 * headline["value"] for headline in headlines]
    alone = len(runs) == 1
    return TableRow(
        name,
        ours=statistics.fmean(values),
        deviation=None if alone else statistics.stdev(values),
        interval=(100 * headlines[0]["low"], 100 * headlines[0]["high"]) if alone else None,
        seeds=len(runs),
        persons=runs[0]["data"]["persons"],
        selection=", ".join(dict.fromkeys(str(run["model"]["selected_on"] or "nothing") for run in runs)),
        commit=", ".join(dict.fromkeys(run["revision"] for run in runs)),
        command=runs[0]["command"],
    )


def published_table(dataset: str, results: Sequence[Result]) -> ResultTable:
    """What others published on a data set, quoted with its source."""
    synthetic = all(result["synthetic"] for result in results)
    rows = tuple(TableRow(name, paper=figure, source=source) for name, figure, source in PUBLISHED[dataset])
    caption = "Figures of other people's runs, quoted from those named; none was measured here."
    caption += " They are of photographs: no synthetic row can be held against them." if synthetic else ""
    return ResultTable(
        f"published-{dataset}", f"Published on {results[0]['data']['title'] or dataset}", caption, rows, quoted=True
    )
