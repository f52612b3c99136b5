"""Train the demo world's small CLIP on its generated captions: a stand-in for OpenAI's, on synthetic scenes only.

    python scripts/train_demo_clip.py --data outputs/demo_data/emotic --output checkpoints/demo/clip.safetensors

A person, seen as head, body or whole image, should agree more with a caption of its own than with another person's (the
contrastive loss of CLIP, Radford et al. 2021); equal captions in a batch count as agreeing. The result is an open_clip model that
`configs/demo_*.yaml` freeze, as the paper freezes CLIP RN50.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from cocoer.data.index import read_index
from cocoer.model.clip_tower import build_clip
from cocoer.training.demo.clip import VIEWS, train, write
from cocoer.training.demo.plan import Plan


def main() -> int:
    """Parse, train, write; exit 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a tree written by cocoer prepare demo")
    parser.add_argument("--config", default="configs/demo_clip.json", help="open_clip model config")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--epochs", type=int, default=70)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--persons", type=int, default=None, help="use only N persons (for a quick trial, or a weaker CLIP)"
    )
    parser.add_argument("--skip", type=int, default=0, help="leave out so many persons at first")
    parser.add_argument(
        "--whole-images", action="store_true", help="show nobody's head or body (a CLIP that knows scenes)"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    records = read_index(args.data / "index", "train")[args.skip :][: args.persons]
    if not all("synthetic" in record.extra for record in records):
        parser.error(f"{args.data} is not a demo tree: its index has no captions; make one with cocoer prepare demo")
    views = {"head": 0.0, "body": 0.0, "context": 1.0} if args.whole_images else VIEWS
    clip = build_clip(args.config, quick_gelu=False, with_text=True)
    train(clip, records, args.data, args.config, Plan(args.epochs, args.batch_size, args.lr, args.seed), views)
    write(clip, args.output)
    print(f"wrote {args.output} ({args.output.stat().st_size / 1e6:.2f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
