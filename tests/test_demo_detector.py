"""The demo world's detector: its points are insightface's, its losses point the right way, its file is read back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import load_program
from torch import Tensor

from cocoer.data.detect import PeopleDetector
from cocoer.model.demo_detector import (
    ANCHORS,
    KINDS,
    STRIDES,
    Backbone,
    Head,
    OneDetector,
    points_of,
)
from cocoer.training.demo.detectors import export

SIDE = 96


class Known(torch.nn.Module):
    """A detector whose answer is set by hand, for the exporter: it reads its input only to have one."""

    def __init__(self, scores: list[Tensor], distances: list[Tensor]) -> None:
        super().__init__()
        self.scores, self.distances = torch.nn.ParameterList(scores), torch.nn.ParameterList(distances)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        nothing = x.mean() * 0
        return tuple(v + nothing for v in (*self.scores, *self.distances))


@pytest.mark.parametrize("slot", range(len(STRIDES) * ANCHORS))
def test_a_box_put_into_the_outputs_comes_out_of_insightface(slot: int, tmp_path: Path) -> None:
    centres, strides, slots = points_of(SIDE)
    point = int(torch.nonzero(slots == slot)[3])
    box = torch.tensor([10.0, 8.0, 41.0, 77.0])
    scores, distances = torch.zeros(len(centres), 1), torch.zeros(len(centres), 4)
    scores[point] = 0.9
    distances[point] = torch.cat([centres[point] - box[:2], box[2:] - centres[point]]) / strides[point]
    counts = [int((strides == s).sum()) for s in STRIDES]
    export(Known(list(scores.split(counts)), list(distances.split(counts))), tmp_path / "one.onnx", SIDE)
    detector = PeopleDetector(tmp_path / "one.onnx", tmp_path / "one.onnx", SIDE, device="cpu", threads=1)
    seen = detector(np.zeros((2 * SIDE, SIDE, 3), dtype=np.uint8))  # scaled by one half
    np.testing.assert_allclose(seen.faces, [(box * 2).tolist()], atol=1e-3)
    assert seen.face_scores[0] == pytest.approx(0.9)


def test_exported_and_trained_network_agree(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = OneDetector(Backbone(), Head()).eval()
    export(network, tmp_path / "d.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "d.onnx"), providers=["CPUExecutionProvider"])
    for height, width in ((64, 64), (96, 160)):
        x = torch.randn(1, 3, height, width)
        with torch.no_grad():
            wanted = network(x)
        found = session.run(None, {"input.1": x.numpy()})
        for a, b in zip(wanted, found, strict=True):
            np.testing.assert_allclose(a.numpy(), b, atol=1e-4)


def test_the_whole_training_runs_and_repeats(tmp_path: Path) -> None:
    program = load_program("scripts/train_demo_detectors.py")
    tiny = ["--scenes", "4", "--epochs", "1", "--batch-size", "2", "--test-scenes", "2", "--calibration-scenes", "2"]
    for name in ("a", "b"):
        assert program.main([*tiny, "--output", str(tmp_path / name)]) == 0
    for kind in KINDS:
        assert (tmp_path / "a" / f"{kind}.onnx").read_bytes() == (tmp_path / "b" / f"{kind}.onnx").read_bytes()
    about = json.loads((tmp_path / "a" / "detectors.json").read_text())
    assert set(about["test"]) >= set(KINDS) and "synthetic" in about["note"]
