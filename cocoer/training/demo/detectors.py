"""Train the demo world's face and person detectors: small SCRFD-style networks, on synthetic scenes only.

One fully convolutional backbone with two heads is trained and written as two ONNX files in SCRFD's layout (strides 8, 16, 32; two
anchors a point; scores, then left-top-right-bottom distances in strides), which insightface's own loader reads. The file
`detectors.json` beside them says how they were made and what they reached.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cocoer.boxes import iou
from cocoer.data.detect import DEMO_KEY, PeopleDetector
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.world import draw_image
from cocoer.files import write_file
from cocoer.model.demo_detector import KINDS, STRIDES, Backbone, Head, OneDetector, loss_of, points_of
from cocoer.training.demo.plan import OneCycle, Plan

SIDE = 256
"""Side of the square that the networks are trained for, pixels."""

Scene = tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]
"""RGB image [h, w, 3] and boxes [n, 4] by kind."""


def draw_scenes(count: int, seed: int, split: str) -> Iterator[Scene]:
    """Scenes of the demo world with the boxes of their people, in pixels."""
    options = WorldOptions()
    for index in tqdm(range(count), desc=f"drawing {split}", disable=not sys.stderr.isatty()):
        image = draw_image(seed, split, index, options)
        yield (
            np.asarray(image.image),
            {
                "face": np.array([p.head_xyxy for p in image.people], dtype=np.float32),
                "person": np.array([p.body_xyxy for p in image.people], dtype=np.float32),
            },
        )


@dataclass(frozen=True)
class Sample:
    """A SIDE x SIDE input, RGB uint8 [SIDE, SIDE, 3], and its boxes [n, 4] by kind."""

    pixels: NDArray[np.uint8]
    boxes: dict[str, Tensor]


def augmented(scene: Scene, rng: np.random.Generator) -> Sample:
    """The scene as insightface would show it (scaled by OpenCV, black below and right), at a random size, mirrored or not."""
    pixels, boxes = scene
    scale = SIDE / max(pixels.shape[:2]) * float(rng.uniform(0.62, 1.0) if rng.random() < 0.5 else 1.0)
    width, height = max(1, int(pixels.shape[1] * scale)), max(1, int(pixels.shape[0] * scale))
    small = cv2.resize(pixels, (width, height))
    x, y = (
        int(rng.integers(0, SIDE - v + 1)) if scale * max(pixels.shape[:2]) < SIDE - 1 else 0 for v in (width, height)
    )
    mirror = bool(rng.random() < 0.5)
    canvas = np.zeros((SIDE, SIDE, 3), dtype=np.uint8)
    canvas[y : y + height, x : x + width] = small[:, ::-1] if mirror else small
    canvas = np.clip(canvas * rng.uniform(0.8, 1.2), 0, 255).astype(np.uint8)
    placed = {}
    for kind, b in boxes.items():
        b = b * scale
        if mirror:
            b = np.stack([width - b[:, 2], b[:, 1], width - b[:, 0], b[:, 3]], 1)
        placed[kind] = torch.from_numpy(b + np.array([x, y, x, y], dtype=np.float32))
    return Sample(canvas, placed)


def train(scenes: Sequence[Scene], plan: Plan) -> tuple[Backbone, nn.ModuleDict]:
    """Backbone and the two heads, trained together."""
    torch.manual_seed(plan.seed)
    rng = np.random.default_rng(plan.seed)
    backbone, heads = Backbone(), nn.ModuleDict({kind: Head() for kind in KINDS})
    steps = plan.epochs * (len(scenes) // plan.batch_size)
    training = OneCycle([*backbone.parameters(), *heads.parameters()], plan, steps, weight_decay=0.01)
    points, started = points_of(SIDE), time.process_time()
    for epoch in range(plan.epochs):
        order, losses = rng.permutation(len(scenes)), []
        for start in range(0, len(scenes) - plan.batch_size + 1, plan.batch_size):
            batch = [augmented(scenes[i], rng) for i in order[start : start + plan.batch_size]]
            x = torch.from_numpy(np.stack([s.pixels for s in batch])).permute(0, 3, 1, 2).float()
            features = backbone((x - 127.5) / 128)
            loss = x.new_zeros(())
            for kind in KINDS:
                logits, distances = heads[kind](features)
                own = [s.boxes[kind] for s in batch]
                loss = loss + loss_of(torch.cat(logits, 1), torch.cat(distances, 1), own, kind, points)
            training.step(loss)
            losses.append(loss.item())
        plan.say(epoch, f"loss {np.mean(losses):.4f}, {time.process_time() - started:.0f} s of CPU")
    return backbone, heads


def export(detector: OneDetector, path: Path, side: int = SIDE) -> None:
    """Write ONNX with free height and width (multiples of 32), six outputs in SCRFD's order."""
    import onnx

    names = [f"{what}_{stride}" for what in ("score", "bbox") for stride in STRIDES]
    size = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces its successor, which needs a further package
        torch.onnx.export(
            detector.eval(),
            (torch.zeros(1, 3, side, side),),
            str(path),
            input_names=["input.1"],
            output_names=names,
            dynamic_axes={"input.1": size, **{name: {0: f"points_{name}"} for name in names}},
            opset_version=17,
            dynamo=False,
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {DEMO_KEY: "trained on the demo world, for drawn people only"})
    write_file(path, partial(onnx.save, model))


def matched(found: NDArray[np.float64], wanted: NDArray[np.float32]) -> int:
    """How many boxes, best first, hit a wanted box that no better one has hit (IoU at least 0.5)."""
    free = iou(found, wanted) >= 0.5
    hits = 0
    for row in range(len(found)):
        if free[row].any():
            free[:, int(free[row].argmax())] = False
            hits += 1
    return hits


def count_hits(folder: Path, scenes: Sequence[Scene], limits: Sequence[float]) -> dict[str, NDArray[np.int64]]:
    """Per kind and score threshold [limits, 3]: hits, boxes found, boxes there; through insightface, IoU 0.5."""
    least = min(limits)
    detector = PeopleDetector(folder / "face.onnx", folder / "person.onnx", SIDE, least, least, device="cpu", threads=1)
    counts = {kind: np.zeros((len(limits), 3), dtype=np.int64) for kind in KINDS}
    for pixels, boxes in scenes:
        seen = detector(pixels)
        for kind, found, scores in (
            ("face", seen.faces, seen.face_scores),
            ("person", seen.bodies, seen.body_scores),
        ):
            for row, limit in enumerate(limits):
                over = found[scores >= limit]
                counts[kind][row] += (matched(over, boxes[kind]), len(over), len(boxes[kind]))
    return counts


def calibrate(folder: Path, scenes: Sequence[Scene]) -> None:
    """Shift each file's score bias so that the threshold at which recall and precision are both best becomes 0.5."""
    import onnx
    from onnx import numpy_helper

    limits = [round(0.2 + 0.01 * i, 2) for i in range(51)]
    for kind, counts in count_hits(folder, scenes, limits).items():
        hits, said, there = counts.T
        limit = limits[int(np.minimum(hits / np.maximum(1, there), hits / np.maximum(1, said)).argmax())]
        path = folder / f"{kind}.onnx"
        model = onnx.load(str(path))
        (bias,) = (v for v in model.graph.initializer if v.name == "head.score.bias")
        shifted = numpy_helper.to_array(bias) - np.float32(np.log(limit / (1 - limit)))
        bias.CopyFrom(numpy_helper.from_array(shifted, bias.name))
        write_file(path, partial(onnx.save, model))
        print(f"{kind}: the score {limit} on calibration scenes is now 0.5")


def evaluate(folder: Path, scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Recall and precision at IoU 0.5 of the files in a folder, through insightface, at a score threshold of 0.5."""
    return {
        kind: {
            "recall": round(int(hits) / max(1, int(there)), 4),
            "precision": round(int(hits) / max(1, int(said)), 4),
            "boxes": int(there),
        }
        for kind, ((hits, said, there),) in count_hits(folder, scenes, [0.5]).items()
    }
