"""The numbers of `cocoer evaluate` as one screen of text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cocoer.names import LEVELS
from cocoer.report.text import table


def percent(value: float | None) -> str:
    """0.2738 -> 27.38; a missing value -> -."""
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.2f}"


def spread(interval: Mapping[str, float]) -> str:
    """An interval as text, in percent."""
    return f"{percent(interval['value'])} [{percent(interval['low'])}, {percent(interval['high'])}]"


def as_text(numbers: Mapping[str, Any], classes: Sequence[str]) -> str:
    """The numbers as one screen of text; everything in percent, intervals 95 %."""
    multi_label = "mAP" in numbers
    name = "mAP" if multi_label else "accuracy"
    weights = numbers["weights"]
    parts = [
        f"{weights['file']} on {numbers['split']} ({numbers['persons']} persons), coordination {weights['coordination']};"
        f" percent, 95 % bootstrap intervals over persons"
    ]
    if weights["note"]:
        parts.append(weights["note"])
    if weights["selected_on"] == "test":
        parts.append("These weights were SELECTED ON TEST, so their test figures are optimistic.")
    per_class = numbers["ap"] if multi_label else numbers["recall"]
    parts.append(table(["class", "AP" if multi_label else "recall"], [[c, percent(per_class[c])] for c in classes]))
    if numbers["classes_without_positives"]:
        parts.append("without a person, left out of means: " + ", ".join(numbers["classes_without_positives"]))
    rows = [[name, spread(numbers["headline"])]]
    if multi_label:
        rows += [[key.replace("_", " ", 1), percent(value)] for key, value in numbers.items() if key.startswith("mAP_")]
        rows += [["mAP of the class frequencies", percent(numbers["class_frequency_mAP"])]]
        rows += [
            [
                "F1 (macro), Jaccard",
                f"{percent(numbers['labels']['f1_macro'])}, {percent(numbers['labels']['jaccard'])}",
            ]
        ]
    rows += [[f"{name} of {source} alone", percent(value)] for source, value in numbers["sources"].items()]
    rows += [["calibration error", percent(numbers["calibration_error"])]]
    if "against" in numbers:
        rows += [[f"difference to {numbers['against']['file']}", spread(numbers["against"]["difference"])]]
    parts.append(table(["", "value"], rows))
    if "exclusion" in numbers:
        shares = [[place, *(percent(by[level]) for level in LEVELS)] for place, by in numbers["exclusion"].items()]
        parts.append(table(["leaves", *LEVELS], shares))
    if numbers["contradiction"]:
        found = numbers["contradiction"]
        share = spread(found["first_excluded"])
        lines = [f"first excluded = contradicting level: {share} of {found['persons']} persons (chance 33.33)"]
        lines += [f"  {level}: {spread(by)} of {by['persons']}" for level, by in found["per_level"].items()]
        lines += [f"{name} there, {source}: {spread(by)}" for source, by in numbers["on_contradicted"].items()]
        parts.append("\n".join(lines))
    if "calibration" in numbers:
        parts.append(calibration_text(numbers["calibration"], numbers["split"]))
    if "near_duplicates" in numbers:
        found = numbers["near_duplicates"]
        parts.append(f"near-duplicates of train\n{grid_text(near_grid(found))}\n{near_caption(found)}")
    parts += [group_text(column, found) for column, found in numbers.get("groups", {}).items()]
    if "robustness" in numbers:
        parts.append(robustness_text(numbers["robustness"]))
    return "\n\n".join(parts)


Grid = tuple[tuple[str, ...], ...]
"""Rows of texts, the first one being the header."""


SAME_PERSONS = "; fitted on the split that it is measured on, so this shows nothing"


def calibration_text(found: Mapping[str, Any], split: str) -> str:
    """Calibration error and log-loss, raw, and calibrated where the weights carry a calibration."""
    title = "calibration: the weights carry none (`cocoer calibrate` fits one on val)"
    if "fitted_on" in found:
        note = SAME_PERSONS if found["fitted_on"] == split else ""
        title = f"calibration, fitted on {found['fitted_persons']} persons of {found['fitted_on']}{note}"
    return f"{title}\n{grid_text(calibration_grid(found))}"


GROUP_WORDS = (
    "chance: what the same answer for everybody scores; a difference is to the largest group, of mAP over the classes that both"
    " groups have; of twenty intervals of no difference, one leaves out 0 by chance"
)


def group_text(column: str, found: Mapping[str, Any]) -> str:
    """One column's groups, largest first, and each one's difference to the largest."""
    lines = [grid_text(group_grid(column, found))] if found["groups"] else []
    if found["too_few"]:
        lines.append(f"{column}, fewer than {least_words(found)}, nothing is said: {few_persons(found)}")
    lines.append(f"intervals over images; {GROUP_WORDS}")
    return "\n".join(lines)


def robustness_text(found: Mapping[str, Any]) -> str:
    """One row a damage: the headline, its change, which level is excluded first, and whether that is the damaged one."""
    note = "intervals over images; a level excluded at random is excluded first in 33.33 percent"
    parts = [f"damaged persons\n{grid_text(robustness_grid(found))}\n{note}"]
    if "any_level" in found:
        parts.append(f"is the damaged level excluded first?\n{grid_text(damaged_level_grid(found))}\n{ANY_LEVEL}")
    return "\n\n".join(parts)


def grid_text(grid: Grid) -> str:
    """A grid for the terminal."""
    return table(grid[0], grid[1:])


_FEW_SHOWN = 10


def least_words(found: Mapping[str, Any]) -> str:
    """The size below which nothing is said of a group; older results have no least number of images."""
    images = f" or {found['least_images']} images" if "least_images" in found else ""
    return f"{found['least_persons']} persons{images}"


def few_persons(found: Mapping[str, Any]) -> str:
    """The groups that are too small, each with its persons, the largest first; of many the first ones."""
    groups = sorted(found["too_few"].items(), key=lambda pair: (-pair[1], pair[0]))
    shown = ", ".join(f"{group} ({count})" for group, count in groups[:_FEW_SHOWN])
    return shown + (f" and {len(groups) - _FEW_SHOWN} more groups" if len(groups) > _FEW_SHOWN else "")


_COUNTS = ("persons", "images", "classes")


def group_grid(column: str, found: Mapping[str, Any]) -> Grid:
    """Every group's numbers, then each group minus the largest one. classes: those that a mean over classes is of."""
    first: Mapping[str, Any] = next(iter(found["groups"].values()), {})
    counts = [name for name in _COUNTS if name in first]
    names = [name for name in first if name not in (*_COUNTS, "chance")]
    head = (column, *counts, "chance", *(name.replace("_", " ") for name in names))
    rows = [
        (group, *(str(by[name]) for name in counts), percent(by["chance"]), *(spread(by[name]) for name in names))
        for group, by in found["groups"].items()
    ]
    for group, by in found.get("differences", {}).items():
        classes = (str(by["classes"]) if name == "classes" else "" for name in counts)
        rows.append((f"{group} minus {found['reference']}", *classes, "", *(spread(by[name]) for name in names)))
    return (head, *rows)


def calibration_grid(found: Mapping[str, Any]) -> Grid:
    """Calibration error and log-loss, raw, calibrated, and the difference."""
    rows = [
        (when, spread(found[when]["calibration_error"]), spread(found[when]["log_loss"]))
        for when in ("before", "after", "difference")
        if when in found
    ]
    return (("", "calibration error", "log-loss x 100"), *rows)


_WAYS = {"hash": "those found by perceptual hash", "clip": "those found by CLIP", "any": "any that was found"}


def near_grid(found: Mapping[str, Any]) -> Grid:
    """The headline of all persons, and without those whose image looks like one of train."""
    head = ("persons of the split", found["metric"], "change", "left out", "persons", "images")
    everybody = found["all"]
    rows: list[tuple[str, ...]] = [
        ("all", spread(everybody["headline"]), "", "0", str(everybody["persons"]), str(everybody["images"]))
    ]
    for way, by in found["without"].items():
        told = (spread(by["headline"]), spread(by["difference"])) if "headline" in by else ("too few persons", "")
        rows.append((f"without {_WAYS[way]}", *told, *(str(by[name]) for name in ("left_out", "persons", "images"))))
    return (head, *rows)


def near_caption(found: Mapping[str, Any]) -> str:
    """How to read `near_grid`."""
    if not found["without"]["any"]["left_out"]:
        return "No image of this split looks like one of train, as far as the index says."
    text = "Percent; intervals over images. Left out: persons whose image looks like one of train; change: against all persons."
    return text + (" mAP changes over the classes that both have." if found["metric"] == "mAP" else "")


_LEAVING = ("damaged_first", "damaged_first_gain", "damaged_first_consistent")


def robustness_grid(found: Mapping[str, Any]) -> Grid:
    """One row a damage: the headline, its change, which level is excluded first, and whether that is the damaged one."""
    told = [name for name in _LEAVING if any(name in by for by in found["conditions"])]
    words = dict(
        zip(_LEAVING, ("damaged level excluded first", "more than undamaged", "of consistent persons"), strict=True)
    )
    head = (
        "damage",
        "where",
        found["metric"],
        "change",
        *(f"{m} excluded first" for m in LEVELS),
        *(words[name] for name in told),
    )
    clean = found["clean"]
    rows = [("none", "", spread(clean["headline"]), "", *_shares(clean), *("" for _ in told))]
    for by in found["conditions"]:
        leaving = (spread(by[name]) if name in by else "" for name in told)
        change = (spread(by["headline"]), spread(by["difference"]))
        rows.append((f"{by['kind']} {by['strength']}", by["where"], *change, *_shares(by), *leaving))
    return (head, *rows)


ANY_LEVEL = "mean over head, body and context, each damaged alone; undamaged and by chance exactly 33.33 percent"


def damaged_level_grid(found: Mapping[str, Any]) -> Grid:
    """Share of (person, level) whose damaged level is excluded first: a row a kind of damage, a column a strength."""
    strengths = sorted({strength for by in found["any_level"].values() for strength in by})
    rows = [
        (kind, *(spread(by[strength]) if strength in by else "" for strength in strengths))
        for kind, by in found["any_level"].items()
    ]
    return (("damage", *(f"strength {strength}" for strength in strengths)), *rows)


def _shares(numbers: Mapping[str, Any]) -> list[str]:
    return [percent(numbers["first"][level]["value"]) if numbers["first"] else "" for level in LEVELS]
