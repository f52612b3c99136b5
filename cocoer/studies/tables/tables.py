"""The paper's tables from measured runs: each row with its seeds, persons, definition, selection split, commit and command.

The paper's figures and what others published on the same data come from `cocoer.paper`. Rows whose weights are not there are
present all the same; no figure is made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from cocoer import ideas
from cocoer.evaluation.evaluate import LATE_FUSION
from cocoer.evaluation.metrics import DEFINITIONS
from cocoer.names import LEVELS
from cocoer.outputs import ResultTable, TableRow
from cocoer.paper import PUBLISHED, paper_table
from cocoer.studies.tables.baselines import single_level_table, two_stream_table, zero_shot_table
from cocoer.studies.tables.measurements import Measurement, check_weights
from cocoer.studies.tables.study import Study, at, gain, needs_training, row, untrained, variant_row
from cocoer.studies.tables.variants import STUDIES

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

FULL = "full model"
"""Name of the row that tables of variants of ours begin with."""

_MAIN = {"emotic": "1", "caers": "2"}
"""Data set -> the paper's table that compares methods on it."""

OWN_CHANGES = ("model.competition.pseudo_label=fused", "model.competition.vote=true")
"""What `own_table` changes in the same weights."""

_COUNT_DEFINITION = "share of persons"


def gather(study: Study) -> list[ResultTable]:
    """Every table, in the order of the page. Runs that are stored are read, the others are made and stored one by one.

    Raises as `measure`, `zero_shot` and `check_weights` do.
    """
    check_weights([*study.weights, *(file for v in study.variants for file in v.weights)], study.target)
    runs = study.runs()
    tables = [
        main_table(study, runs),
        definitions_table(study, runs),
        published_table(study, runs),
        per_class_table(study, runs),
    ]
    tables.append(label_table(study, runs) if study.target.multi_label else confusion_table(study, runs))
    tables += [source_table(study, runs), single_level_table(study, runs), two_stream_table(study, runs)]
    tables.append(zero_shot_table(study, runs))
    tables.append(exclusion_table(study, runs))
    if study.target.synthetic:
        tables.append(contradiction_table(study, runs))
    tables += coordination_tables(study, runs)
    tables += [*ablation_tables(study, runs), studies_table(study, runs), own_table(study, runs)]
    mark = "SYNTHETIC: " if study.target.synthetic else ""
    shown = [replace(table, title=mark + table.title) for table in tables if table.rows or table.grid]
    return [as_synthetic(table) for table in shown] if study.target.synthetic else shown


def as_synthetic(table: ResultTable) -> ResultTable:
    """The table without differences: a figure on drawn scenes is none on photographs."""
    rows = tuple(replace(row, comparable=False) for row in table.rows)
    both = any(row.paper is not None and row.ours is not None for row in rows)
    caption = f"{table.caption} The paper's figures are on photographs, ours on drawn scenes: no difference is given."
    return replace(table, rows=rows, caption=caption.strip() if both else table.caption)


def main_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """The paper's Table 1 (EMOTIC) or 2 (CAER-S) with the fused answer beside it; another data set's fused answer alone."""
    ours = partial(row, study, runs=runs, value=at("intervals", "pred"))
    caption = f"{study.metric} of the fused answer over {runs[0].numbers['persons']} persons of {study.target.split}."
    key = _MAIN.get(study.target.dataset)
    if key is None:
        return ResultTable("main", study.metric, caption, (ours("CocoER"),))
    printed = paper_table(key)
    rows = []
    for figure in printed.rows:
        facts: dict[str, Any] = {"paper": figure.value, "paper_deviation": figure.deviation}
        rows.append(ours(figure.row, **facts) if figure.row == "CocoER" else TableRow(figure.row, **facts))
    caption += f" The other methods' figures are quoted from the paper. {printed.note}"
    return ResultTable("main", f"{printed.name}: {study.metric}", caption, tuple(rows))


def definitions_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """The fused answer's mAP under every definition in use, and that of scores that are the class frequencies."""
    if not study.target.multi_label:
        return ResultTable("definitions", "", "", ())
    rows = [row(study, DEFINITIONS[0], runs, at("intervals", "pred"))]
    for definition in DEFINITIONS[1:]:
        rows.append(row(study, definition, runs, at("intervals", "pred", definition), definition=definition))
    rows.append(untrained(row(study, "scores that are the class frequencies", runs[:1], at("class_frequency_mAP"))))
    absent = runs[0].numbers["classes_without_positives"]
    caption = (
        "The same scores under every definition of average precision in use; the paper does not say which is its own."
    )
    caption += f" Without a positive person, so left out of the mean: {', '.join(absent)}." if absent else ""
    return ResultTable("definitions", "Definitions of mAP", caption, tuple(rows))


def published_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """What others published on the data set, beside ours where ours was measured on the real images."""
    real = not study.target.synthetic
    rows = []
    for name, figure, source in PUBLISHED.get(study.target.dataset, ()):
        if real:
            rows.append(row(study, name, runs, at("intervals", "pred"), paper=figure, source=source))
        else:
            rows.append(
                TableRow(name, paper=figure, source=source, note="real data; synthetic scenes have no place beside it")
            )
    caption = "Figures of other people's runs, quoted from those named; ours is the fused answer above."
    caption += "" if real else " Ours is not listed, because it was not measured on those images."
    return ResultTable("published", "Published baselines on the real data set", caption, tuple(rows))


def per_class_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """AP (EMOTIC) or recall (CAER-S) of every class."""
    what, key = ("AP", "ap") if study.target.multi_label else ("recall", "recall")
    definition = DEFINITIONS[0] if study.target.multi_label else "recall"
    positives = runs[0].targets.sum(0).astype(int)
    rows = []
    for name, count in zip(study.target.classes, positives, strict=True):
        if not count:
            rows.append(TableRow(f"{name} (0)", note="no positive person, so no value"))
            continue
        value = at(key, name)
        rows.append(row(study, f"{name} ({count})", runs, value, definition=definition))
    caption = f"{what} of the fused answer; in brackets the persons who have the label."
    return ResultTable("per_class", f"{what} per class", caption, tuple(rows), plotted=True)


def exclusion_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """The paper's Table 5: which level leaves first."""
    if any("exclusion" not in run.numbers for run in runs):
        nobody = TableRow("first excluded level", note="these weights have no competition")
        return ResultTable("exclusion", "Table 5: first excluded level", "", (nobody,))
    printed = paper_table("5")
    by_name = {figure.row: figure.value for figure in printed.rows}
    rows = [
        row(
            study, level, runs, at("exclusion", "first", level),
            definition=_COUNT_DEFINITION, paper=by_name.get(f"{level}, {study.target.entry.title}"),
        )
        for level in reversed(LEVELS)
    ]  # fmt: skip
    caption = "Percent of the persons of whom this level left the competition first."
    empty = {run.numbers["without_pseudo_label"] for run in runs} - {0}
    if empty:
        caption += (
            f" Left out: {', '.join(map(str, sorted(empty)))} persons with an empty pseudo label and no exclusion."
        )
    title = f"{printed.name}: first excluded level"
    return ResultTable("exclusion", title, caption, tuple(rows), plotted=True, reference=("a third", 100 / 3))


def contradiction_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Synthetic scenes know which level contradicts: is it the one that leaves first, and who is right there?"""
    found = [run.numbers["contradiction"] for run in runs]
    if not all(found):
        return ResultTable("contradiction", "", "", ())
    persons = found[0]["persons"]
    share = partial(row, study, runs=runs, definition=_COUNT_DEFINITION)
    rows = [share("first excluded = contradicting level", value=at("contradiction", "first_excluded"), persons=persons)]
    for level, by in found[0]["per_level"].items():
        value = at("contradiction", "per_level", level)
        rows.append(share(f"- where the {level} contradicts", value=value, persons=by["persons"]))
    for source in (name for name in SOURCE_NAMES if name in runs[0].numbers["on_contradicted"]):
        name = f"{study.metric} on these persons: {SOURCE_NAMES[source]}"
        rows.append(row(study, name, runs, at("on_contradicted", source), persons=persons))
    caption = (
        f"Only the {persons} persons with one level that contradicts the label. Chance for the first rows is 33.33."
    )
    return ResultTable("contradiction", "Does the contradicting level leave first?", caption, tuple(rows))


def coordination_tables(study: Study, runs: Sequence[Measurement]) -> list[ResultTable]:
    """The paper's Fig. 2: no update, type one and type two, same weights and trained so; the paired gain."""
    by_update = {update: study.runs(overrides) for update, overrides in update_overrides(stored_update(runs)).items()}
    rows = [
        row(study, f"same weights: {update_names()[u]}", found, at("intervals", "pred"))
        for u, found in by_update.items()
    ]
    trained = [v for v in study.variants if v.paper is not None and v.paper.table == "Fig. 2"]
    rows += [replace(r, name=f"trained so: {r.name}") for r in (variant_row(study, v, runs) for v in trained)]
    caption = f"{study.metric} of the fused answer. First rows: the same weights, with only the update changed."
    figure = ResultTable(
        "fig2", "Fig. 2: kinds of update", f"{caption} {paper_table('Fig. 2').note if trained else ''}".strip(), tuple(rows),
        plotted=True, missing=needs_training(rows, trained),
    )  # fmt: skip
    gains = tuple(gain(study, update_names()[u], by_update[u], by_update["none"]) for u in by_update if u != "none")
    text = "Points of the metric, the same weights and persons; the interval is paired (both with the same draws of persons)."
    return [figure, ResultTable("fig2_gain", "Gain of the update over no update", text, gains)]


def update_names() -> dict[str, str]:
    """The paper's updates and the workspace rules of plugins, as rows name them."""
    return UPDATES | {name: f"plugin rule {name}" for name in ideas.added("workspace")}


def stored_update(runs: Sequence[Measurement]) -> str | None:
    """`model.coordination.update` of all weights, or None where they differ."""
    found = {run.numbers["weights"]["coordination"] for run in runs}
    return found.pop() if len(found) == 1 else None


def update_overrides(stored: str | None) -> dict[str, list[str]]:
    """Update -> overrides that measure weights under it; weights that hold it already need none."""
    return {u: [] if u == stored else [f"model.coordination.update={u}"] for u in update_names()}


def measured_overrides(stored: str | None, judged: bool, own: bool) -> list[list[str]]:
    """Every set of overrides under which `gather` measures the given weights, the empty one first.

    stored: see `stored_update`. judged: whether something competes in them. own: whether `own_table` is made.
    """
    out = [[], *update_overrides(stored).values()]
    if judged and own:
        out += [[setting] for setting in OWN_CHANGES]
    return [overrides for i, overrides in enumerate(out) if overrides not in out[:i]]


def source_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Single levels, late fusion and the V-I branch of the same weights on the same persons."""
    present = [source for source in SOURCE_NAMES if all(source in run.numbers["intervals"] for run in runs)]
    rows = [row(study, SOURCE_NAMES[source], runs, at("intervals", source)) for source in present]
    caption = (
        "Each level's own head, and the mean of the three, out of the same forward pass; they were trained together."
    )
    return ResultTable("sources", "Single levels and late fusion, one model", caption, tuple(rows), plotted=True)


def label_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Yes or no instead of scores: F1 and Jaccard at the weights' own thresholds, and how far scores are from shares."""
    if any("labels" not in run.numbers for run in runs):
        return ResultTable("labels", "", "", ())
    where = ", ".join(sorted({run.numbers["labels"]["thresholds"] for run in runs}))
    rows = [
        row(study, "F1, mean over the classes", runs, at("labels", "f1_macro"), definition=f"F1; {where}"),
        row(study, "Jaccard, mean over the persons", runs, at("labels", "jaccard"), definition=f"Jaccard; {where}"),
        row(
            study, "expected calibration error", runs, at("calibration_error"),
            definition="15 bins over all persons and classes; lower is better",
        ),
    ]  # fmt: skip
    return ResultTable("labels", "Labels and calibration", "Of the fused answer, per-class thresholds.", tuple(rows))


def confusion_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Single-label: which class is taken for which, in percent of the true class's persons, mean over the seeds."""
    classes = study.target.classes
    counts = [run.numbers["confusion"] for run in runs]
    grid = [("true, then predicted", *classes)]
    for i, name in enumerate(classes):
        persons = sum(counts[0][i])
        shares = [
            sum(100 * c[i][j] / persons for c in counts) / len(counts) if persons else None for j in range(len(classes))
        ]
        grid.append((f"{name} ({persons})", *("-" if v is None else f"{v:.1f}" for v in shares)))
    error = row(
        study, "expected calibration error", runs, at("calibration_error"),
        definition="15 bins over the top class; lower is better",
    )  # fmt: skip
    caption = (
        "Percent of the persons of the true class (in brackets how many they are), fused answer; rows are true classes."
    )
    return ResultTable("confusion", "Confusion matrix and calibration", caption, (error,), grid=tuple(grid))


def ablation_tables(study: Study, runs: Sequence[Measurement]) -> list[ResultTable]:
    """The paper's Tables 3 and 4a to 4e, and Fig. 3: each row the config that stands for it, measured or not."""
    out = []
    for key in ("3", "4a", "4b", "4c", "4d", "4e", "Fig. 3"):
        printed = paper_table(key)
        by_row = {v.paper.row: v for v in study.variants if v.paper is not None and v.paper.table == key}
        chosen = [by_row[figure.row] for figure in printed.rows if figure.row in by_row]
        rows = tuple(variant_row(study, v, runs) for v in chosen)
        name = f"tab{key}" if key[0].isdigit() else "fig3"
        caption = f"{study.metric} of the fused answer; each row is trained with its own config. {printed.note}".strip()
        missing = needs_training(rows, chosen)
        out.append(ResultTable(name, f"{printed.name}: {printed.title}", caption, rows, missing=missing))
    return out


def studies_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Configs of ours that are in no table of the paper."""
    chosen = [v for v in study.variants if v.kind == STUDIES]
    if not chosen:
        return ResultTable("studies", "", "", ())
    rows = (row(study, FULL, runs, at("intervals", "pred")), *(variant_row(study, v, runs) for v in chosen))
    caption = "Each row is one config away from the full model. In no table of the paper."
    missing = needs_training(rows, chosen)
    return ResultTable("studies", "Further studies, trained", caption, rows, missing=missing)


def own_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Our own changes: the fused answer judges the levels, the survivors vote; on the same weights, and trained so."""
    trained = [b for b in study.baselines if b.family in ("fused", "survivors")]
    if "exclusion" not in runs[0].numbers or not trained:
        return ResultTable("own", "", "", ())
    judged, voted = (study.runs([setting]) for setting in OWN_CHANGES)
    rows = [
        row(study, "as in the paper", runs, at("intervals", "pred")),
        row(study, "the fused answer judges, same weights", judged, at("intervals", "pred")),
        row(study, "the survivors vote, same weights", voted, at("intervals", "pred")),
        gain(study, "gain of the survivors' vote", voted, runs),
        *(variant_row(study, b) for b in trained),
    ]
    if all(run.numbers["contradiction"] for run in (*runs, *judged)):
        value = at("contradiction", "first_excluded")
        persons = runs[0].numbers["contradiction"]["persons"]
        share = partial(row, study, value=value, definition=_COUNT_DEFINITION, persons=persons)
        rows.append(share("first excluded = contradicting level, V-I judges", runs=runs))
        rows.append(share("first excluded = contradicting level, the fused answer judges", runs=judged))
    caption = (
        "Not in the paper. model.competition.pseudo_label: fused lets a first fused answer judge the levels; with"
        " model.competition.vote the two levels that did not leave first have half of the answer (docs/conflict.md)."
    )
    return ResultTable("own", "Our own changes to the competition", caption, tuple(rows))
