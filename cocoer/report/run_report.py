"""`report.md` of a training run: its facts, its evaluations, and curves of everything that the log knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cocoer.files import write_text
from cocoer.names import LEVELS
from cocoer.report.plots import Panel, Point, line_figure, save, training_curves
from cocoer.report.runlog import LOG_NAME, read_log
from cocoer.report.text import markdown_table

REPORT_NAME = "report.md"
_FOLDER = "curves"

_PLOTS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "loss terms": (
        "mean over the persons of a step",
        ("loss_head", "loss_body", "loss_context", "loss_vocabulary", "loss_fused"),
    ),
    "lambda": ("simplex weight, mean of both rounds", tuple(f"lambda_{level}" for level in LEVELS)),
    "first excluded": ("share of persons", tuple(f"excluded_first_{level}" for level in LEVELS)),
    "length of delta": ("|delta|", ("delta_norm",)),
    "learning rate": ("learning rate", ("lr",)),
    "speed": ("persons per second", ("persons_per_second",)),
}
"""Title -> label of the y axis, and the keys of the log that are its lines."""


def _series(records: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[Point]]:
    """Key -> (step, value) of the `step` records that have it."""
    steps = [r for r in records if r["kind"] == "step"]
    found = {k: [(float(r["step"]), math.nan if r[k] is None else float(r[k])) for r in steps if k in r] for k in keys}
    return {key: points for key, points in found.items() if points}


def write_run_report(folder: str | Path, facts: Mapping[str, str]) -> Path:
    """Write `report.md` and its plots (`curves/`, PNG and PDF) from the folder's `log.jsonl`; returns the report's path.

    facts: what stands at the top, name -> text. Raises ValueError for a damaged log, FileNotFoundError without one.
    """
    folder = Path(folder)
    records = read_log(folder / LOG_NAME)
    evals = [r for r in records if r["kind"] == "eval"]
    metric = "accuracy" if any("accuracy" in r for r in evals) else "mAP"
    plots = {"course": training_curves(records, metric=metric)}
    for name, (unit, keys) in _PLOTS.items():
        if found := _series(records, keys):
            plots[name] = line_figure([Panel(name.capitalize(), "optimizer step", unit, found)])
    lines = ["# Training run", ""]
    lines += [f"- {name}: {text}" for name, text in facts.items()]
    lines += ["- `config.yaml`, `environment.json`, `log.jsonl` beside this file hold the rest", ""]
    if evals:
        lines += [f"## {metric} on {evals[-1]['split']}, percent", "", _evaluations(evals, metric), ""]
    lines += ["## Curves", ""]
    for name, figure in plots.items():
        path = Path(_FOLDER) / f"{name.replace(' ', '_')}.png"
        save(figure, folder / path)
        lines += [f"![{name}]({path.as_posix()})", ""]
    report = folder / REPORT_NAME
    write_text(report, "\n".join(lines))
    return report


def _evaluations(evals: Sequence[Mapping[str, Any]], metric: str) -> str:
    """One row per evaluation: the headline, every source alone, who is excluded first."""
    sources = [name for name in evals[-1].get("sources", {}) if name != "pred"]
    header = ["epoch", "step", metric, *sources, *(f"{level} first" for level in LEVELS)]
    rows = []
    for record in evals:
        first = record.get("exclusion", {}).get("first", {})
        values = [
            record.get(metric),
            *(record.get("sources", {}).get(s) for s in sources),
            *(first.get(m) for m in LEVELS),
        ]
        rows.append([record["epoch"], record["step"], *(None if v is None else 100.0 * v for v in values)])
    return markdown_table(header, rows, digits=2)
