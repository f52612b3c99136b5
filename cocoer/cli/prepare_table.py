"""Make a person index of any other data set: an annotation file, or one folder per class.

    cocoer prepare table people.csv --root photos --output data/mine/index --columns image=file body=x1,y1,x2,y2 labels=feeling
    cocoer prepare table export.json --root photos --output data/mine/index                 (COCO, or Label Studio's JSON)
    cocoer prepare table --folder photos --output data/mine/index --heads estimate

FILE: .csv, .tsv, .jsonl, .parquet, COCO .json, Label Studio .json, or .xml of CVAT; one person a row. Of BoLD and HECO
(--format bold, --format heco) the data set's folder. --columns: which column
is what (image, body, head, labels, split, group); a box is one column or four names joined by commas; several labels stand
with | or ; between them, or in a list. Usual names are found without it. Bodies and heads that are missing are detected (or
estimated: --heads as in `cocoer prepare emotic`); splits that are missing are made, 70/10/20 % of each class, and cut no
group, image or near-duplicate in two. The classes are those of --dataset or --classes, else those that occur.
Exit code 0: done. 1: rows were left out as faulty (each named in sidecar.json), or --strict refused them. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import yaml

import cocoer
from cocoer.cli.faults import reports
from cocoer.cli.options import command_parser
from cocoer.cli.prepare_heads import HINT, add_head_options, head_shares, head_source
from cocoer.data.index import check_index_folder, write_index
from cocoer.data.prepare.near_duplicates import NEAR
from cocoer.data.prepare.table.build import TableIndex, TableOptions, build_table_index, shared_lines
from cocoer.data.prepare.table.folders import read_folders
from cocoer.data.prepare.table.people import NO_LABEL
from cocoer.data.prepare.table.read import FORMATS, read_rows
from cocoer.data.prepare.table.rows import CONVENTIONS, UNITS, Reading, parse_columns
from cocoer.datasets import DatasetEntry, find_dataset, read_class_list, shipped_datasets
from cocoer.errors import (
    AnnotationError,
    DatasetError,
    DetectorError,
    HeadFileError,
    IndexFileError,
    MissingWeights,
    StrictError,
)
from cocoer.files import file_sha256, hold_folder, write_text


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("prepare table", __doc__)
    parser.add_argument("file", type=Path, nargs="?", help="the annotations (of BoLD and HECO: the folder)")
    parser.add_argument("--folder", type=Path, help="in place of FILE: images in one folder per class, or split/class")
    parser.add_argument("--format", choices=FORMATS, help="default: by the file's ending and content")
    parser.add_argument(
        "--root", type=Path, help="folder that image paths are relative to; default: FILE's, or --folder"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for train.jsonl ... and sidecar.json")
    parser.add_argument(
        "--columns", nargs="+", action="extend", default=[], metavar="KEY=NAME", help="what is where; see above"
    )
    parser.add_argument(
        "--boxes", choices=CONVENTIONS, help="what four numbers mean; default xyxy (tables, JSON lines, Parquet)"
    )
    parser.add_argument("--unit", choices=UNITS, help="what boxes are measured in; default pixels (the same files)")
    parser.add_argument("--dataset", help=f"classes of {', '.join(shipped_datasets())}, or of a .yaml file like theirs")
    parser.add_argument("--classes", help="class names with commas between them, or a file with one a line")
    parser.add_argument(
        "--labels", choices=("multi", "single"), help="several labels a person or one; default: as it occurs"
    )
    parser.add_argument("--name", help="of the data set; default: FILE's or the folder's")
    add_head_options(parser, "where missing heads and bodies come from; default detect")
    parser.add_argument("--drop-overlap", action="store_true",
                        help="leave out of train what shares an image or a group with val or test")  # fmt: skip
    parser.add_argument(
        "--near", type=int, default=NEAR, help=f"bits of 64 that near-duplicates may differ in; default {NEAR}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of splits that are made")
    parser.add_argument(
        "--strict", action="store_true", help="refuse faulty rows and shared groups in place of counting them"
    )
    return parser


def _arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = _parser()
    args = parser.parse_args(argv)
    if (args.file is None) == (args.folder is None):
        parser.error("wanted FILE or --folder, one of them")
    if args.dataset and (args.classes or args.labels or args.name):
        parser.error("--dataset says classes, labels and name itself; leave --classes, --labels and --name out")
    if not 0 <= args.near < 32 or args.seed < 0:
        parser.error(f"--near: wanted 0..31 bits, and --seed 0 or more, got {args.near} and {args.seed}")
    if args.format in shipped_datasets() and not (args.dataset or args.classes):
        args.dataset = args.format
    if args.folder and (args.columns or args.format):
        parser.error("--folder: paths say it all; leave --columns and --format out")
    args.root = args.root or args.folder or (args.file if args.file.is_dir() else args.file.parent)
    if not args.root.is_dir():
        parser.error(f"--root: wanted a folder, got {args.root}")
    return parser, args


@reports(
    "prepare table",
    usage=(AnnotationError, IndexFileError, DatasetError, HeadFileError, MissingWeights, DetectorError),
    failed=(StrictError,),
    hint=HINT,
)
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser, args = _arguments(argv)
    check_index_folder(args.output)
    with hold_folder(args.output):
        return _prepare(parser, args)


def _prepare(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Read, build, write, tell; returns the exit code."""
    reading = Reading(parse_columns(args.columns), args.boxes or "xyxy", args.unit or "pixels")
    entry, classes = _classes(args)
    rows = list(read_folders(args.folder)) if args.folder else read_rows(args.file, reading, args.format)
    source, detector = head_source(parser, args, args.root)
    options = TableOptions(
        entry, args.name or (args.file or args.folder).resolve().stem, classes, args.labels, reading,
        bool(args.boxes or args.unit), source, args.drop_overlap, args.near, args.seed, args.strict,
    )  # fmt: skip
    index = build_table_index(rows, args.root, options)
    made: dict[str, Any] = {"cocoer": cocoer.__version__, "detector": detector}
    if args.file is not None and args.file.is_file():
        made["annotations"] = {"file": args.file.name, "sha256": file_sha256(args.file)}
    written = write_index(args.output, index.records, made | index.sidecar | {"data_root": str(args.root)})
    _tell(index)
    name = _write_entry(args.output, index.entry) if entry is None else args.dataset
    print(f"for a config: data.dataset: {name}, data.root: {args.root}, data.index: {args.output}")
    print(f"index: {args.output} ({', '.join(p.name for p in written.values())})")
    return 1 if any(row["reason"] != NO_LABEL for row in index.sidecar["skipped"]) else 0


def _classes(args: argparse.Namespace) -> tuple[DatasetEntry | None, list[str] | None]:
    """The known data set, or the class names that were given. Raises DatasetError."""
    if args.dataset:
        return find_dataset(args.dataset), None
    if not args.classes:
        return None, None
    if Path(args.classes).is_file():
        return None, read_class_list(Path(args.classes))
    return None, [name.strip() for name in args.classes.split(",") if name.strip()]


def _write_entry(out: Path, entry: DatasetEntry) -> Path:
    """The data set's own file beside its index, for `data.dataset` of a config."""
    path = out / f"{entry.name}.yaml"
    content = {"title": entry.title, "labels": entry.labels, "classes": list(entry.classes)}
    write_text(
        path, "# Made by `cocoer prepare table`.\n" + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    )
    return path


def _tell(index: TableIndex) -> None:
    """The main counts on the terminal; all of them are in the sidecar."""
    sidecar, entry = index.sidecar, index.entry
    print(
        f"{len(entry.classes)} classes, {'several' if entry.multi_label else 'one'} a person: {', '.join(entry.classes)}"
    )
    for split, counts in sidecar["counts"].items():
        shares = head_shares(sidecar, split) or "none"
        print(f"{split}: {counts['persons']} persons in {counts['images']} images; heads: {shares}")
    how = sidecar["split"]
    if how["splits"] == "made":
        print(f"splits made: {how['groups']} groups, the largest of {how['largest_group']}, seed {how['seed']}")
    for line in shared_lines(how):
        print(f"SHARED: {line}", file=sys.stderr)
    for line in sidecar["skipped_because"]:
        print(f"left out: {line}", file=sys.stderr)
    if missing := sidecar["classes_without_train"]:
        print(f"no person in train has: {', '.join(missing)}", file=sys.stderr)
