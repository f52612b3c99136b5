"""Why a person got an emotion: cocoer explain --input IMAGE [--emotion Happiness]

Writes, for each person, the panel of the supplement's Fig. 4 (Grad-CAM per level before and after coordination, and the
difference), the cross-level attention over the image, and the numbers as JSON. Exit 0: done. 1: a person could not be
explained (named, the others written). 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser

if TYPE_CHECKING:
    from PIL import Image

    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import Explanation, PersonBoxes


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = command_parser("explain", __doc__)
    p.add_argument("image", nargs="?", metavar="IMAGE", help="the same as --input")
    p.add_argument("--input", metavar="IMAGE", help="the image")
    p.add_argument("--emotion", help="a class name; default: each person's most probable one")
    p.add_argument("--person", type=int, help="only this person, from 0 (default: all)")
    add_options(p, "--boxes", "--checkpoint", "--detector", "--config", "--device", "--set")
    p.add_argument("--output", default="outputs/explain", metavar="FOLDER", help="default: outputs/explain")
    args = p.parse_args(argv)
    if (args.image is None) == (args.input is None):
        p.error("wanted IMAGE or --input, one of them")
    args.input = args.input or args.image
    return args


@reports("explain", usage=(ValueError, OSError, RuntimeError), failed=())
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    from cocoer.files import hold_folder

    with hold_folder(args.output):
        return run(args)


def run(args: argparse.Namespace) -> int:
    """One image."""
    from cocoer.data.boxes_file import GivenBoxes
    from cocoer.data.decode import decode_image
    from cocoer.data.transforms import make_batch
    from cocoer.inference.explain import explain
    from cocoer.inference.recognizer import Recognizer
    from cocoer.names import canonical_class
    from cocoer.outputs import SYNTHETIC

    given = GivenBoxes(args.boxes, True)(args.input, Path(args.input))
    overrides = [*args.overrides, "inference.backend=torch"]  # an exported file has no backbones to look into
    recognizer = Recognizer.from_options(args.config, args.checkpoint, args.device, overrides, args.detector)
    if recognizer.synthetic:
        print(SYNTHETIC, file=sys.stderr)
    image = decode_image(args.input, recognizer.config.inference.max_pixels)
    if args.emotion is not None:  # before any work: a misspelt name costs nothing
        args.emotion = canonical_class(args.emotion, recognizer.config.classes)
    prepared = recognizer.prepare(image, given)
    persons = prepared.persons
    if prepared.remark:
        print(f"cocoer explain: {prepared.remark}", file=sys.stderr)
    if args.person is not None and not 0 <= args.person < len(persons):
        raise ValueError(f"--person: wanted 0 to {len(persons) - 1}, got {args.person}")
    failed = 0
    for number in range(len(persons)) if args.person is None else [args.person]:
        who = persons[number]
        if who.boxes is None or who.crops is None:
            print(f"cocoer explain: person {number}: {who.fault}", file=sys.stderr)
            failed += 1
            continue
        found = explain(recognizer.model, recognizer.config, make_batch([who.crops], [str(number)]), args.emotion)[0]
        write(Path(args.output), Path(args.input), image, who.boxes, number, found, recognizer)
    if not persons:
        print(f"{args.input}: no person found")
    return 1 if failed else 0


_ENDS = (".json", "_saliency.png", "_saliency.pdf", "_attention.png", "_attention.pdf")


def is_ours(path: Path, source: Path) -> bool:
    """Whether a file may be written: it is not there, or the JSON of its stem says that it explains this image."""
    from cocoer.files import read_json

    if not os.path.lexists(path):
        return True
    stem = path.name[: -len(next(end for end in _ENDS if path.name.endswith(end)))]
    try:
        said = read_json(path.with_name(f"{stem}.json"), 1 << 26)
        return bool(said["image"] == source.as_posix() and "saliency" in said)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def write(
    folder: Path,
    source: Path,
    image: Image.Image,
    who: PersonBoxes,
    number: int,
    found: Explanation,
    recognizer: Recognizer,
) -> None:
    """Both panels and the numbers of one person."""
    from dataclasses import replace

    from cocoer.files import write_text
    from cocoer.outputs import SYNTHETIC
    from cocoer.report.plots import save, with_note
    from cocoer.report.results import free_name
    from cocoer.report.saliency import draw_attention, draw_saliency
    from cocoer.report.text import Cell, table

    found = replace(found, person=number)
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{source.stem}_person{number}_{found.emotion}")
    stem = free_name(lambda name: [folder / f"{name}{end}" for end in _ENDS], stem, lambda path: is_ours(path, source))
    title = f"{source.name}, person {number}"
    note = SYNTHETIC if recognizer.synthetic else ""
    save(with_note(draw_saliency(who.level_images(image), found, title), note), folder / f"{stem}_saliency.png")
    if found.attention:
        save(with_note(draw_attention(image, found, title), note), folder / f"{stem}_attention.png")
    facts = {"image": source.as_posix(), "synthetic": recognizer.synthetic, "model": recognizer.about}
    facts |= {"boxes": who.to_dict()} | found.to_dict()
    write_text(folder / f"{stem}.json", json.dumps(facts, indent=1) + "\n")
    rows: list[list[Cell]] = [[s.level, s.score_before, s.score_after] for s in found.saliency]
    print(f"person {number}: {found.emotion}, probability {found.probability:.2f} -> {folder / stem}_*.png")
    print(table(["level", "logit, theta", "logit, theta~"], rows))
