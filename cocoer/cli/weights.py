"""Weights that others publish: list them, fetch and verify them, convert the authors' checkpoint.

    cocoer weights list
    cocoer weights fetch buffalo_l scrfd_person_2.5g
    cocoer weights fetch resnet50 --from /media/stick/resnet50-0676ba61.pth
    cocoer weights verify
    cocoer weights convert --release GWT.pth --clip checkpoints/clip/RN50.pt --output checkpoints/release --onnx
    cocoer weights pack outputs/run/best.safetensors --output small.safetensors

Exit code 0: done. 1: a file cannot be fetched, or is wrong. 2: wrong usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.errors import CheckpointError, ConfigError, FetchError, UsageError
from cocoer.report.text import human_size, table
from cocoer.weights import places
from cocoer.weights.catalog import CATALOG, DEMO_CHECKPOINT, DEMO_FACE, DEMO_PERSON, WeightsFile, entry
from cocoer.weights.fetch import OFFLINE_VARIABLE, by_hand, fetch, put, verify


def _parser() -> argparse.ArgumentParser:
    p = command_parser("weights", __doc__)
    commands = p.add_subparsers(dest="command", required=True)
    lists = commands.add_parser("list", help="what there is, where it comes from, its licence, and whether it is here")
    lists.add_argument("--long", action="store_true", help="also address, checksum and page")
    gets = commands.add_parser("fetch", help="download (continues where it stopped), check, put in place")
    gets.add_argument("names", nargs="+", metavar="NAME", help="as `cocoer weights list` gives them")
    gets.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take this file instead of downloading")
    add_options(gets, "--offline")
    gets.add_argument("--force", action="store_true", help="fetch even what is already in place")
    checks = commands.add_parser("verify", help="compare what is here with published sizes and checksums")
    checks.add_argument(
        "names", nargs="*", metavar="NAME|FILE", help="names, or weights files of cocoer (default: all here)"
    )
    converts = commands.add_parser(
        "convert", help="the authors' checkpoint as one safetensors file, without running its code"
    )
    converts.add_argument("--release", type=Path, required=True, metavar="GWT.pth", help="the authors' checkpoint")
    converts.add_argument(
        "--vocabulary", type=Path, metavar="w.pth", help="not needed: compared with what GWT.pth holds"
    )
    converts.add_argument(
        "--clip", type=Path, metavar="RN50.pt", help="default: checkpoints/clip, then the usual caches"
    )
    converts.add_argument("--config", type=Path, default=places.SHIPPED / "configs" / "emotic_release.yaml",
                          help="of the converted model (default: configs/emotic_release.yaml)")  # fmt: skip
    converts.add_argument("--output", type=Path, default=places.home() / "checkpoints" / "release", metavar="FOLDER",
                          help="default: where cocoer looks for it")  # fmt: skip
    converts.add_argument("--force", action="store_true", help="replace an earlier conversion")
    converts.add_argument("--onnx", action="store_true", help="also its ONNX twin, which prediction on a CPU takes")
    packs = commands.add_parser(
        "pack", help="store trained weights as a smaller file with the same predictions, for inference"
    )
    packs.add_argument("weights", type=Path, help="weights that train.py wrote")
    packs.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors", help="the file to write")
    return p


def show_list(long: bool) -> int:
    """Print the catalog."""
    rows = [
        (
            item.name,
            "here" if item.present else "missing",
            human_size(item.size) if item.size else "not stated",
            item.place,
            item.licence,
        )
        for item in CATALOG
    ]
    print(table(("name", "state", "size", "place", "licence"), rows))
    demo = [places.shown(path) for path in (DEMO_CHECKPOINT, DEMO_FACE, DEMO_PERSON) if path.is_file()]
    print(f"\nFetched files go to {places.home()} (to change it: {places.HOME_VARIABLE})")
    print(f"Shipped (synthetic demonstration, not for photographs, MIT): {', '.join(demo) or 'none found'}")
    if long:
        for item in CATALOG:
            print(f"\n{item.name}: {item.what}")
            print(f"  from     {item.url or 'by hand, see the page'}")
            print(f"  page     {item.page}")
            print(f"  SHA-256  {item.sha256 or '-'} ({item.sha256_source})")
            print(f"  files    {', '.join(map(places.shown, item.files))}")
    return 0


def run_fetch(names: Sequence[str], source: Path | None, offline: bool, force: bool) -> int:
    """Fetch each file, or copy it from `source`; continue after a failure. Returns the exit code."""
    items = [entry(name) for name in names]
    if source is not None and len(items) != 1:
        raise UsageError(f"--from goes with one name, got {len(items)}")
    failed = 0
    for item in items:
        try:
            if item.present and not force and source is None:
                print(f"{item.name}: here already; {verify(item)}")
                continue
            print(f"{item.name}: {item.what}\n  licence: {item.licence}")
            if source is not None:
                put(item, source)
            elif offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"):
                raise FetchError(
                    f"{item.name}: missing, and the network is switched off; wanted {item.files[0]}; {by_hand(item)}"
                )
            else:
                download(item)
            print(f"  in place: {', '.join(map(str, item.files))}; {verify(item)}")
        except FetchError as err:
            print(f"cocoer weights: error: {err}", file=sys.stderr)
            failed += 1
    return 1 if failed else 0


def download(item: WeightsFile) -> None:
    """Fetch with a progress bar."""
    with tqdm(
        total=item.size, unit="B", unit_scale=True, disable=not sys.stderr.isatty(), desc=f"  {item.name}"
    ) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total
            bar.update(done - bar.n)

        fetch(item, progress)


def run_verify(names: Sequence[str]) -> int:
    """Check the named (or all present) files. Returns the exit code."""
    known = {item.name for item in CATALOG}
    files = [Path(name) for name in names if name not in known and Path(name).exists()]
    items = [entry(name) for name in names if Path(name) not in files] if names else [i for i in CATALOG if i.present]
    if not names and DEMO_CHECKPOINT.is_file():
        files.append(DEMO_CHECKPOINT)
    failed = 0
    for item in items:
        try:
            print(f"{item.name}: {verify(item)}")
        except FetchError as err:
            print(f"cocoer weights: error: {err}", file=sys.stderr)
            failed += 1
    for path in files:
        failed += not verify_checkpoint(path)
    if not items and not files:
        print("nothing to verify: no weights are installed; see `cocoer weights list`")
    return 1 if failed else 0


def verify_checkpoint(path: Path) -> bool:
    """Read every tensor of a cocoer weights file, build its model, and print its facts. Returns whether it is valid."""
    from cocoer.files import file_sha256
    from cocoer.model.checkpoint import load_weights

    try:
        loaded = load_weights(path)
    except (CheckpointError, ConfigError) as err:
        print(f"cocoer weights: error: {err}", file=sys.stderr)
        return False
    broken = [name for name, t in loaded.model.state_dict().items() if t.is_floating_point() and not t.isfinite().all()]
    if broken:
        print(f"cocoer weights: error: {path}: numbers that are not finite in {', '.join(broken[:5])}", file=sys.stderr)
        return False
    count = sum(p.numel() for p in loaded.model.parameters())
    print(
        f"{loaded.path}: {loaded.config.data.dataset}, {loaded.config.model.mode} mode, {count:,} parameters, "
        f"all finite; SHA-256 {file_sha256(loaded.path)}"
    )
    return True


def run_convert(args: argparse.Namespace) -> int:
    """Hand over to `cocoer.model.release.convert`, which prints what became of every key."""
    from cocoer.config import load_config
    from cocoer.export.onnx_export import check_twin_can_be_written, write_twin
    from cocoer.files import hold_folder
    from cocoer.model.release.convert import convert_release

    config = load_config(args.config)
    if args.onnx:
        check_twin_can_be_written(config)
    with hold_folder(args.output):
        done = convert_release(
            args.release, args.output, config, clip=args.clip, vocabulary=args.vocabulary, force=args.force
        )
        twin = write_twin(done.file) if args.onnx else None
    if twin is not None:
        print(f"{twin[0]}: its ONNX twin; differs from PyTorch by at most {twin[1]:.1e}")
    print(f"{done.file}: ready for `python inference.py --checkpoint {args.output} --input IMAGE`")
    return 0


def run_pack(weights: Path, out: Path) -> int:
    """Fold the repeated V-I input and store the frozen CLIP tower in half precision. Returns the exit code."""
    import torch

    from cocoer.files import hold_file
    from cocoer.model.checkpoint import load_weights, save_weights
    from cocoer.provenance import says_synthetic

    with hold_file(out):
        loaded = load_weights(weights)
        if loaded.model.vocabulary is not None and loaded.config.model.vocabulary.layout == "repeat":
            loaded.model.vocabulary.fold()
        about = loaded.metadata
        file = save_weights(
            out, loaded.model, loaded.config, metrics=about.get("metrics", {}), thresholds=loaded.thresholds,
            note=about.get("note", ""), synthetic=says_synthetic(about), dtype=torch.float16,
        )  # fmt: skip
    print(f"{file}: {human_size(file.stat().st_size)}, from {human_size(loaded.path.stat().st_size)}")
    return 0


@reports("weights", usage=(UsageError, ConfigError))
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    if args.command == "list":
        return show_list(args.long)
    if args.command == "fetch":
        return run_fetch(args.names, args.source, args.offline, args.force)
    if args.command == "verify":
        return run_verify(args.names)
    if args.command == "pack":
        return run_pack(args.weights, args.output)
    return run_convert(args)
