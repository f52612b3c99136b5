"""Pretrain the demo's small backbone: what it learns and what for stands in `cocoer/training/demo/backbone.py`.

python scripts/train_demo_backbone.py --data outputs/demo_data/emotic --output checkpoints/demo/backbone.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cocoer.config import load_config
from cocoer.model.backbone import build_backbone
from cocoer.training.demo.backbone import load_crops, train
from cocoer.training.demo.plan import Plan, demo_people, write_half


def main() -> int:
    """Parse, train, write; exit 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a tree written by cocoer prepare demo")
    parser.add_argument("--config", default="configs/demo_emotic.yaml", help="whose backbone and crop size are meant")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    Plan.add_options(parser, epochs=8, batch_size=64, lr=3e-3)
    args = parser.parse_args()
    config, plan, records = load_config(args.config), Plan.of(args), demo_people(parser, args.data)
    backbone = build_backbone(config.model.backbone.name, config.model.backbone.widths)
    crops, shown = load_crops(records, args.data, config.data.image_size)
    train(backbone, crops, shown, plan)
    write_half(backbone, args.output, "crops")
    return 0


if __name__ == "__main__":
    sys.exit(main())
