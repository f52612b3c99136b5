"""The paper's tables from weights and a prepared data set: Markdown, CSV, LaTeX and one HTML page with the plots.

    bash scripts/eval_emotic.sh data/emotic outputs/emotic/seed-*/best.safetensors
    bash scripts/eval_caers.sh data/caers --train          # trains all seeds first; what is done is not done again
    bash scripts/eval_emotic.sh                            # without data: synthetic scenes and the demonstration's weights

Several weights are several seeds: rows are their mean and deviation. Without weights, those that training leaves are taken.
`--train` trains the seeds that are not done (an interrupted one goes on), `--with` also ablations and baselines. Runs are kept
in `--output/runs` by a hash of weights, data and overrides, so an interrupted table continues where it was.
`cocoer tables --from results/*/result.json` puts results of `cocoer evaluate` side by side, with their groups, calibration and
robustness, and quotes what others published.
The tables are also printed. Exit code 0: done. 1: weights or data cannot be used. 2: wrong usage, or no data at the place.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from cocoer.cli.faults import FAILED, reports
from cocoer.cli.options import add_options, command_parser, whole_numbers
from cocoer.data.files import available_cores
from cocoer.datasets import find_dataset, shipped_datasets
from cocoer.errors import DatasetError, UsageError
from cocoer.evaluation.metrics import MOST_RESAMPLES
from cocoer.files import file_sha256, hold_folder
from cocoer.model.zero_shot import Tower
from cocoer.report.leaderboard import leaderboard, read_result, undamaged
from cocoer.report.table_summary import publish, summary
from cocoer.report.tables import as_text, write_tables
from cocoer.report.trust import remarks as trust_remarks
from cocoer.report.trust import trust_tables
from cocoer.runtime import start_runtime
from cocoer.studies.tables.measurements import Target, check_weights, open_target
from cocoer.studies.tables.progress import gather_with_progress
from cocoer.studies.tables.study import Study
from cocoer.studies.tables.training import TrainingPlan, train_plan, trainable
from cocoer.studies.tables.variants import Variant, chosen_variants, find_variants, weights_of
from cocoer.weights import places
from cocoer.weights.catalog import DEMO_CHECKPOINT

_DEMO_NOTE = "synthetic demonstration: trained on drawn scenes, not for photographs"
_DEMO_SIZES = {"emotic": (0, 0, 1200), "caers": (2400, 240, 800)}
_DEMO_SIZES_TO_TRAIN = {"emotic": (6000, 600, 1200), "caers": (2400, 240, 800)}
"""Persons of train, val and test of the drawn trees: EMOTIC's demonstration has shipped weights, CAER-S's trains its own."""


def options() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = command_parser("tables", __doc__)
    parser.add_argument("data", nargs="?", metavar="ROOT", help="the same as --root")
    parser.add_argument("checkpoints", nargs="*", metavar="CHECKPOINT", help="the same as --checkpoint")
    parser.add_argument(
        "--root", help="the prepared data, with index/; default: data/emotic, data/caers, else the demo's"
    )
    parser.add_argument(
        "--checkpoint", nargs="+", default=[], dest="more_checkpoints", metavar="WEIGHTS",
        help="weights, one per seed; default: outputs/DATASET[/seed-N]/best.safetensors",
    )  # fmt: skip
    parser.add_argument(
        "--from",
        nargs="+",
        dest="results",
        metavar="RESULT",
        help="result.json of cocoer evaluate: the leaderboard of these",
    )
    parser.add_argument("--dataset", help=f"{', '.join(shipped_datasets())}, or a .yaml file as in configs/datasets")
    parser.add_argument(
        "--demo", action="store_true", help="synthetic scenes (made first where absent), even where there are real data"
    )
    parser.add_argument("--train", action="store_true", help="train the seeds that are not done, then make the tables")
    parser.add_argument("--seeds", type=whole_numbers, default=(0, 1, 2), metavar="0,1,2", help="what --train trains")
    parser.add_argument(
        "--with", nargs="+", action="extend", default=[], dest="variants", metavar="NAME",
        help="--train also trains these configs of configs/ablations and configs/baselines; or ablations, baselines, all",
    )  # fmt: skip
    parser.add_argument("--config", type=Path, help="what --train trains; default: configs/[demo_]DATASET.yaml")
    add_options(parser, "--split", "--batch-size", "--device", "--set")
    parser.add_argument("--jobs", type=int, help="trainings at a time; default: 1, for the demo one per core")
    parser.add_argument(
        "--clip", action="append", default=[], metavar="TOWER[=FILE]",
        help="zero-shot CLIP with this open_clip tower, may be given several times; default: the weights' own tower",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, help="only the first persons of the split; every row then says how many")
    parser.add_argument("--output", help="folder; default: outputs/tables/DATASET, with _demo for synthetic scenes")
    parser.add_argument(
        "--publish", type=Path, metavar="FILE", help="also write the measured rows into their place in docs/results.md"
    )
    parser.add_argument("--trained", type=Path, help="folder with ablations/NAME and baselines/NAME; default: outputs")
    parser.add_argument("--resamples", type=int, default=500, help="bootstrap draws for the intervals")
    return parser


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = options()
    args = parser.parse_intermixed_args(argv)
    if args.root is not None:  # then no word before the weights is the root
        args.checkpoints = [word for word in (args.data, *args.checkpoints) if word]
        args.data = args.root
    args.checkpoints += args.more_checkpoints
    if args.results:
        return args
    if not args.dataset:
        parser.error("wanted --dataset, or --from with results of `cocoer evaluate`")
    try:
        args.entry = find_dataset(args.dataset)
    except DatasetError as err:
        parser.error(f"--dataset: {err}")
    if args.demo and args.entry.name not in _DEMO_SIZES:
        parser.error(f"--demo: synthetic scenes come in the formats of {', '.join(_DEMO_SIZES)}, not {args.entry.name}")
    for name in ("limit", "batch_size", "jobs"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: wanted 1 or more, got {getattr(args, name)}")
    if not 2 <= args.resamples <= MOST_RESAMPLES:
        parser.error(f"--resamples: wanted 2 to {MOST_RESAMPLES:,}, got {args.resamples}")
    if args.publish and args.limit is not None:
        parser.error(
            "--publish: figures of the first persons only do not belong into the documentation; leave --limit out"
        )
    if args.train and args.checkpoints:
        parser.error(f"--train makes its own weights, so none are named; got {', '.join(args.checkpoints)}")
    for flag, given in (("--with", args.variants), ("--set", args.overrides), ("--config", args.config)):
        if given and not args.train:
            parser.error(f"{flag} says what --train trains; give --train too")
    return args


@reports(
    "tables",
    usage=(UsageError,),
    failed=(*FAILED, subprocess.CalledProcessError),
    interrupted="the same command continues",
)
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    args = arguments(argv)
    if args.results:
        print("\n".join(path.as_posix() for path in write_leaderboard(args.results, args.output)))
        return 0
    target = open_target(data_root(args), args.dataset, args.split, args.limit)
    output = Path(args.output or f"outputs/tables/{target.dataset}{'_demo' if target.synthetic else ''}")
    with hold_folder(output):
        paths = measure(args, target, output, shlex.join(["cocoer", "tables", *given]))
    print("\n".join(path.as_posix() for path in paths))
    return 0


def measure(args: argparse.Namespace, target: Target, output: Path, command: str) -> list[Path]:
    """Train what is requested, measure what is missing, write the tables; returns their files."""
    weights = check_weights(trained_weights(args, target, output) or named_weights(args, target, output), target)
    with start_runtime(args.device) as runtime:
        study = Study(
            target, tuple(weights), output / "runs", runtime, command,
            batch_size=args.batch_size, resamples=args.resamples,
            towers=tuple(Tower.parse(text) for text in args.clip), variants=tuple(variants_of(args, target, output)),
        )  # fmt: skip
        tables = gather_with_progress(study, say)
    paths = write_tables(tables, output, heading(target), remarks(target, weights))
    if args.publish:
        key = f"{target.dataset}{'_demo' if target.synthetic else ''}"
        paths.append(publish(args.publish, key, summary(tables, remarks(target, weights))))
    print(as_text(tables), end="\n\n")
    return paths


def write_leaderboard(files: list[str], output: str | None) -> list[Path]:
    """The leaderboard, then each result's groups, calibration and robustness; returns the files. Raises TableError."""
    results = [read_result(path) for path in files]
    tables, figures = leaderboard(results), dict[str, Any]()
    for number, (path, result) in enumerate(zip(files, results, strict=True), start=1):
        with undamaged(path):
            more, plots = trust_tables(result, f"{number}-")
        tables += more
        figures |= plots
    folder = Path(output or "outputs/tables/leaderboard")
    return write_tables(tables, folder, "Results side by side", trust_remarks(results), figures)


def data_root(args: argparse.Namespace) -> Path:
    """Where the data are. Without any, the demo world takes their place and is drawn where it is absent or half-drawn.

    Raises UsageError where a named place holds no prepared data.
    """
    name, real = args.entry.title, Path(f"data/{args.entry.name}")
    drawn = args.entry.name in _DEMO_SIZES
    preparation = args.entry.name if drawn else "table"
    if args.data and not args.demo:
        root = Path(args.data)
        if not (root / "index").is_dir():
            raise UsageError(
                f"wanted {name}, prepared, at {root}: a folder with index/ in it, got none. Make it with"
                f" `cocoer prepare {preparation} --help`, or name another place:"
                f" `cocoer tables DATA [CHECKPOINTS...] --dataset {args.dataset}`."
                + (f" Without {name}: add --demo for the tables on synthetic scenes" if drawn else "")
            )
        return root
    if not args.demo and (real / "index").is_dir():
        return real
    if not drawn:
        raise UsageError(
            f"wanted DATA, the prepared data of {name} with index/ in it; make it with `cocoer prepare table --help`"
        )
    if not args.demo:
        say(f"no DATA given and no {name} at {real.as_posix()}: SYNTHETIC scenes take its place, a demonstration")
    sizes = (_DEMO_SIZES_TO_TRAIN if args.train else _DEMO_SIZES)[args.entry.name]
    # of EMOTIC's demonstration only the test persons are drawn unless something is to be trained
    root = Path(args.data or f"outputs/demo_data/{args.dataset}{'' if sizes[0] else '_test'}")
    if not (root / "index" / "sidecar.json").is_file():  # it is written last
        say(f"drawing the demo world into {root.as_posix()}")
        command = [sys.executable, "-m", "cocoer", "prepare", "demo", "--output", str(root), "--force"]
        counts = [
            word for split, n in zip(("train", "val", "test"), sizes, strict=True) for word in (f"--{split}", str(n))
        ]
        subprocess.run([*command, "--dataset", args.dataset, "--workers", str(available_cores()), *counts], check=True)
    return root


def trained_weights(args: argparse.Namespace, target: Target, output: Path) -> list[Path]:
    """The weights of --train, trained now if missing; on synthetic scenes without weights also one seed. Else nothing."""
    nothing_yet = target.synthetic and not (args.checkpoints or known_weights(target.dataset, target, output))
    if not args.train and not nothing_yet:
        return []
    if not args.train:
        name = args.entry.title
        say(f"no weights for synthetic scenes in {name}'s format yet: training a small model, which takes minutes")
    if not trainable(target):
        raise UsageError(
            f"--train: wanted persons in train.jsonl and val.jsonl of {target.index}, to train on and to select with; one has"
            " none. Prepare the data again with all splits, or name weights after DATA"
        )
    if args.config is None and target.dataset not in _DEMO_SIZES:
        raise UsageError(f"--train: no config comes with cocoer for {args.entry.title}; name yours with --config")
    config = args.config or places.SHIPPED / f"configs/{'demo_' if target.synthetic else ''}{target.dataset}.yaml"
    plan = TrainingPlan(
        config, models(target.dataset, target, output), trained_folder(args, target, output), target.root,
        args.seeds if args.train else args.seeds[:1], tuple(args.overrides), target.synthetic,
        _DEMO_NOTE if target.synthetic else "",
    )  # fmt: skip
    jobs = args.jobs or (min(available_cores(), len(plan.seeds)) if target.synthetic else 1)
    chosen = chosen_variants(variants_of(args, target, output), args.variants)
    return train_plan(plan, chosen, args.device, jobs)


def models(dataset: str, target: Target, output: Path) -> Path:
    """Where --train puts the full model's seeds: as `train.py` does; for synthetic scenes beside their tables."""
    return output / "models" if target.synthetic else Path("outputs") / dataset


def trained_folder(args: argparse.Namespace, target: Target, output: Path) -> Path:
    """What holds the folders `ablations` and `baselines`."""
    return args.trained or (output / "models" if target.synthetic else Path("outputs"))


def variants_of(args: argparse.Namespace, target: Target, output: Path) -> list[Variant]:
    """The configs of configs/ablations, baselines and studies for this data set, with the weights that are there."""
    if target.dataset not in _DEMO_SIZES:
        return []
    again = f"bash scripts/eval_{target.dataset}.sh --demo --train --with" if target.synthetic else ""
    return find_variants(places.SHIPPED / "configs", trained_folder(args, target, output), target.dataset, again)


def known_weights(dataset: str, target: Target, output: Path) -> list[str]:
    """Weights in the usual places: the demonstration's, or those of an earlier training."""
    shipped = DEMO_CHECKPOINT.parent / f"demo_{dataset}.safetensors"
    if target.synthetic and shipped.is_file():
        return [places.shown(shipped)]
    return [str(path) for path in weights_of(models(dataset, target, output))]


def named_weights(args: argparse.Namespace, target: Target, output: Path) -> list[str]:
    """The weights that the caller named, else those that are known. UsageError where there are none."""
    found = args.checkpoints or known_weights(target.dataset, target, output)
    if not found:
        raise UsageError(
            f"wanted weights, got none: name them after DATA, or train: `cocoer tables DATA --dataset {args.dataset} --train`"
        )
    return list(found)


def say(text: str) -> None:
    """A line for the user, on standard error; the tables and the files that were written go to standard output."""
    print(f"cocoer tables: {text}", file=sys.stderr, flush=True)


def heading(target: Target) -> str:
    """The page's title."""
    if target.synthetic:
        return f"SYNTHETIC demonstration in the format of {target.entry.title}: CocoER's tables"
    return f"{target.entry.title}: CocoER's tables"


def remarks(target: Target, weights: list[Path]) -> list[str]:
    """The remarks at the top of the page; a warning comes first."""
    out = []
    if target.synthetic:
        out.append(
            "SYNTHETIC DATA: drawn scenes, a demonstration. No number here says anything about EMOTIC, CAER-S or photographs."
        )
    elif target.limit is not None:
        out.append(f"A SUBSET: the first {len(target.records)} persons only.")
    else:
        out.append("Weights that were selected on test have optimistic test figures: see the column 'selected on'.")
    if target.synthetic and target.limit is not None:
        out.append(f"A subset: the first {len(target.records)} persons only.")
    seeds = (
        f"{len(weights)} seeds, mean ± sample deviation"
        if len(weights) > 1
        else "one seed, 95 % bootstrap interval over persons"
    )
    named = ", ".join(f"{path.as_posix()} (sha256 {file_sha256(path)[:12]})" for path in weights)
    out.append(f"Weights: {named}.")
    out.append(
        f"Data {target.root.as_posix()}, split {target.split}, {len(target.records)} persons, sha256 {target.digest[:16]}."
        f" Values in percent; {seeds}. The paper's column holds published figures, quoted; none was measured here."
    )
    return out
