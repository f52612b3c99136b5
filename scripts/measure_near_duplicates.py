"""How many known near-duplicates of synthetic images do hash and CLIP find, and how many pairs of different images besides?

    python scripts/measure_near_duplicates.py --images 400

Every image of the demo world is changed in each way; a change is found where it is near its own image. A false pair is one of two
different images, of all pairs. The demonstration's CLIP knows the demo world alone: another tower wants another threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cocoer.data.prepare.near_duplicates import COSINE, NEAR, perceptual_hash
from cocoer.data.synthetic.copies import compressed, cut, lit
from cocoer.data.synthetic.emotions import WorldOptions
from cocoer.data.synthetic.world import draw_image
from cocoer.model.image_embedding import image_embedder
from cocoer.model.zero_shot import Tower

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 20": compressed,
    "half the size": lambda x: x.resize((x.width // 2, x.height // 2)),
    "brightness x 1.3": lit(1.3),
    "brightness x 0.6": lit(0.6),
    "5 % of each axis cut off": cut(0.05),
    "10 % of each axis cut off": cut(0.1),
    "20 % of each axis cut off": cut(0.2),
    "mirror image": ImageOps.mirror,
}


def main() -> int:
    """Print both tables; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--clip", default="configs/demo_clip.json=checkpoints/demo/clip.safetensors", metavar="TOWER=FILE"
    )
    parser.add_argument("--bits", type=int, nargs="+", default=[NEAR, 10])
    parser.add_argument("--cosine", type=float, nargs="+", default=[0.9, 0.95, 0.97, 0.98, COSINE])
    args = parser.parse_args()
    embed = image_embedder(Tower.parse(args.clip))
    images = [draw_image(args.seed, "train", i, WorldOptions()).image for i in range(args.images)]
    hashes, vectors = [perceptual_hash(x) for x in images], np.stack([embed(x) for x in images])
    rules = (
        [f"{bits} bits" for bits in args.bits] + [f"cosine {c:g}" for c in args.cosine] + [f"{NEAR} bits or {COSINE:g}"]
    )
    print(f"{'share found, %':28}" + "".join(f"{rule:>17}" for rule in rules))
    for name, change in CHANGES.items():
        others = [change(x) for x in images]
        apart = np.array([(a ^ perceptual_hash(x)).bit_count() for a, x in zip(hashes, others, strict=True)])
        similar = np.array([float(a @ embed(x)) for a, x in zip(vectors, others, strict=True)])
        print(f"{name:28}" + "".join(f"{100 * hit.mean():17.1f}" for hit in judged(apart, similar, args)))
    first, second = np.triu_indices(len(images), 1)
    apart = np.array(
        [(hashes[i] ^ hashes[j]).bit_count() for i, j in zip(first.tolist(), second.tolist(), strict=True)]
    )
    hits = judged(apart, (vectors @ vectors.T)[first, second], args)
    print(f"{f'false of {len(first):,} pairs':28}" + "".join(f"{int(hit.sum()):17}" for hit in hits))
    return 0


def judged(apart: np.ndarray, similar: np.ndarray, args: argparse.Namespace) -> list[np.ndarray]:
    """Which pairs each rule calls near: by bits, by cosine, and by either at the defaults."""
    return [
        *(apart <= bits for bits in args.bits),
        *(similar >= cosine for cosine in args.cosine),
        (apart <= NEAR) | (similar >= COSINE),
    ]


if __name__ == "__main__":
    sys.exit(main())
