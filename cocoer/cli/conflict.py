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
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, parse_study, study_parser
from cocoer.files import hold_folder
from cocoer.report.conflict import publish_conflict, write_conflict
from cocoer.runtime import start_runtime
from cocoer.studies.conflict.benchmark import Benchmark, run_benchmark
from cocoer.studies.conflict.summary import over_models
from cocoer.studies.conflict.world import QUICK, Sizes
from cocoer.weights import places


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    publish = "copy the page to DOCS, its plots to DOCS/images"
    parser = study_parser("conflict", __doc__, "two tiny models, few persons", publish)
    parser.add_argument(
        "--config", type=Path, default=places.SHIPPED / "configs/demo_emotic.yaml", help="of the models"
    )
    add_options(parser, "--set", "--device")
    parser.add_argument("--jobs", type=int, help="trainings at a time; default: one per core, on a GPU all")
    args = parse_study(parser, argv)
    if args.jobs is not None and args.jobs < 1:
        parser.error(f"--jobs: wanted 1 or more, got {args.jobs}")
    return args


@reports("conflict", interrupted="the same command continues")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments(argv)
    benchmark = Benchmark(args.output, QUICK if args.quick else Sizes(), args.config, tuple(args.overrides))
    with hold_folder(args.output), start_runtime(args.device) as runtime:
        facts = run_benchmark(benchmark, runtime, args.device, args.jobs)
        points = over_models(facts["seeds"])
        paths = write_conflict(points, facts, args.output, args.command)
        if args.publish:
            paths += publish_conflict(points, facts, args.publish, args.command)
    print("\n".join(path.as_posix() for path in paths))
    return 0
