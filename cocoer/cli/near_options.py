"""What `cocoer prepare emotic` and `cocoer prepare near` share: how near-duplicates are looked for, and what is said of them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from cocoer.config import VocabularyConfig
from cocoer.data.prepare.leaks import ClipLook
from cocoer.data.prepare.near_duplicates import COSINE

DEFAULT_TOWER = VocabularyConfig().tower

WAYS = {"hash": "the hash alone", "clip": "CLIP alone", "both": "both"}


def add_clip_options(parser: argparse.ArgumentParser) -> None:
    """--clip and --cosine."""
    parser.add_argument(
        "--clip", metavar="TOWER[=FILE]|none", default="",
        help=f"CLIP that looks for near-duplicates beside the hash; default: {DEFAULT_TOWER} if its weights are at hand",
    )  # fmt: skip
    parser.add_argument(
        "--cosine", type=float, default=COSINE, help=f"embeddings from so similar on are near (default: {COSINE})"
    )


def check_near_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Wrong numbers end the program with code 2."""
    if args.near is not None and not 0 <= args.near < 32:
        parser.error(f"--near: wanted 0..31 bits, got {args.near}")
    if not 0 < args.cosine <= 1:
        parser.error(f"--cosine: wanted a number above 0 and up to 1, got {args.cosine:g}")


def clip_look(named: str, cosine: float) -> ClipLook | None:
    """The CLIP of `--clip`; where none is named the paper's if its weights are at hand, and otherwise a line that says so.

    Raises CheckpointError for a named one whose weights are missing or do not fit.
    """
    if named == "none":
        return None
    from cocoer.model.image_embedding import image_embedder
    from cocoer.model.zero_shot import Tower

    tower = Tower.parse(named or DEFAULT_TOWER)
    if not named and not tower.file.is_file():
        print(
            f"near-duplicates by perceptual hash alone: no weights of CLIP {tower.name} at hand; {tower.remedy} with --clip"
        )
        return None
    return ClipLook(tower.title, image_embedder(tower), cosine)


def near_lines(near: Mapping[str, Any] | None) -> Iterator[str]:
    """The counts of a search (`Leaks.report`), one line a pair of splits; nothing without a search."""
    for pair, found in (near or {}).get("pairs", {}).items():
        inside = " and ".join(
            f"{found[f'{s}_images']} images with {found[f'{s}_persons']} persons of {s}{_found_by(found, s, near)}"
            for s in pair.split("/")
        )
        yield f"near-duplicates {pair}: {inside}"
    if near and near["unreadable"]:
        yield f"near-duplicates: {near['unreadable']} images cannot be read and were not compared"


def _found_by(found: Mapping[str, int], split: str, near: Mapping[str, Any] | None) -> str:
    """How many of a split's images the hash found, CLIP, and both; "" where the hash alone looked."""
    if near is None or near["clip"] is None:
        return ""
    alone = ", ".join(f"{found.get(f'{split}_images_by_{by}', 0)} by {word}" for by, word in WAYS.items())
    return f" ({alone})"
