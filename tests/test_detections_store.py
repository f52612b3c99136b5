"""What detectors found is kept: an interrupted run goes on, and what no longer holds is found again."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cocoer.config import DetectorConfig
from cocoer.data.people import Detections
from cocoer.data.prepare import detections as d
from cocoer.data.prepare import detector_choice


class Counting:
    """A detector whose answer is the image's first pixel, and that counts what it saw."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, pixels: NDArray[np.uint8]) -> Detections:
        value = int(pixels[0, 0, 0])
        self.seen.append(value)
        body = np.array([[value + 0.123456, 1, 50, 60.5]])
        return Detections(body, np.array([0.987654]), np.empty((0, 4)), np.empty(0))


@pytest.fixture
def images(tmp_path: Path) -> dict[str, str]:
    """20 images, more than are decoded ahead."""
    for i in range(20):
        Image.new("RGB", (8, 6), (i, 0, 0)).save(tmp_path / f"{i:02d}.png")
    return {f"{i:02d}.png": f"hash {i}" for i in range(20)}


def run(
    tmp_path: Path, images: dict[str, str], settings: Any = None
) -> tuple[list[int], dict[str, Detections], dict[str, str]]:
    detector = Counting()
    found, errors = d.detect_all(detector, settings or {"size": (640, 1)}, tmp_path, images, tmp_path / "store.jsonl")
    return detector.seen, found, errors


def test_every_image_is_seen_once_in_order_and_a_second_run_sees_none(tmp_path: Path, images: dict[str, str]) -> None:
    seen, found, errors = run(tmp_path, images)
    assert seen == list(range(20)) and errors == {} and list(found) == list(images)
    assert found["07.png"].bodies.tolist() == [[7.1235, 1.0, 50.0, 60.5]] and found["07.png"].body_scores.tolist() == [
        0.9877
    ]
    assert found["07.png"].faces.shape == (0, 4) and found["07.png"].face_scores.shape == (0,)
    again, same, _ = run(tmp_path, images)
    assert again == []
    assert {k: v.bodies.tolist() for k, v in same.items()} == {k: v.bodies.tolist() for k, v in found.items()}


def test_new_changed_and_broken_images(tmp_path: Path, images: dict[str, str]) -> None:
    few = dict(list(images.items())[:5])
    run(tmp_path, few)
    (tmp_path / "03.png").write_bytes(b"no image")
    seen, found, errors = run(tmp_path, {**images, "01.png": "another hash", "03.png": "another hash"})
    assert seen == [1, *range(5, 20)] and set(errors) == {"03.png"} and len(found) == 19
    assert run(tmp_path, images, {"size": (320, 1)})[0] == [i for i in range(20) if i != 3]  # other settings: all anew


def test_an_interrupted_run_goes_on(tmp_path: Path, images: dict[str, str]) -> None:
    run(tmp_path, images)
    store = tmp_path / "store.jsonl"
    lines = store.read_text().splitlines()
    assert json.loads(lines[0]) == {"settings": {"size": [640, 1]}} and len(lines) == 21
    store.write_text("\n".join(lines[:11]) + "\n" + lines[11][:20])  # ten images, and half a line
    assert run(tmp_path, images)[0] == list(range(10, 20))
    assert len(store.read_text().splitlines()) == 21
    store.write_bytes(b"\xff\xfe")
    assert run(tmp_path, dict(list(images.items())[:2]))[0] == [0, 1]


def test_eight_images_are_decoded_ahead_and_no_more(
    tmp_path: Path, images: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A photograph takes a hundred megabytes, so memory is what bounds this."""
    decoded: list[str] = []
    decode = d.decode_image
    monkeypatch.setattr(d, "decode_image", lambda path: decoded.append(path.name) or decode(path))
    ahead: list[int] = []
    late = time.monotonic() + 60

    class Slow(Counting):
        def __call__(self, pixels: NDArray[np.uint8]) -> Detections:
            if not self.seen:
                while len(decoded) < 9 and time.monotonic() < late:  # the one in hand, and eight
                    time.sleep(0.01)
                time.sleep(0.2)  # for more, if more were asked for
                ahead.append(len(decoded) - 1)
            return super().__call__(pixels)

    d.detect_all(Slow(), {}, tmp_path, images, tmp_path / "store.jsonl")
    assert ahead == [8] and decoded == list(images)


def chosen(*words: str) -> DetectorConfig:
    parser = argparse.ArgumentParser()
    detector_choice.add_detector_options(parser)
    return detector_choice.detector_config(parser, parser.parse_args(words))


def test_the_options_are_the_configs_and_out_of_range_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert chosen() == DetectorConfig()
    found = chosen("--input-size", "32", "--face-threshold", "0", "--person-threshold", "1")
    assert (found.input_size, found.face_threshold, found.person_threshold) == (32, 0, 1)
    assert chosen("--face-threshold", "1", "--person-threshold", "0").face_threshold == 1
    for wrong in (["--input-size", "31"], ["--face-threshold", "-0.1"], ["--face-threshold", "1.1"],
                  ["--person-threshold", "-0.1"], ["--person-threshold", "1.1"]):  # fmt: skip
        with pytest.raises(SystemExit, match="2"):
            chosen(*wrong)
        assert "wanted --input-size 32 or more and thresholds in 0..1" in capsys.readouterr().err


def test_what_a_detector_saw_lies_beside_the_index(
    tmp_path: Path, images: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Named(Counting):
        info = argparse.Namespace(face="f.onnx", person="p.onnx")

    monkeypatch.setattr(detector_choice, "build_detector", lambda config, device: Named())
    monkeypatch.setattr(detector_choice, "find_detector", lambda name, kind: tmp_path / "00.png")
    (tmp_path / "index").mkdir()
    stored = detector_choice.StoredDetector(DetectorConfig(), "cpu", tmp_path, tmp_path / "index")
    found, errors = stored(images)
    assert len(found) == 20 and not errors
    first = json.loads((tmp_path / "index" / "detections.jsonl").read_text().partition("\n")[0])
    assert first["settings"] == stored.settings and first["settings"]["face"] == "f.onnx"
