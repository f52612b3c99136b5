"""What the rows of a benchmark run should show: each target, what was measured, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cocoer.benchmark.model import Row
from cocoer.benchmark.timing import straightness
from cocoer.benchmark.variants import DEFAULT

Rows = Sequence[Row]

MODES = ("paper", "release")


@dataclass(frozen=True)
class Verdict:
    """One target. wanted, found: numbers in `unit`; found is None where no row tells. at_least: else at most."""

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
    yield Verdict("memory at the last image / when settled", 1.02, _largest(rows, _grown_memory))
    yield Verdict("detection and recognition together / the slower", 1.15, _largest(rows, _together))
    for variant, base, wanted in (("ray, 1 actor", "local", 0.9), ("ray, 2 actors", "1 actor, a core each", 1.7)):
        found = _largest(rows, _of_archive(variant))
        yield Verdict(f"annotate, {variant}: images/s over {base}", wanted, found, at_least=True)
    for (variant, mode), points in series_of(rows).items():
        if len(points) > 1:
            exponent = straightness(*zip(*points, strict=True))
            # a straight line in logarithms; two hundredths for the noise of its points
            yield Verdict(f"{variant} ({mode}): cost grows as work to the power", 1.02, exponent)


def _of_cpu(rows: Rows) -> Iterator[Verdict]:
    for mode in MODES:
        for batch, wanted in ((1, 1.10), (8, 1.05)):
            yield Verdict(f"{mode}, batch {batch}: total / floor", wanted, _largest(rows, _default(mode, batch)))
        yield Verdict(f"{mode}, batch 8: workspace / total", 0.01, _largest(rows, _workspace_share(mode)))
        fastest = [row.eager_ratio for row in _model_rows(rows, mode, 8) if row.eager_ratio is not None]
        yield Verdict(f"{mode}, batch 8: fastest / plain float32 floor", 0.75, min(fastest, default=None))
        yield Verdict(f"{mode}: training step / its floor", 1.15, _largest(rows, _step(mode)))


def _of_gpu(rows: Rows) -> Iterator[Verdict]:
    for mode in MODES:
        many, one = _model_rows(rows, mode, 256), _model_rows(rows, mode, 1)
        rate = max((row.persons_per_s for row in many if row.persons_per_s is not None), default=None)
        yield Verdict(f"{mode}, batch 256: fastest", 1000, rate, "persons/s", at_least=True)
        quick = min((row.total_ms for row in one if row.total_ms is not None), default=None)
        yield Verdict(f"{mode}, batch 1: fastest", 6.0, quick, "ms")
        share = min((row.ratio for row in many if row.ratio is not None), default=None)
        yield Verdict(f"{mode}, batch 256: total / floor of the same type", 1.05, share)


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


def _model_rows(rows: Rows, mode: str, batch: int) -> list[Row]:
    return [row for row in rows if row.what == "model" and row.mode == mode and row.batch == batch]


def _largest(rows: Rows, value: Callable[[Row], float | None]) -> float | None:
    """Of all rows that have the value; several only where a file holds several runs."""
    return max((found for row in rows if (found := value(row)) is not None), default=None)


def _default(mode: str, batch: int) -> Callable[[Row], float | None]:
    """What a `Recognizer` runs by itself, against the floor."""
    return lambda row: row.ratio if (row.variant, row.mode, row.batch) == (DEFAULT, mode, batch) else None


def _workspace_share(mode: str) -> Callable[[Row], float | None]:
    def share(row: Row) -> float | None:
        if (row.variant, row.mode, row.batch) != (DEFAULT, mode, 8) or not row.workspace_ms or not row.total_ms:
            return None
        return row.workspace_ms / row.total_ms

    return share


def _step(mode: str) -> Callable[[Row], float | None]:
    return lambda row: (
        row.ratio if row.what == "train" and row.mode == mode and row.variant.startswith("whole step") else None
    )


def _grown_memory(row: Row) -> float | None:
    return row.ratio if row.what == "memory" else None


def _of_archive(variant: str) -> Callable[[Row], float | None]:
    return lambda row: row.ratio if row.what == "archive" and row.variant == variant else None


def _together(row: Row) -> float | None:
    return row.ratio if row.what == "overlap" else None
