"""One evaluation's groups, calibration and robustness as tables and figures, from its `result.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cocoer.files import write_text
from cocoer.outputs import ResultTable
from cocoer.report.evaluation import (
    ANY_LEVEL,
    GROUP_WORDS,
    SAME_PERSONS,
    Grid,
    calibration_grid,
    damaged_level_grid,
    few_persons,
    group_grid,
    least_words,
    near_caption,
    near_grid,
    robustness_grid,
    spread,
)
from cocoer.report.plots import DRAWN, Panel, line_figure, save, with_note
from cocoer.report.tables import as_html, as_markdown

Result = Mapping[str, Any]
Pairs = dict[str, list[tuple[float, float]]]

_WHEN = {"before": "uncalibrated", "after": "calibrated"}


def trust_tables(result: Result, key: str = "") -> tuple[list[ResultTable], dict[str, Figure]]:
    """Tables of one result, and the figures by the key of their table. key: before every key, to tell results apart."""
    numbers, name = result["numbers"], result["name"]
    note = DRAWN if result["synthetic"] else ""
    tables = [_table(f"{key}protocol", f"{name}: how it was measured", "", protocol_grid(result))]
    figures: dict[str, Figure] = {}
    for column, found in numbers.get("groups", {}).items():
        title, caption = f"{name}: by {column}", group_caption(found)
        tables.append(_table(f"{key}groups-{column}", title, caption, group_grid(column, found)))
    if found := numbers.get("calibration"):
        title, caption = f"{name}: calibration", calibration_caption(found, numbers["split"])
        tables.append(_table(f"{key}calibration", title, caption, calibration_grid(found)))
        figures[f"{key}calibration"] = with_note(reliability_figure(found), note, above=True)
    if found := numbers.get("near_duplicates"):
        title = f"{name}: with and without near-duplicates of train"
        tables.append(_table(f"{key}near-duplicates", title, near_caption(found), near_grid(found)))
    if found := numbers.get("robustness"):
        if "any_level" in found:
            title, caption = f"{name}: is the damaged level excluded first?", f"Percent, the {ANY_LEVEL}."
            tables.append(_table(f"{key}damaged-level", title, caption, damaged_level_grid(found)))
        title, caption = f"{name}: damaged persons", robustness_caption(found)
        tables.append(_table(f"{key}robustness", title, caption, robustness_grid(found)))
        figures[f"{key}robustness"] = with_note(robustness_figure(found), note, above=True)
    return tables, figures


def write_result(folder: Path, result: Result) -> None:
    """`result.json`, the page `evaluation.html`, and its figures as PNG and PDF. Raises OutputError."""
    write_text(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    tables, figures = trust_tables(result)
    page = as_html(tables, f"{result['name']}: evaluation", remarks([result]), figures)
    write_text(folder / "evaluation.html", page)
    for key, figure in figures.items():
        save(figure, folder / f"{key}.png")


def card_sections(results: Sequence[Result]) -> str:
    """Each result's protocol, groups, calibration and robustness as Markdown, for a model card; a warning comes first."""
    tables = [table for result in results for table in trust_tables(result)[0]]
    return (
        as_markdown(tables, "Evaluation", remarks(results))
        .replace("\n## ", "\n### ")
        .replace("# Evaluation", "## Evaluation", 1)
    )


def remarks(results: Sequence[Result]) -> list[str]:
    """What must be known to read a page of results; a warning comes first."""
    out = []
    if any(result["synthetic"] for result in results):
        out.append(
            "SYNTHETIC DATA: drawn scenes, a demonstration. No figure here says anything about EMOTIC, CAER-S or photographs."
        )
    if any(result["model"]["selected_on"] == "test" for result in results):
        out.append("Weights that were selected on test have optimistic test figures: see the column 'selected on'.")
    return out or ["Each number with its interval; what it was measured on and how stands below."]


def _table(key: str, title: str, caption: str, grid: Grid) -> ResultTable:
    return ResultTable(key, title, caption, (), grid=grid)


def protocol_grid(result: Result) -> Grid:
    """What was measured, on what, and how; one line each."""
    data, model, numbers, interval = result["data"], result["model"], result["numbers"], result["interval"]
    made = "SYNTHETIC scenes in its format" if result["synthetic"] else "the real images"
    lines = [
        (result["metric"], f"{spread(numbers['headline'])}"),
        ("definition", result["definition"]),
        ("interval", f"95 % {interval['kind']} over persons, {interval['resamples']} draws of seed {interval['seed']}"),
        ("data", f"{data['title'] or data['dataset']}, {made}, split {data['split']}"),
        ("persons, images", f"{data['persons']}, {data['images']}"),
        ("hash of the data", data["sha256"]),
        ("weights", f"{numbers['weights']['file']}, seed {model['seed']}, selected on {model['selected_on'] or 'nothing'}"),
        ("mode, hash of settings", f"{model['mode']}, {model['settings']}"),
        ("code", result["revision"]),
        ("versions", ", ".join(f"{name} {version}" for name, version in result["versions"].items())),
        ("command", result["command"]),
    ]  # fmt: skip
    if paired := numbers.get("against"):
        lines.insert(1, (f"minus {paired['file']}", f"{spread(paired['difference'])}, paired over the same persons"))
    return (("what", "value"), *lines)


def group_caption(found: Mapping[str, Any]) -> str:
    """The meaning of one column's numbers, and the groups that are too small to report."""
    text = f"Percent; intervals over images. {GROUP_WORDS[0].upper()}{GROUP_WORDS[1:]}."
    if found["too_few"]:
        text += f" Fewer than {least_words(found)}, so nothing is said: {few_persons(found)}."
    return text


def calibration_caption(found: Mapping[str, Any], split: str) -> str:
    """The origin of the calibration."""
    if "fitted_on" not in found:
        return "The weights carry no calibration; `cocoer calibrate` fits one on val. Percent; intervals over images."
    note = SAME_PERSONS if found["fitted_on"] == split else ""
    fitted = f"Fitted on {found['fitted_persons']} persons of {found['fitted_on']}{note}"
    return f"{fitted}. Percent; intervals over images."


def reliability_figure(found: Mapping[str, Any]) -> Figure:
    """Observed frequency over predicted probability, per bin of a fifteenth, with intervals over images; raw and calibrated."""
    lines: dict[str, list[tuple[float, float]]] = {}
    intervals: dict[str, list[tuple[float, float]]] = {}
    for when, words in _WHEN.items():
        if when in found:
            points = found[when]["reliability"]
            lines[words] = [(100 * p["confidence"], 100 * p["correct"]) for p in points]
            intervals[words] = [(100 * p["low"], 100 * p["high"]) for p in points]
    axes = "predicted probability (%)", "observed frequency (%)"
    return line_figure([Panel("Reliability", *axes, lines, intervals, diagonal="perfect calibration")])


def robustness_caption(found: Mapping[str, Any]) -> str:
    """How to read the table of damages."""
    text = (
        "Percent; intervals over images. Strengths 1 to 5. Where one level is damaged alone, it is known which one should be"
        " excluded first; by chance it is in 33.33. The next column is how much more often that is than undamaged."
    )
    if "consistent_persons" in found:
        text += f" The last column: of the {found['consistent_persons']} persons whom no level contradicts."
    return text


def robustness_figure(found: Mapping[str, Any]) -> Figure:
    """The headline over the strength, whole image damaged; and per level damaged alone, how often it leaves first."""
    panels = []
    for where in dict.fromkeys(by["where"] for by in found["conditions"]):
        here = [by for by in found["conditions"] if by["where"] == where]
        what = "damaged_first" if where != "image" and "damaged_first" in here[0] else "headline"
        lines, intervals = _by_kind(here, what)
        if what == "headline":
            lines, intervals = _from_clean(lines, intervals, found["clean"]["headline"])
            title = f"{'Whole image' if where == 'image' else where.capitalize()} damaged"
            panels.append(Panel(title, "strength", f"{found['metric']} (%)", lines, intervals))
        else:
            title, label = f"{where.capitalize()} damaged alone", f"{where} excluded first (%)"
            lines, intervals = _from_clean(lines, intervals, found["clean"]["first"][where])
            panels.append(Panel(title, "strength", label, lines, intervals, True, ("chance", 100 / 3)))
    if "any_level" in found:
        lines, intervals = _by_kind(
            [
                {"kind": kind, "strength": int(s), "first": by}
                for kind, of in found["any_level"].items()
                for s, by in of.items()
            ],
            "first",
        )
        title, label = "Any one level damaged alone", "damaged level excluded first (%)"
        panels.append(Panel(title, "strength", label, lines, intervals, True, ("chance and undamaged", 100 / 3)))
    return line_figure(panels)


def _from_clean(lines: Pairs, intervals: Pairs, clean: Mapping[str, float]) -> tuple[Pairs, Pairs]:
    """The lines with what was without damage at strength 0."""
    start, ends = (0.0, 100 * clean["value"]), (100 * clean["low"], 100 * clean["high"])
    return (
        {kind: [start, *points] for kind, points in lines.items()},
        {kind: [ends, *pairs] for kind, pairs in intervals.items()},
    )


def _by_kind(conditions: Sequence[Mapping[str, Any]], what: str) -> tuple[Pairs, Pairs]:
    """Kind -> (strength, value) points, and their intervals; in percent."""
    lines, intervals = Pairs(), Pairs()
    for by in conditions:
        lines.setdefault(by["kind"], []).append((by["strength"], 100 * by[what]["value"]))
        intervals.setdefault(by["kind"], []).append((100 * by[what]["low"], 100 * by[what]["high"]))
    return lines, intervals
