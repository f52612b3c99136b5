"""Train the demo world's face and person detectors: small SCRFD-style networks, on synthetic scenes only.

    python scripts/train_demo_detectors.py                  # about 10 minutes on one free CPU core
    python scripts/train_demo_detectors.py --evaluate-only  # recall and precision of the shipped files on unseen scenes

One fully convolutional trunk with two heads is trained and written as two ONNX files in SCRFD's layout (strides 8, 16, 32; two
anchors a point; scores, then left-top-right-bottom distances in strides), which insightface's own loader reads. The file
`detectors.json` beside them says how they were made and what they reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cocoer.boxes import iou
from cocoer.data.detect import PeopleDetector
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.world import draw_picture
from cocoer.weights_catalog import PROJECT

SIDE = 256
STRIDES = (8, 16, 32)
ANCHORS = 2
KINDS = ("face", "person")
FEATURES = 48
# The longer side of a box, in pixels of the SIDE x SIDE input, decides its slot: (stride, anchor) = divmod(slot, ANCHORS).
SLOT_LIMITS = {"face": (22.0, 30.0, 42.0, 58.0, 80.0), "person": (48.0, 72.0, 100.0, 135.0, 175.0)}
RADIUS = 1.5  # a point is positive up to so many strides from the box's centre

Scene = tuple[NDArray[np.uint8], dict[str, NDArray[np.float32]]]
"""RGB picture [h, w, 3] and boxes [n, 4] by kind."""


def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
    )


class Trunk(nn.Module):
    """RGB in -1..1 [B, 3, S, S] -> features of the three strides, each [B, FEATURES, S/s, S/s], mixed from coarse to fine."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(conv(3, 16, 2), conv(16, 24, 2), conv(24, 24), conv(24, 48, 2), conv(48, 48))
        self.middle = nn.Sequential(conv(48, 64, 2), conv(64, 64))
        self.coarse = nn.Sequential(conv(64, 64, 2), conv(64, 64))
        self.lateral = nn.ModuleList([nn.Conv2d(c, FEATURES, 1) for c in (48, 64, 64)])

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.lateral[2](self.coarse(middle))
        middle = self.lateral[1](middle) + F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        fine = self.lateral[0](fine) + F.interpolate(middle, scale_factor=2.0, mode="nearest")
        return [fine, middle, coarse]


class Head(nn.Module):
    """Scores and distances of one kind of box, the same weights on every stride but for a scale each."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(FEATURES, FEATURES)
        self.score = nn.Conv2d(FEATURES, ANCHORS, 3, 1, 1)
        self.box = nn.Conv2d(FEATURES, ANCHORS * 4, 3, 1, 1)
        self.scale = nn.Parameter(torch.ones(len(STRIDES)))
        nn.init.constant_(self.score.bias, -4.0)  # nearly every point is background

    def forward(self, features: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """-> logits [B, points, 1] and distances in strides [B, points, 4], per stride; a point's anchors lie side by side."""
        logits, distances = [], []
        for i, x in enumerate(features):
            x = self.body(x)
            logits.append(self.score(x).permute(0, 2, 3, 1).flatten(1).unsqueeze(-1))
            box = F.softplus(self.box(x) * self.scale[i])
            distances.append(box.permute(0, 2, 3, 1).reshape(x.shape[0], -1, 4))
        return logits, distances


class OneDetector(nn.Module):
    """Trunk and one head, as exported: a single picture [1, 3, H, W] -> three score and three distance arrays, no batch axis."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        logits, distances = self.head(self.trunk(x))
        return (*(torch.sigmoid(v)[0] for v in logits), *(v[0] for v in distances))


def points_of(side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Anchor points of a side x side input as insightface numbers them: centres [P, 2], strides [P], slots [P]."""
    centres, strides, slots = [], [], []
    for i, stride in enumerate(STRIDES):
        n = side // stride
        y, x = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
        centres.append((torch.stack([x, y], -1).reshape(-1, 1, 2).repeat(1, ANCHORS, 1) * stride).reshape(-1, 2))
        strides.append(torch.full((n * n * ANCHORS,), stride))
        slots.append(torch.arange(ANCHORS).repeat(n * n) + i * ANCHORS)
    return torch.cat(centres).float(), torch.cat(strides).float(), torch.cat(slots)


def targets_of(boxes: Tensor, kind: str, centres: Tensor, strides: Tensor, slots: Tensor) -> tuple[Tensor, Tensor]:
    """Which points should find which box: index of the box per point, -1 for none [P]; and the points to ignore [P] bool.

    A box owns the points of its slot within RADIUS strides of its centre; points of a neighbouring slot there are ignored.
    """
    owner, ignored = torch.full((len(centres),), -1), torch.zeros(len(centres), dtype=torch.bool)
    if not len(boxes):
        return owner, ignored
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2  # [n, 2]
    apart = (centres[:, None] - middle[None]).abs().amax(-1) / strides[:, None]  # [P, n]
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    slot = torch.bucketize(longer, torch.tensor(SLOT_LIMITS[kind]))  # [n]
    near = apart <= RADIUS
    mine = near & (slots[:, None] == slot[None])
    nearest = torch.where(mine, apart, torch.inf)
    owner = torch.where(mine.any(1), nearest.argmin(1), owner)
    ignored = (near & ((slots[:, None] - slot[None]).abs() == 1)).any(1) & (owner < 0)
    return owner, ignored


def loss_of(logits: Tensor, distances: Tensor, boxes: list[Tensor], kind: str, points: tuple[Tensor, ...]) -> Tensor:
    """Focal loss of the scores and GIoU loss of the boxes, over a batch. logits [B, P, 1], distances [B, P, 4]."""
    centres, strides, slots = points
    total, positives = logits.new_zeros(()), 0
    for row, own in enumerate(boxes):
        owner, ignored = targets_of(own, kind, centres, strides, slots)
        hit = owner >= 0
        score = logits[row, :, 0]
        wanted = hit.float()
        p = torch.sigmoid(score)
        weight = torch.where(hit, 0.6 * (1 - p) ** 2, 0.4 * p**2) * (~ignored)
        total = total + (weight.detach() * F.binary_cross_entropy_with_logits(score, wanted, reduction="none")).sum()
        positives += int(hit.sum())
        if hit.any():
            d, c = distances[row, hit] * strides[hit, None], centres[hit]
            total = total + giou_loss(torch.cat([c - d[:, :2], c + d[:, 2:]], 1), own[owner[hit]]).sum()
    return total / max(1, positives)


def giou_loss(found: Tensor, wanted: Tensor) -> Tensor:
    """1 - generalised IoU (Rezatofighi et al. 2019) of boxes [n, 4] with boxes [n, 4]: [n]."""

    def size(b: Tensor) -> Tensor:
        return (b[:, 2] - b[:, 0]).clamp(min=0) * (b[:, 3] - b[:, 1]).clamp(min=0)

    shared = size(
        torch.cat([torch.maximum(found[:, :2], wanted[:, :2]), torch.minimum(found[:, 2:], wanted[:, 2:])], 1)
    )
    around = size(
        torch.cat([torch.minimum(found[:, :2], wanted[:, :2]), torch.maximum(found[:, 2:], wanted[:, 2:])], 1)
    )
    union = size(found) + size(wanted) - shared
    return 1 - shared / union.clamp(min=1e-6) + (around - union) / around.clamp(min=1e-6)


def draw_scenes(count: int, seed: int, split: str) -> Iterator[Scene]:
    """Scenes of the demo world with the boxes of their people, in pixels."""
    options = WorldOptions()
    for index in tqdm(range(count), desc=f"drawing {split}", disable=not sys.stderr.isatty()):
        picture = draw_picture(seed, split, index, options)
        yield (
            np.asarray(picture.image),
            {
                "face": np.array([p.head_xyxy for p in picture.people], dtype=np.float32),
                "person": np.array([p.body_xyxy for p in picture.people], dtype=np.float32),
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


def train(scenes: Sequence[Scene], epochs: int, batch_size: int, lr: float, seed: int) -> tuple[Trunk, nn.ModuleDict]:
    """Trunk and the two heads, trained together."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    trunk, heads = Trunk(), nn.ModuleDict({kind: Head() for kind in KINDS})
    steps = epochs * (len(scenes) // batch_size)
    optimizer = torch.optim.AdamW([*trunk.parameters(), *heads.parameters()], lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=max(1, steps), pct_start=0.1)
    points, started = points_of(SIDE), time.process_time()
    for epoch in range(epochs):
        order, losses = rng.permutation(len(scenes)), []
        for start in range(0, len(scenes) - batch_size + 1, batch_size):
            batch = [augmented(scenes[i], rng) for i in order[start : start + batch_size]]
            x = torch.from_numpy(np.stack([s.pixels for s in batch])).permute(0, 3, 1, 2).float()
            features = trunk((x - 127.5) / 128)
            loss = x.new_zeros(())
            for kind in KINDS:
                logits, distances = heads[kind](features)
                own = [s.boxes[kind] for s in batch]
                loss = loss + loss_of(torch.cat(logits, 1), torch.cat(distances, 1), own, kind, points)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(
            f"epoch {epoch + 1}/{epochs}: loss {np.mean(losses):.4f}, {time.process_time() - started:.0f} s of CPU",
            flush=True,
        )
    return trunk, heads


def export(detector: OneDetector, path: Path) -> None:
    """Write ONNX with free height and width (multiples of 32), six outputs in SCRFD's order."""
    names = [f"{what}_{stride}" for what in ("score", "bbox") for stride in STRIDES]
    size = {2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracing exporter announces its successor, which needs a further package
        torch.onnx.export(
            detector.eval(),
            (torch.zeros(1, 3, SIDE, SIDE),),
            str(path),
            input_names=["input.1"],
            output_names=names,
            dynamic_axes={"input.1": size, **{name: {0: f"points_{name}"} for name in names}},
            opset_version=17,
            dynamo=False,
        )


def matched(found: NDArray[np.float64], wanted: NDArray[np.float32]) -> int:
    """How many boxes, best first, hit a wanted box that no better one has hit (IoU at least 0.5)."""
    free = iou(found, wanted) >= 0.5
    hits = 0
    for row in range(len(found)):
        if free[row].any():
            free[:, int(free[row].argmax())] = False
            hits += 1
    return hits


def evaluate(folder: Path, scenes: Sequence[Scene]) -> dict[str, dict[str, float]]:
    """Recall and precision at IoU 0.5 of the files in a folder, through insightface, at a score threshold of 0.5."""
    detector = PeopleDetector(folder / "face.onnx", folder / "person.onnx", SIDE, device="cpu", threads=1)
    counts = {kind: [0, 0, 0] for kind in KINDS}
    for pixels, boxes in scenes:
        seen = detector(pixels)
        for kind, found in (("face", seen.faces), ("person", seen.bodies)):
            count = counts[kind]
            count[0] += matched(found, boxes[kind])
            count[1] += len(found)
            count[2] += len(boxes[kind])
    return {
        kind: {"recall": round(hit / max(1, there), 4), "precision": round(hit / max(1, said), 4), "boxes": there}
        for kind, (hit, said, there) in counts.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--out", type=Path, default=PROJECT / "checkpoints" / "demo", help="folder of face.onnx and person.onnx"
    )
    p.add_argument("--scenes", type=int, default=1200, help="training scenes (default 1200)")
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    p.add_argument("--test-scenes", type=int, default=400, help="unseen scenes for the evaluation (default 400)")
    p.add_argument("--evaluate-only", action="store_true")
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.process_time()
    if not args.evaluate_only:
        args.out.mkdir(parents=True, exist_ok=True)
        trunk, heads = train(
            list(draw_scenes(args.scenes, args.seed, "detector-train")),
            args.epochs,
            args.batch_size,
            args.lr,
            args.seed,
        )
        for kind in KINDS:
            export(OneDetector(trunk, heads[kind]), args.out / f"{kind}.onnx")
    seconds = time.process_time() - started
    results = evaluate(args.out, list(draw_scenes(args.test_scenes, args.seed + 1000, "detector-test")))
    for kind, row in results.items():
        print(f"{kind}: recall {row['recall']:.4f}, precision {row['precision']:.4f} at IoU 0.5 over {row['boxes']} boxes "
              f"in {args.test_scenes} unseen synthetic scenes")  # fmt: skip
    if not args.evaluate_only:
        about = {
            "note": "A demonstration on synthetic scenes; these detectors do not work on photographs.",
            "command": f"python scripts/train_demo_detectors.py --scenes {args.scenes} --epochs {args.epochs} --seed {args.seed}",
            "cpu_seconds": round(seconds),
            "input_size": SIDE,
            "test": {"scenes": args.test_scenes, "seed": args.seed + 1000, "iou": 0.5, "score": 0.5, **results},
        }
        (args.out / "detectors.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
