"""Mark the persons of val and test whose image looks like one of train, in the index of any data set.

    cocoer prepare near --root data/caers --index data/caers/index --output data/caers/marked
    cocoer prepare near --root data/caers --index data/caers/index --output data/caers/clean --drop near

Images are compared by a perceptual hash, and by CLIP's embedding if its weights are at hand (docs/trust.md#leaks). `cocoer
evaluate --index` on the marked index gives the result with and without these persons.
Exit code 0: done. 1: no image can be read. 2: wrong usage, or an index that cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cocoer
from cocoer.cli.faults import reports
from cocoer.cli.near_options import add_clip_options, check_near_options, clip_look, near_lines
from cocoer.cli.options import command_parser
from cocoer.data.index import check_index_folder, read_records, sidecar_of, split_path, write_index
from cocoer.data.prepare.leaks import NEAR_TRAIN, NearSearch, mark_near
from cocoer.data.prepare.near_duplicates import NEAR
from cocoer.errors import CheckpointError, IndexFileError
from cocoer.files import hold_folder
from cocoer.names import SPLITS


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare near", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of the images")
    parser.add_argument(
        "--index", type=Path, required=True, help="folder of the index, or one .jsonl file with its splits"
    )
    parser.add_argument("--output", type=Path, required=True, help="another folder, for the marked index")
    parser.add_argument(
        "--near",
        type=int,
        default=NEAR,
        metavar="BITS",
        help=f"hashes that differ in so many of 64 bits are near ({NEAR})",
    )
    add_clip_options(parser)
    parser.add_argument(
        "--drop",
        choices=("near",),
        help="near: leave the persons of train out whose image looks like one of val or test",
    )
    return parser


@reports("prepare near", usage=(CheckpointError, IndexFileError))
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    check_near_options(parser, args)
    if args.output.resolve() == args.index.resolve():
        parser.error(f"--output: wanted another folder than --index, got {args.output} for both")
    check_index_folder(args.output)
    with hold_folder(args.output):
        return _mark(args)


def _mark(args: argparse.Namespace) -> int:
    """Read, compare, write, tell; returns the exit code."""
    files = dict.fromkeys(split_path(args.index, split) for split in SPLITS)  # one, where --index is a file
    records = [record for file in files if file.is_file() for record in read_records(file)]
    there = [split for split in SPLITS if any(record.split == split for record in records)]
    if "train" not in there or len(there) < 2:
        raise IndexFileError(
            f"{args.index}: wanted persons of train and of val or test, to compare them, got {', '.join(there) or 'none'};"
            " give an index with these splits"
        )
    marked, leaks = mark_near(
        records, args.root, NearSearch(args.near, clip_look(args.clip, args.cosine), bool(args.drop))
    )
    said = sidecar_of(args.index if args.index.is_dir() else args.index.parent)
    before = said.get("options")
    options = (before if isinstance(before, dict) else {}) | {"near": args.near, "drop_near": bool(args.drop)}
    sidecar = {
        "skipped": [], **said, "cocoer": cocoer.__version__, "options": options,
        "near_duplicates": leaks.report, "data_root": str(args.root),
    }  # fmt: skip
    written = write_index(args.output, marked, sidecar)
    for line in near_lines(leaks.report):
        print(line)
    for split in [split for split in there if split != "train"]:
        of = [record for record in marked if record.split == split]
        print(f"{split}: {sum(bool(r.extra[NEAR_TRAIN]) for r in of)} of {len(of)} persons marked near_train")
    if args.drop:
        print(f"train: {len(records) - len(marked)} persons left out")
    print(f"index: {args.output} ({', '.join(path.name for path in written.values())})")
    return 0
