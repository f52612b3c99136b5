"""Run detectors over many images; detections are stored, so an interrupted run continues (an hour of CPU time otherwise)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cocoer.data.decode import decode_image, image_path
from cocoer.data.files import progress
from cocoer.data.people import Detections
from cocoer.errors import ImageError
from cocoer.files import parse_json, read_lines, write_text

Detector = Callable[[NDArray[np.uint8]], Detections]

DetectAll = Callable[[Mapping[str, str]], tuple[dict[str, Detections], dict[str, str]]]
"""Image path -> content hash, in; detections and errors by image path, out."""

_AHEAD = 8  # images that are decoded while the detector works


def detect_all(
    detector: Detector, settings: Mapping[str, Any], root: Path, images: Mapping[str, str], store: Path
) -> tuple[dict[str, Detections], dict[str, str]]:
    """(detections by image path, errors by image path) for images that may fail to decode.

    settings: names the detector and all that its answers depend on. images: path relative to `root` -> content hash.
    store: a .jsonl file that is written as the work goes on; its lines are used again where settings and content agree.
    """
    found = _read_store(store, settings, images)
    missing = [image for image in images if image not in found]
    errors: dict[str, str] = {}
    if missing:
        kept = ({"image": image, "content": images[image]} | _to_lists(old) for image, old in found.items())
        write_text(store, "".join(_line(line) for line in ({"settings": dict(settings)}, *kept)))
        with store.open("a", encoding="utf-8") as file:
            for image, pixels in _decoded(root, missing):
                if isinstance(pixels, ImageError):
                    errors[image] = str(pixels)
                    continue
                line = _to_lists(detector(pixels))
                found[image] = _from_lists(line)  # rounded, so that a resumed run gives the same index
                file.write(_line({"image": image, "content": images[image]} | line))
                file.flush()
    return found, errors


def _decoded(root: Path, images: Sequence[str]) -> Iterator[tuple[str, NDArray[np.uint8] | ImageError]]:
    """(image, uint8 [H, W, 3] RGB or the error), decoded a few images ahead of the consumer."""

    def load(image: str) -> NDArray[np.uint8] | ImageError:
        try:
            return np.asarray(decode_image(image_path(root, image, follow_links=True)))
        except ImageError as err:
            return err

    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(load, image) for image in images[:_AHEAD]]
        for i, image in enumerate(progress(images, len(images), "detecting")):
            pixels = waiting.pop(0).result()
            if i + _AHEAD < len(images):
                waiting.append(pool.submit(load, images[i + _AHEAD]))
            yield image, pixels


def _read_store(store: Path, settings: Mapping[str, Any], images: Mapping[str, str]) -> dict[str, Detections]:
    """What an earlier run found with the same settings in files of the same content; a broken last line is left out."""
    try:
        lines = list(read_lines(store))
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, Detections] = {}
    for number, line in enumerate(lines):
        try:
            raw = parse_json(line)
            if number == 0 and raw["settings"] != json.loads(json.dumps(dict(settings))):
                return {}
            if number and images.get(raw["image"]) == raw["content"]:
                found[raw["image"]] = _from_lists(raw)
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _line(content: Mapping[str, Any]) -> str:
    return json.dumps(content) + "\n"


def _to_lists(found: Detections) -> dict[str, Any]:
    names = ("bodies", "body_scores", "faces", "face_scores")
    return {n: np.round(getattr(found, n), 4).tolist() for n in names}


def _from_lists(raw: Mapping[str, Any]) -> Detections:
    def boxes(name: str) -> NDArray[np.float64]:
        return np.array(raw[name], dtype=np.float64).reshape(-1, 4)

    return Detections(
        boxes("bodies"), np.array(raw["body_scores"], float), boxes("faces"), np.array(raw["face_scores"], float)
    )
