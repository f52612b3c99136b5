"""The agreement study on the demo world (SYNTHETIC): what a competition that finds the contradicting level is worth.

    cocoer agreement                                # everything that is not done yet, then the page
    cocoer agreement --settings short --seeds 0,1   # only these trainings
    cocoer agreement --page-only --publish docs     # the page of what is there, as docs/agreement.md

Draws scenes, trains recognition models with a fusion head for every variant (a quarter of an hour a seed on one core for all
settings), and measures them on persons that nobody trained on. Exit code 0: done. 1: something cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import parse_study, study_parser, whole_numbers
from cocoer.errors import ConflictError
from cocoer.files import hold_folder
from cocoer.report.agreement import write_agreement
from cocoer.runtime import start_runtime
from cocoer.studies.agreement.study import (
    SETTINGS,
    Study,
    adopt_figures,
    facts_of,
    publish_figures,
    run_study,
    shipped_evaluations,
    stored,
)
from cocoer.studies.agreement.summary import over_trainings
from cocoer.studies.agreement.worlds import QUICK, Sizes
from cocoer.weights import places

FIGURES = "agreement.json"
"""Of the documentation: everything that the page is made of; a run in another folder goes on from it."""


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    publish = "write the page to DOCS, its plot to DOCS/images"
    parser = study_parser("agreement", __doc__, "few persons", publish)
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="which trainings")
    parser.add_argument(
        "--seeds", type=whole_numbers, default=(0, 1, 2, 3, 4), metavar="0,1,2", help="one training per seed"
    )
    parser.add_argument("--clip", nargs="+", action="extend", default=[], metavar="NAME=FILE",
                        help="further CLIPs of the demonstration's architecture that read along in short trainings")  # fmt: skip
    parser.add_argument("--page-only", action="store_true", help="train and measure nothing")
    args = parse_study(parser, argv)
    if wrong := [text for text in args.clip if not all(text.partition("="))]:
        parser.error(f"--clip: wanted NAME=FILE, got {wrong[0]!r}")
    return args


@reports("agreement", interrupted="the same command continues")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments(argv)
    clips = tuple((name, Path(file)) for name, _, file in (text.partition("=") for text in args.clip))
    config = places.SHIPPED / "configs" / "demo_emotic.yaml"
    study = Study(args.output, QUICK if args.quick else Sizes(), config, args.seeds, tuple(args.settings), clips)
    with hold_folder(args.output):
        print("\n".join(path.as_posix() for path in measure(study, args)))
    return 0


def measure(study: Study, args: argparse.Namespace) -> list[Path]:
    """Train and measure what is missing, write the page; returns the files. Raises ConflictError without results."""
    output = study.folder
    if places.CLONE is not None and not args.quick and (published := places.CLONE / "docs" / FIGURES).is_file():
        adopt_figures(published, output, study.sizes)
    if args.page_only:
        results = stored(output)
    else:
        with start_runtime("cpu") as runtime:
            results = run_study(study, runtime)
    if not results:
        raise ConflictError(f"{output}: no training was measured; run without --page-only")
    folder, images = (args.publish, "images/") if args.publish else (output, "")
    shipped = shipped_evaluations(output)
    facts = facts_of(results) | {"shipped": shipped}
    command = args.command.replace(" --page-only", "")
    paths = write_agreement(over_trainings(results), facts, folder, command, images)
    if args.publish:
        publish_figures(results, shipped, args.publish / FIGURES)
        paths.append(args.publish / FIGURES)
    return paths
