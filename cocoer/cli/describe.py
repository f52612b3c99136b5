"""What a config's model consists of: parts, parameters, multiply-adds and tensor shapes.

    cocoer describe --config configs/emotic.yaml
    cocoer describe --config configs/emotic.yaml --folded        # as it is after model.fold()
    cocoer describe --card W.safetensors --from outputs/evaluation/result.json --output CARD.md

Takes seconds, little memory and no weights: nothing but shapes is worked out.
--card writes the model card of a weights file instead, with the given evaluations of these weights (`result.json`).
Exit code 0: done. 1: weights or a result cannot be used. 2: wrong usage, or a config that cannot be used.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.config import load_config
from cocoer.errors import TableError
from cocoer.files import file_sha256, write_text
from cocoer.report.text import table

_BYTES = 4  # of a float32 weight


@reports("describe", usage=(ValueError,), failed=())
def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 0 = done, 2 = a config that cannot be used."""
    parser = command_parser("describe", __doc__)
    parser.add_argument("--config", default="configs/emotic.yaml", help="a run config (default: %(default)s)")
    add_options(parser, "--set")
    parser.add_argument("--folded", action="store_true", help="the model as it is after model.fold()")
    parser.add_argument("--card", type=Path, metavar="WEIGHTS", help="write the model card of this file")
    parser.add_argument("--from", nargs="+", default=[], dest="results", metavar="RESULT", help="its result.json files")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where the card goes; default: the terminal")
    options = parser.parse_args(arguments)
    if options.card is None and (options.results or options.output):
        parser.error("--from and --output belong to a model card: name its weights with --card")
    if options.card is not None:
        return write_card(options)
    config = load_config(options.config, options.overrides)
    from cocoer.model.describe import describe  # torch takes seconds to load, and a wrong config needs none

    description = describe(config, options.folded)

    rows = [
        [part.name, f"{part.parameters:,}", f"{part.trainable:,}", f"{part.multiply_adds / 1e6:,.1f}"]
        for part in description.parts
    ]
    total, work = description.parameters, description.multiply_adds
    trainable = sum(part.trainable for part in description.parts)
    rows.append(["all", f"{total:,}", f"{trainable:,}", f"{work / 1e6:,.1f}"])
    print(f"{options.config}{', folded' if options.folded else ''}: {total / 1e6:.2f} M parameters, "
          f"{total * _BYTES / 1e6:,.0f} MB in float32, {work / 1e9:.2f} G multiply-adds a person\n")  # fmt: skip
    print(table(["part", "parameters", "trainable", "multiply-adds (M)"], rows))
    print("\nMultiply-adds are those of convolutions and matrix products; norms, activations and sums are left out.\n")
    print(
        table(
            ["tensor, one person", "shape"], [[name, " x ".join(map(str, shape))] for name, shape in description.shapes]
        )
    )
    return 0


@reports("describe", usage=())
def write_card(options: argparse.Namespace) -> int:
    """The model card of a weights file, to a file or the terminal; 0 = done."""
    from cocoer.inference.hub import model_card
    from cocoer.model.checkpoint import find_weights, read_metadata
    from cocoer.report.leaderboard import read_result, undamaged
    from cocoer.report.trust import card_sections

    weights = find_weights(options.card)
    checksum = file_sha256(weights)
    results = [read_result(path) for path in options.results]
    for path, result in zip(options.results, results, strict=True):
        with undamaged(path):
            card_sections([result])
        if result["model"].get("sha256") != checksum:
            raise TableError(
                f"{path}: is of other weights than {weights}; evaluate these, or name the weights that it is of"
            )
    card = model_card(read_metadata(weights), results, card_sections(results) if results else "")
    if options.output is None:
        print(card, end="")
    else:
        write_text(options.output, card)
        print(options.output.as_posix())
    return 0
