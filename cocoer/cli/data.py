"""Look at a person index: does every image decode, and do boxes and labels make sense.

    cocoer data check data/emotic/index
    cocoer data show data/emotic/index --output outputs/sheet.png
    cocoer data convert SOURCE --format tandon-csv --root data/emotic --output data/emotic/index

check compares the index with what training needs (as `cocoer train` does at its start: splits, classes, labels), then reads
every image completely and names each one that is broken, with the persons it takes along. Which data set it is comes from
--config, --dataset or the index's own sidecar. With --config the splits that training reads are looked at, else all.
show draws a contact sheet: body boxes red; head boxes green (annotated), blue (detected) or orange (estimated).
convert makes an index from files that others derived from EMOTIC or CAER-S; see docs/data.md for the formats.
Exit code 0: all is well. 1: something is broken (each named). 2: wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import add_index, add_options, add_persons, command_parser, the_index
from cocoer.config import load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.cache import CropCache
from cocoer.data.index import check_index_folder, data_root_of, read_records, split_path, write_index
from cocoer.data.prepare.checks import check_images, contact_sheet
from cocoer.data.prepare.derived.convert import FORMATS, convert
from cocoer.data.validate import data_of_index, labelled_people, splits_to_check
from cocoer.datasets import dataset_of, shipped_datasets
from cocoer.errors import CacheError, CocoerError, ConfigError, DatasetError, DerivedError, IndexFileError
from cocoer.files import hold_folder, write_file
from cocoer.names import SPLITS
from cocoer.paths import refuse_input


class _BrokenIndex(CocoerError):
    """An existing index that cannot be trained on: the finding of `check`, not wrong usage."""


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("data", __doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="decode every image of an index")
    show = commands.add_parser("show", help="contact sheet with boxes and labels")
    for command in (check, show):
        add_index(command)
        command.add_argument(
            "--root", type=Path, help="folder that the image paths are relative to; default: the index's own"
        )
        command.add_argument("--split", choices=SPLITS, help="this split alone (default: all)")
        add_options(command, "--allow-outside")
    check.add_argument("--config", help="the config that is to train on it; its data set and splits count")
    add_options(check, "--set", help="changes to --config")
    check.add_argument("--dataset", help=f"{', '.join(shipped_datasets())}, or a .yaml file like theirs")
    check.add_argument("--cache", type=Path, help="also verify the checksums of the crop caches in this folder")
    show.add_argument("--output", type=Path, required=True, help="the PNG to write")
    add_persons(show, 24)
    add_options(show, "--seed")
    change = commands.add_parser("convert", help="index from files that others derived")
    change.add_argument("source", type=Path, help="the file or folder to read")
    change.add_argument("--format", choices=tuple(FORMATS), required=True, help="what the source is")
    change.add_argument("--root", type=Path, required=True, help="folder with the images; those of arrays go there")
    change.add_argument("--output", type=Path, required=True, help="folder for the index")
    change.add_argument("--dataset", choices=("emotic", "caers"), default="emotic", help="default: emotic")
    return parser


def _records(args: argparse.Namespace) -> list[PersonRecord]:
    """The persons of the index that the command is about."""
    splits = [args.split] if args.split else SPLITS
    if args.index.suffix == ".jsonl":
        records = read_records(args.index)
    else:
        paths = [p for s in splits if (p := split_path(args.index, s)).is_file()]
        records = [r for path in paths or [split_path(args.index, splits[0])] for r in read_records(path)]
    chosen = [r for r in records if r.split in splits]
    if not chosen:
        raise IndexFileError(f"{args.index}: wanted persons of {', '.join(splits)}, found none")
    return chosen


def _checked(args: argparse.Namespace) -> list[PersonRecord]:
    """The persons of the index, after the checks that training makes. Raises IndexFileError, ConfigError, DatasetError."""
    config = load_config(args.config, args.overrides).data if args.config else None
    if config is None:
        data = data_of_index(args.index, args.root, args.dataset)
    else:
        data = replace(config, index=str(args.index), root=str(args.root))
    if args.split or args.index.suffix == ".jsonl":
        splits, remark = [args.split] if args.split else _splits_in(args.index), ""
    else:
        splits, remark = splits_to_check(args.index, config)
    people = [record for split in splits for record in labelled_people(data, split, images=False)]
    entry = dataset_of(data)
    print(
        f"{entry.title}: {len(people)} persons of {', '.join(splits)} have labels among its {len(entry.classes)} classes"
    )
    if remark:
        print(remark)
    return people


def _splits_in(path: Path) -> list[str]:
    """The splits whose persons a single .jsonl file holds."""
    found = {record.split for record in read_records(path)}
    return [split for split in SPLITS if split in found]


def _check(args: argparse.Namespace) -> int:
    try:
        records = _checked(args)
    except IndexFileError as err:
        raise err if not args.index.exists() else _BrokenIndex(str(err)) from None
    broken = check_images(records, args.root, args.allow_outside)
    for image in broken:
        print(f"{image.image} ({image.persons} persons): {image.reason}", file=sys.stderr)
    lost = sum(p.persons for p in broken)
    images = len({r.image for r in records})
    print(f"{images} images with {len(records)} persons read; {len(broken)} images with {lost} persons are broken")
    caches_fine = True
    for folder in sorted(p.parent for p in args.cache.glob("*/manifest.json")) if args.cache else []:
        try:
            cache = CropCache(folder)
            cache.verify()
            print(f"crop cache {folder}: {len(cache)} persons, checksums agree")
        except CacheError as err:
            caches_fine = False
            print(err, file=sys.stderr)
    return 1 if broken or not caches_fine else 0


def _show(args: argparse.Namespace) -> int:
    records = _records(args)
    refuse_input(args.output, (args.root / record.image for record in records))
    sheet = contact_sheet(records, args.root, args.persons, args.seed, args.allow_outside)
    write_file(args.output, sheet.save)
    print(f"contact sheet: {args.output} ({sheet.width}x{sheet.height})")
    return 0


def _convert(args: argparse.Namespace) -> int:
    check_index_folder(args.output)
    with hold_folder(args.output):
        records, sidecar = convert(args.source, args.format, args.root, args.dataset)
        written = write_index(args.output, records, sidecar)
    for row in sidecar["skipped"]:
        print(f"left out: {row['where']}: {row['reason']}", file=sys.stderr)
    print(f"{len(records)} persons, {len(sidecar['skipped'])} left out")
    print(f"index: {args.output} ({', '.join(p.name for p in written.values())})")
    return 1 if sidecar["skipped"] else 0


@reports("data", (ConfigError, DatasetError, IndexFileError, DerivedError), (_BrokenIndex,))
def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.command != "convert":
        args.index = Path(the_index(parser, args))
    if args.command == "show" and (args.persons < 1 or args.seed < 0):
        parser.error(f"--persons: wanted 1 or more, and --seed 0 or more, got {args.persons} and {args.seed}")
    if args.command == "show" and args.output.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        parser.error(f"--output: wanted a name that ends in .png or .jpg, got {args.output}")
    if args.command == "check" and args.overrides and not args.config:
        parser.error("--set changes --config; give that too")
    if args.root is None:
        args.root = data_root_of(args.index)
        if args.index.exists() and not args.root.is_dir():
            parser.error(
                f"{args.index}: its images should be in {args.root}, and there is no such folder; say with --root where they are"
            )
    elif not args.root.is_dir() and args.command != "convert":
        parser.error(f"--root: wanted a folder, got {args.root}")
    return {"check": _check, "show": _show, "convert": _convert}[args.command](args)
