"""Pretrain the demo's small backbone on what single crops show: a stand-in for ImageNet weights, on synthetic scenes only.

    python scripts/train_demo_backbone.py --data outputs/demo_data/emotic --output checkpoints/demo/backbone.safetensors

One network learns to name the cue (archetype) that a crop of a face, a body or a whole image shows: three groups of
classes, cross-entropy. `configs/demo_*.yaml` start all three levels from it, as the paper starts them from one ImageNet file;
without it the level heads learn to lean on the context before the backbones have learned to read faces.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from cocoer.config import load_config
from cocoer.data.index import read_index
from cocoer.model.backbone import build_backbone
from cocoer.training.demo.backbone import load_crops, train, write
from cocoer.training.demo.plan import Plan


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
            f"{args.data} is not a demo tree: its index does not say what is shown; make one with cocoer prepare demo"
        )
    backbone = build_backbone(config.model.backbone.name, config.model.backbone.widths)
    crops, shown = load_crops(records, args.data, config.data.image_size)
    train(backbone, crops, shown, Plan(args.epochs, args.batch_size, args.lr, args.seed))
    write(backbone, args.output)
    print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
