"""What a config's model consists of: parts, parameters, multiply-adds and tensor shapes.

    cocoer describe --config configs/emotic.yaml
    cocoer describe --config configs/emotic.yaml --folded        # as it is after model.fold()

Takes seconds, little memory and no weights: nothing but shapes is worked out.
"""

from __future__ import annotations

import argparse

from cocoer.cli.faults import reports
from cocoer.config import load_config
from cocoer.report.text import table

_BYTES = 4  # of a float32 weight


@reports("describe", usage=(ValueError,), failed=())
def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 0 = done, 2 = a config that cannot be used."""
    parser = argparse.ArgumentParser(prog="cocoer describe", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--config", default="configs/emotic.yaml", help="a run config (default: %(default)s)")
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change a key of the config"
    )
    parser.add_argument("--folded", action="store_true", help="the model as it is after model.fold()")
    options = parser.parse_args(arguments)
    config = load_config(options.config, options.set)
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
