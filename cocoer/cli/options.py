"""The options that several commands have, each described once."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cocoer.names import SPLITS
from cocoer.weights.catalog import DETECTORS

OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {"help": "YAML config; default: the one inside the checkpoint"},
    "--checkpoint": {
        "help": "weights (.safetensors file or folder, or .onnx), release (the authors'), zero-shot[:TOWER[=FILE]] (CLIP alone) "
        "or demo; default: those that `cocoer setup photos` installed, else demo (synthetic)"
    },
    "--detector": {
        "choices": sorted(DETECTORS),
        "help": "detectors of people (default: those that belong to the weights); demo: for drawn people only",
    },
    "--boxes": {
        "metavar": "B.json",
        "help": "boxes of the people, instead of detection; NAME.boxes.json beside an image is found automatically",
    },
    "--device": {"default": "auto", "help": "auto (default), cpu, cuda, cuda:N"},
    "--set": {
        "nargs": "+", "action": "extend", "default": [], "metavar": "KEY=VALUE", "dest": "overrides",
        "help": "change values of the config, e.g. inference.batch_size=64",
    },
    "--batch-size": {"type": int, "default": 64, "metavar": "N", "help": "persons per forward pass (default: 64)"},
    "--index": {"help": "folder of the person index, instead of the config's data.index"},
    "--root": {"help": "folder of the images, instead of the config's data.root"},
    "--split": {"choices": SPLITS, "default": "test", "help": "default: test"},
    "--allow-outside": {
        "action": "store_true", "help": "read images that the index names outside its root (.., absolute paths, links)",
    },
    "--seed": {"type": int, "default": 0, "help": "of what is drawn at random (default: 0)"},
    "--no-verify": {"action": "store_true", "help": "read weights even if their checksums do not match"},
    "--quiet": {"action": "store_true", "help": "print errors only"},
    "--offline": {"action": "store_true", "help": "never use the network (also: COCOER_OFFLINE=1)"},
}  # fmt: skip
"""An option -> what `add_argument` gets."""


def command_parser(command: str, about: str | None, **settings: Any) -> argparse.ArgumentParser:
    """The parser of `cocoer COMMAND`. about: its help, as it is (the module's docstring). settings: of ArgumentParser."""
    return argparse.ArgumentParser(
        prog=f"cocoer {command}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
    )


def add_options(parser: argparse.ArgumentParser, *names: str, **other: Any) -> None:
    """Give the parser some of `OPTIONS`. other: settings of `add_argument` that differ in this command."""
    for name in names:
        parser.add_argument(name, **OPTIONS[name] | other)


def add_persons(parser: argparse.ArgumentParser, default: int, older: str = "") -> None:
    """--persons, how many are drawn at random. older: a name that earlier pages gave it, taken without being listed."""
    parser.add_argument(
        "--persons", type=int, default=default, metavar="N", help=f"persons drawn from the seed (default: {default})"
    )
    if older:
        parser.add_argument(older, type=int, dest="persons", help=argparse.SUPPRESS)


def add_index(parser: argparse.ArgumentParser) -> None:
    """The index that a command is about, as its first word or as --index; `the_index` says which."""
    parser.add_argument("where", nargs="?", metavar="INDEX", help="the same as --index")
    parser.add_argument("--index", metavar="INDEX", help="folder of the person index, or one of its .jsonl files")


def the_index(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """What `add_index` took. Ends the program with code 2 unless it was given once."""
    given = [one for one in (args.where, args.index) if one]
    if len(given) != 1:
        parser.error("wanted INDEX or --index, one of them")
    return str(given[0])


def whole_numbers(text: str) -> tuple[int, ...]:
    """`0,1,2` as numbers, for an option that takes several."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise argparse.ArgumentTypeError(f"wanted different whole numbers like 0,1,2, got {text!r}")
    return numbers


def data_changes(args: argparse.Namespace) -> list[str]:
    """--set, --root and --index as changes of a config."""
    places = {"data.root": args.root, "data.index": args.index}
    return [*args.overrides, *(f"{key}={place}" for key, place in places.items() if place)]


def study_parser(study: str, about: str | None, quick: str, publish: str) -> argparse.ArgumentParser:
    """The parser of a study's command, with --output, --quick and --publish. quick, publish: the help of these."""
    parser = command_parser(study, about)
    parser.add_argument("--output", type=Path, help=f"folder; default: outputs/{study}, with _quick for --quick")
    parser.add_argument("--quick", action="store_true", help=f"{quick}: shows that it runs, its figures mean nothing")
    parser.add_argument("--publish", type=Path, metavar="DOCS", help=publish)
    return parser


def parse_study(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line of a `study_parser`, with the folder filled in and `command`, the line as it was typed."""
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    if args.quick and args.publish:
        parser.error("--publish: results of --quick are meaningless and must not be published")
    study = parser.prog.removeprefix("cocoer ")
    args.output = args.output or Path(f"outputs/{study}{'_quick' if args.quick else ''}")
    args.command = shlex.join(["cocoer", study, *words])
    return args
