"""Make a person index of CAER-S: class folders in any spelling, duplicates counted, one person with a head in every image.

    cocoer prepare caers --root data/CAER-S --output data/caers/index --split disjoint
    cocoer prepare caers --root data/CAER-S --output data/caers/index --split community --faces lists/

--root is the folder that holds `train` and `test`; a level too high or too low is found too. --faces: a list of
ndkhanh360/CAER or larrylu0426/CAERS-Annotation, or a folder of them. --boxes: `detect` finds faces and bodies (needs the
detectors, see cocoer weights); `estimate` uses the lists and the whole image alone.
Exit code 0: done. 1: images were dropped as faulty, or --strict refused them. 2: wrong usage.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cocoer
from cocoer.cli.faults import reports
from cocoer.cli.options import command_parser
from cocoer.data.index import check_index_folder, write_index
from cocoer.data.prepare.caers import find_caers, read_face_lists, read_tree
from cocoer.data.prepare.caers_index import FAULTS, build_caers_index
from cocoer.data.prepare.detector_choice import StoredDetector, add_detector_options, detector_config
from cocoer.data.prepare.near_duplicates import NEAR
from cocoer.errors import CaersError, DetectorError, IndexFileError, MissingWeights, StrictError
from cocoer.files import hold_folder


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare caers", __doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder with `train` and `test`")
    parser.add_argument("--output", type=Path, required=True, help="folder for train.jsonl ... and sidecar.json")
    parser.add_argument("--split", choices=("original", "community", "disjoint"), default="original",
                        help="by the folders, by the face lists, or with no near-duplicate across splits")  # fmt: skip
    parser.add_argument("--faces", type=Path, help="face list, or a folder of face lists")
    parser.add_argument("--boxes", choices=("detect", "estimate"), default="detect", help="default detect")
    parser.add_argument(
        "--near", type=int, default=NEAR, help=f"bits of 64 that near-duplicates may differ in; default {NEAR}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the disjoint split")
    parser.add_argument("--strict", action="store_true", help="refuse faulty images in place of dropping them")
    add_detector_options(parser)
    return parser


@reports(
    "prepare caers",
    usage=(CaersError, IndexFileError, MissingWeights, DetectorError),
    failed=(StrictError,),
    hint="Without detectors: --boxes estimate.",
)
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if not 0 <= args.near < 32 or args.seed < 0:
        parser.error(f"--near: wanted 0..31 bits, and --seed 0 or more, got {args.near} and {args.seed}")
    check_index_folder(args.output)
    with hold_folder(args.output):
        return _prepare(parser, args)


def _prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Read, build, write, tell; returns the exit code."""
    base = find_caers(args.root)
    data_root = args.root if base.resolve().is_relative_to(args.root.resolve()) else base
    images = read_tree(base, data_root)
    faces = read_face_lists(args.faces, images) if args.faces else None
    detector = (
        StoredDetector(detector_config(parser, args), args.device, data_root, args.output)
        if args.boxes == "detect"
        else None
    )
    index = build_caers_index(images, data_root, args.split, faces, detector, args.near, args.seed, args.strict)
    made = {
        "cocoer": cocoer.__version__,
        "options": {"split": args.split, "near": args.near, "seed": args.seed, "strict": args.strict},
        "detector": {"boxes": args.boxes} | (detector.settings if detector else {}),
    }
    written = write_index(args.output, index.records, made | index.sidecar | {"data_root": str(data_root)})
    _tell(index.sidecar)
    print(f"data.root for a config: {data_root}\nindex: {args.output} ({', '.join(p.name for p in written.values())})")
    return 1 if any(row["reason"].startswith(FAULTS) for row in index.sidecar["skipped"]) else 0


def _tell(sidecar: dict[str, Any]) -> None:
    """The main counts on the terminal; all of them are in the sidecar."""
    for split, counts in sidecar["counts"].items():
        if counts["persons"]:
            shares = {
                what: ", ".join(f"{s} {n['share']:.1%}" for s, n in sidecar[what][split].items() if n["persons"])
                for what in ("heads", "bodies")
            }
            print(f"{split}: {counts['persons']} persons; heads: {shares['heads']}; bodies: {shares['bodies']}")
    for reason, count in sidecar["skipped_because"].items():
        print(f"left out: {count} x {reason}")
    for place, found in sidecar["duplicates"].items():
        across = ", ".join(f"{n} {pair}" for pair, n in found["contents_across"].items()) or "none across splits"
        print(f"byte-identical repeats ({place.replace('_', ' ')}): {found['repeats']}; contents shared: {across}")
    if near := sidecar.get("near_duplicates"):
        print(
            f"near-duplicates: {near['images_in_them']} images in {near['groups_of_two_or_more']} groups, "
            f"the largest of {near['largest_group']}"
        )
    for split, found in sidecar["against_published"].items():
        print(f"published count of {split}: {found['published']}, here {found['here']} ({found['difference']:+d})")
