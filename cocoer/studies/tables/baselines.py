"""Baselines on the same persons with the same metrics: one level trained alone, their late fusion, CLIP without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cocoer.model.clip_tower import TEMPLATES
from cocoer.model.zero_shot import Tower
from cocoer.names import LEVELS
from cocoer.outputs import ResultTable, TableRow
from cocoer.studies.tables.measurements import CLIP_VIEW, CLIP_WHOLE, Measurement, averaged
from cocoer.studies.tables.study import Study, at, row, untrained, variant_row
from cocoer.studies.tables.zero_shot import source, zero_shot
from cocoer.weights import places

_VIEWS = {"image": "whole image", "body": "body"}


def single_level_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Head, body and context alone, each trained without the others; and the mean of their answers."""
    by_level = {b.family: b for b in study.baselines if b.family in LEVELS}
    if not by_level:
        return ResultTable("single_level", "", "", ())
    rows = [variant_row(study, by_level[level]) for level in LEVELS if level in by_level]
    name = "late fusion of the three (mean of their answers)"
    if len(by_level) == len(LEVELS) and all(b.weights for b in by_level.values()):
        measured = [study.runs(weights=by_level[level].weights) for level in LEVELS]
        together = [averaged(same_seed, study.target, study.resamples) for same_seed in zip(*measured, strict=False)]
        rows.append(row(study, name, together, at("intervals", "pred"), command=study.command))
    else:
        rows.append(TableRow(name, command=study.command, note="not measured: needs all three"))
    rows.append(row(study, "CocoER, fused answer", runs, at("intervals", "pred")))
    caption = "Backbone, tokens and head of one level, trained on the same data, loss and schedule (configs/baselines)."
    return ResultTable("single_level", "Single levels, trained alone", caption, tuple(rows), plotted=True)


def two_stream_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """Body and scene as two networks without levels, as EMOTIC's own baseline; nothing where no config of it is known."""
    rows = [variant_row(study, b) for b in study.baselines if b.family == "two"]
    if not rows:
        return ResultTable("two_stream", "", "", ())
    rows.append(row(study, "CocoER, fused answer", runs, at("intervals", "pred")))
    caption = (
        "Body and scene joined by one layer, without head, attention, V-I and competition, trained on the same data, loss and"
        " schedule (configs/baselines). Published, quoted: 27.38 mAP for EMOTIC's own (arXiv 2003.13401), 34.52 with a CLIP"
        " scene (arXiv 2606.22072)."
    )
    return ResultTable("two_stream", "Two streams, trained here", caption, tuple(rows), plotted=True)


def zero_shot_table(study: Study, runs: Sequence[Measurement]) -> ResultTable:
    """CLIP alone: cosine of a crop with the prompt of each emotion, for the paper's prompt and an ensemble of templates."""
    first = runs[0].numbers["weights"]
    rows: list[TableRow] = []
    if "VI" in runs[0].numbers["intervals"]:
        clip = study.runs(kind="clip", weights=study.weights[:1])
        rows.append(
            untrained(row(study, "tower of the weights, whole image, their prompt", clip, at("intervals", CLIP_WHOLE)))
        )
        if first["view"] != "context":
            name = f"tower of the weights, as the V-I branch looks ({first['view']}), their prompt"
            rows.append(untrained(row(study, name, clip, at("intervals", CLIP_VIEW))))
    towers = study.towers
    if not towers and first["clip_weights"] is not None and rows:
        towers = (Tower(first["tower"], first["clip_weights"]),)
    for tower in towers:
        rows += _tower_rows(study, tower, first["prompt"])
    if not rows:
        rows.append(
            TableRow("zero-shot CLIP", note="these weights have no V-I branch, so no CLIP tower; name one with --clip")
        )
    rows.append(row(study, "CocoER, fused answer", runs, at("intervals", "pred")))
    caption = (
        f"The paper's prompt is '{first['prompt']}', the ensemble the mean of {len(TEMPLATES)} templates. The score is the"
        " cosine, nothing is learned on top; a tower sees crops of its own input size. Tower of the weights:"
        f" {Path(first['tower']).name}."
    )
    return ResultTable("zero_shot", "Zero-shot CLIP", caption, tuple(rows), plotted=True)


def _tower_rows(study: Study, tower: Tower, prompt: str) -> list[TableRow]:
    """One row per view and kind of prompt, or one that says where the tower's weights are missing."""
    if not tower.file.is_file():
        note = f"not measured: no CLIP weights at {places.shown(tower.file)}; {tower.remedy}"
        return [TableRow(f"{tower.title}, zero-shot", command=study.command, note=note)]
    run = zero_shot(
        tower, study.target, prompt, study.store, study.runtime, batch_size=study.batch_size, resamples=study.resamples
    )
    return [
        untrained(row(study, f"{tower.title}, {shown}, {words}", [run], at("intervals", source(view, prompts))))
        for view, shown in _VIEWS.items()
        for prompts, words in (("paper", "the paper's prompt"), ("ensemble", "template ensemble"))
    ]
