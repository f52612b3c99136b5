"""Readings of Algorithm 1 against each other on the demo world (SYNTHETIC): step rule, penalty, L_hier of the competition.

    cocoer readings                                  # everything, goes on where it was interrupted
    cocoer readings --publish docs/method.md         # the same, and its tables into their place there
    cocoer readings --quick                          # a minute; shows that it runs, its figures mean nothing

Draws scenes, trains one small model per data set, reading and seed, and measures it on unseen persons. Writes readings.md.
Exit code 0: done. 1: something cannot be used. 2: usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, parse_study, study_parser
from cocoer.files import hold_folder, write_text
from cocoer.report.readings import page
from cocoer.report.table_summary import publish
from cocoer.runtime import start_runtime
from cocoer.studies.readings.study import QUICK, ReadingStudy, Sizes, run_study
from cocoer.studies.readings.summary import by_reading, loss_rows, rule_rows
from cocoer.weights import places


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    publish = "also write the tables into their place in this file"
    parser = study_parser("readings", __doc__, "two tiny models a reading, few persons", publish)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of torch; default: as torch chooses")
    add_options(parser, "--device")
    return parse_study(parser, argv)


@reports("readings", usage=(), interrupted="the same command continues")
def main(argv: list[str] | None = None) -> int:
    """Returns the exit code."""
    args = arguments(argv)
    study = ReadingStudy(args.output, QUICK if args.quick else Sizes(), places.SHIPPED / "configs")
    with hold_folder(args.output), start_runtime(args.device, args.threads) as runtime:
        results = run_study(study, runtime)
        found = by_reading(results)
        text = page(
            rule_rows(found), loss_rows(found), study.sizes.to_dict(), "cocoer readings --publish docs/method.md"
        )
        file: Path = args.output / "readings.md"
        write_text(file, text + "\n")
        if args.publish:
            publish(args.publish, "readings", text)
    print(file.as_posix())
    return 0
