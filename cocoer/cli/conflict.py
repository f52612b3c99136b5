"""The conflict benchmark on the demo world (SYNTHETIC): what competition and coordination do as levels contradict each other.

    cocoer conflict                            # everything, continues where it was interrupted
    cocoer conflict --publish docs             # the same, and docs/conflict.md with its plots
    cocoer conflict --quick                    # minutes; shows that it runs, its figures mean nothing

Draws scenes, trains one small recognition model per seed (CLIP and backbone start from checkpoints/demo), and measures mAP and
first-exclusion accuracy as the share of contradicted persons grows, for each contradicting level, update rule and pseudo
label. Writes conflict.md, conflict.csv, conflict.json and plots. Exit code 0: done. 1: something cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.files import hold_folder
from cocoer.report.conflict import publish_conflict, write_conflict
from cocoer.runtime import start_runtime
from cocoer.studies.conflict.benchmark import Benchmark, run_benchmark
from cocoer.studies.conflict.summary import over_models
from cocoer.studies.conflict.world import QUICK, Sizes
from cocoer.weights import places


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="cocoer conflict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, help="folder; default: outputs/conflict, with _quick for --quick")
    parser.add_argument(
        "--config", type=Path, default=places.SHIPPED / "configs/demo_emotic.yaml", help="of the models"
    )
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the config")
    parser.add_argument("--quick", action="store_true", help="two tiny models, few persons")
    parser.add_argument("--jobs", type=int, help="trainings at a time; default: one per core, on a GPU all")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--publish", type=Path, metavar="DOCS", help="copy the page to DOCS, its plots to DOCS/images")
    args = parser.parse_args(argv)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs: wanted 1 or more, got {args.jobs}")
    if args.quick and args.publish:
        parser.error("--publish: results of --quick are meaningless and must not be published")
    return args


@reports("conflict", interrupted="the same command continues")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    given = sys.argv[1:] if argv is None else argv
    args = arguments(argv)
    output: Path = args.output or Path("outputs/conflict_quick" if args.quick else "outputs/conflict")
    benchmark = Benchmark(output, QUICK if args.quick else Sizes(), args.config, tuple(args.set))
    with hold_folder(output), start_runtime(args.device) as runtime:
        facts = run_benchmark(benchmark, runtime, args.device, args.jobs)
        command = shlex.join(["cocoer", "conflict", *given])
        points = over_models(facts["seeds"])
        paths = write_conflict(points, facts, output, command)
        if args.publish:
            paths += publish_conflict(points, facts, args.publish, command)
    for path in paths:
        print(path.as_posix())
    return 0
