"""The conflict benchmark as a page with findings, plots and tables; and every number as CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cocoer.files import write_text
from cocoer.names import LEVELS
from cocoer.outputs import ConflictPoint
from cocoer.report.conflict_plots import exclusion_plot, gain_plot, score_plot
from cocoer.report.conflict_points import CHANCE, CONDITIONS, LABELS, Points, where_contradicted
from cocoer.report.conflict_words import figures, findings
from cocoer.report.plots import DRAWN, save, with_note
from cocoer.report.text import markdown_table
from cocoer.spreadsheet import csv_text

FILES = ("conflict.md", "conflict.csv", "conflict.json")
PLOTS = ("conflict_exclusion.png", "conflict_map.png", "conflict_gain.png")

_SHARES = (0.0, 0.3, 0.7)  # columns of the tables


def write_conflict(
    points: Sequence[ConflictPoint], facts: Mapping[str, Any], folder: str | Path, command: str
) -> list[Path]:
    """Write `FILES` and `PLOTS` into `folder`; returns the paths. facts: plain values as `run_benchmark` gives them."""
    folder = Path(folder)
    found = Points(points)
    content = {"command": command, "facts": without_rows(facts), "points": [asdict(p) for p in points]}
    texts = (as_markdown(found, facts, command), as_csv(found, facts, command), json.dumps(content, indent=1) + "\n")
    paths = [folder / name for name in FILES]
    for path, text in zip(paths, texts, strict=True):
        write_text(path, text)
    return [*paths, *_save_plots(found, folder)]


def publish_conflict(
    points: Sequence[ConflictPoint], facts: Mapping[str, Any], docs: str | Path, command: str
) -> list[Path]:
    """The page as a part of the documentation: `docs/conflict.md`, its plots in `docs/images`; returns the paths."""
    docs = Path(docs)
    found = Points(points)
    page = docs / FILES[0]
    write_text(page, as_markdown(found, facts, command, "images/"))
    return [page, *_save_plots(found, docs / "images")]


def _save_plots(points: Points, folder: Path) -> list[Path]:
    figures = (exclusion_plot(points), score_plot(points), gain_plot(points))
    noted = [with_note(figure, DRAWN, above=True) for figure in figures]
    return [path for name, figure in zip(PLOTS, noted, strict=True) for path in save(figure, folder / name)]


def without_rows(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts without the seeds' rows, which the points hold."""
    seeds = [{key: value for key, value in seed.items() if key not in ("rows", "identity")} for seed in facts["seeds"]]
    return dict(facts) | {"seeds": seeds}


def as_csv(points: Points, facts: Mapping[str, Any], command: str) -> str:
    """One line per point, in percent, with the definition, the number of persons, the commit and the command."""
    columns = ("measure", "fusion", "rule", "pseudo_label", "contradicted_level", "share", "mean", "deviation")
    rows: list[Sequence[Any]] = [
        (
            "data",
            *columns,
            "low",
            "high",
            "models",
            "persons",
            "paper",
            "definition",
            "selected_on",
            "commit",
            "command",
        )
    ]
    selected = ", ".join(sorted({seed["selected_on"] for seed in facts["seeds"]}))
    for p in points.all:
        definition = "share of persons" if p.measure.startswith("first_excluded") else "mAP non_interpolated"
        numbers = (p.share, p.mean, p.deviation, *(p.interval or (None, None)), len(p.values), p.persons)
        rows.append(("synthetic", p.measure, p.fusion, p.rule, p.label, p.condition, *numbers, "", definition, selected,
                     facts["commit"], command))  # fmt: skip
    return csv_text(rows)


def value(p: ConflictPoint, signed: bool = False) -> str:
    """Mean and deviation as text."""
    text = f"{p.mean:+.2f}" if signed else f"{p.mean:.2f}"
    return text if p.deviation is None else f"{text} ± {p.deviation:.2f}"


def _score_rows(points: Points, fusion: str) -> list[list[str]]:
    """One row per rule and pseudo label: mAP where any level contradicts, then at the highest share for each level."""
    last = points.shares[-1]
    rows = []
    for label, name in LABELS.items():
        for rule in points.rules:
            plain = rule in ("none", "late_fusion")
            if (plain and label != "vocabulary") or (fusion == "refitted" and rule.startswith("late")):
                continue
            row = [points.rules[rule], "-" if plain else name]
            row += [value(points("score", share, "any", rule, label, fusion)) for share in _SHARES]
            row += [value(points("score", last, level, rule, label, fusion)) for level in LEVELS]
            row.append("" if rule == "none" else value(points("gain", last, "any", rule, label, fusion), signed=True))
            rows.append(row)
    return rows


def as_markdown(points: Points, facts: Mapping[str, Any], command: str, where: str = "") -> str:
    """The whole page. where: what stands before the plots' names in links."""
    sizes, seeds, last = facts["settings"]["sizes"], facts["seeds"], points.shares[-1]
    columns = ["rule", "pseudo label", *(f"any, {share:g}" for share in _SHARES)]
    columns += [*(f"{level}, {last:g}" for level in LEVELS), f"gain, any, {last:g}"]
    first = [
        [name, *(value(points("first_excluded", last, condition, label=label)) for condition in CONDITIONS)]
        for label, name in LABELS.items()
    ]
    models = [
        [str(s["seed"]), f"{100 * s['val_mAP']:.2f}", str(s["epoch"]), s["selected_on"], s["weights_sha256"][:12]]
        for s in seeds
    ]
    return _PAGE.format(
        quick=_QUICK if sizes["pool"] < _FEW else "",
        command=command,
        findings="\n".join(f"- {line}" for line in findings(points)),
        figures=markdown_table(
            ["change of mAP against no update, points (unless stated)", "condition", "value", "conclusion"],
            figures(points),
        ),
        last=f"{last:g}",
        models=len(seeds),
        chance=f"{CHANCE:.2f}",
        first=markdown_table(["pseudo label", *(where_contradicted(c) for c in CONDITIONS)], first),
        trained=markdown_table(columns, _score_rows(points, "trained")),
        refitted=markdown_table(columns, _score_rows(points, "refitted")),
        plots=[f"{where}{name}" for name in PLOTS],
        seeds=", ".join(str(s["seed"]) for s in seeds),
        sizes=sizes,
        step=f"{facts['step']:g}",
        threshold=f"{facts['threshold']:g}",
        commit=facts["commit"],
        device=facts["device"],
        cores=facts["cores"],
        spent=", ".join(f"{name} {seconds / 60:.1f}" for name, seconds in facts["seconds"].items()),
        weights=markdown_table(["seed", "mAP on val", "epoch", "selected on", "sha256 of the weights"], models),
    )


_FEW = 400  # persons a pool; below, the page says that its figures mean nothing
_QUICK = "\n**A quick run that only shows that everything works; its figures mean nothing.**\n"

_PAGE = """# Conflict benchmark

After this page you know when competition and coordination help, and when they do not, if one level of a person contradicts the
label. Everything here is measured on drawn, **synthetic** scenes and says nothing about EMOTIC, CAER-S or photographs.
{quick}
## Findings

If one level contradicts the label for a share {last} of the persons:

{findings}

"Raises", "lowers", "gain" and "loss" mean that the 95 % interval over the models (Student's t, paired by model) excludes zero.
The table gives the numbers. Unless a level is named, any level may contradict:

{figures}

The control of the vote averages the prediction with all three levels, so the difference to it is the effect of the competition.

One command writes this page with its plots and tables, and continues after an interruption:

```
{command}
```

## Which level is excluded first

Percent of the contradicted persons whose contradicting level is excluded first, at share {last}; mean ± deviation over
{models} models. Chance: {chance}.

{first}

![First excluded level]({plots[0]})

## mAP against the share of contradicted persons

mAP (non-interpolated, percent) of {sizes[pool]} persons; mean ± deviation over {models} models. The columns state which level
contradicts, and the share of contradicted persons. The last column is the gain over no update, paired by model. The plots use
V-I's pseudo label.

{trained}

![mAP under every rule]({plots[1]})

The next table has FFN2 retrained for each rule, on persons that no training used. The models' own FFN2 was trained with one
rule only; retraining removes the advantage of that rule. Whiskers of the gains: 95 % intervals over the models.

{refitted}

![Gain over no update]({plots[2]})

## How it is measured

- One recognition model per seed ({seeds}): {sizes[train]} training persons, 35 % of them contradicted at any level, epochs:
  {sizes[epochs]}, update type one with step {step}. All models share the training scenes and the demonstration's CLIP
  and backbone weights; the seed determines all other weights, the order and the augmentation. Deviations therefore show the
  variation of the training, not of CLIP.
- Test persons: four pools of {sizes[pool]} from one seed, without contradiction and with it at head, body or context; the same
  person has the same key and kind of scene in each. For a share, that part of the persons comes from a contradicted pool, always
  the same ones, so rules and shares are compared on the same persons.
- Every person passes through the networks once; the rules start from the stored level features. Types one and two are those of
  `model.coordination.update`; the release rule is the published code's with its training step 0.1. The survivors' vote
  (`model.competition.vote`) is half the fused prediction and half the mean of the two levels that were not excluded first.
  It was selected from about twenty changes on these test persons, so its result is slightly optimistic; [results.md](results.md)
  measures it with other weights on other persons.
- Pseudo label: V-I (sigmoid > {threshold}); the fused prediction of a first pass without update, which is ours
  (`model.competition.pseudo_label: fused`); or the ground truth, which gives the model the answer and is only an upper bound.
- FFN2 retrained: {sizes[refit]} further persons, 15 epochs from random weights, the same start for every rule.
- Selected on val; mAP non-interpolated. Commit {commit}. Device {device}, {cores} cores; minutes spent: {spent}.

{weights}

The paper has no such table, so there are no numbers to compare with.
"""
