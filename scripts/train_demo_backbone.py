"""Pretrain the demo's small backbone on what single crops show: a stand-in for ImageNet weights, on synthetic scenes only.

    python scripts/train_demo_backbone.py --data outputs/demo_data/emotic --output checkpoints/demo/backbone.safetensors

One network learns to name the cue (archetype) that a crop of a face, a body or a whole image shows: three groups of
classes, cross-entropy. `configs/demo_*.yaml` start all three levels from it, as the paper starts them from one ImageNet file;
without it the level heads learn to lean on the context before the backbones have learned to read faces.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from cocoer.config import load_config
from cocoer.data.batch import PersonRecord
from cocoer.data.index import read_index
from cocoer.data.loaders import load_level_crops
from cocoer.data.synthetic.emotions import ARCHETYPE_NAMES
from cocoer.data.transforms import normalise
from cocoer.model.backbone import Backbone, build_backbone
from cocoer.model.tensor_file import write_tensors
from cocoer.names import LEVELS


def load_crops(records: Sequence[PersonRecord], root: Path, side: int) -> tuple[NDArray[np.uint8], Tensor]:
    """Every crop, uint8 [3 P, side, side, 3], and its class [3 P]: level times archetype."""
    crops = load_level_crops(records, root, side)
    cues = [record.extra["synthetic"]["archetypes"] for record in records]
    shown = np.array(
        [[ARCHETYPE_NAMES.index(c[m]) + len(ARCHETYPE_NAMES) * j for j, m in enumerate(LEVELS)] for c in cues]
    )
    return crops.reshape(-1, side, side, 3), torch.from_numpy(shown.reshape(-1))


def train(
    backbone: Backbone, crops: NDArray[np.uint8], shown: Tensor, epochs: int, batch_size: int, lr: float, seed: int
) -> list[float]:
    """Train in place with a throw-away classifier; returns the share of right answers of each epoch, in training."""
    order = torch.Generator().manual_seed(seed)
    classes = len(LEVELS) * len(ARCHETYPE_NAMES)
    classifier = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * backbone.channels, classes))
    network = nn.Sequential(backbone, classifier).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=0.05)
    steps = epochs * -(-len(shown) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    shares: list[float] = []
    for epoch in range(epochs):
        right = 0
        batches = torch.randperm(len(shown), generator=order).split(batch_size)
        for batch in tqdm(batches, desc=f"epoch {epoch + 1}/{epochs}", disable=not sys.stderr.isatty()):
            images = normalise(crops[batch.numpy()])
            mirrored = torch.rand(len(images), 1, 1, 1, generator=order) < 0.5
            images = torch.where(mirrored, images.flip(-1), images).to(memory_format=torch.channels_last)
            logits = network(images)
            loss = F.cross_entropy(logits, shown[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            right += int((logits.argmax(1) == shown[batch]).sum())
        shares.append(right / len(shown))
        print(f"epoch {epoch + 1}/{epochs}: {100 * shares[-1]:.1f} % of the crops named rightly (training)", flush=True)
    return shares


def main() -> int:
    """Parse, train, write; exit 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a tree written by cocoer prepare demo")
    parser.add_argument("--config", default="configs/demo_emotic.yaml", help="whose backbone and crop size are meant")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = load_config(args.config)
    torch.manual_seed(args.seed)
    records = read_index(args.data / "index", "train")
    if not all("synthetic" in record.extra for record in records):
        parser.error(
            f"{args.data} is not a demo tree: its index does not say what is shown; make one with make_demo_data.py"
        )
    backbone = build_backbone(config.model.backbone.name, config.model.backbone.widths)
    crops, shown = load_crops(records, args.data, config.data.image_size)
    train(backbone, crops, shown, args.epochs, args.batch_size, args.lr, args.seed)
    weights = {k: v.half() if v.is_floating_point() else v for k, v in backbone.state_dict().items()}
    weights = {k: v.contiguous() for k, v in weights.items()}
    write_tensors(
        args.output, weights, {"note": "synthetic demonstration: trained on the demo world's generated crops"}
    )
    print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
