"""The weights and persons behind every table, and rows that record how they were measured."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cocoer.datasets import METRIC_OF
from cocoer.evaluation import summary as s
from cocoer.evaluation.metrics import DEFINITIONS
from cocoer.model.zero_shot import Tower
from cocoer.outputs import TableRow
from cocoer.runtime import Runtime
from cocoer.studies.tables.measurements import Kind, Measurement, Target, measure
from cocoer.studies.tables.variants import BASELINES, Variant


@dataclass(frozen=True)
class Study:
    """Weights on persons: what every table needs.

    command: the whole table's own command line. variants: ablations and baselines with the weights trained from them.
    towers: CLIPs to ask without training; empty = the one in the V-I branch of the first weights.
    """

    target: Target
    weights: tuple[Path, ...]
    store: Path
    runtime: Runtime
    command: str
    batch_size: int = 64
    resamples: int = 500
    variants: tuple[Variant, ...] = ()
    towers: tuple[Tower, ...] = ()

    def runs(
        self, overrides: Sequence[str] = (), kind: Kind = "model", weights: Sequence[Path] | None = None
    ) -> list[Measurement]:
        """One run per set of weights, measured or read."""
        return [
            measure(
                file, self.target, overrides, self.store, self.runtime,
                kind=kind, batch_size=self.batch_size, resamples=self.resamples,
            )
            for file in (self.weights if weights is None else weights)
        ]  # fmt: skip

    @property
    def baselines(self) -> list[Variant]:
        """Single levels, and changes of ours to the competition."""
        return [v for v in self.variants if v.kind == BASELINES]

    @property
    def metric(self) -> str:
        """What the headline is."""
        return METRIC_OF[self.target.entry.labels]

    @property
    def definition(self) -> str:
        """The headline's definition."""
        return DEFINITIONS[0] if self.target.multi_label else "top-1 accuracy"


def at(*path: str) -> Callable[[Measurement], Any]:
    """What reads one number, or one interval, of a run."""

    def read(run: Measurement) -> Any:
        value: Any = run.numbers
        for key in path:
            value = value[key]
        return value

    return read


def row(
    study: Study, name: str, runs: Sequence[Measurement], value: Callable[[Measurement], Any], **more: Any
) -> TableRow:
    """A row of a value per seed, 0..1 or an interval as dict; mean, deviation, and what the runs say of themselves."""
    found = [value(run) for run in runs]
    points = [100 * float(v["value"] if isinstance(v, Mapping) else v) for v in found]
    single = found[0] if len(found) == 1 and isinstance(found[0], Mapping) else None
    selected = sorted({str(run.numbers["weights"]["selected_on"] or "not stated") for run in runs})
    defaults = {
        "ours": statistics.fmean(points),
        "deviation": statistics.stdev(points) if len(points) > 1 else None,
        "interval": (100 * single["low"], 100 * single["high"]) if single else None,
        "seeds": len(runs),
        "persons": runs[0].numbers["persons"],
        "definition": study.definition,
        "selection": ", ".join(selected),
        "commit": ", ".join(dict.fromkeys(run.numbers["commit"] for run in runs)),
        "command": _command(study, runs),
    }
    return TableRow(name, **(defaults | more))


def _command(study: Study, runs: Sequence[Measurement]) -> str:
    """What measures this row again: one evaluation; for several seeds, a limit or CLIP the table's own command."""
    numbers, target = runs[0].numbers, study.target
    if len(runs) > 1 or target.limit is not None or "headline" not in numbers:
        return study.command
    words = ["cocoer", "evaluate", "--checkpoint", numbers["weights"]["file"], "--root", str(target.root)]
    words += ["--index", str(target.index), "--split", target.split]
    words += ["--set", *numbers["overrides"]] if numbers["overrides"] else []
    return shlex.join(words)


def untrained(row: TableRow) -> TableRow:
    """The row of something that was not trained or selected."""
    return replace(row, selection="nothing trained", seeds=0)


def gain(study: Study, name: str, runs: Sequence[Measurement], base: Sequence[Measurement]) -> TableRow:
    """Headline of `runs` minus that of `base`, run by run."""
    gains = {
        id(run): s.paired_difference(
            run.targets, run.scores["pred"], other.scores["pred"], study.target.multi_label, study.resamples
        ).to_dict()
        for run, other in zip(runs, base, strict=True)
    }
    return row(study, name, runs, lambda run: gains[id(run)], definition=f"difference of {study.definition}")


def variant_row(study: Study, variant: Variant, runs: Sequence[Measurement] = ()) -> TableRow:
    """The variant's figure where it was trained, beside the paper's where it has one.

    runs: of the full model; where the variant is the full model itself, they are its figure.
    """
    printed = variant.paper
    facts: dict[str, Any] = {} if printed is None else {"paper": printed.value, "paper_deviation": printed.deviation}
    name = variant.what if printed is None else printed.row
    if variant.same_as_full and runs:
        return row(study, name, runs, at("intervals", "pred"), note="the full model itself", **facts)
    if not variant.weights:
        note = f"not measured: no weights at {variant.wanted.as_posix()}"
        return TableRow(name, command=variant.train, note=note, **facts)
    return row(study, name, study.runs(weights=variant.weights), at("intervals", "pred"), **facts)


def needs_training(rows: Sequence[TableRow], variants: Sequence[Variant]) -> str:
    """What the rows of variants that were not trained need, in one sentence; empty where none is missing."""
    absent = [v for v in variants if not v.weights and not v.same_as_full]
    if not absent or all(row.ours is not None for row in rows):
        return ""
    first = absent[0]
    return (
        f"Rows without ours need weights trained with their config, {len(absent)} of configs/{first.kind}, in"
        f" {first.wanted.parent.parent.as_posix()}/NAME; for instance: {first.train}"
    )
