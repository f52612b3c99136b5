"""Evaluate weights on a split.

    cocoer evaluate --config configs/emotic.yaml --checkpoint outputs/emotic/best.safetensors [--split test]

The model comes from the checkpoint with `--set` over its config; --config says where the data are (without it, the
checkpoint does). Prints and writes the average precision of every class, their mean with a bootstrap interval, the
baseline of the class frequencies, late fusion, every source alone, who is excluded when, and, on synthetic scenes, how
often the first excluded level is the contradicting one. --groups tells for whom it is wrong, --corrupt what damaged images
do; an index from `cocoer prepare near` gives the result without near-duplicates of train, too (docs/trust.md).
Exit code 0: done. 1: weights or data cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from cocoer.calibration import calibration_of
from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser, data_changes
from cocoer.config import Config, change_config, load_config
from cocoer.data.damage import KINDS, PLACES, all_damages
from cocoer.data.index import split_path
from cocoer.data.loaders import PersonDataset, build_dataset, build_loader
from cocoer.datasets import dataset_of
from cocoer.description import SKIPPED, VERIFIED
from cocoer.errors import ConfigError
from cocoer.evaluation.calibration import before_and_after
from cocoer.evaluation.evaluate import Evaluation, evaluate
from cocoer.evaluation.files import OUTPUTS, compared, write_evaluation
from cocoer.evaluation.groups import by_groups, column_values
from cocoer.evaluation.leaks import with_and_without
from cocoer.evaluation.metrics import MOST_RESAMPLES, RESAMPLES
from cocoer.evaluation.numbers import label_numbers, numbers_of, weights_facts
from cocoer.evaluation.protocol import result_of
from cocoer.evaluation.robustness import robustness
from cocoer.export.onnx_file import SUFFIX as EXPORTED_SUFFIX
from cocoer.export.onnx_model import load_exported
from cocoer.files import hold_folder
from cocoer.model.checkpoint import Loaded
from cocoer.model.cocoer import CocoER
from cocoer.model.zero_shot import is_zero_shot, load_model
from cocoer.paths import refuse_input
from cocoer.report.evaluation import as_text
from cocoer.report.trust import write_result
from cocoer.runtime import Runtime, start_runtime
from cocoer.weights.routes import named_checkpoint


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = command_parser("evaluate", __doc__)
    parser.add_argument(
        "--checkpoint",
        required=True,
        help="a .safetensors file, a folder with model.safetensors, an exported .onnx file, release, demo, or"
        " zero-shot[:TOWER[=FILE]]",
    )
    parser.add_argument("--config", help="where the data are; default: the checkpoint's own config")
    add_options(parser, "--split", "--index", "--root", "--set", "--no-verify", "--batch-size", "--device")
    parser.add_argument(
        "--output",
        default="outputs/evaluation",
        help="folder for result.json, evaluation.html, .json, .csv, .txt, scores.npz",
    )
    parser.add_argument("--name", help="what this result is called in tables; default: the weights' file")
    parser.add_argument("--jsonl", metavar="FILE", help="also write one JSON line a person to this file")
    parser.add_argument("--against", help="scores.npz of another evaluation of the same persons: the paired difference")
    parser.add_argument(
        "--groups",
        type=words,
        default=[],
        metavar="COLUMN,...",
        help="numbers by group: columns of the index (gender,age,head_source), persons_in_image, body_size",
    )
    parser.add_argument(
        "--corrupt", type=words, default=[], metavar="KIND,...",
        help=f"numbers on damaged persons, five strengths each: {','.join(KINDS)}, or all",
    )  # fmt: skip
    parser.add_argument(
        "--corrupt-where", type=words, metavar="PLACE,...",
        help="what --corrupt damages: the image, or one level's crop alone, head, body or context (default: each in turn)",
    )  # fmt: skip
    parser.add_argument(
        "--resamples", type=int, default=RESAMPLES, help=f"bootstrap draws for the intervals (default: {RESAMPLES})"
    )
    args = parser.parse_args(argv)
    if not 2 <= args.resamples <= MOST_RESAMPLES or args.batch_size < 1:
        parser.error(
            f"--resamples: wanted 2 to {MOST_RESAMPLES:,}, --batch-size 1 or more, got {args.resamples} and {args.batch_size}"
        )
    args.checkpoint = str(named_checkpoint(args.checkpoint))
    args.corrupt = list(KINDS) if args.corrupt == ["all"] else args.corrupt
    for flag, given, known in (
        ("--corrupt", args.corrupt, KINDS),
        ("--corrupt-where", args.corrupt_where or [], PLACES),
    ):
        if wrong := [word for word in given if word not in known]:
            parser.error(f"{flag}: wanted some of {', '.join(known)}, got {wrong[0]!r}")
    if args.corrupt_where is not None and not args.corrupt:
        parser.error("--corrupt-where says what --corrupt damages; give --corrupt, too")
    args.corrupt_where = args.corrupt_where or list(PLACES)
    if args.corrupt and not all_damages(args.corrupt, args.corrupt_where):
        parser.error(
            "--corrupt occlude-head covers the head in the image or in the head's crop: add one to --corrupt-where"
        )
    return args


def words(text: str) -> list[str]:
    """`a, b` as a list, each once."""
    found = list(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
    if not found:
        raise argparse.ArgumentTypeError(f"wanted words with commas between them, got {text!r}")
    return found


@reports("evaluate")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments(argv)
    overrides = data_changes(args)
    data = load_config(args.config, overrides).data if args.config else None
    with start_runtime(args.device) as runtime, hold_folder(args.output) if runtime.is_main else nullcontext():
        any_data = is_zero_shot(args.checkpoint)
        loaded = load(
            Path(args.checkpoint),
            runtime,
            lambda stored: configured(stored, overrides, data, any_data),
            not args.no_verify,
        )
        persons = build_dataset(loaded.config.data, args.split)
        people = list(persons.records)
        refuse_inputs(args, persons, split_path(loaded.config.data.index, args.split))
        for column in args.groups:
            column_values(people, column)  # an unknown column is an error before anything is computed
        result = run(loaded, persons, args.split, args.batch_size, runtime)
        damaged = {
            damage: run(loaded, persons.damaged(damage), args.split, args.batch_size, runtime)
            for damage in all_damages(args.corrupt, args.corrupt_where)
        }
        if runtime.is_main:
            numbers = study(result, [r.contradicted_level for r in people], loaded, args.split, args.resamples)
            numbers["calibration"] = before_and_after(
                result, people, calibration_of(loaded.metadata.get("calibration"), f"weights {loaded.path}"),
                loaded.config.classes, multi_label=loaded.config.multi_label, resamples=args.resamples,
            )  # fmt: skip
            if found := with_and_without(result, people, loaded.config.multi_label, args.resamples):
                numbers["near_duplicates"] = found
            if args.groups:
                multi_label = loaded.config.multi_label
                numbers["groups"] = by_groups(result, people, args.groups, multi_label, args.resamples)
            if damaged:
                multi_label = loaded.config.multi_label
                numbers["robustness"] = robustness(
                    result, list(damaged), damaged.__getitem__, people, multi_label, args.resamples
                )
            if args.against:
                numbers["against"] = compared(result, Path(args.against), loaded.config.multi_label, args.resamples)
            text = as_text(numbers, loaded.config.classes)
            print(text)
            write_evaluation(Path(args.output), text, numbers, result, loaded, args.jsonl)
            command = shlex.join(["cocoer", "evaluate", *(sys.argv[2:] if argv is None else argv)])
            name = (args.name or "").strip() or loaded.path.stem
            write_result(Path(args.output), result_of(numbers, loaded, persons, name, command, args.resamples))
    return 0


def refuse_inputs(args: argparse.Namespace, persons: PersonDataset, index: Path) -> None:
    """OverwritesInput where a file that the evaluation would write is one that it reads."""
    images = list(dict.fromkeys(record.image for record in persons.records))
    for output in (Path(args.jsonl or ""), *(Path(args.output, name) for name in OUTPUTS)):
        refuse_input(output, (index, *(Path(persons.root, image) for image in images)))


def load(path: Path, runtime: Runtime, change: Callable[[Config], Config], verify: bool = True) -> Loaded:
    """Weights, or an exported .onnx file, whose config may change in where the data are, but not in what the model is."""
    if path.suffix != EXPORTED_SUFFIX:
        return load_model(path, runtime.device, change, verify)
    exported, stored, metadata = load_exported(path, verify=verify)
    config = change(stored)
    fixed = [(c.model, c.dataset, c.data.image_size) for c in (stored, config)]
    if fixed[0] != fixed[1]:
        raise ConfigError(
            f"{path}: model.*, the data set and data.image_size are fixed in an exported file and cannot be set"
        )
    return Loaded(
        cast("CocoER", exported), config, metadata, path, VERIFIED if verify else SKIPPED
    )  # it answers as the model does


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


def run(loaded: Loaded, people: PersonDataset, split: str, batch_size: int, runtime: Runtime) -> Evaluation:
    """The evaluation of a split's persons, in order."""
    config = loaded.config
    return evaluate(
        loaded.model,
        build_loader(config.data, split, batch_size, share=runtime.share, dataset=people),
        multi_label=config.multi_label,
        order=[r.key for r in people.records],
        runtime=runtime,
        progress=True,
    )


def study(
    result: Evaluation, contradicted: list[str | None], loaded: Loaded, split: str, resamples: int
) -> dict[str, Any]:
    """All numbers, plain values; shares and average precisions in 0..1."""
    config = loaded.config
    numbers = numbers_of(result, config.classes, config.multi_label, split, contradicted, resamples)
    if config.multi_label:
        numbers["labels"] = label_numbers(result, loaded)
    return numbers | {"weights": weights_facts(loaded)}
