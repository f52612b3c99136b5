"""One file that holds the whole model, from crops to probabilities and exclusion sequence, competition included.

    DEMO=checkpoints/demo/demo_emotic.safetensors
    cocoer export --checkpoint $DEMO --format onnx --output outputs/demo.onnx
    python inference.py --checkpoint outputs/demo.onnx --input test_imgs/
    cocoer export --checkpoint $DEMO --format torch --output outputs/demo.pt2
    cocoer export --checkpoint $DEMO --int8 INDEX --root IMAGES --output outputs/demo_int8.onnx
    cocoer evaluate --checkpoint outputs/demo_int8.onnx --against outputs/evaluation/scores.npz   # what int8 costs

The file is checked against PyTorch to 1e-4 before it gets its name. Class names, thresholds, config and preprocess are in it.
--int8 writes the convolutions as 8-bit integers afterwards, for the ranges that persons of the training split show; the
competition stays in float32. Such a file answers differently: evaluate it before you use it.
Exit 0: written and checked. 2: it could not be.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser

if TYPE_CHECKING:
    from cocoer.model.checkpoint import Loaded

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Leaves the program with code 2 on wrong usage."""
    parser = command_parser("export", __doc__)
    parser.add_argument("--checkpoint", required=True, help="weights (.safetensors file, or the folder of one)")
    parser.add_argument("--format", choices=tuple(SUFFIXES), default="onnx", help="default: %(default)s")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the file to write, .onnx or .pt2; default: beside the weights, where prediction on a CPU takes it (its twin)",
    )
    parser.add_argument(
        "--int8", metavar="INDEX", help="8-bit convolutions (onnx only); the persons of this index calibrate"
    )
    parser.add_argument("--root", help="folder of the index's images (default: as the checkpoint's config says)")
    parser.add_argument("--persons", type=int, default=256, help="persons that calibrate (default: %(default)s)")
    add_options(parser, "--set")
    options = parser.parse_args(arguments)
    wanted = SUFFIXES[options.format]
    if options.output is None and (options.format != "onnx" or options.int8 or options.overrides):
        parser.error("--output: wanted a file; only the weights as they are, in ONNX, may lie beside them")
    if options.output is not None and options.output.suffix != wanted:
        parser.error(
            f"--output: wanted a name that ends in {wanted} for --format {options.format}, got {options.output}"
        )
    if options.int8 and (options.format != "onnx" or options.persons < 1):
        parser.error("--int8 wants --format onnx and at least one of --persons")
    return options


@reports("export", usage=(ValueError,), failed=())
def main(arguments: list[str] | None = None) -> int:
    """Export, print one line; returns the exit code."""
    options = parse(arguments)
    from cocoer.config import change_config  # behind the parser: torch takes seconds
    from cocoer.export.onnx_export import described_export, export_model, write_twin
    from cocoer.files import hold_file
    from cocoer.model.checkpoint import load_weights
    from cocoer.report.text import human_size

    if options.output is None:
        options.output, difference = write_twin(options.checkpoint)
    else:
        loaded = load_weights(options.checkpoint, change=lambda config: change_config(config, options.overrides))
        metadata = described_export(loaded, changed=bool(options.int8 or options.overrides))
        with hold_file(options.output):
            if options.int8:
                difference = export_int8(loaded, metadata, options)
            else:
                difference = export_model(loaded.model, loaded.config, metadata, options.output, options.format)
    size = human_size(options.output.stat().st_size)
    whose = "its float32 form differs" if options.int8 else "differs"
    print(f"{options.output}: {size}; {whose} from PyTorch by at most {difference:.1e} (batches of 1, 2 and 5 persons)")
    return 0


def export_int8(loaded: Loaded, metadata: dict[str, Any], options: argparse.Namespace) -> float:
    """The float32 file, checked, in a temporary folder, and from it the one with 8-bit convolutions."""
    from cocoer.export.onnx_export import export_model
    from cocoer.export.quantize import quantize, spread_persons

    places = {"index": options.int8} | ({"root": options.root} if options.root else {})
    data = replace(loaded.config.data, **places)
    batches = spread_persons(data, "train", options.persons)  # an index that is not there is an error before the work
    with TemporaryDirectory() as folder:
        exact = Path(folder) / "float32.onnx"
        difference = export_model(loaded.model, loaded.config, metadata, exact)
        quantize(exact, options.output, batches, "the training split")
    return difference
