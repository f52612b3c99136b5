"""The paper's tables from measured runs: each row with its seeds, persons, definition, selection split, commit and command.

Rows whose weights or published figures are not there are present and say so; no figure is made up. The tables of the CVPR
paper itself are not at hand, so its column is empty but for what others published on the same data (`PUBLISHED`).
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cocoer.engine import summary as s
from cocoer.engine.ablations import Ablation
from cocoer.engine.evaluate import LATE_FUSION
from cocoer.engine.metrics import DEFINITIONS
from cocoer.engine.runtime import Runtime
from cocoer.engine.table_runs import CLIP_VIEW, CLIP_WHOLE, Kind, Run, Target, check_weights, measure
from cocoer.names import LEVELS
from cocoer.outputs import ResultTable, TableRow

PUBLISHED: dict[str, tuple[tuple[str, float, str], ...]] = {
    "emotic": (
        ("EMOTIC baseline, as published", 27.38, "the EMOTIC paper (arXiv 2003.13401); AP definition as its authors'"),
        ("EMOTIC baseline, re-implemented, best", 26.02, "Tandon-A/emotic"),
        ("EMOTIC baseline, re-implemented, its notebook's test figure", 25.27, "Tandon-A/emotic, notebook"),
        ("EMOTIC baseline, re-implemented, as users got it", 20.6, "Tandon-A/emotic, issues"),
        ("EMOTIC authors' model, scored with scikit-learn", 18.81, "rkosti/emotic, issues"),
    ),
    "caers": (
        ("CAER-Net-S, as published", 73.51, "the CAER-Net paper (ICCV 2019)"),
        ("CAER-Net-S, community code", 76.81, "ndkhanh360/CAER; a test list of 13,942 pictures"),
        ("CAER-Net-S, duplicate-free validation list", 77.0, "community figure, +- 1.3; validation, not test"),
    ),
}
"""Data set -> (row, percent, who published it): what others reported, as collected for the data formats of this project."""

SOURCE_NAMES = {
    "pred": "CocoER, fused answer",
    "head": "head only",
    "body": "body only",
    "ctx": "context only",
    LATE_FUSION: "late fusion (mean of the three levels)",
    "VI": "vocabulary-informed branch only (V-I)",
}

UPDATES = {
    "none": "no level updated",
    "one": "every level updated (type one)",
    "two": "excluded levels only (type two)",
}

_COUNT_DEFINITION = "share of persons"


@dataclass(frozen=True)
class Study:
    """Weights on persons: what every table needs. command: the whole table's own command line."""

    target: Target
    weights: tuple[Path, ...]
    store: Path
    runtime: Runtime
    command: str
    batch_size: int = 64
    resamples: int = 500
    progress: bool = False

    def runs(
        self, overrides: Sequence[str] = (), kind: Kind = "model", weights: Sequence[Path] | None = None
    ) -> list[Run]:
        """One run per set of weights, measured or read."""
        return [
            measure(
                file, self.target, overrides, self.store, self.runtime,
                kind=kind, batch_size=self.batch_size, resamples=self.resamples, progress=self.progress,
            )
            for file in (self.weights if weights is None else weights)
        ]  # fmt: skip

    @property
    def metric(self) -> str:
        """What the headline is."""
        return "mAP" if self.target.multi_label else "accuracy"

    @property
    def definition(self) -> str:
        """The headline's definition."""
        return DEFINITIONS[0] if self.target.multi_label else "top-1 accuracy"


def _at(*path: str) -> Callable[[Run], Any]:
    """What reads one number, or one interval, of a run."""

    def read(run: Run) -> Any:
        value: Any = run.numbers
        for key in path:
            value = value[key]
        return value

    return read


def _row(study: Study, name: str, runs: Sequence[Run], value: Callable[[Run], Any], **more: Any) -> TableRow:
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


def _command(study: Study, runs: Sequence[Run]) -> str:
    """What measures this row again: one evaluation; for several seeds, a limit or CLIP the table's own command."""
    numbers, target = runs[0].numbers, study.target
    if len(runs) > 1 or target.limit is not None or "summary" not in numbers:
        return study.command
    words = ["python", "scripts/evaluate.py", "--checkpoint", numbers["weights"]["file"], "--root", str(target.root)]
    words += ["--index", str(target.index), "--split", target.split]
    words += ["--set", *numbers["overrides"]] if numbers["overrides"] else []
    return shlex.join(words)


def gather(study: Study, ablations: Sequence[Ablation]) -> list[ResultTable]:
    """Every table, in the order of the page. Runs that are stored are read, the others are made and stored one by one.

    Raises as `measure` and `check_weights` do.
    """
    check_weights([*study.weights, *(file for a in ablations for file in a.weights)], study.target)
    runs = study.runs()
    tables = [main_table(study, runs), published_table(study, runs), per_class_table(study, runs)]
    tables += [source_table(study, runs), zero_shot_table(study, runs), exclusion_table(study, runs)]
    if study.target.synthetic:
        tables.append(contradiction_table(study, runs))
    tables += coordination_tables(study, [a for a in ablations if a.place == "Fig. 2"])
    for place in ("Tab. 3", "Tab. 4", "Fig. 3"):
        tables.append(ablation_table(study, place, [a for a in ablations if a.place == place], runs))
    mark = "SYNTHETIC: " if study.target.synthetic else ""
    return [replace(table, title=mark + table.title) for table in tables if table.rows]


def main_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """The paper's Table 1 (EMOTIC) or 2 (CAER-S): the fused answer, under every definition in use."""
    rows = [_row(study, SOURCE_NAMES["pred"], runs, _at("sources", "pred"))]
    if study.target.multi_label:
        for definition in DEFINITIONS[1:]:
            rows.append(
                _row(
                    study, f"the same scores, {definition}", runs, _at("sources", "pred", definition),
                    definition=definition,
                )
            )  # fmt: skip
        rows.append(_row(study, "scores that are the class frequencies", runs[:1], _at("class_frequency")))
        rows[-1] = _untrained(rows[-1])
    absent = runs[0].numbers["summary"]["classes_without_positives"]
    caption = f"{study.metric} of the fused answer over {runs[0].numbers['persons']} persons of {study.target.split}."
    caption += " The figure that the CocoER paper reports is not at hand."
    caption += f" Without a positive person, so left out of the mean: {', '.join(absent)}." if absent else ""
    number = "1" if study.target.multi_label else "2"
    return ResultTable("main", f"Table {number}: {study.metric}", caption, tuple(rows))


def _untrained(row: TableRow) -> TableRow:
    """The row of something that nobody selected."""
    return replace(row, selection="nothing trained", seeds=0)


def published_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """What others published on the data set, beside ours where ours was measured on the real pictures."""
    real = not study.target.synthetic
    rows = []
    for name, figure, source in PUBLISHED[study.target.dataset]:
        if real:
            rows.append(_row(study, name, runs, _at("sources", "pred"), paper=figure, source=source))
        else:
            rows.append(
                TableRow(name, paper=figure, source=source, note="real data; synthetic scenes have no place beside it")
            )
    caption = "Figures of other people's runs, quoted from those named. `ours` is the fused answer above."
    caption += "" if real else " Nothing of ours stands beside them, because ours was not measured on those pictures."
    return ResultTable("published", "Published baselines on the real data set", caption, tuple(rows))


def per_class_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """AP (EMOTIC) or recall (CAER-S) of every class."""
    what, key = ("AP", "ap") if study.target.multi_label else ("recall", "recall")
    definition = DEFINITIONS[0] if study.target.multi_label else "recall"
    positives = runs[0].targets.sum(0).astype(int)
    rows = []
    for name, count in zip(study.target.classes, positives, strict=True):
        if not count:
            rows.append(TableRow(f"{name} (0)", note="no positive person, so no value"))
            continue
        value = _at("summary", key, name)
        rows.append(_row(study, f"{name} ({count})", runs, value, definition=definition))
    caption = f"{what} of the fused answer; in brackets the persons who have the label."
    return ResultTable("per_class", f"{what} per class", caption, tuple(rows), plotted=True)


def source_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """Single levels, late fusion and the V-I branch of the same weights on the same persons."""
    present = [source for source in SOURCE_NAMES if all(source in run.numbers["sources"] for run in runs)]
    rows = [_row(study, SOURCE_NAMES[source], runs, _at("sources", source)) for source in present]
    caption = (
        "Each level's own head, and the mean of the three, out of the same forward pass; they were trained together."
    )
    return ResultTable("sources", "Single levels and late fusion", caption, tuple(rows), plotted=True)


def zero_shot_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """CLIP alone: cosine of the picture with the prompt of each emotion, in the V-I tower of the first weights."""
    if "VI" not in runs[0].numbers["sources"]:
        row = TableRow("zero-shot CLIP", note="these weights have no V-I branch, so no CLIP tower")
        return ResultTable("zero_shot", "Zero-shot CLIP", "", (row,))
    clip = study.runs(kind="clip", weights=study.weights[:1])
    numbers = clip[0].numbers["weights"]
    rows = [_untrained(_row(study, "zero-shot CLIP, whole picture", clip, _at("sources", CLIP_WHOLE)))]
    if numbers["view"] != "context":
        name = f"zero-shot CLIP, as the V-I branch looks ({numbers['view']})"
        rows.append(_untrained(_row(study, name, clip, _at("sources", CLIP_VIEW))))
    rows.append(_row(study, SOURCE_NAMES["pred"], runs, _at("sources", "pred")))
    tower = Path(numbers["tower"]).name
    caption = f"Tower {tower}, prompt '{numbers['prompt']}'; the score is the cosine, nothing is learned on top."
    return ResultTable("zero_shot", "Zero-shot CLIP", caption, tuple(rows), plotted=True)


def exclusion_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """The paper's Table 5: which level leaves first."""
    if any("exclusion" not in run.numbers["summary"] for run in runs):
        row = TableRow("first excluded level", note="nothing competes in these weights")
        return ResultTable("exclusion", "Table 5: first excluded level", "", (row,))
    rows = [
        _row(
            study, level, runs, _at("summary", "exclusion", "first", level),
            definition=_COUNT_DEFINITION,
        )
        for level in LEVELS
    ]  # fmt: skip
    caption = "Share of persons of whom this level left the competition first. The paper's shares are not at hand."
    title = "Table 5: first excluded level"
    return ResultTable("exclusion", title, caption, tuple(rows), plotted=True, reference=("a third", 100 / 3))


def contradiction_table(study: Study, runs: Sequence[Run]) -> ResultTable:
    """Synthetic scenes know which level contradicts: is it the one that leaves first, and who is right there?"""
    found = [run.numbers["contradiction"] for run in runs]
    if not all(found):
        return ResultTable("contradiction", "", "", ())
    persons = found[0]["persons"]
    share = partial(_row, study, runs=runs, definition=_COUNT_DEFINITION)
    rows = [
        share("first excluded = contradicting level", value=_at("contradiction", "first_excluded"), persons=persons)
    ]
    for level, by in found[0]["per_level"].items():
        value = _at("contradiction", "per_level", level)
        rows.append(share(f"- where the {level} contradicts", value=value, persons=by["persons"]))
    for source in (name for name in SOURCE_NAMES if name in runs[0].numbers["on_contradicted"]):
        name = f"{study.metric} on these persons: {SOURCE_NAMES[source]}"
        rows.append(_row(study, name, runs, _at("on_contradicted", source), persons=persons))
    caption = (
        f"Only the {persons} persons with one level that contradicts the label. Chance for the first rows is 33.33."
    )
    return ResultTable("contradiction", "Does the contradicting level leave first?", caption, tuple(rows))


def coordination_tables(study: Study, trained: Sequence[Ablation]) -> list[ResultTable]:
    """The paper's Fig. 2: no update, type one and type two on the same weights, with the paired gain over no update.

    trained: ablations that were also trained so.
    """
    stored = {run.numbers["weights"]["update"] for run in study.runs()}
    by_update = {
        # weights that hold this setting already were measured without an override
        update: study.runs([] if stored == {update} else [f"model.coordination.update={update}"])
        for update in UPDATES
        if update != "release" or stored == {"release"}
    }
    rows = [_row(study, f"{UPDATES[update]}", runs, _at("sources", "pred")) for update, runs in by_update.items()]
    rows += [_ablation_row(study, a) for a in trained]
    caption = f"{study.metric} of the fused answer. First rows: the same weights, with only the update changed."
    figure = ResultTable("fig2", "Fig. 2: coordination", caption, tuple(rows), plotted=True)
    gains = tuple(_gain(study, UPDATES[u], by_update[u], by_update["none"]) for u in by_update if u != "none")
    text = "Points of the metric, the same weights and persons; the interval is paired (both with the same draws of persons)."
    return [figure, ResultTable("fig2_gain", "Gain of the update over no update", text, gains)]


def _gain(study: Study, name: str, runs: Sequence[Run], base: Sequence[Run]) -> TableRow:
    """Headline of `runs` minus that of `base`, run by run."""
    gains = {
        id(run): s.paired_difference(
            run.targets, run.scores["pred"], other.scores["pred"], study.target.multi_label, study.resamples
        ).to_dict()
        for run, other in zip(runs, base, strict=True)
    }
    return _row(study, name, runs, lambda run: gains[id(run)], definition=f"difference of {study.definition}")


def _ablation_row(study: Study, ablation: Ablation) -> TableRow:
    """The ablation's figure where it was trained, else where its weights would have to lie."""
    train = f"python train.py --config {ablation.config.as_posix()}"
    if not ablation.weights:
        note = f"not measured: no weights at {ablation.wanted.as_posix()}"
        return TableRow(f"trained: {ablation.what}", command=train, note=note)
    runs = study.runs(weights=ablation.weights)
    return _row(study, f"trained: {ablation.what}", runs, _at("sources", "pred"))


def ablation_table(study: Study, place: str, ablations: Sequence[Ablation], runs: Sequence[Run]) -> ResultTable:
    """One of the paper's ablation tables: the full model, then each config, measured or not."""
    rows = [_ablation_row(study, a) for a in ablations]
    if rows:
        rows.insert(0, _row(study, "full model", runs, _at("sources", "pred")))
    caption = "Each row is one config away from the full model and needs weights trained so. The paper's figures are not at hand."
    title = place.replace("Tab.", "Table") + ": ablations, trained"
    return ResultTable(place.lower().replace(". ", ""), title, caption, tuple(rows))
