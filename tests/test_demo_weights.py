"""The shipped demonstration: its weights are what they say they are, small, and better than chance on scenes made here."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.export import write_emotic
from cocoer.datasets import EMOTIC_CLASSES
from cocoer.model.checkpoint import load_weights
from cocoer.weights.catalog import DEMO_CHECKPOINT
from cocoer.weights.places import SHIPPED

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few scenes of a seed that no training used."""
    root = tmp_path_factory.mktemp("world")
    write_emotic(root, {"train": 2, "val": 2, "test": 150}, 90210, WorldOptions(), workers=1)
    return root


def evaluated(world: Path, out: Path, *overrides: str) -> dict[str, object]:
    """`cocoer evaluate` on the shipped weights, as a user runs it."""
    command = [sys.executable, "-m", "cocoer", "evaluate", "--checkpoint", str(DEMO_CHECKPOINT), "--root", str(world)]
    command += ["--index", str(world / "index"), "--output", str(out), "--resamples", "50"]
    command += ["--set", "data.workers=0", *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=SHIPPED, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    numbers: dict[str, object] = json.loads((out / "evaluation.json").read_text(encoding="utf-8"))
    return numbers


def test_demo_files_stay_small() -> None:
    """All weights of the demonstration together, detectors included, and each part of it."""
    folder = DEMO_CHECKPOINT.parent
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    detectors = sum(path.stat().st_size for path in folder.glob("*.onnx"))
    assert 0 < weights <= 12 * MEGABYTE
    assert 0 < detectors <= 2 * MEGABYTE


def test_demo_weights_say_what_they_are() -> None:
    """Classes, config and the word synthetic travel with the weights."""
    loaded = load_weights(DEMO_CHECKPOINT)
    assert loaded.config.classes == EMOTIC_CLASSES
    assert loaded.config.model.mode == "paper"
    assert "synthetic" in loaded.metadata["note"]
    assert loaded.metadata["metrics"]["selected_on"] == "val"


KEYS = ("image", "body", "head", "labels", "split")
PINNED = {
    "index": "513cf44945985bb4",
    "classes": "bab43e33fbcaadf9",
    "thresholds": "5c976ee4d17f7702",
    "mAP": 0.95265566,
}
"""SHA-256 of the index of `world` under `KEYS`, of the class names and the thresholds; mAP of the shipped weights on it.

How class names reach index, weights and evaluation has changed (data sets are files now); what comes out has not.
"""


def digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def test_demo_weights_beat_class_frequencies_and_lose_nothing_to_coordination(world: Path, tmp_path: Path) -> None:
    """On 150 persons: three times the class frequencies' mAP, and no significant loss against no update."""
    on = evaluated(world, tmp_path / "on")
    off = ["model.coordination.update=none"]
    paired = ["--against", str(tmp_path / "on" / "scores.npz")]
    without = evaluated(world, tmp_path / "off", *off, *paired)
    stored = load_weights(DEMO_CHECKPOINT).metadata
    rows = [json.loads(line) for line in (world / "index" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {
        "index": digest([[row[key] for key in KEYS] for row in rows]),
        "classes": digest(list(stored["classes"])),
        "thresholds": digest(stored["thresholds"]),
        "mAP": pytest.approx(on["headline"]["value"], abs=5e-4),  # type: ignore[index]
    }
    assert found == PINNED
    assert on["headline"]["value"] >= 3 * on["class_frequency_mAP"]  # type: ignore[index,operator]
    difference = without["against"]["difference"]  # type: ignore[index]
    assert difference["low"] <= 0.0 or difference["value"] < 0.005, difference


def test_answers_to_the_demo_images_are_the_same_bytes_twice(tmp_path: Path) -> None:
    """`inference.py --input test_imgs/` writes one PNG and one JSON an image, twice the same."""
    outputs = []
    for name in ("first", "second"):
        command = [sys.executable, "inference.py", "--input", "test_imgs/", "--output", str(tmp_path / name), "--quiet"]
        done = subprocess.run(command, cwd=SHIPPED, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        outputs.append({p.name: p.read_bytes() for p in sorted((tmp_path / name).glob("*.*")) if p.suffix != ".yaml"})
    images = [p for p in (SHIPPED / "test_imgs").iterdir() if p.suffix in (".jpg", ".png")]
    for image in images:
        assert f"{image.stem}.png" in outputs[0]
        assert f"{image.stem}.json" in outputs[0]
    assert outputs[0] == outputs[1]
