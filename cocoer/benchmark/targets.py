"""What the rows of a benchmark run should show: each target, what was measured, and whether that is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cocoer.benchmark.model import Row
from cocoer.benchmark.timing import straightness
from cocoer.benchmark.variants import DEFAULT

Rows = Sequence[Row]

MODES = ("paper", "release")


@dataclass(frozen=True)
class Verdict:
    """One target. wanted, found: numbers in `unit`; found is None where no row has it. at_least: else at most."""

    what: str
    wanted: float
    found: float | None
    unit: str = ""
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.found is None:
            return None
        return self.found >= self.wanted if self.at_least else self.found <= self.wanted


def verdicts(rows: Rows) -> Iterator[Verdict]:
    """Every target of the machine that the rows come from; the GPU's only where there are rows of one."""
    if any(row.device.startswith("cuda") for row in rows):
        yield from _of_gpu(rows)
    else:
        yield from _of_cpu(rows)
    yield Verdict("memory at the last image / when settled", 1.02, _largest(rows, what="memory"))
    yield Verdict("detection and recognition together / the slower", 1.15, _largest(rows, what="overlap"))
    for variant, base, wanted in (("ray, 1 actor", "local", 0.9), ("ray, 2 actors", "1 actor, a core each", 1.7)):
        found = _largest(rows, what="archive", variant=variant)
        yield Verdict(f"annotate, {variant}: images/s over {base}", wanted, found, at_least=True)
    for (variant, mode), points in series_of(rows).items():
        if len(points) > 1:
            exponent = straightness(*zip(*points, strict=True))
            # a straight line in logarithms; two hundredths for the noise of its points
            yield Verdict(f"{variant} ({mode}): cost grows as work to the power", 1.02, exponent)


def _of_cpu(rows: Rows) -> Iterator[Verdict]:
    for mode in MODES:
        for batch, wanted in ((1, 1.10), (8, 1.05)):
            found = _largest(rows, variant=DEFAULT, mode=mode, batch=batch)  # what a `Recognizer` runs by itself
            yield Verdict(f"{mode}, batch {batch}: total / floor", wanted, found)
        own = _chosen(rows, variant=DEFAULT, mode=mode, batch=8)
        shares = [row.workspace_ms / row.total_ms for row in own if row.workspace_ms and row.total_ms]
        yield Verdict(f"{mode}, batch 8: workspace / total", 0.01, max(shares, default=None))
        fastest = min(_values(rows, "eager_ratio", what="model", mode=mode, batch=8), default=None)
        yield Verdict(f"{mode}, batch 8: fastest / plain float32 floor", 0.75, fastest)
        steps = [row for row in rows if row.variant.startswith("whole step")]
        yield Verdict(f"{mode}: training step / its floor", 1.15, _largest(steps, what="train", mode=mode))


def _of_gpu(rows: Rows) -> Iterator[Verdict]:
    for mode in MODES:
        many, one = ({"what": "model", "mode": mode, "batch": batch} for batch in (256, 1))
        rate = max(_values(rows, "persons_per_s", **many), default=None)
        yield Verdict(f"{mode}, batch 256: fastest", 1000, rate, "persons/s", at_least=True)
        quick = min(_values(rows, "total_ms", **one), default=None)
        yield Verdict(f"{mode}, batch 1: fastest", 6.0, quick, "ms")
        share = min(_values(rows, "ratio", **many), default=None)
        yield Verdict(f"{mode}, batch 256: total / floor of the same type", 1.05, share)


def _chosen(rows: Rows, **columns: object) -> list[Row]:
    """The rows with these values in these columns."""
    return [row for row in rows if all(getattr(row, name) == value for name, value in columns.items())]


def _values(rows: Rows, column: str, **columns: object) -> list[float]:
    """What a column holds in the rows that `_chosen` takes, where it holds anything."""
    return [value for row in _chosen(rows, **columns) if (value := getattr(row, column)) is not None]


def _largest(rows: Rows, **columns: object) -> float | None:
    """The largest ratio of the rows that `_chosen` takes: several only where a file holds several runs."""
    return max(_values(rows, "ratio", **columns), default=None)


def series_of(rows: Rows) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """The scaling rows as (work, ms) points, by series and mode."""
    series: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in rows:
        cost = row.total_ms if row.total_ms is not None else row.workspace_ms
        if row.what == "scaling" and cost is not None and row.work is not None:
            series.setdefault((row.variant, row.mode), []).append((row.work, cost))
    return series


def row_of(written: Mapping[str, Any]) -> Row:
    """A row as `Row.to_dict` wrote it. Raises ValueError where keys are missing or unknown."""
    known = {field.name for field in fields(Row)}
    if wrong := known ^ written.keys():
        raise ValueError(f"a row of the benchmark has the keys {', '.join(sorted(known))}; missing or unknown: {wrong}")
    return Row(**written)
