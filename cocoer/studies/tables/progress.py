"""Do all measurements of the tables first, and report progress and remaining time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cocoer.model.checkpoint import read_metadata
from cocoer.outputs import ResultTable
from cocoer.studies.tables.measurements import Kind
from cocoer.studies.tables.study import Study
from cocoer.studies.tables.tables import gather, measured_overrides

_AT_MOST_EVERY = 10.0  # seconds between two lines


@dataclass(frozen=True)
class Wanted:
    """One measurement: weights under overrides."""

    file: Path
    overrides: tuple[str, ...]
    kind: Kind = "model"


def wanted(study: Study) -> list[Wanted]:
    """Every measurement of weights that `gather` takes, once; the towers of --clip, each a single pass, are not among them."""
    models = [read_metadata(file)["config"]["model"] for file in study.weights]
    stored = {model["coordination"]["update"] for model in models}
    judged = all(model["vocabulary"]["enabled"] for model in models)
    every = measured_overrides(stored.pop() if len(stored) == 1 else None, judged, bool(study.baselines))
    out = [Wanted(file, tuple(overrides)) for overrides in every for file in study.weights]
    out += [Wanted(study.weights[0], (), "clip")] if models[0]["vocabulary"]["enabled"] else []
    out += [Wanted(file, ()) for variant in study.variants for file in variant.weights]
    return list(dict.fromkeys(out))


def gather_with_progress(study: Study, say: Callable[[str], None]) -> list[ResultTable]:
    """`gather`, with a line now and then: how many measurements are done, and about how long the rest takes."""
    todo = wanted(study)
    start = told = time.monotonic()
    for done, one in enumerate(todo):
        now = time.monotonic()
        if done == 0:
            say(f"{len(todo)} measurements of {len(study.target.records)} persons each; what is stored is only read")
        elif now - told >= _AT_MOST_EVERY:
            left = (now - start) / done * (len(todo) - done)
            say(f"measured {done} of {len(todo)} in {now - start:.0f} s, about {left:.0f} s more")
            told = now
        study.runs(one.overrides, one.kind, [one.file])
    return gather(study)
