"""Fit calibrated probabilities on the validation split and store them in a copy of the weights.

    cocoer calibrate --checkpoint outputs/emotic/best.safetensors --output outputs/emotic/calibrated.safetensors
    cocoer evaluate --checkpoint outputs/emotic/calibrated.safetensors --split test      # tells before and after
    cocoer predict --checkpoint outputs/emotic/calibrated.safetensors --set inference.calibrated=true --input IMAGE

Per class nothing, Platt's line or (from 1,000 persons on) isotonic regression is chosen by log-loss in folds over images; for one
label a person it is a temperature. Never fitted on test: persons whose image is in the index's test split, too, are left out.
Exit code 0: done. 1: weights or data cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser, data_changes
from cocoer.errors import ScoreError

if TYPE_CHECKING:
    from cocoer.data.loaders import PersonDataset


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = command_parser("calibrate", __doc__)
    p.add_argument("--checkpoint", required=True, help="a .safetensors file, or a folder with model.safetensors")
    p.add_argument("--output", required=True, type=Path, metavar="FILE", help="the copy to write, .safetensors")
    p.add_argument("--split", choices=["val", "train"], default="val", help="where it is fitted (default: val)")
    add_options(p, "--index", "--root", "--set", "--batch-size", "--device")
    args = p.parse_args(argv)
    if args.output.suffix != ".safetensors":
        p.error(f"--output: wanted a name that ends in .safetensors, got {args.output}")
    return args


@reports("calibrate")
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    from cocoer.files import hold_file

    with hold_file(args.output):
        print(calibrate(args))
    return 0


def calibrate(args: argparse.Namespace) -> str:
    """Evaluate the split, fit, write; returns what to print."""
    from cocoer.config import change_config
    from cocoer.data.loaders import build_dataset, build_loader
    from cocoer.evaluation.calibration import fit_calibration
    from cocoer.evaluation.evaluate import evaluate
    from cocoer.model.checkpoint import add_to_description, load_weights
    from cocoer.runtime import start_runtime

    changes = data_changes(args)
    with start_runtime(args.device) as runtime:
        loaded = load_weights(args.checkpoint, runtime.device, lambda stored: change_config(stored, changes))
        config = loaded.config
        people = build_dataset(config.data, args.split)
        kept = _kept(people, args.split, config.data.index)
        loader = build_loader(config.data, args.split, args.batch_size, dataset=people)
        keys = [record.key for record in people.records]
        result = evaluate(
            loaded.model, loader, multi_label=config.multi_label, order=keys, runtime=runtime, progress=True
        )
    found = fit_calibration(
        result.probabilities["pred"][kept],
        result.targets[kept],
        [people.records[i].image for i in kept],
        config.classes,
        multi_label=config.multi_label,
        split=args.split,
    )
    add_to_description(loaded.path, args.output, {"calibration": found.to_dict()})
    if found.temperature is not None:
        what = f"temperature {found.temperature:.3f}"
    else:
        kinds = Counter(by.kind for by in found.classes.values())
        what = ", ".join(f"{kind}: {count} classes" for kind, count in kinds.most_common())
    left_out = len(people.records) - len(kept)
    note = f"; left out {left_out} persons whose image is in test, too" if left_out else ""
    return (
        f"{args.output}: calibrated on {found.persons} persons of {found.split} ({what}){note};"
        " switch on: inference.calibrated=true"
    )


def _kept(people: PersonDataset, split: str, index: str) -> list[int]:
    """The persons, by their place, whose image is not in the test split, too. Raises ScoreError where nobody is left."""
    from cocoer.evaluation.calibration import images_of_test

    images = [record.image for record in people.records]
    tested = images_of_test(images, people.root, index, people.allow_outside)
    kept = [i for i, image in enumerate(images) if image not in tested]
    if not kept:
        raise ScoreError(
            f"calibration: every image of {split} ({len(images)} persons) is in the test split, too; what is fitted on test"
            " cannot be tested: give an index whose splits have different images"
        )
    return kept
