"""What `cocoer prepare emotic` and `cocoer prepare table` share: the choice of head boxes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cocoer.data.people import RULES
from cocoer.data.prepare.detector_choice import StoredDetector, add_detector_options, detector_config
from cocoer.data.prepare.emotic_index import HeadSource
from cocoer.data.prepare.heads import read_head_file
from cocoer.files import file_sha256

HINT = "Without detectors: --heads estimate, or --heads boxes FILE."


def add_head_options(parser: argparse.ArgumentParser, heads: str) -> None:
    """--heads, --rule and the detectors' options. heads: the help of the first."""
    parser.add_argument("--heads", nargs="+", default=["detect"], metavar=("detect|boxes|estimate", "FILE"), help=heads)
    parser.add_argument("--rule", choices=tuple(RULES), default="one_to_one", help="how faces go to bodies")
    add_detector_options(parser)


def head_source(parser: argparse.ArgumentParser, args: argparse.Namespace, root: Path) -> tuple[HeadSource, Any]:
    """The source that --heads names, and what the sidecar says of it. root: of the images. Wrong usage ends the program."""
    kind, *files = args.heads
    if kind not in ("detect", "boxes", "estimate") or len(files) != (kind == "boxes"):
        parser.error(f"--heads: wanted detect, estimate or boxes FILE, got {' '.join(args.heads)}")
    if kind == "boxes":
        path = Path(files[0])
        return HeadSource(given=read_head_file(path)), {"heads": kind, "file": path.name, "sha256": file_sha256(path)}
    if kind == "estimate":
        return HeadSource(), {"heads": kind}
    detector = StoredDetector(detector_config(parser, args), args.device, root, args.output)
    return HeadSource(detect=detector, rule=args.rule), {"heads": kind, "rule": args.rule} | detector.settings


def head_shares(sidecar: Mapping[str, Any], split: str) -> str:
    """The sources of a split's head boxes, with shares; empty for a split without persons."""
    heads = sidecar["heads"]["sources"].get(split, {})
    return ", ".join(f"{name} {found['share']:.1%}" for name, found in heads.items() if found["persons"])
