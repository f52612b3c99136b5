"""Speed and memory beside the model's own backbones, in one process (`make bench`); docs/performance.md says how to read it.

    cocoer benchmark                               # everything, under 15 minutes on two cores
    cocoer benchmark --what model --batch 8 --json outputs/speed.json
    cocoer benchmark --small                       # the demonstration's sizes: does everything run?
    cocoer benchmark --what profile --batch 8      # where the time goes
    cocoer benchmark --check run1.json run2.json   # do these runs meet the targets?

Weights are random and no file is needed. Exit 0: measured. 1: a run that was checked misses a target. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.files import read_json, write_text
from cocoer.weights import places

if TYPE_CHECKING:
    import torch

    from cocoer.benchmark.model import Row
    from cocoer.config import Config

PARTS = ("memory", "overlap", "data", "scaling", "model", "train")  # memory first, while the process is still small
ASKED_FOR = ("agreement", "backbones", "profile", "scale")  # not among `all`
MODES = {"paper": "emotic.yaml", "release": "emotic_release.yaml"}
SMALL = "demo_emotic.yaml"
CPU_BATCHES = (1, 2, 4, 8)
GPU_BATCHES = tuple(2**i for i in range(10))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line. Leaves the program with code 2 on wrong usage."""
    parser = command_parser("benchmark", __doc__)
    parser.add_argument(
        "--what", nargs="+", choices=(*PARTS, *ASKED_FOR, "all"), default=["all"], help="default: all but the last four"
    )
    parser.add_argument("--mode", choices=(*MODES, "both"), default="both", help="default: %(default)s")
    parser.add_argument("--batch", type=int, nargs="+", metavar="N", help="persons (default: 1 2 4 8; GPU: 1 to 512)")
    add_options(parser, "--device", "--set")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as torch chooses)")
    parser.add_argument("--seconds", type=float, default=6.0, help="least time per comparison (default: %(default)s)")
    parser.add_argument("--images", type=int, default=2000, help="images of memory and of scale (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="the demonstration's sizes instead of the full ones")
    parser.add_argument("--eager", action="store_true", help="leave out the variants that are compiled or exported")
    parser.add_argument("--full", action="store_true", help="every variant at every batch size (twice the time)")
    parser.add_argument(
        "--busy",
        action="store_true",
        help="one thread, and the CPU time of this process instead of wall time (for a busy machine); not: data, overlap",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the rows of memory and scaling, as PNG and PDF")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows as a JSON list")
    parser.add_argument(
        "--check",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="measure nothing: hold written rows against the targets",
    )
    options = parser.parse_args(arguments)
    if min(options.batch or [1]) < 1 or options.threads < 0 or options.seconds < 0 or options.images < 2:
        parser.error("--batch wants 1 or more, --threads and --seconds 0 or more, --images 2 or more")
    return options


@reports("benchmark", (ValueError,), ())
def main(arguments: list[str] | None = None) -> int:
    """Measure, print a table per part as it is done, write the rows; returns the exit code."""
    options = parse(arguments)
    if options.check:
        return check(options.check)
    from cocoer.runtime import start_runtime  # behind the parser: torch takes seconds

    rows: list[Row] = []
    with start_runtime(options.device, 1 if options.busy else options.threads) as runtime:
        say(describe(runtime.device))
        for part in PARTS if "all" in options.what else options.what:
            if part == "profile":
                print_profiles(options, runtime.device)
                continue
            new = list(measure(part, options, runtime.device))
            print(f"\n{part}\n{as_table(new)}", flush=True)
            rows += new
            if options.plot and part in ("memory", "scaling"):
                draw_scaling(rows, options.plot)
            if options.json:
                write_text(options.json, json.dumps([row.to_dict() for row in rows], indent=1))
        if not options.small:  # the targets are for the full size
            print_targets(rows)
    return 0


def configs(options: argparse.Namespace) -> Iterator[Config]:
    """The configs of the requested modes, at the requested size; random weights."""
    from cocoer.config import load_config

    for mode, file in MODES.items():
        if options.mode not in (mode, "both"):
            continue
        if not options.small:
            yield load_config(places.SHIPPED / "configs" / file, options.overrides)
            continue
        changes = ["model.vocabulary.tower=configs/demo_clip.json"]
        if mode == "release":
            changes += [
                "model.mode=release",
                "model.coordination.update=release",
                "data.image_size=224",
                "model.tokens.patch=1",
            ]
        yield load_config(places.SHIPPED / "configs" / SMALL, [*changes, *options.overrides])


def small_config() -> Config:
    """The demonstration's model, for what does not depend on the model's size."""
    from cocoer.config import load_config

    return load_config(places.SHIPPED / "configs" / SMALL, ["model.vocabulary.tower=configs/demo_clip.json"])


def measure(part: str, options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """The rows of one part."""
    from cocoer.benchmark.agreement import measure_agreement
    from cocoer.benchmark.backbones import measure_backbones
    from cocoer.benchmark.model import measure_model
    from cocoer.benchmark.scaling import measure_data, measure_memory, measure_persons, measure_workspace
    from cocoer.benchmark.training import measure_train

    gpu = device.type == "cuda"
    clock = time.process_time if options.busy else time.perf_counter
    if part == "memory":
        settled = max(1, min(200, options.images // 10))
        yield from measure_memory(small_config(), device, options.images, settled, clock)
        return
    if part == "overlap":
        from cocoer.benchmark.pipeline import measure_overlap
        from cocoer.weights.catalog import DEMO_CHECKPOINT

        images = sorted((places.SHIPPED / "test_imgs").glob("demo_*.jpg"))
        yield from measure_overlap(DEMO_CHECKPOINT, images, options.device, options.seconds)
        return
    if part == "scale":
        from cocoer.benchmark.archives import measure_archives
        from cocoer.weights.catalog import DEMO_CHECKPOINT

        images = sorted((places.SHIPPED / "test_imgs").glob("demo_*.jpg"))
        yield from measure_archives(DEMO_CHECKPOINT, images, options.images)
        return
    if part == "scaling":
        yield from measure_persons(small_config(), device, options.seconds, clock)
    for config in configs(options):
        say(f"{part}, {config.model.mode} mode ...")
        if part == "model":
            batches = options.batch or (GPU_BATCHES if gpu else CPU_BATCHES)
            yield from measure_model(
                config, device, batches, options.seconds, say, clock, options.eager, options.full or gpu
            )
        elif part == "train":
            yield from measure_train(config, device, options.batch or [64 if gpu else 8], options.seconds, clock)
        elif part == "agreement":
            yield from measure_agreement(config, device, options.batch or [64 if gpu else 8], options.seconds, clock)
        elif part == "backbones":
            yield from measure_backbones(config, device, options.batch or [256 if gpu else 8], options.seconds, clock)
        elif part == "data":
            yield from measure_data(config, device)
            return  # what it measures is the same in both modes
        else:
            yield from measure_workspace(config, device, min(options.seconds, 5.0), clock)


def print_profiles(options: argparse.Namespace, device: torch.device) -> None:
    """Print the profile of every mode and number of persons, and the machine's peak rates."""
    from cocoer.benchmark.profile import measure_profile
    from cocoer.report.text import Cell, table

    for config in configs(options):
        for persons in options.batch or [64 if device.type == "cuda" else 8]:
            for found in measure_profile(config, device, persons, options.seconds):
                print(
                    f"\n{found.what}, {config.model.mode} mode, {persons} persons: {found.total_ms:.1f} ms,"
                    f" {found.gflops:.0f} GFLOP/s of {found.peak_gflops:.0f} that a matrix product reaches;"
                    f" a copy reaches {found.copy_gb_s:.0f} GB/s"
                )
                lines: list[list[Cell]] = [[o.name, o.calls, o.ms, 100 * o.share] for o in found.operations]
                print(table(["operation", "calls", "ms", "% of the pass"], lines, digits=1), flush=True)


def as_table(rows: list[Row]) -> str:
    """The rows for the terminal; columns that are empty throughout are left out."""
    from cocoer.report.text import table

    columns = [name for name in rows[0].to_dict() if name != "what"] if rows else []
    columns = [name for name in columns if any(row.to_dict()[name] is not None for row in rows)]

    def cell(value: object) -> str | float | int | None:
        if isinstance(value, (tuple, list)):
            return " - ".join(f"{x:.1f}" for x in value)
        return value if isinstance(value, str | float | int) else None

    return table(columns, [[cell(row.to_dict()[name]) for name in columns] for row in rows], digits=2)


def check(files: list[Path]) -> int:
    """Hold each file's rows against the targets; 0 = all that was measured is met, 1 = something is missed.

    Raises ValueError for a file without such rows.
    """
    from cocoer.benchmark.targets import row_of

    missed = 0
    for file in files:
        try:
            rows = [row_of(row) for row in read_json(file)]
        except (OSError, ValueError, AttributeError, TypeError) as err:
            raise ValueError(f"{file}: wanted rows that `cocoer benchmark --json` wrote, got {err}") from None
        print(file)
        missed += print_targets(rows, all_of_them=True)
    return 1 if missed else 0


def print_targets(rows: list[Row], all_of_them: bool = False) -> int:
    """Print the targets that the rows cover, or all, one per line; returns how many are missed."""
    from cocoer.benchmark.targets import verdicts
    from cocoer.report.text import table

    found = [v for v in verdicts(rows) if all_of_them or v.met is not None]
    words = {True: "yes", False: "NO", None: "not measured"}
    if found:
        lines = [
            [v.what, f"{'>=' if v.at_least else '<='} {v.wanted:g} {v.unit}", v.found, words[v.met]] for v in found
        ]
        print(f"\n{table(['target', 'wanted', 'found', 'met'], lines)}", flush=True)
    return sum(v.met is False for v in found)


def draw_scaling(rows: list[Row], file: Path) -> None:
    """The scaling rows as an image. Raises ValueError where none was measured."""
    from cocoer.benchmark.targets import series_of
    from cocoer.report.plots import Panel, line_figure, save

    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for (variant, mode), points in series_of(rows).items():
        panels.setdefault(variant, {})[mode] = [(float(work), cost) for work, cost in points]
    words = {"persons in one image": "persons", "images": "images", "workspace, by classes": "classes"}
    drawn = []
    for name, lines in panels.items():
        unit, milliseconds = (
            ("s", 1000.0) if max(cost for line in lines.values() for _, cost in line) >= 1e4 else ("ms", 1.0)
        )
        shown = {mode: [(work, cost / milliseconds) for work, cost in line] for mode, line in lines.items()}
        drawn.append(Panel(name, words.get(name, "persons"), f"time ({unit})", shown, from_zero=True))
    drawing = line_figure(drawn)
    say(f"{' and '.join(str(made) for made in save(drawing, file))}: drawn")


def describe(device: torch.device) -> str:
    """The machine, in one line."""
    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return f"{name}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}"


def processor() -> str:
    """The CPU's name and whether it has bf16 units, as Linux knows them."""
    from cocoer.files import read_lines

    info = Path("/proc/cpuinfo")
    lines = read_lines(info) if info.exists() else []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = found.get("flags", "").split()
    extras = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{found.get('model name', 'CPU')} ({', '.join(extras) or 'flags not known'})"


def say(text: str) -> None:
    """A remark, apart from the tables."""
    print(text, file=sys.stderr, flush=True)
