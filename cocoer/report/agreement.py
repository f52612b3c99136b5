"""The agreement study as a page: the finding, the targets, tables, one figure; and all points as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from cocoer.files import write_text
from cocoer.names import LEVELS
from cocoer.outputs import StudyPoint
from cocoer.report import agreement_tables as made
from cocoer.report import agreement_words as words
from cocoer.report.agreement_tables import Table, clips, gain, noises, reads, sure, value
from cocoer.report.agreement_words import SETTINGS
from cocoer.report.plots import DRAWN, Panel, line_figure, save, with_note
from cocoer.report.text import markdown_table
from cocoer.spreadsheet import csv_text

PAGE, POINTS = "agreement.md", "agreement.csv"
PLOT = "agreement_strength.png"
WANTED_TRAININGS = 5
CHANCE = 100 / len(LEVELS)
BASE = "all"


def write_agreement(
    points: Sequence[StudyPoint], facts: Mapping[str, Any], folder: str | Path, command: str, images: str = ""
) -> list[Path]:
    """Write `PAGE`, `POINTS` (unless the page becomes a part of the documentation) and the plot into `folder`; returns the paths.

    images: the folder of the plot below `folder`, with a / at its end; empty: `folder` itself.

    facts: sizes and commits of the trainings, and what was measured beside them (`shipped`).
    """
    folder = Path(folder)
    (folder / images).mkdir(parents=True, exist_ok=True)
    table = Table.of(points)
    write_text(folder / PAGE, as_markdown(table, facts, command, images))
    if not images:
        write_text(folder / POINTS, as_csv(points))
    read = noises(table, table.settings[0])
    plots = save(with_note(strength_figure(table), DRAWN, above=True), folder / images / PLOT) if read else []
    return [folder / PAGE, *([] if images else [folder / POINTS]), *plots]


def as_csv(points: Sequence[StudyPoint]) -> str:
    """One line a point, in percent."""
    columns = ("setting", "test", "what", "condition", "share", "mean", "deviation")
    head = ("data", *columns, "low", "high", "trainings", "persons")
    rows = [
        ("synthetic", *(getattr(p, name) for name in columns), *(p.interval or (None, None)), len(p.values), p.persons)
        for p in points
    ]
    return csv_text([head, *rows])


def finding(table: Table) -> str:
    """The first sentence of the page: the finding."""
    right, paper = (table(table.settings[0], "fresh_first_excluded", who, "any") for who in ("shipped", "paper"))
    if right is None or paper is None:
        return "Nothing was measured yet."
    return (
        "If CLIP classifies head, body and context separately, and the level whose prediction differs most from the others is"
        f" excluded first, this is the contradicting level for {right.mean:.0f} % of the contradicted persons (the paper's"
        f" rule: {paper.mean:.0f} %; synthetic scenes)."
    )


def gains(table: Table) -> str:
    """What the gate, and the gate with the late half, bring after each kind of training."""
    lines = ["Attenuating the excluded level in the fusion, the more the levels disagree (the gate), changes:", ""]
    for name in table.settings:
        metric = "accuracy" if name == "caers" else "mAP"
        gate, late = (
            [gain(table(name, "fresh_gain", v, c)) for c in ("all", "contradicted")] for v in ("gate", "gate_late")
        )
        lines.append(
            f"- {SETTINGS[name]}, {table.trainings(name)} trainings: {metric} by {gate[0]}, on the contradicted persons by"
            f" {gate[1]}; if half of the prediction is the levels' mean, weighted in the same way, by {late[0]} and {late[1]}."
        )
    return "\n".join(lines)


def _reached(table: Table) -> str:
    """The targets, and whether they are reached."""
    rows = []

    def add(what: str, setting: str, p: StudyPoint | None, at_least: float | None, above_zero: bool = False) -> None:
        """at_least: None where nothing may be lost."""
        wanted = "no loss" if at_least is None else f"{at_least:+g}"
        if p is None:
            rows.append([what, SETTINGS[setting], wanted, "not measured yet", "-", "0"])
            return
        if at_least is None:
            held = p.interval is None or p.interval[1] >= 0
        else:
            held = p.mean >= at_least and (sure(p) or not above_zero)
        verdict = "reached" if held else "missed"
        if len(p.values) < WANTED_TRAININGS:
            verdict += f", of {WANTED_TRAININGS} trainings {len(p.values)}"
        shown = gain(p) if "gain" in p.test or "control" in p.test else value(p)
        rows.append([what, SETTINGS[setting], wanted, shown, verdict, str(len(p.values))])

    limits = {"short": (2.0, 5.0), "long": (0.0, 1.5)}
    for setting in limits:
        add(
            "contradicting level excluded first, %",
            setting,
            table(setting, "fresh_first_excluded", "shipped", "any"),
            85,
        )
    for variant, name in (("gate", "gate"), ("gate_late", "gate and late half")):
        for setting, (everybody, marked) in limits.items():
            all_, contradicted = (table(setting, "fresh_gain", variant, c) for c in ("all", "contradicted"))
            add(f"{name}, mAP of all", setting, all_, everybody, setting == "short")
            add(f"{name}, mAP of contradicted persons", setting, contradicted, marked, True)
        add(f"{name} over its control, mAP of all", "short", table("short", "fresh_control", variant, "all"), 1.0, True)
        for setting in limits:
            add(f"{name} at share 0", setting, table(setting, "pool_gain", variant, "any", 0.0), None)
    return markdown_table(["what", "setting", "at least", "measured", "verdict", "trainings"], rows)


def strength_figure(table: Table) -> Figure:
    """First exclusions, and the gain of agreement for CLIP alone, as CLIP's readings get worse."""
    setting = table.settings[0]
    tried = noises(table, setting)
    ends = (reads(table, setting, "shipped", tried[-1]), reads(table, setting, "shipped", tried[0]))

    def line(clips_and_noises: Sequence[tuple[str, float]], test: str, minus: str = "") -> list[tuple[float, float]]:
        out = []
        for clip, noise in clips_and_noises:
            p = table(setting, test, clip, "clip_agree" if minus else "any", noise)
            base = table(setting, test, clip, minus, noise) if minus else None
            if p is not None:
                out.append((reads(table, setting, clip, noise), p.mean - (base.mean if base else 0.0)))
        return out

    noisy, others = [("shipped", s) for s in tried], clips(table, setting)
    first = {"agreement, the shipped CLIP with noise": line(noisy, "strength_first_excluded")}
    first |= {f"agreement, CLIP of {name}": line([(name, 0.0)], "strength_first_excluded") for name in others}
    paper = table(setting, "fresh_first_excluded", "paper", "any")
    if paper is not None:
        first["the paper's rule"] = [(x, paper.mean) for x in ends]
    gains = {
        "contradicted persons": line(noisy, "strength_contradicted", "clip_late"),
        "all persons": line(noisy, "strength", "clip_late"),
    }
    x = "mAP of one level read by CLIP, mean of three (%)"
    return line_figure(
        [
            Panel("First exclusion", x, "contradicting level excluded first (%)", first, reference=("chance", CHANCE)),
            Panel("Agreement minus mean of the readings", x, "difference in mAP (points)", gains, from_zero=True),
        ]
    )


def as_markdown(table: Table, facts: Mapping[str, Any], command: str, images: str = "") -> str:
    """The whole page."""
    parts = [
        "# Competition by agreement",
        words.OPENING,
        finding(table),
        gains(table),
        words.HEAD.format(command=command),
        "## Targets",
        _reached(table),
    ]
    if {"short", "long"} <= set(table.settings):
        parts.append(_why(table))
    for setting in table.settings:
        count = table.trainings(setting)
        parts += [
            f"## {SETTINGS[setting][0].upper()}{SETTINGS[setting][1:]}",
            words.SETTING[setting].format(count=count, persons=made.persons(table, setting)),
            made.headline(table, setting),
        ]
        if setting == "caers":
            by = {who: value(table("caers", "fresh_first_excluded", who, "any")) for who in ("paper", "shipped")}
            parts.append(words.CAERS_TRAINED.format(**by))
    first = table.settings[0]
    parts += [
        "## Which level is excluded first",
        "Percent of the contradicted persons whose contradicting level is excluded first"
        f" ({SETTINGS[first]}; chance {CHANCE:.1f}).",
        made.exclusion(table, first),
        *(_when_it_holds(table, first, images) if noises(table, first) else []),
        *made.shipped(facts.get("shipped") or {}),
        *made.caers((facts.get("shipped") or {}).get("zero_shot_caers")),
        "## Computing cost",
        words.COMPUTE,
        "## Method and limits",
        words.METHOD.format(**facts),
    ]
    return "\n\n".join(parts) + "\n"


def _why(table: Table) -> str:
    """Why the gains after long training are small, in the study's own numbers."""

    def both(name: str, setting: str = "long") -> str:
        """Gain of all and of the contradicted persons."""
        return " / ".join(gain(table(setting, "fresh_gain", name, c)) for c in ("all", "contradicted"))

    levels, control = table("long", "fresh_gain", "late_fusion", "contradicted"), both("late_vote_all")
    return words.WHY.format(
        truth=both("exclude_truth"), others=_lost(table, "gate"), mask=both("exclude"), mean=gain(levels), control=control,
        vote=both("vote_one"), combined=both("gate_vote_two"), heads=both("gate_heads"),
    )  # fmt: skip


def _lost(table: Table, name: str) -> str:
    """What a variant changes after long training for persons without a contradicting level."""
    one, base = (table("long", "fresh", what, "others") for what in (name, BASE))
    return "-" if one is None or base is None else f"{one.mean - base.mean:+.2f}"


def _when_it_holds(table: Table, setting: str, images: str) -> list[str]:
    """The sections on weaker CLIPs, shares, and where it costs."""
    return [
        "## How accurate CLIP must be",
        words.STRENGTH,
        made.strength(table, setting),
        *([words.OTHER_CLIPS, made.other_clips(table, setting)] if clips(table, setting) else []),
        f"![Which level is excluded first, and the gain]({images}{PLOT})",
        "## As more persons are contradicted",
        made.shares(table, setting),
        "## Where it loses accuracy",
        words.COSTS,
        made.costs(table, setting),
    ]
