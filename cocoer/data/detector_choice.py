"""The detector that a preparation uses, as options of a command and as facts for the sidecar."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cocoer.config import DetectorConfig
from cocoer.data.detect import build_detector
from cocoer.data.detections import detect_all
from cocoer.data.files import file_checksum
from cocoer.data.people import Detections
from cocoer.weights_catalog import find_detector

DETECTIONS = "detections.jsonl"
"""Beside the index: what the detector saw, so that an interrupted preparation goes on and a second one is quick."""


def add_detector_options(parser: argparse.ArgumentParser) -> None:
    """`--face-detector`, `--person-detector`, `--device`, with the defaults of `config.DetectorConfig`."""
    usual = DetectorConfig()
    parser.add_argument("--face-detector", default=usual.face, help=f"pack or .onnx file; default {usual.face}")
    parser.add_argument("--person-detector", default=usual.person, help=f"file or .onnx path; default {usual.person}")
    parser.add_argument("--device", default="auto", help="of the detectors: auto, cpu or cuda; default auto")


class StoredDetector:
    """The chosen detectors over a data set, remembering what they saw in `folder`.

    Raises MissingWeights or DetectorError (of `detect`) where they cannot be loaded.
    """

    def __init__(self, face: str, person: str, device: str, root: Path, folder: Path) -> None:
        config = DetectorConfig(face=face, person=person)
        self._detector, self._root, self._store = build_detector(config, device), root, folder / DETECTIONS
        self.settings: dict[str, Any] = {
            "face": self._detector.info.face,
            "person": self._detector.info.person,
            "face_sha256": file_checksum(find_detector(face, "face")),
            "person_sha256": file_checksum(find_detector(person, "person")),
            "input_size": config.input_size,
            "face_threshold": config.face_threshold,
            "person_threshold": config.person_threshold,
        }

    def __call__(self, images: Mapping[str, str]) -> tuple[dict[str, Detections], dict[str, str]]:
        """Image path -> content hash, in; detections and errors by image path, out."""
        return detect_all(self._detector, self.settings, self._root, images, self._store)
