"""Evaluate weights on a split.

    cocoer evaluate --config configs/emotic.yaml --checkpoint outputs/emotic/best.safetensors [--split test]

The model comes from the checkpoint with `--set` over its config; --config says where the data are (without it, the
checkpoint does). Prints and writes the average precision of every class, their mean with a bootstrap interval, the
baseline of the class frequencies, late fusion, every source alone, who is excluded when, and, on synthetic scenes, how
often the first excluded level is the contradicting one. Exit code 0: done. 1: weights or data cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from cocoer.calibration import calibration_of
from cocoer.config import Config, change_config, load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.loaders import build_dataset, build_loader
from cocoer.datasets import dataset_of
from cocoer.errors import CheckpointError, ConfigError, ImageError, IndexFileError, ScoreError
from cocoer.evaluation import summary as s
from cocoer.evaluation.calibration import before_and_after
from cocoer.evaluation.evaluate import Evaluation, evaluate
from cocoer.evaluation.groups import by_groups
from cocoer.evaluation.metrics import DEFINITIONS, break_even_thresholds, checked
from cocoer.evaluation.numbers import label_numbers, numbers_of, weights_facts
from cocoer.export.onnx_file import SUFFIX as EXPORTED_SUFFIX
from cocoer.export.onnx_model import load_exported
from cocoer.model.checkpoint import Loaded
from cocoer.model.cocoer import CocoER
from cocoer.model.zero_shot import is_zero_shot, load_model
from cocoer.names import LEVELS
from cocoer.report.text import table
from cocoer.runtime import Runtime, start_runtime


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cocoer evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a .safetensors file, a folder with model.safetensors, an exported .onnx file, or zero-shot[:TOWER[=FILE]]",
    )
    parser.add_argument("--config", help="where the data are; default: the checkpoint's own config")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test")
    parser.add_argument("--index", help="folder of the person index, instead of the config's data.index")
    parser.add_argument("--root", help="folder of the images, instead of the config's data.root")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")
    parser.add_argument(
        "--output", default="outputs/evaluation", help="folder for evaluation.json, .csv, .txt, scores.npz"
    )
    parser.add_argument("--persons", help="also write one JSON line a person to this file")
    parser.add_argument("--against", help="scores.npz of another evaluation of the same persons: the paired difference")
    parser.add_argument(
        "--groups",
        type=lambda text: [name.strip() for name in text.split(",") if name.strip()],
        default=[],
        metavar="COLUMN,...",
        help="numbers by group: columns of the index (gender,age,head_source), persons_in_image, body_size",
    )
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap draws for the intervals")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="auto")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments(argv)
    try:
        overrides = list(args.set)
        overrides += [f"data.root={args.root}"] if args.root else []
        overrides += [f"data.index={args.index}"] if args.index else []
        data = load_config(args.config, overrides).data if args.config else None
        with start_runtime(args.device) as runtime:
            any_data = is_zero_shot(args.checkpoint)
            loaded = load(Path(args.checkpoint), runtime, lambda stored: configured(stored, overrides, data, any_data))
            result, people = run(loaded, args.split, args.batch_size, runtime)
            if runtime.is_main:
                numbers = study(result, [contradicted_level(r) for r in people], loaded, args.split, args.resamples)
                fitted = calibration_of(loaded.metadata.get("calibration"), f"weights {loaded.path}")
                if fitted is not None:
                    numbers["calibration"] = before_and_after(
                        result, people, fitted, loaded.config.classes,
                        multi_label=loaded.config.multi_label, resamples=args.resamples,
                    )  # fmt: skip
                if args.groups:
                    multi_label = loaded.config.multi_label
                    numbers["groups"] = by_groups(result, people, args.groups, multi_label, args.resamples)
                if args.against:
                    numbers["against"] = compared(result, Path(args.against), loaded.config.multi_label, args.resamples)
                write(numbers, result, loaded, Path(args.output), args.persons)
    except ConfigError as err:
        print(f"cocoer evaluate: {err}", file=sys.stderr)
        return 2
    except (CheckpointError, IndexFileError, ImageError, ScoreError, OSError, ValueError) as err:
        print(f"cocoer evaluate: {err}", file=sys.stderr)
        return 1
    return 0


def load(path: Path, runtime: Runtime, change: Callable[[Config], Config]) -> Loaded:
    """Weights, or an exported .onnx file, whose config may change in where the data are, but not in what the model is."""
    if path.suffix != EXPORTED_SUFFIX:
        return load_model(path, runtime.device, change)
    exported, stored, metadata = load_exported(path)
    config = change(stored)
    fixed = [(c.model, c.dataset, c.data.image_size) for c in (stored, config)]
    if fixed[0] != fixed[1]:
        raise ConfigError(
            f"{path}: model.*, the data set and data.image_size are fixed in an exported file and cannot be set"
        )
    return Loaded(cast("CocoER", exported), config, metadata, path)  # it answers as the model does


def configured(stored: Config, overrides: list[str], data: Any, any_data: bool = False) -> Config:
    """The checkpoint's config with the data section's places of another one, and `--set` over both.

    any_data: the checkpoint has no classes of its own and takes those of the data.
    """
    if any_data and data is not None:
        stored = replace(stored, data=replace(stored.data, dataset=data.dataset))
    if data is not None:
        theirs, ours = dataset_of(data), stored.dataset
        if (theirs.name, theirs.classes, theirs.labels) != (ours.name, ours.classes, ours.labels):
            raise ConfigError(
                f"--config is for {theirs.name} ({len(theirs.classes)} classes, {theirs.labels}), the checkpoint for {ours.name}"
                f" ({len(ours.classes)} classes, {ours.labels}); take a config of the same data set"
            )
        places = {"root": data.root, "index": data.index, "workers": data.workers, "cache": data.cache}
        stored = replace(stored, data=replace(stored.data, **places))
    return change_config(stored, overrides)


def run(loaded: Loaded, split: str, batch_size: int, runtime: Runtime) -> tuple[Evaluation, list[PersonRecord]]:
    """The evaluation, and its persons in order."""
    config = loaded.config
    people = build_dataset(config.data, split)
    loader = build_loader(
        config.data, split, batch_size, rank=runtime.rank, world_size=runtime.world_size, dataset=people
    )
    result = evaluate(
        loaded.model,
        loader,
        multi_label=config.multi_label,
        order=[r.key for r in people.records],
        runtime=runtime,
        progress=True,
    )
    return result, list(people.records)


def contradicted_level(person: PersonRecord) -> str | None:
    """The level that contradicts the label; synthetic scenes alone say so."""
    level: str | None = (person.extra.get("synthetic") or {}).get("contradicted_level")
    return level


def study(
    result: Evaluation, contradicted: list[str | None], loaded: Loaded, split: str, resamples: int
) -> dict[str, Any]:
    """All numbers, plain values; shares and average precisions in 0..1."""
    config = loaded.config
    numbers = numbers_of(result, config.classes, config.multi_label, split, contradicted, resamples)
    if config.multi_label:
        numbers["labels"] = label_numbers(result, loaded)
    return numbers | {"weights": weights_facts(loaded)}


def compared(result: Evaluation, other: Path, multi_label: bool, resamples: int) -> dict[str, Any]:
    """The paired difference of the fused answer, this minus the other one.

    Raises ValueError for other persons or classes, a truncated or foreign file, and scores that are not finite.
    """
    try:
        with open(other, "rb") as handle, np.load(handle, allow_pickle=False) as stored:
            keys, scores = list(stored["keys"]), stored["pred"]
    except (zipfile.BadZipFile, KeyError, EOFError, TypeError, ValueError) as err:
        raise ValueError(
            f"--against {other}: truncated or no scores of cocoer evaluate ({err}); wanted the scores.npz that it writes,"
            " make it again"
        ) from None
    if keys != list(result.keys):
        raise ValueError(f"--against {other}: holds {len(keys)} persons that are not these {len(result)} in this order")
    try:
        checked(scores, result.targets, keys)
    except ScoreError as err:
        raise ValueError(f"--against {other}: {err}") from None
    difference = s.paired_difference(result.targets, result.probabilities["pred"], scores, multi_label, resamples)
    return {"file": other.as_posix(), "difference": difference.to_dict()}


def percent(value: float | None) -> str:
    """0.2738 -> 27.38; a missing value -> -."""
    return "-" if value is None or not np.isfinite(value) else f"{100 * value:.2f}"


def spread(interval: dict[str, float]) -> str:
    """An interval as text, in percent."""
    return f"{percent(interval['value'])} [{percent(interval['low'])}, {percent(interval['high'])}]"


def as_text(numbers: dict[str, Any], classes: tuple[str, ...]) -> str:
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
        rows += [[f"mAP {d}", percent(numbers[f"mAP_{d}"])] for d in DEFINITIONS[1:]]
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
        found = numbers["calibration"]
        note = "; the same persons, so this tells nothing" if found["fitted_on"] == numbers["split"] else ""
        parts.append(
            f"calibration, fitted on {found['fitted_persons']} persons of {found['fitted_on']}{note}\n"
            + table(
                ["", "calibration error", "log-loss x 100"],
                [
                    [when, spread(found[when]["calibration_error"]), spread(found[when]["log_loss"])]
                    for when in ("before", "after", "difference")
                ],
            )
        )
    parts += [group_text(column, found) for column, found in numbers.get("groups", {}).items()]
    return "\n\n".join(parts)


def group_text(column: str, found: dict[str, Any]) -> str:
    """One column's groups, largest first, and each one's difference to the largest."""
    first: dict[str, Any] = next(iter(found["groups"].values()), {})
    names = [name for name in first if name not in ("persons", "images", "chance")]
    header = [column, "persons", "images", "chance", *(name.replace("_", " ") for name in names)]
    rows = [
        [group, str(by["persons"]), str(by["images"]), percent(by["chance"]), *(spread(by[name]) for name in names)]
        for group, by in found["groups"].items()
    ]
    rows += [
        [f"{group} - {found['reference']}", "", "", "", *(spread(by[name]) for name in names)]
        for group, by in found.get("differences", {}).items()
    ]
    lines = [table(header, rows)] if rows else []
    if found["too_few"]:
        few = ", ".join(f"{group} ({count})" for group, count in found["too_few"].items())
        lines.append(f"{column}, fewer than {found['least_persons']} persons, nothing is said: {few}")
    lines.append("intervals over images; a difference of mAP is over the classes that both groups have")
    return "\n".join(lines)


def write(numbers: dict[str, Any], result: Evaluation, loaded: Loaded, folder: Path, persons: str | None) -> None:
    """evaluation.json, .csv, .txt and scores.npz in `folder`, the text on the terminal too."""
    folder.mkdir(parents=True, exist_ok=True)
    classes, multi_label = loaded.config.classes, loaded.config.multi_label
    text = as_text(numbers, classes)
    print(text)
    (folder / "evaluation.txt").write_text(text + "\n", encoding="utf-8")
    (folder / "evaluation.json").write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    values = numbers["ap"] if multi_label else numbers["recall"]
    counts = result.targets.sum(0).astype(int)
    thresholds = loaded.thresholds.get("classes", {})
    even = break_even_thresholds(result.probabilities["pred"], result.targets)
    with open(folder / "evaluation.csv", "w", encoding="utf-8", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["class", "positives", "ap" if multi_label else "recall", "threshold", "break_even_here"])
        for j, name in enumerate(classes):
            rows.writerow(
                [name, counts[j], values[name], thresholds.get(name, ""), even[j] if np.isfinite(even[j]) else ""]
            )
    np.savez_compressed(
        folder / "scores.npz",
        keys=np.array(result.keys),
        targets=result.targets,
        **dict[str, Any](result.probabilities),
    )
    if persons:
        with open(persons, "w", encoding="utf-8") as handle:
            for i, key in enumerate(result.keys):
                handle.write(json.dumps(person_line(result, i, key, classes), ensure_ascii=False) + "\n")


def person_line(result: Evaluation, i: int, key: str, classes: tuple[str, ...]) -> dict[str, Any]:
    """What the model said of one person, plain values."""
    line: dict[str, Any] = {"key": key, "labels": [c for c, y in zip(classes, result.targets[i], strict=True) if y]}
    line["probabilities"] = {
        source: {c: round(float(p), 6) for c, p in zip(classes, rows[i], strict=True)}
        for source, rows in result.probabilities.items()
    }
    if result.exclusion is not None and result.losses is not None:
        line["emo_process"] = [LEVELS[level] for level in result.exclusion[i] if level >= 0]
        line["losses"] = {level: round(float(v), 6) for level, v in zip(LEVELS, result.losses[i], strict=True)}
    return line
