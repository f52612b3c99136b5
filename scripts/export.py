"""One file that holds the whole model, from crops to probabilities and exclusion sequence, competition included.

    python scripts/export.py --checkpoint checkpoints/demo --format onnx --out outputs/demo.onnx
    python inference.py --checkpoint outputs/demo.onnx --input test_imgs/
    python scripts/export.py --checkpoint checkpoints/demo --format torch --out outputs/demo.pt2

The file is checked against PyTorch to 1e-4 before it gets its name. Class names, thresholds, config and preprocess are in it.
Exit 0: written and checked. 2: it could not be.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def main(arguments: list[str] | None = None) -> int:
    """Export, print one line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="weights (.safetensors file, or the folder of one)")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="default: %(default)s")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write, .onnx or .pt2")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the config")
    options = parser.parse_args(arguments)
    wanted = SUFFIXES[options.format]
    if options.out.suffix != wanted:
        parser.error(f"--out: wanted a name that ends in {wanted} for --format {options.format}, got {options.out}")
    from cocoer.config import ConfigError, change_config, config_to_dict  # behind the parser: torch takes seconds
    from cocoer.model.checkpoint import load_weights
    from cocoer.model.checkpoint_error import CheckpointError
    from cocoer.model.export import ExportError, export_model
    from cocoer.report.text import human_size

    try:
        loaded = load_weights(options.checkpoint, change=lambda config: change_config(config, options.set))
        metadata = {**loaded.metadata, "config": config_to_dict(loaded.config), "exported_from": loaded.path.name}
        difference = export_model(loaded.model, loaded.config, metadata, options.out, options.format)
    except (CheckpointError, ConfigError, ExportError) as err:
        print(f"export.py: error: {err}", file=sys.stderr)
        return 2
    size = human_size(options.out.stat().st_size)
    print(f"{options.out}: {size}; differs from PyTorch by at most {difference:.1e} (batches of 1, 2 and 5 persons)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
