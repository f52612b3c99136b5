"""Train the demo world's face and person detectors: small SCRFD-style networks, on synthetic scenes only.

    python scripts/train_demo_detectors.py                  # about 10 minutes on one free CPU core
    python scripts/train_demo_detectors.py --evaluate-only  # recall and precision of the shipped files on unseen scenes

One fully convolutional backbone with two heads is trained and written as two ONNX files in SCRFD's layout (strides 8, 16, 32; two
anchors a point; scores, then left-top-right-bottom distances in strides), which insightface's own loader reads. The file
`detectors.json` beside them says how they were made and what they reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cocoer.files import write_text
from cocoer.model.demo_detector import KINDS, OneDetector
from cocoer.training.demo.detectors import SIDE, calibrate, draw_scenes, evaluate, export, train
from cocoer.training.demo.plan import Plan
from cocoer.weights import places


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument(
        "--output",
        type=Path,
        default=places.SHIPPED / "checkpoints" / "demo",
        help="folder of face.onnx and person.onnx",
    )
    p.add_argument("--scenes", type=int, default=1400, help="training scenes (default 1400)")
    Plan.add_options(p, epochs=12, batch_size=8, lr=2e-3)
    p.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    p.add_argument("--test-scenes", type=int, default=400, help="unseen scenes for the evaluation (default 400)")
    p.add_argument(
        "--calibration-scenes", type=int, default=400, help="scenes that set the score threshold (default 400)"
    )
    p.add_argument("--evaluate-only", action="store_true")
    args = p.parse_args(argv)
    torch.set_num_threads(args.threads)
    started = time.process_time()
    if not args.evaluate_only:
        args.output.mkdir(parents=True, exist_ok=True)
        backbone, heads = train(list(draw_scenes(args.scenes, args.seed, "detector-train")), Plan.of(args))
        for kind in KINDS:
            export(OneDetector(backbone, heads[kind]), args.output / f"{kind}.onnx")
        calibrate(args.output, list(draw_scenes(args.calibration_scenes, args.seed, "detector-calibrate")))
    seconds = time.process_time() - started
    results = evaluate(args.output, list(draw_scenes(args.test_scenes, args.seed + 1000, "detector-test")))
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
        write_text(args.output / "detectors.json", json.dumps(about, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
