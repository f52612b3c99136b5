"""Write an evaluation's files (metrics, text, a row per class, all scores), and read another evaluation's scores."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cocoer.data.array_file import read_arrays
from cocoer.errors import ScoreError
from cocoer.evaluation import summary as s
from cocoer.evaluation.evaluate import Evaluation
from cocoer.evaluation.metrics import break_even_thresholds, checked
from cocoer.files import write_file, write_text
from cocoer.model.checkpoint import Loaded
from cocoer.names import LEVELS
from cocoer.spreadsheet import cell

OUTPUTS = ("evaluation.txt", "evaluation.json", "evaluation.csv", "scores.npz", "result.json", "evaluation.html")
"""What an evaluation leaves in its folder, beside figures."""


def write_evaluation(
    folder: Path, text: str, numbers: Mapping[str, Any], result: Evaluation, loaded: Loaded, persons: str | None
) -> None:
    """evaluation.json, .csv, .txt and scores.npz in `folder`; persons: a file that gets one JSON line each, or None."""
    classes, multi_label = loaded.config.classes, loaded.config.multi_label
    write_text(folder / "evaluation.txt", text + "\n")
    write_text(folder / "evaluation.json", json.dumps(numbers, indent=1, ensure_ascii=False) + "\n")
    values = numbers["ap"] if multi_label else numbers["recall"]
    counts = result.targets.sum(0).astype(int)
    thresholds = loaded.thresholds.get("classes", {})
    even = break_even_thresholds(result.probabilities["pred"], result.targets)
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["class", "positives", "ap" if multi_label else "recall", "threshold", "break_even_here"])
    for j, name in enumerate(classes):
        threshold, here = thresholds.get(name, ""), even[j] if np.isfinite(even[j]) else ""
        rows.writerow([cell(name), counts[j], values[name], threshold, here])
    write_text(folder / "evaluation.csv", table.getvalue())
    arrays = {"keys": np.array(result.keys), "targets": result.targets, **result.probabilities}
    write_file(folder / "scores.npz", lambda unfinished: np.savez_compressed(unfinished, **dict[str, Any](arrays)))
    if persons:
        lines = (
            json.dumps(person_line(result, i, key, classes), ensure_ascii=False) for i, key in enumerate(result.keys)
        )
        write_text(persons, "".join(line + "\n" for line in lines))


def person_line(result: Evaluation, i: int, key: str, classes: Sequence[str]) -> dict[str, Any]:
    """What the model said of one person, plain values."""
    line: dict[str, Any] = {"key": key, "labels": [c for c, y in zip(classes, result.targets[i], strict=True) if y]}
    line["probabilities"] = {
        source: {c: round(float(p), 6) for c, p in zip(classes, rows[i], strict=True)}
        for source, rows in result.probabilities.items()
    }
    if result.exclusion is not None and result.losses is not None:
        line["emo_process"] = [LEVELS[level] for level in result.exclusion[i] if level >= 0]
        line["losses"] = {level: round(float(v), 6) for level, v in zip(LEVELS, result.losses[i], strict=True)}
    return line


def compared(result: Evaluation, other: Path, multi_label: bool, resamples: int) -> dict[str, Any]:
    """The paired difference of the fused answer, this minus the other one.

    Raises ValueError for other persons or classes, a truncated or foreign file, and scores that are not finite.
    """
    try:
        stored = read_arrays(other)
        keys, scores = list(stored["keys"]), stored["pred"]
        if scores.dtype.kind not in "fiu":
            raise ValueError(f"pred holds {scores.dtype}")
    except (KeyError, TypeError, ValueError) as err:
        raise ValueError(
            f"--against {other}: truncated or no scores of cocoer evaluate ({err}); wanted the scores.npz that it writes,"
            " make it again"
        ) from None
    if keys != list(result.keys):
        raise ValueError(f"--against {other}: holds {len(keys)} persons that are not these {len(result)} in this order")
    try:
        checked(scores, result.targets, keys)
    except ScoreError as err:
        raise ValueError(f"--against {other}: {err}") from None
    difference = s.paired_difference(result.targets, result.probabilities["pred"], scores, multi_label, resamples)
    return {"file": other.as_posix(), "difference": difference.to_dict()}
