"""The paper's tables from weights and a prepared data set: Markdown, CSV, LaTeX and one HTML page with the plots.

    bash scripts/eval_emotic.sh data/emotic outputs/emotic/seed-*/best.safetensors
    bash scripts/eval_caers.sh data/caers outputs/caers/best.safetensors
    bash scripts/eval_emotic.sh --demo                     # synthetic scenes and the small weights in checkpoints/demo

Several weights are several seeds: rows are their mean and deviation. Without weights, those that training leaves are taken.
Runs are kept in `--output/runs` by a hash of weights, data and overrides, so an interrupted table continues where it was.
Exit code 0: done. 1: weights or data cannot be used. 2: wrong usage, or no data at the place.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

from cocoer.config import ConfigError
from cocoer.data.decode import ImageError
from cocoer.data.index import IndexFileError
from cocoer.engine.ablations import find_ablations
from cocoer.engine.metrics import ScoreError
from cocoer.engine.runtime import start_runtime
from cocoer.engine.table_runs import TableError, Target, check_weights, open_target
from cocoer.engine.tables import Study, gather
from cocoer.model.checkpoint_error import CheckpointError
from cocoer.report.tables import write_tables

_NAMES = {"emotic": "EMOTIC", "caers": "CAER-S"}
_PROJECT = Path(__file__).resolve().parent.parent


class UsageError(ValueError):
    """Something that the caller has to give; the text says what."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "data", nargs="?", help="root of the prepared data, with index/; default: data/emotic, data/caers"
    )
    parser.add_argument(
        "checkpoints", nargs="*", help="weights, one per seed; default: outputs/DATASET[/seed-N]/best.safetensors"
    )
    parser.add_argument("--dataset", choices=sorted(_NAMES), required=True)
    parser.add_argument(
        "--demo", action="store_true", help="synthetic scenes (made first where absent) and the demo weights"
    )
    parser.add_argument("--split", choices=["train", "val", "test"], default="test")
    parser.add_argument("--limit", type=int, help="only the first persons of the split; every row then says how many")
    parser.add_argument("--output", help="folder; default: outputs/tables/DATASET, with _demo for synthetic scenes")
    parser.add_argument("--ablations", help="folder with NAME/best.safetensors per config of configs/ablations")
    parser.add_argument("--resamples", type=int, default=500, help="bootstrap draws for the intervals")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="auto")
    args = parser.parse_intermixed_args(argv)
    for name in ("limit", "resamples", "batch_size"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: wanted 1 or more, got {getattr(args, name)}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    args = arguments(argv)
    try:
        root = data_root(args)
        target = open_target(root, args.dataset, args.split, args.limit)
        weights = check_weights(args.checkpoints or default_weights(args.dataset, target.synthetic), target)
        name = args.dataset + ("_demo" if target.synthetic else "")
        output = Path(args.output or f"outputs/tables/{name}")
        trained = Path(args.ablations or f"outputs/ablations{'_demo' if target.synthetic else ''}")
        # the configs under configs/ablations are EMOTIC's
        ablations = find_ablations(_PROJECT / "configs/ablations", trained) if args.dataset == "emotic" else []
        with start_runtime(args.device) as runtime:
            study = Study(
                target, tuple(weights), output / "runs", runtime, shlex.join(["python", "scripts/tables.py", *given]),
                batch_size=args.batch_size, resamples=args.resamples, progress=True,
            )  # fmt: skip
            tables = gather(study, ablations)
        for path in write_tables(tables, output, heading(target), remarks(target, weights)):
            print(path.as_posix())
    except UsageError as err:
        print(f"tables.py: {err}", file=sys.stderr)
        return 2
    except (
        CheckpointError, ConfigError, IndexFileError, ImageError, ScoreError, TableError, OSError, ValueError,
        subprocess.CalledProcessError,
    ) as err:  # fmt: skip
        print(f"tables.py: {err}", file=sys.stderr)
        return 1
    return 0


def data_root(args: argparse.Namespace) -> Path:
    """Where the data are; the demo world is drawn first where it is absent. UsageError where there are none."""
    if args.demo:
        root = Path(args.data or f"outputs/demo_data/{args.dataset}")
        if not (root / "index").is_dir():
            command = [sys.executable, str(_PROJECT / "scripts/make_demo_data.py"), "--out", str(root)]
            subprocess.run([*command, "--dataset", args.dataset], check=True)
        return root
    root = Path(args.data or f"data/{args.dataset}")
    if not (root / "index").is_dir():
        name = _NAMES[args.dataset]
        raise UsageError(
            f"wanted {name}, prepared, at {root}: a folder with index/ in it, got none. Make it with"
            f" `python scripts/prepare_{args.dataset}.py --help`, or name another place:"
            f" `bash scripts/eval_{args.dataset}.sh DATA [CHECKPOINTS...]`. Without {name}:"
            f" `bash scripts/eval_{args.dataset}.sh --demo` shows the tables on synthetic scenes"
        )
    return root


def default_weights(dataset: str, synthetic: bool) -> list[str]:
    """The weights that are taken when none are named. UsageError where there are none."""
    run = Path("outputs") / dataset
    found = sorted(run.glob("seed-*/best.safetensors")) or sorted(run.glob("best.safetensors"))
    shipped = Path(f"checkpoints/demo/demo_{dataset}.safetensors")
    if synthetic:
        found = [shipped] if shipped.is_file() else []
    if not found:
        wanted, config = (shipped, f"demo_{dataset}") if synthetic else (run / "best.safetensors", dataset)
        raise UsageError(
            f"wanted weights, got none: name them after DATA, or make {wanted.as_posix()} with"
            f" `python train.py --config configs/{config}.yaml --set run.seeds=[0,1,2]` (one run per seed)"
        )
    return [str(path) for path in found]


def heading(target: Target) -> str:
    """The page's title."""
    if target.synthetic:
        return f"SYNTHETIC demonstration in the format of {_NAMES[target.dataset]}: CocoER's tables"
    return f"{_NAMES[target.dataset]}: CocoER's tables"


def remarks(target: Target, weights: list[Path]) -> list[str]:
    """What must be known to read the page; a warning comes first."""
    out = []
    if target.synthetic:
        out.append(
            "SYNTHETIC DATA: drawn scenes, a demonstration. No figure here says anything about EMOTIC, CAER-S or photographs."
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
    out.append(
        f"Data {target.root.as_posix()}, split {target.split}, {len(target.records)} persons, sha256 {target.digest[:16]}."
        f" Values in percent; {seeds}. 'Paper' holds published figures only; 'not at hand' where none could be found."
    )
    return out


if __name__ == "__main__":
    sys.exit(main())
