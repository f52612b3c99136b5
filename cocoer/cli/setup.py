"""Set up everything that photographs need: fetch, check and convert the weights, then try them on a photograph.

    cocoer setup photos                              the authors' checkpoint and insightface's detectors (research only)
    cocoer setup photos --with zero-shot             CLIP alone, no weights of CocoER
    cocoer setup photos --with permissive            CLIP alone, with detectors that may also be used commercially
    cocoer setup photos --with release permissive    the authors' checkpoint with those detectors
    cocoer setup photos --from Downloads/CocoER.zip Downloads/RN50.pt      what was fetched by hand

Says size and licence of everything first; a broken download is continued by the same command. What it has set up is what
`cocoer predict` uses from then on. Exit code 0: photographs can be answered. 1: they cannot yet. 2: wrong usage, or not agreed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib.resources import files
from pathlib import Path

from tqdm import tqdm

from cocoer.cli.faults import reports
from cocoer.cli.options import add_options, command_parser
from cocoer.errors import FetchError, UsageError
from cocoer.report.text import human_size, table
from cocoer.weights import places
from cocoer.weights.catalog import WeightsFile, entry
from cocoer.weights.fetch import MIRROR_VARIABLE, OFFLINE_VARIABLE, fetch, put, verify
from cocoer.weights.routes import RELEASE_FOLDER, Route, choose, release_file, route_of

RELEASE_CONFIG = places.SHIPPED / "configs" / "emotic_release.yaml"
PHOTOGRAPH = "data/images/t1.jpg"
"""A photograph of six people that comes with insightface."""


def _parser() -> argparse.ArgumentParser:
    p = command_parser("setup", __doc__, allow_abbrev=False)
    p.add_argument("what", choices=["photos"], help="what to set up")
    p.add_argument(
        "--with",
        dest="route",
        nargs="+",
        action="extend",
        choices=["release", "zero-shot", "permissive"],
        default=[],
        help="release (default), zero-shot, permissive; permissive also beside one of the others",
    )
    p.add_argument("--yes", action="store_true", help="agree to the sizes and licences shown")
    p.add_argument(
        "--from", dest="sources", nargs="+", action="extend", type=Path, default=[], metavar="FILE",
        help="files downloaded by hand, under the publishers' names",
    )  # fmt: skip
    p.add_argument("--mirror", metavar="URL", help=f"address of a mirror, tried first (also: {MIRROR_VARIABLE})")
    add_options(p, "--offline", "--device")
    return p


@reports("setup", usage=(UsageError,))
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    args = _parser().parse_args(argv)
    if args.mirror:
        os.environ[MIRROR_VARIABLE] = args.mirror
    if args.offline:
        os.environ[OFFLINE_VARIABLE] = "1"
    route = route_of(tuple(args.route))
    matched = _matched(route, args.sources)
    wanted = [item for item in route.items if not item.present or item in matched]
    if route.checkpoint == "release" and release_file() is not None and not matched:
        wanted = [item for item in wanted if item.name in route.missing]
    _announce(route, wanted)
    if wanted and not args.yes and not _agreed():
        print("cocoer setup: nothing was downloaded; run it again with --yes to agree", file=sys.stderr)
        return 2
    _check_room([item for item in wanted if item not in matched])
    if not _get_all(wanted, matched):
        return 1
    if route.checkpoint == "release":
        _convert(bool(matched))
    choose(route)
    return _try(route, args.device)


def _matched(route: Route, sources: Sequence[Path]) -> dict[WeightsFile, Path]:
    """The catalog entry of each given file: by its name; a file with another name counts as the authors' checkpoint.

    Raises UsageError for a file that is not there or that no entry takes.
    """
    out: dict[WeightsFile, Path] = {}
    for source in sources:
        if not source.is_file():
            raise UsageError(f"--from {source}: no such file")
        names = {name: item for item in route.items for name in _names_of(item)}
        item = names.get(source.name)
        release = entry("cocoer-release")
        if item is None and release in route.items and release not in out:
            item = release
        if item is None:
            raise UsageError(f"--from {source}: wanted one of {', '.join(sorted(names))}")
        out[item] = source
    return out


def _names_of(item: WeightsFile) -> list[str]:
    """The file names under which this entry may be given."""
    tail = item.url.rsplit("/", 1)[1] if item.url and "?" not in item.url else item.file_name
    return [tail, item.file_name, Path(item.place).name, *(Path(member).name for member, _ in item.unpack)]


def _announce(route: Route, wanted: Sequence[WeightsFile]) -> None:
    """What the route is, and every file with its size, licence and state."""
    print(f"Photographs by {route.name}, into {places.home()}")
    rows = [
        (item.name, "to get" if item in wanted else "here", _size(item), item.licence, item.page)
        for item in route.items
    ]
    print(table(("file", "state", "size", "licence", "from"), rows))
    total = sum(item.size or item.about or 0 for item in wanted)
    converted = " and the converted checkpoint as much again" if entry("cocoer-release") in wanted else ""
    if wanted:
        print(f"\nTo download: about {human_size(total)}{converted}. Free: {human_size(_free())}.")


def _size(item: WeightsFile) -> str:
    return human_size(item.size) if item.size else f"about {human_size(item.about)}" if item.about else "not stated"


def _free() -> int:
    """Bytes free where fetched files go."""
    return shutil.disk_usage(places.nearest_existing(places.home())).free


def _agreed() -> bool:
    """Ask at a terminal; without one the answer is no."""
    if not sys.stdin.isatty():
        return False
    return input("Fetch these under their licences? [y/N] ").strip().lower() in ("y", "yes")


def _check_room(wanted: Sequence[WeightsFile]) -> None:
    """Raises FetchError if the downloads and their conversion do not fit on the disk."""
    need = sum((item.size or item.about or 0) * (2 if item.name == "cocoer-release" else 1) for item in wanted)
    if need > _free():
        raise FetchError(
            f"{places.home()}: wanted about {human_size(need)} free, got {human_size(_free())}; {places.ROOM}"
        )


def _get_all(wanted: Sequence[WeightsFile], matched: dict[WeightsFile, Path]) -> bool:
    """Get each file, and continue after a failure. Returns whether all are in place."""
    failed = []
    for item in wanted:
        try:
            _get(item, matched.get(item))
            print(f"{item.name}: in place; {verify(item)}")
        except FetchError as err:
            if item.present:
                continue
            print(f"cocoer setup: error: {err}", file=sys.stderr)
            failed.append(item.name)
    if failed:
        print(f"cocoer setup: still missing: {', '.join(failed)}; the same command continues", file=sys.stderr)
    return not failed


def _get(item: WeightsFile, source: Path | None) -> None:
    """Download or copy one entry; insightface's detectors from the authors' copy if its own page fails."""
    if source is not None:
        put(item, source)
        return
    with tqdm(
        total=item.size or item.about, unit="B", unit_scale=True, desc=item.name, disable=not sys.stderr.isatty()
    ) as bar:

        def progress(done: int, total: int | None) -> None:
            bar.total = total or bar.total
            bar.update(done - bar.n)

        try:
            fetch(item, progress)
        except FetchError as err:
            copy = entry("cocoer-release-detectors")
            if item.name not in ("buffalo_l", "scrfd_person_2.5g"):
                raise
            print(f"cocoer setup: {err}\ncocoer setup: trying the authors' copy", file=sys.stderr)
            try:
                fetch(copy, progress)
            except FetchError:
                raise err from None


def _convert(again: bool) -> None:
    """GWT.pth and CLIP's RN50 -> checkpoints/release, unless that is done. Raises CheckpointError."""
    if release_file() is not None and not again:
        print(f"release: converted before, {places.shown(release_file() or Path())}")
        return
    from cocoer.config import load_config
    from cocoer.model.release.convert import convert_release

    (gwt,) = entry("cocoer-release").files
    (clip,) = entry("clip-rn50").files
    vocabulary = gwt.parent / "VI_weights" / "w.pth"
    convert_release(
        gwt, places.home() / RELEASE_FOLDER, load_config(RELEASE_CONFIG),
        clip=clip, vocabulary=vocabulary if vocabulary.is_file() else None, force=True,
    )  # fmt: skip


def _try(route: Route, device: str) -> int:
    """Recognise the people of the photograph. Returns the exit code: 1 if none of its six people is found."""
    from cocoer.data.decode import decode_image
    from cocoer.inference.recognizer import Recognizer
    from cocoer.outputs import ImageResult
    from cocoer.report.text import summarize

    path = Path(str(files("insightface"))) / PHOTOGRAPH
    with redirect_stdout(sys.stderr):  # insightface and others print
        recognizer = Recognizer.from_options(None, route.checkpoint, device, (), route.detector)
        image = decode_image(path)
        persons = recognizer(image)
    print(f"\nTried on {path.name}, a photograph that comes with insightface:")
    print(summarize(ImageResult(path.name, *image.size, tuple(persons), model=recognizer.about)))
    if not persons:
        print(
            f"cocoer setup: error: {path.name} shows six people and none was found; run `cocoer doctor`",
            file=sys.stderr,
        )
        return 1
    print(
        "\nReady for photographs: python inference.py --input PHOTO.jpg   (docs/photographs.md describes the accuracy)"
    )
    return 0
