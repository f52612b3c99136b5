"""Ask about many persons in several variants; each answer is written as it comes, and scores are ready for the metrics."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cocoer.errors import EndpointError, OutputError
from cocoer.files import parse_json, read_lines
from cocoer.paths import refuse_input
from cocoer.vlm.client import ChatClient
from cocoer.vlm.parse import parse_labels
from cocoer.vlm.prompts import Question

MOST_FAILURES = 5
"""After this many questions in a row without an answer the endpoint counts as unavailable."""


@dataclass(frozen=True)
class Row:
    """One answer. status: `ok`, `refused`, `no_label` (see `parse`) or `failed` (no answer came; message says why)."""

    key: str
    variant: str
    status: str
    labels: tuple[str, ...]
    text: str = ""
    message: str = ""
    cached: bool = False


def ask_all(
    client: ChatClient,
    asked: Iterable[tuple[str, Mapping[str, Question]]],
    classes: Sequence[str],
    multi_label: bool,
    path: Path,
) -> Iterator[Row]:
    """Rows for every person (key, variant -> question), in order, each appended to `path` (JSON lines) before it is yielded.

    The file is begun anew; earlier answers come back from the client's cache without a request.
    Raises OverwritesInput and OutputError where `path` is not ours to write; EndpointError where the endpoint gives up, or
    fails `MOST_FAILURES` times in a row.
    """
    failures = 0
    _begin_anew(path)
    with path.open("w", encoding="utf-8") as file:
        for key, variants in asked:
            for variant, question in variants.items():
                reply = client.ask(question)
                if reply.fault:
                    row = Row(key, variant, "failed", (), message=reply.fault)
                else:
                    parsed = parse_labels(reply.text, classes, multi_label)
                    row = Row(key, variant, parsed.status, parsed.labels, reply.text, cached=reply.cached)
                file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")
                file.flush()
                yield row
                failures = failures + 1 if reply.fault else 0
                if failures >= MOST_FAILURES:
                    raise EndpointError(
                        f"{failures} questions in a row without an answer, the last: {reply.fault}. "
                        f"What was answered is in {path} and in the cache; the same command goes on from there"
                    )


def _begin_anew(path: Path) -> None:
    """Raise where `path` must not be emptied: OverwritesInput for an input, OutputError for what is no file of answers."""
    refuse_input(path)
    if not os.path.lexists(path):
        return
    try:
        first = parse_json(next(read_lines(path), "{}"))
        ours = (
            not path.is_symlink() and path.is_file() and (not path.stat().st_size or first.keys() >= {"key", "variant"})
        )
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise OutputError(f"{path}: is not a file that cocoer vlm wrote, and it stays; choose another --output")


def scores_of(rows: Iterable[Row], keys: Sequence[str], variant: str, classes: Sequence[str]) -> NDArray[np.float64]:
    """Scores [n, k] of one variant for `keys` in order: 1 for a named class, else 0; a person without an answer has zeros."""
    scores = np.zeros((len(keys), len(classes)))
    place = {key: i for i, key in enumerate(keys)}
    for row in rows:
        if row.variant == variant and row.key in place:
            scores[place[row.key], [list(classes).index(name) for name in row.labels]] = 1.0
    return scores
