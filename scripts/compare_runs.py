"""Compare two runs bit for bit: `python scripts/compare_runs.py outputs/a outputs/b`.

Looks at the order of persons and the losses of every logged step, then at the newest complete training state: weights,
average, optimizer, random generators, place in the data. Times and memory are not compared. The last line is
`identical`, or the first difference and its size. Exit code 0: identical. 1: different. 2: nothing to compare.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from cocoer.errors import CheckpointError
from cocoer.model.checkpoint import read_tensors
from cocoer.report.runlog import LOG_NAME, read_log
from cocoer.training.state import find_latest, read_training

NOT_COMPARED = ("persons_per_second", "memory_gib")
"""What a step's record says about the machine and not about the model."""


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code; the verdict is the last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="run folder")
    parser.add_argument("second", type=Path, help="run folder")
    args = parser.parse_args(argv)
    try:
        states = [newest_state(folder) for folder in (args.first, args.second)]
        steps = [logged_steps(folder) for folder in (args.first, args.second)]
    except (CheckpointError, OSError, ValueError) as err:
        print(f"compare_runs.py: {err}", file=sys.stderr)
        return 2
    print(f"{len(steps[0])} and {len(steps[1])} logged steps; newest states {states[0].name} and {states[1].name}")
    difference = next(step_differences(*steps), None) or next(state_differences(*states), None)
    print(difference or "identical")
    return 1 if difference else 0


def newest_state(folder: Path) -> Path:
    """The newest complete training state of a run. Raises CheckpointError where there is none."""
    found = find_latest(folder / "states")
    if found.folder is None:
        raise CheckpointError(f"{folder}: wanted a run folder with a complete training state in states/, found none")
    return found.folder


def logged_steps(folder: Path) -> dict[int, dict[str, Any]]:
    """Step number -> its record without what is not compared. The last record of a step counts."""
    records = [r for r in read_log(folder / LOG_NAME) if r["kind"] == "step"]
    return {r["step"]: {k: v for k, v in r.items() if k not in NOT_COMPARED} for r in records}


def step_differences(first: Mapping[int, dict[str, Any]], second: Mapping[int, dict[str, Any]]) -> Iterator[str]:
    """Every difference between the steps' records, first step first, the order of persons before the losses."""
    for step in sorted(first.keys() | second.keys()):
        if step not in first or step not in second:
            yield f"step {step}: logged by the {'first' if step in first else 'second'} run only"
            continue
        a, b = first[step], second[step]
        if a.get("order") != b.get("order"):
            yield f"step {step}: other persons, or in another order"
        yield from value_differences(a, b, f"step {step}")


def state_differences(first: Path, second: Path) -> Iterator[str]:
    """Every difference between two training states: weights, then everything else."""
    yield from value_differences(read_tensors(first), read_tensors(second), "weights")
    yield from value_differences(read_training(first), read_training(second), "state")


def value_differences(a: Any, b: Any, where: str) -> Iterator[str]:
    """Differences between two nested values of tensors, numbers and text, each as one line with its size."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{where}: {list(a.shape)} {a.dtype} against {list(b.shape)} {b.dtype}"
        elif not torch.equal(a, b):
            size = (a.double() - b.double()).abs().max().item()
            yield f"{where}: {int((a != b).sum())} of {a.numel()} entries differ, by at most {size:.3g}"
    elif isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(k for k in b if k not in a)]:
            if key not in a or key not in b:
                yield f"{where}, {key}: in the {'first' if key in a else 'second'} run only"
            else:
                yield from value_differences(a[key], b[key], f"{where}, {key}")
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            yield f"{where}: {len(a)} against {len(b)} entries"
        for i, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from value_differences(x, y, f"{where}, {i}")
    elif isinstance(a, float) and isinstance(b, float):
        if a != b and not (math.isnan(a) and math.isnan(b)):
            yield f"{where}: {a!r} against {b!r}, difference {abs(a - b):.3g}"
    elif a != b:
        yield f"{where}: {a!r} against {b!r}"


if __name__ == "__main__":
    sys.exit(main())
