"""Make the demo world: synthetic scenes with people, written as an EMOTIC tree, a CAER-S tree, or both.

    cocoer prepare demo --output outputs/demo_data --train 6000 --val 600 --test 1200

Counts are persons for EMOTIC (several may share an image) and images for CAER-S (one person each). With
`--dataset both` the two trees lie in `<out>/emotic` and `<out>/caers`, otherwise `<out>` itself is the root.
Exit code 0: done. 1: it cannot be written. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import command_parser
from cocoer.data.synthetic.drawn import is_drawn, remove_drawn
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.export import write_caers, write_emotic
from cocoer.data.synthetic.sheet import write_demo_images, write_sheet
from cocoer.errors import UsageError
from cocoer.files import LOCK_NAME, hold_folder
from cocoer.names import LEVELS


def _count(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted a whole number, got {text!r}") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"wanted 0 or more, got {value}")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"wanted a share from 0 to 1, got {text!r}") from None
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"wanted a share from 0 to 1, got {value}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare demo", __doc__)
    parser.add_argument("--output", type=Path, help="folder to write; must be empty or absent unless --force is given")
    parser.add_argument("--dataset", choices=("emotic", "caers", "both"), default="emotic", help="default: emotic")
    parser.add_argument("--train", type=_count, default=6000, help="persons (EMOTIC) or images (CAER-S); default 6000")
    parser.add_argument("--val", type=_count, default=600, help="default 600")
    parser.add_argument("--test", type=_count, default=1200, help="default 1200")
    parser.add_argument("--seed", type=_count, default=0, help="of the scenes (default: 0)")
    parser.add_argument(
        "--contradicted-share", type=_share, default=0.35, help="share of persons with one level that contradicts"
    )
    parser.add_argument("--conflict-level", choices=LEVELS, help="which level contradicts; default: each equally often")
    parser.add_argument(
        "--near-duplicates", type=_count, default=0, metavar="N",
        help="also show N images of train in test: compressed, smaller, lighter, darker, cut or mirrored (cocoer prepare near)",
    )  # fmt: skip
    parser.add_argument("--traps", action="store_true", help="add rows that a reader of Annotations.mat must survive")
    parser.add_argument("--workers", type=_count, default=2, help="processes that draw")
    parser.add_argument("--force", action="store_true", help="replace what this command wrote to --output before")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet of 24 people to this PNG")
    parser.add_argument("--images", type=Path, help="write 8 demo images with their boxes to this folder")
    return parser


def _prepare_folder(parser: argparse.ArgumentParser, out: Path, both: bool, force: bool) -> None:
    if out.is_dir() and any(name != LOCK_NAME for name in os.listdir(out)):
        if not force:
            parser.error(
                f"--output: {out} is not empty; give another folder, or --force to replace the demo data in it"
            )
        for root in (out / "emotic", out / "caers"):  # of --dataset both
            if both or is_drawn(root):
                remove_drawn(root)
        remove_drawn(out)


@reports("prepare demo", (UsageError,), ())
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not (args.output or args.sheet or args.images):
        parser.error("nothing to do: give --output FOLDER, --sheet FILE.png or --images FOLDER")
    if args.traps and (args.dataset == "caers" or min(args.train, args.val, args.test) < 1):
        parser.error(
            "--traps: wanted EMOTIC with at least one person in each split; they are rows of its Annotations.mat"
        )
    for folder in (args.output, args.images):
        if folder and folder.exists() and not folder.is_dir():
            parser.error(f"wanted a folder to write, got the file {folder}")
    with ExitStack() as held:
        for folder in dict.fromkeys(folder for folder in (args.output, args.images) if folder):
            held.enter_context(hold_folder(folder))
        _draw(parser, args)
    return 0


def _draw(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Draw everything that the options request. Raises OutputError."""
    options = WorldOptions(args.contradicted_share, args.conflict_level)
    if args.output:
        both = args.dataset == "both"
        _prepare_folder(parser, args.output, both, args.force)
        counts = {"train": args.train, "val": args.val, "test": args.test}
        if args.dataset != "caers":
            root = args.output / "emotic" if both else args.output
            write_emotic(root, counts, args.seed, options, args.traps, args.workers, args.near_duplicates)
            print(f"EMOTIC tree, Annotations.mat and index (synthetic): {root}")
        if args.dataset != "emotic":
            root = args.output / "caers" if both else args.output
            write_caers(root, counts, args.seed, options, args.workers, args.near_duplicates)
            print(f"CAER-S tree and index (synthetic): {root}")
    if args.sheet:
        write_sheet(args.sheet, args.seed, options)
        print(f"contact sheet: {args.sheet}")
    if args.images:
        names = write_demo_images(args.images, args.seed, options)
        print(f"{len(names)} demo images: {args.images}")
