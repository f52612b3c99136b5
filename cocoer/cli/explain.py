"""Why a person got an emotion: cocoer explain --input IMAGE [--emotion Happiness]

Writes, for each person, the panel of the supplement's Fig. 4 (Grad-CAM per level before and after coordination, and the
difference), the cross-level attention over the image, and the numbers as JSON. Exit 0: done. 1: a person could not be
explained (named, the others written). 2: wrong usage or something needed is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cocoer.weights.catalog import DEMO_CHECKPOINT

if TYPE_CHECKING:
    from PIL import Image

    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import Explanation, PersonBoxes


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    p = argparse.ArgumentParser(
        prog="cocoer explain", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--input", required=True, metavar="IMAGE")
    p.add_argument("--emotion", help="a class name; default: each person's most probable one")
    p.add_argument("--person", type=int, help="only this person, from 0 (default: all)")
    p.add_argument(
        "--boxes", metavar="B.json", help="boxes of the people; NAME.boxes.json beside the image is found by itself"
    )
    p.add_argument("--checkpoint", help="weights; default: the synthetic demonstration's")
    p.add_argument("--config", help="YAML config; default: the one inside the checkpoint")
    p.add_argument("--device", default="auto")
    p.add_argument("--set", nargs="+", default=[], action="extend", metavar="KEY=VALUE", dest="overrides")
    p.add_argument("--output", default="outputs/explain", metavar="FOLDER")
    return p.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    args = parse(argv)
    try:
        return run(args)
    except (
        ValueError,
        FileNotFoundError,
        OSError,
        RuntimeError,
    ) as err:  # configs, weights, images, boxes, detectors
        print(f"cocoer explain: error: {err}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """One image."""
    from cocoer.data.boxes_file import GivenBoxes
    from cocoer.data.decode import decode_image
    from cocoer.data.transforms import make_batch
    from cocoer.inference.explain import explain
    from cocoer.inference.recognizer import Recognizer
    from cocoer.names import canonical_class
    from cocoer.outputs import PersonBoxes

    image = decode_image(args.input)
    given = GivenBoxes(args.boxes, True)(args.input, Path(args.input))
    if args.config:
        shipped = DEMO_CHECKPOINT if Path(args.config).stem == DEMO_CHECKPOINT.stem else None
        recognizer = Recognizer.from_config(args.config, args.checkpoint or shipped, args.device, args.overrides)
    else:
        recognizer = Recognizer.from_checkpoint(args.checkpoint or DEMO_CHECKPOINT, args.device, args.overrides)
    if args.emotion is not None:  # before any work: a misspelt name costs nothing
        args.emotion = canonical_class(args.emotion, recognizer.config.classes)
    prepared = recognizer.prepare(image, given)
    wanted = range(len(prepared.rows)) if args.person is None else [args.person]
    if args.person is not None and not 0 <= args.person < len(prepared.rows):
        raise ValueError(f"--person: wanted 0 to {len(prepared.rows) - 1}, got {args.person}")
    crops = iter(prepared.crops)
    failed = 0
    for number, who in enumerate(prepared.rows):
        own = next(crops) if isinstance(who, PersonBoxes) else None
        if number not in wanted:
            continue
        if own is None or not isinstance(who, PersonBoxes):
            print(f"cocoer explain: person {number}: {who}", file=sys.stderr)
            failed += 1
            continue
        found = explain(recognizer.model, recognizer.config, make_batch([own], [str(number)]), args.emotion)[0]
        write(Path(args.output), Path(args.input), image, who, number, found, recognizer)
    if not prepared.rows:
        print(f"{args.input}: no person found")
    return 1 if failed else 0


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

    from cocoer.report.saliency import draw_attention, draw_saliency, level_images
    from cocoer.report.text import Cell, table

    folder.mkdir(parents=True, exist_ok=True)
    found = replace(found, person=number)
    stem = "".join(c if c.isalnum() or c in "-_" else "_" for c in f"{source.stem}_person{number}_{found.emotion}")
    title = f"{source.name}, person {number}"
    draw_saliency(level_images(image, who), found, title).save(folder / f"{stem}_saliency.png")
    if found.attention:
        draw_attention(image, found, title).save(folder / f"{stem}_attention.png")
    facts = {"image": source.as_posix(), "model": recognizer.about, "boxes": who.to_dict()} | found.to_dict()
    (folder / f"{stem}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    rows: list[list[Cell]] = [[s.level, s.score_before, s.score_after] for s in found.saliency]
    print(f"person {number}: {found.emotion}, probability {found.probability:.2f} -> {folder / stem}_*.png")
    print(table(["level", "logit, theta", "logit, theta~"], rows))
