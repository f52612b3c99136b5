"""Train the demo world's small CLIP: what it learns and what for stands in `cocoer/training/demo/clip.py`.

python scripts/train_demo_clip.py --data outputs/demo_data/emotic --output checkpoints/demo/clip.safetensors
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cocoer.model.clip_tower import build_clip
from cocoer.training.demo.clip import VIEWS, train
from cocoer.training.demo.plan import Plan, demo_people, write_half


def main() -> int:
    """Parse, train, write; exit 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a tree written by cocoer prepare demo")
    parser.add_argument("--config", default="configs/demo_clip.json", help="open_clip model config")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    Plan.add_options(parser, epochs=70, batch_size=64, lr=2e-3)
    parser.add_argument(
        "--persons", type=int, default=None, help="use only N persons (for a quick trial, or a weaker CLIP)"
    )
    parser.add_argument("--skip", type=int, default=0, help="leave out so many persons at first")
    parser.add_argument(
        "--whole-images", action="store_true", help="show nobody's head or body (a CLIP that knows scenes)"
    )
    args = parser.parse_args()
    plan, records = Plan.of(args), demo_people(parser, args.data)[args.skip :][: args.persons]
    views = {"head": 0.0, "body": 0.0, "context": 1.0} if args.whole_images else VIEWS
    clip = build_clip(args.config, quick_gelu=False, with_text=True)
    train(clip, records, args.data, args.config, plan, views)
    write_half(clip, args.output, "scenes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
