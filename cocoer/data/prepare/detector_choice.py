"""The detectors of a `cocoer prepare` command: its options, and the settings recorded in the sidecar."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cocoer.config import DetectorConfig
from cocoer.data.detect import build_detector
from cocoer.data.people import Detections
from cocoer.data.prepare.detections import detect_all
from cocoer.files import file_sha256
from cocoer.weights.catalog import find_detector

DETECTIONS = "detections.jsonl"
"""Beside the index: what the detector saw, so that an interrupted preparation goes on and a second one is quick."""


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """`--face-detector` and the others, with the defaults of `config.DetectorConfig`."""
    usual = DetectorConfig()
    parser.add_argument("--face-detector", default=usual.face, help=f"pack or .onnx file; default {usual.face}")
    parser.add_argument("--person-detector", default=usual.person, help=f"file or .onnx path; default {usual.person}")
    parser.add_argument("--input-size", type=int, default=usual.input_size,
                        help=f"side of the square the detectors see, pixels; default {usual.input_size}")  # fmt: skip
    parser.add_argument("--face-threshold", type=float, default=usual.face_threshold,
                        help=f"lowest score of a face; default {usual.face_threshold}")  # fmt: skip
    parser.add_argument("--person-threshold", type=float, default=usual.person_threshold,
                        help=f"lowest score of a body; default {usual.person_threshold}")  # fmt: skip
    parser.add_argument("--device", default="auto", help="of the detectors: auto, cpu or cuda; default auto")


def detector_config(parser: argparse.ArgumentParser, args: argparse.Namespace) -> DetectorConfig:
    """The options as a checked config; a value out of range ends the program with the usage (exit code 2)."""
    if args.input_size < 32 or not (0 <= args.face_threshold <= 1 and 0 <= args.person_threshold <= 1):
        parser.error(
            f"wanted --input-size 32 or more and thresholds in 0..1, got {args.input_size}, {args.face_threshold} and "
            f"{args.person_threshold}"
        )
    return DetectorConfig(
        args.face_detector, args.person_detector, args.input_size, args.face_threshold, args.person_threshold
    )


class StoredDetector:
    """The chosen detectors over a data set, remembering what they saw in `folder`.

    Raises MissingWeights or DetectorError (of `detect`) where they cannot be loaded.
    """

    def __init__(self, config: DetectorConfig, device: str, root: Path, folder: Path) -> None:
        self._detector, self._root, self._store = build_detector(config, device), root, folder / DETECTIONS
        self.settings: dict[str, Any] = {
            "face": self._detector.info.face,
            "person": self._detector.info.person,
            "face_sha256": file_sha256(find_detector(config.face, "face")),
            "person_sha256": file_sha256(find_detector(config.person, "person")),
            "input_size": config.input_size,
            "face_threshold": config.face_threshold,
            "person_threshold": config.person_threshold,
        }

    def __call__(self, images: Mapping[str, str]) -> tuple[dict[str, Detections], dict[str, str]]:
        """Image path -> content hash, in; detections and errors by image path, out."""
        return detect_all(self._detector, self.settings, self._root, images, self._store)
