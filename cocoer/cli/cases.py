"""Case studies of a split (supplement, Fig. 5 and 6): cocoer cases INDEX --persons 24 --seed 0

INDEX is a folder with {split}.jsonl, or such a file. Writes case_studies.html (one self-contained page, sortable) and a PNG
panel of each person. Exit 0: done. 1: the data or weights cannot be used. 2: wrong usage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cocoer.cli.faults import reports
from cocoer.cli.options import add_index, add_options, add_persons, command_parser, the_index
from cocoer.names import SPLITS

if TYPE_CHECKING:
    from PIL import Image

    from cocoer.outputs import CaseStudy


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = command_parser("cases", __doc__)
    add_index(p)
    add_options(p, "--checkpoint", "--config", "--device", "--set", "--allow-outside", "--seed")
    add_persons(p, 24, older="--num")
    p.add_argument("--split", choices=SPLITS, help="default: test, or what the .jsonl file is called")
    p.add_argument("--root", help="folder of the images; default: the parent of the index folder")
    p.add_argument("--no-png", action="store_true", help="the page alone")
    p.add_argument("--output", default="outputs/case_studies", metavar="FOLDER", help="default: outputs/case_studies")
    args = p.parse_args(argv)
    args.index = the_index(p, args)
    if args.persons < 1 or args.seed < 0:
        p.error("--persons wants a whole number of at least 1 and --seed one of at least 0")
    stem = Path(args.index).stem
    args.split = args.split or (stem if args.index.endswith(".jsonl") and stem in SPLITS else "test")
    return args


@reports("cases", usage=())
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    from cocoer.files import hold_folder

    with hold_folder(args.output):
        run(args)
    return 0


def run(args: argparse.Namespace) -> None:
    """Choose, recognise, write."""
    from cocoer.data.index import read_index, split_path
    from cocoer.files import write_text
    from cocoer.inference.recognizer import Recognizer
    from cocoer.paths import keep_inputs
    from cocoer.report.case_page import case_page
    from cocoer.studies.case_studies import case_studies, choose_persons

    recognizer = Recognizer.from_options(args.config, args.checkpoint, args.device, args.overrides)
    records = read_index(args.index, args.split, recognizer.config.classes)
    chosen = [records[i] for i in choose_persons(len(records), args.persons, args.seed)]
    root = Path(args.root) if args.root else split_path(args.index, args.split).parent.parent
    folder = Path(args.output)
    about = recognizer.about
    remarks = [
        f"{len(chosen)} of {len(records)} persons of {args.split}, seed {args.seed}",
        f"weights {about['weights']} ({about['dataset']}, {about['mode']} mode)",
        *([about["note"]] if about["note"] else []),
    ]
    cases = case_studies(recognizer, chosen, root, args.allow_outside)
    path = folder / "case_studies.html"
    with keep_inputs(root / image for image in {record.image for record in records}):
        page = case_page(
            saved(cases, len(chosen), None if args.no_png else folder), f"Case studies, {args.split}", remarks
        )
        write_text(path, page)
    print(f"{len(chosen)} persons -> {path} ({path.stat().st_size / 1e6:.1f} MB)")


def saved(
    cases: Iterator[tuple[CaseStudy, Image.Image]], total: int, folder: Path | None
) -> Iterator[tuple[CaseStudy, Image.Image]]:
    """The cases, each drawn into `folder` on its way (None: nowhere); a progress bar on a terminal."""
    from tqdm import tqdm

    from cocoer.files import write_file
    from cocoer.report.figure import draw_case_study
    from cocoer.report.plots import image_figure, save

    for place, (case, image) in enumerate(tqdm(cases, total=total, desc="case studies", delay=1, disable=None)):
        if folder is not None:
            panel, file = draw_case_study(image, case.result, 0, case.truth), folder / f"case_{place:03d}.png"
            write_file(file, panel.save)
            save(image_figure(panel), file, (".pdf",))
        yield case, image
