"""Make a person index of EMOTIC: verified boxes, a head for everybody, and a sidecar that names every dropped person.

    cocoer prepare emotic --root data/emotic --output data/emotic/index
    cocoer prepare emotic --root data/emotic --output data/emotic/index --heads boxes my_heads.csv --drop-overlap
    cocoer prepare emotic --root data/emotic --output data/emotic/index --drop near       # images that look alike, too

--root is the folder that holds `emotic` (or `cvpr_emotic`) and `Annotations`; a level too high or too low is found too.
--heads: `detect` finds faces and gives each body at most one (needs the detectors, see cocoer weights), `boxes FILE`
reads them from a .csv or .jsonl (columns image, person, x1, y1, x2, y2, score), `estimate` places all heads by the body alone.
Exit code 0: done. 1: persons were dropped for faulty files or boxes, or --strict refused them. 2: wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cocoer
from cocoer.cli.faults import reports
from cocoer.cli.near_options import add_clip_options, check_near_options, clip_look, near_lines
from cocoer.cli.options import command_parser
from cocoer.cli.prepare_heads import HINT, add_head_options, head_shares, head_source
from cocoer.data.index import check_index_folder, write_index
from cocoer.data.prepare.emotic import EmoticTree, find_tree, load_annotations
from cocoer.data.prepare.emotic_index import FAULTS, build_emotic_index
from cocoer.data.prepare.leaks import NearSearch
from cocoer.data.prepare.near_duplicates import NEAR
from cocoer.errors import (
    AnnotationError,
    CheckpointError,
    DetectorError,
    HeadFileError,
    IndexFileError,
    MissingWeights,
    StrictError,
)
from cocoer.files import file_sha256, hold_folder


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare emotic", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with `emotic` and `Annotations`")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for train.jsonl, val.jsonl, test.jsonl, sidecar.json"
    )
    parser.add_argument(
        "--release", choices=("auto", "pami", "cvpr17"), default="auto", help="default: the one that is there"
    )
    add_head_options(parser, "where head boxes come from; default detect")
    parser.add_argument("--drop-overlap", action="append_const", const="overlap", dest="drop", default=[],
                        help="the same as --drop overlap")  # fmt: skip
    parser.add_argument(
        "--near", type=int, nargs="?", const=NEAR, metavar="BITS",
        help=f"count images that look like another split's, and mark their persons (near_train); bits of 64, {NEAR} unless given",
    )  # fmt: skip
    add_clip_options(parser)
    parser.add_argument(
        "--drop", choices=("overlap", "near"), action="append", default=[],
        help="leave out of train what is also in val or test: the same image, or one that looks like it (implies --near)",
    )  # fmt: skip
    parser.add_argument(
        "--require-vad", action="store_true", help="leave out persons without valid VAD, as the usual converter"
    )
    parser.add_argument("--strict", action="store_true", help="refuse faulty files and boxes in place of dropping them")
    return parser


@reports(
    "prepare emotic",
    usage=(AnnotationError, CheckpointError, IndexFileError, HeadFileError, MissingWeights, DetectorError),
    failed=(StrictError,),
    hint=HINT,
)
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    args.near = NEAR if args.near is None and "near" in args.drop else args.near
    check_near_options(parser, args)
    check_index_folder(args.output)
    with hold_folder(args.output):
        return _prepare(parser, args)


def _prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Read, build, write, tell; returns the exit code."""
    tree = find_tree(args.root, args.release)
    source, detector = head_source(parser, args, tree.data_root)
    print(f"annotations: {tree.annotations} ({tree.release})\nimages: {tree.images}")
    images = load_annotations(tree.annotations)
    overlap, alike = ("overlap" in args.drop), ("near" in args.drop)
    near = None if args.near is None else NearSearch(args.near, clip_look(args.clip, args.cosine), alike)
    index = build_emotic_index(images, tree, source, overlap, args.require_vad, args.strict, near)
    made = {
        "cocoer": cocoer.__version__,
        "annotations": {"file": tree.annotations.name, "sha256": file_sha256(tree.annotations)},
        "options": {"drop_overlap": overlap, "drop_near": alike}
        | {name: getattr(args, name) for name in ("near", "require_vad", "strict")},
        "detector": detector,
    }
    written = write_index(args.output, index.records, made | index.sidecar | {"data_root": str(tree.data_root)})
    _tell(index.sidecar, tree)
    print(f"index: {args.output} ({', '.join(p.name for p in written.values())})")
    return 1 if any(row["reason"].startswith(FAULTS) for row in index.sidecar["skipped"]) else 0


def _tell(sidecar: dict[str, Any], tree: EmoticTree) -> None:
    """The main counts on the terminal; all of them are in the sidecar."""
    for split, counts in sidecar["counts"].items():
        where = f"{split}: {counts['persons']} persons in {counts['images']} images"
        print(f"{where}, {counts['skipped']} left out; heads: {head_shares(sidecar, split)}")
    for reason, count in sidecar["skipped_because"].items():
        print(f"left out: {count} x {reason}")
    for source, sizes in sidecar["stored_sizes"].items():
        if wrong := {kind: n for kind, n in sizes.items() if kind in ("swapped", "wrong", "missing")}:
            kinds = ", ".join(f"{n} {kind}" for kind, n in wrong.items())
            print(f"stored sizes of {source}: {kinds} (the decoded size was used)")
    for pair, found in sidecar["overlap"].items():
        if found["images_by_content"] or found["images_by_path"]:
            first, second = pair.split("/")
            inside = " and ".join(
                f"{found[f'{split}_persons_in_them']} persons of {split}" for split in (first, second)
            )
            by_path, by_content = found["images_by_path"], found["images_by_content"]
            print(f"overlap {pair}: {by_path} images by path, {by_content} by content, with {inside}")
    for line in near_lines(sidecar.get("near_duplicates")):
        print(line)
    for name, by_split in sidecar["against_published"]["counts"].items():
        text = ", ".join(f"{s} {c['here']} ({c['difference']:+d})" for s, c in by_split.items())
        print(f"{name}, and the difference to the published counts of {tree.release}: {text}")
    print(f"data.root for a config: {tree.data_root}")
