"""The paper's tables from measured runs: each row with its seeds, persons, definition, selection split, commit and command.

Rows whose weights or published figures are not there are present and say so; no figure is made up. The tables of the CVPR
paper itself are not at hand, so its column is empty but for what others published on the same data (`PUBLISHED`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from cocoer.evaluation.evaluate import LATE_FUSION
from cocoer.evaluation.metrics import DEFINITIONS
from cocoer.names import LEVELS
from cocoer.outputs import ResultTable, TableRow
from cocoer.studies.tables.baselines import single_level_table, zero_shot_table
from cocoer.studies.tables.measurements import Measurement, check_weights
from cocoer.studies.tables.study import Study, at, gain, row, untrained, variant_row
from cocoer.studies.tables.variants import TABLE_4, Variant

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
        ("CAER-Net-S, community code", 76.81, "ndkhanh360/CAER; a test list of 13,942 images"),
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


def gather(study: Study) -> list[ResultTable]:
    """Every table, in the order of the page. Runs that are stored are read, the others are made and stored one by one.

    Raises as `measure`, `zero_shot` and `check_weights` do.
    """
    check_weights([*study.weights, *(file for v in study.variants for file in v.weights)], study.target)
    runs = study.runs()
    tables = [main_table(study, runs), published_table(study, runs), per_class_table(study, runs)]
    tables.append(label_table(study, runs) if study.target.multi_label else confusion_table(study, runs))
    tables += [source_table(study, runs), single_level_table(study, runs), zero_shot_table(study, runs)]
    tables.append(exclusion_table(study, runs))
    if study.target.synthetic:
        tables.append(contradiction_table(study, runs))
    tables += coordination_tables(study, [a for a in study.variants if a.place == "Fig. 2"])
    tables += [*ablation_tables(study, runs), own_table(study, runs)]
    mark = "SYNTHETIC: " if study.target.synthetic else ""
    return [replace(table, title=mark + table.title) for table in tables if table.rows or table.grid]


def main_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """The paper's Table 1 (EMOTIC) or 2 (CAER-S), or another data set's: the fused answer, under every definition in use."""
    rows = [row(study, SOURCE_NAMES["pred"], runs, at("sources", "pred"))]
    if study.target.multi_label:
        for definition in DEFINITIONS[1:]:
            rows.append(
                row(
                    study, f"the same scores, {definition}", runs, at("sources", "pred", definition),
                    definition=definition,
                )
            )  # fmt: skip
        rows.append(row(study, "scores that are the class frequencies", runs[:1], at("class_frequency")))
        rows[-1] = untrained(rows[-1])
    absent = runs[0].numbers["summary"]["classes_without_positives"]
    caption = f"{study.metric} of the fused answer over {runs[0].numbers['persons']} persons of {study.target.split}."
    published = study.target.dataset in PUBLISHED
    caption += " The figure that the CocoER paper reports is not at hand." if published else ""
    caption += f" Without a positive person, so left out of the mean: {', '.join(absent)}." if absent else ""
    number = {"emotic": "Table 1: ", "caers": "Table 2: "}.get(study.target.dataset, "")
    return ResultTable("main", f"{number}{study.metric}", caption, tuple(rows))


def published_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """What others published on the data set, beside ours where ours was measured on the real images."""
    real = not study.target.synthetic
    rows = []
    for name, figure, source in PUBLISHED.get(study.target.dataset, ()):
        if real:
            rows.append(row(study, name, runs, at("sources", "pred"), paper=figure, source=source))
        else:
            rows.append(
                TableRow(name, paper=figure, source=source, note="real data; synthetic scenes have no place beside it")
            )
    caption = "Figures of other people's runs, quoted from those named; ours is the fused answer above."
    caption += "" if real else " Nothing of ours stands beside them, because ours was not measured on those images."
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
        value = at("summary", key, name)
        rows.append(row(study, f"{name} ({count})", runs, value, definition=definition))
    caption = f"{what} of the fused answer; in brackets the persons who have the label."
    return ResultTable("per_class", f"{what} per class", caption, tuple(rows), plotted=True)


def exclusion_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """The paper's Table 5: which level leaves first."""
    if any("exclusion" not in run.numbers["summary"] for run in runs):
        nobody = TableRow("first excluded level", note="nothing competes in these weights")
        return ResultTable("exclusion", "Table 5: first excluded level", "", (nobody,))
    rows = [
        row(
            study, level, runs, at("summary", "exclusion", "first", level),
            definition=_COUNT_DEFINITION,
        )
        for level in LEVELS
    ]  # fmt: skip
    caption = "Share of persons of whom this level left the competition first. The paper's shares are not at hand."
    title = "Table 5: first excluded level"
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


def coordination_tables(study: Study, trained: Sequence[Variant]) -> list[ResultTable]:
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
    rows = [row(study, f"{UPDATES[update]}", runs, at("sources", "pred")) for update, runs in by_update.items()]
    rows += [variant_row(study, a) for a in trained]
    caption = f"{study.metric} of the fused answer. First rows: the same weights, with only the update changed."
    figure = ResultTable("fig2", "Fig. 2: coordination", caption, tuple(rows), plotted=True)
    gains = tuple(gain(study, UPDATES[u], by_update[u], by_update["none"]) for u in by_update if u != "none")
    text = "Points of the metric, the same weights and persons; the interval is paired (both with the same draws of persons)."
    return [figure, ResultTable("fig2_gain", "Gain of the update over no update", text, gains)]


def source_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Single levels, late fusion and the V-I branch of the same weights on the same persons."""
    present = [source for source in SOURCE_NAMES if all(source in run.numbers["sources"] for run in runs)]
    rows = [row(study, SOURCE_NAMES[source], runs, at("sources", source)) for source in present]
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
            study, "expected calibration error", runs, at("summary", "calibration_error"),
            definition="15 bins over all persons and classes; lower is better",
        ),
    ]  # fmt: skip
    return ResultTable("labels", "Labels and calibration", "Of the fused answer, per-class thresholds.", tuple(rows))


def confusion_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Single-label: which class is taken for which, in percent of the true class's persons, mean over the seeds."""
    classes = study.target.classes
    counts = [run.numbers["summary"]["confusion"] for run in runs]
    grid = [("true, then predicted", *classes)]
    for i, name in enumerate(classes):
        persons = sum(counts[0][i])
        shares = [
            sum(100 * c[i][j] / persons for c in counts) / len(counts) if persons else None for j in range(len(classes))
        ]
        grid.append((f"{name} ({persons})", *("-" if v is None else f"{v:.1f}" for v in shares)))
    error = row(
        study, "expected calibration error", runs, at("summary", "calibration_error"),
        definition="15 bins over the top class; lower is better",
    )  # fmt: skip
    caption = (
        "Percent of the persons of the true class (in brackets how many they are), fused answer; rows are true classes."
    )
    return ResultTable("confusion", "Confusion matrix and calibration", caption, (error,), grid=tuple(grid))


def ablation_tables(study: Study, runs: Sequence[Measurement]) -> list[ResultTable]:
    """The paper's Table 3, Table 4 in its five subjects, and Fig. 3: the full model, then each config, measured or not."""
    by_place = {place: [a for a in study.variants if a.place == place] for place in ("Tab. 3", "Tab. 4", "Fig. 3")}
    parts = [("tab3", "Table 3: backbones and CLIP towers, trained", by_place["Tab. 3"], "")]
    for subject, families in TABLE_4.items():
        chosen = [a for a in by_place["Tab. 4"] if a.family in families]
        more = " The paper's Table 4 has parts a to e; which letter is this one is not at hand."
        parts.append((f"tab4_{families[0]}", f"Table 4: {subject}, trained", chosen, more))
    parts.append(("fig3", "Fig. 3: mappings, trained", by_place["Fig. 3"], ""))
    full = row(study, "full model", runs, at("sources", "pred"))
    caption = "Each row is one config away from the full model and needs weights trained so. The paper's figures are not at hand."
    return [
        ResultTable(key, title, caption + more, (full, *(variant_row(study, a) for a in chosen)))
        for key, title, chosen, more in parts
        if chosen
    ]


def own_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Our own changes: the fused answer judges the levels, the survivors vote; on the same weights, and trained so."""
    trained = [b for b in study.baselines if b.family in ("fused", "survivors")]
    if "exclusion" not in runs[0].numbers["summary"] or not trained:
        return ResultTable("own", "", "", ())
    judged = study.runs(["model.competition.pseudo_label=fused"])
    voted = study.runs(["model.competition.vote=true"])
    rows = [
        row(study, "as in the paper", runs, at("sources", "pred")),
        row(study, "the fused answer judges, same weights", judged, at("sources", "pred")),
        row(study, "the survivors vote, same weights", voted, at("sources", "pred")),
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
