"""Getting, checking and unpacking the files of `catalog`: resumable, verified before they are put in place.

gdown carries the bytes, from Google Drive (with its confirmation and quota pages) and from any other host: it follows redirects,
continues a broken transfer by a range request and tries again. Not pooch, whose downloader starts from nothing after a break.
A download grows in `NAME.download*.part` beside its place and is renamed when size and checksum agree, so a file under its final
name is always whole. Only addresses of the catalog are opened (or the mirror's, `COCOER_MIRROR`), and only by `cocoer weights
fetch` and `cocoer setup`. Where no checksum is published, the first fetch records one, and later fetches are compared with it.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cocoer.errors import FetchError, FolderInUse, one_line
from cocoer.files import file_sha256, hold_folder, put_in_place, read_json, wait_for, write_text
from cocoer.weights import places
from cocoer.weights.archive import take
from cocoer.weights.catalog import WeightsFile

Progress = Callable[[int, "int | None"], None]
"""(bytes there, bytes in all or None)."""

MIRROR_VARIABLE = "COCOER_MIRROR"
"""Names an address below which a mirror keeps the catalog's files under their own names; it is asked first."""

OFFLINE_VARIABLE = "COCOER_OFFLINE"
TIMEOUT_S = 60
RETRIES = 3
_PAGE_STARTS = (b"<!doctype html", b"<html", b"<head", b"<?xml")


def fetch(item: WeightsFile, progress: Progress = lambda done, total: None) -> None:
    """Download a file of the catalog, continue where an earlier try stopped, check it and put it in place.

    Raises FetchError: nothing under the final name has changed then, and what came so far is kept for the next try.
    """
    if not addresses(item):
        raise FetchError(f"{item.name}: its publisher offers no fixed address; {by_hand(item)}")
    if os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"):
        raise FetchError(f"{item.name}: missing, and {OFFLINE_VARIABLE} switches the network off; {by_hand(item)}")
    with _alone(item) as download:
        _carry(item, download, progress)
        _accept(item, download)


def put(item: WeightsFile, source: Path) -> None:
    """Take a file that was downloaded elsewhere (for a machine without a network), check it and put a copy in place.

    source: the file as published; for an archive also the one member that is needed. Raises FetchError.
    """
    if not source.is_file():
        raise FetchError(f"--from {source}: no such file")
    with _alone(item) as unfinished:
        shutil.copyfile(source, unfinished)
        _accept(item, unfinished, source.name)


@contextmanager
def _alone(item: WeightsFile) -> Iterator[Path]:
    """The temporary path of the download, held by this process alone. Raises FetchError."""
    download = _download_of(item)
    try:
        with hold_folder(download.parent, f".{download.name}.lock"):
            try:
                yield download
            finally:
                download.unlink(missing_ok=True)
    except FolderInUse as err:
        raise FetchError(f"{item.name}: {err}") from None
    except OSError as err:
        _tell_of_disk(item, download, err)


def addresses(item: WeightsFile) -> list[str]:
    """The addresses of a file, in the order of trying: the mirror that `COCOER_MIRROR` names, then the publisher."""
    mirror = os.environ.get(MIRROR_VARIABLE, "").rstrip("/")
    return [*([f"{mirror}/{item.file_name}"] if mirror else []), *([item.url] if item.url else [])]


def by_hand(item: WeightsFile) -> str:
    """What to do without this program's download."""
    return f"get {item.url or item.page} by hand and run `cocoer weights fetch {item.name} --from FILE`"


def check_file(item: WeightsFile, path: Path) -> str:
    """Compare a file with the size and checksum that its publisher states; returns what was checked, in words.

    Raises FetchError where they differ, and for a web page in place of a file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(512).lstrip().lower()
    if start.startswith(_PAGE_STARTS):
        raise FetchError(
            f"{item.name}: wanted a file, got a web page (of a sign-in, a quota or an error); {by_hand(item)}"
        )
    if item.size is not None and size != item.size:
        raise FetchError(
            f"{path}: wanted {item.size:,} bytes, got {size:,}; it is another file or a part of it, fetch it again"
        )
    if item.sha256 is None:
        return f"{size:,} bytes; no checksum is published"
    found = file_sha256(path)
    if not found.startswith(item.sha256):
        raise FetchError(
            f"{path}: wanted SHA-256 {item.sha256}, got {found}; it is another or a damaged file, fetch it again"
        )
    return f"{size:,} bytes, SHA-256 {item.sha256[:12]}... agrees ({item.sha256_source})"


def verify(item: WeightsFile) -> str:
    """Check what is in place. Raises FetchError for a missing or wrong file."""
    missing = [path for path in item.files if not path.is_file()]
    if missing:
        raise FetchError(f"{item.name}: not there: {missing[0]}; get it with `cocoer weights fetch {item.name}`")
    if not item.unpack and item.sha256 is not None:
        return check_file(item, item.files[0])
    return "; ".join(_known(item, path, sha256) for path, sha256 in _members(item))


def _members(item: WeightsFile) -> Iterator[tuple[Path, str | None]]:
    """The files in place with the checksums that are published of them."""
    sums = [sha256 for _, sha256 in item.unpack] or [item.sha256]
    yield from zip(item.files, sums, strict=True)


def _known(item: WeightsFile, path: Path, sha256: str | None) -> str:
    """Compare a file with the published checksum, or with the one that its first fetch recorded; returns which, in words."""
    found = file_sha256(path)
    wanted = sha256 or recorded().get(f"{item.name}/{path.name}")
    if wanted is None:
        return f"{path.name}: no checksum is published, and none was recorded when it came"
    if found != wanted:
        raise FetchError(
            f"{path}: wanted SHA-256 {wanted}, got {found}; run `cocoer weights fetch {item.name} --force`"
        )
    return f"{path.name}: SHA-256 agrees ({'published' if sha256 else 'recorded when it was first fetched'})"


def recorded() -> dict[str, str]:
    """Checksums that first fetches recorded: `NAME/FILE` -> SHA-256."""
    path = places.place_of("checkpoints/checksums.json")
    if not path.is_file():
        return {}
    try:
        found: dict[str, str] = read_json(path)
    except ValueError:
        raise FetchError(f"{path}: wanted the checksums as JSON, got something else; remove the file") from None
    return found


def _record(item: WeightsFile, name: str, sha256: str) -> None:
    store = places.home() / "checkpoints" / "checksums.json"
    store.parent.mkdir(parents=True, exist_ok=True)
    with wait_for(store.with_name(".checksums.lock")):  # two fetches of two files must not lose each other's line
        known = recorded()
        if known.setdefault(f"{item.name}/{name}", sha256) != sha256:
            raise FetchError(
                f"{item.name}: {name} is another file than the one that was fetched first (SHA-256"
                f" {known[f'{item.name}/{name}']}, now {sha256}); if that is right, remove its line from"
                f" {places.place_of('checkpoints/checksums.json')}"
            )
        write_text(store, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _download_of(item: WeightsFile) -> Path:
    """Where the download itself goes: beside its place, or beside the folder it is unpacked into."""
    place = places.home() / item.place
    return place.with_name(f"{place.name}.download" if not item.unpack else f"{item.name}.download")


def _carry(item: WeightsFile, target: Path, progress: Progress) -> None:
    """Fill `target` from the first address that gives the whole file. Raises FetchError with the reason of each."""
    reasons = []
    for address in addresses(item):
        try:
            _from(address, target, progress)
            return
        except FetchError as err:
            reasons.append(str(err))
    raise FetchError(f"{item.name}: {'; '.join(reasons)}; run it again, it continues, or {by_hand(item)}")


def _from(address: str, target: Path, progress: Progress) -> None:
    """One address. Raises FetchError with the reason; the part that came stays for the next try."""
    import gdown
    import requests
    from gdown.exceptions import DownloadError, FileURLRetrievalError

    def once() -> None:
        gdown.download(
            address,
            str(target),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=progress,
            timeout=TIMEOUT_S,
            retries=RETRIES,
        )

    try:
        try:
            once()
        except DownloadError as err:
            if "byte range" not in str(err) and "multiple temporary" not in str(err):
                raise
            _drop_parts(target)  # a part that this host cannot continue: from the beginning
            once()
    except FileURLRetrievalError as err:
        raise FetchError(
            f"Google Drive gives a page instead of the file ({one_line(err)}); too many fetched it today, or it moved"
        ) from None
    except (requests.RequestException, DownloadError) as err:
        reason = getattr(err, "response", None)
        code = (
            f"answers {reason.status_code} {reason.reason}"
            if reason is not None
            else f"cannot be read ({one_line(err)})"
        )
        raise FetchError(f"{address} {code}") from None


def _drop_parts(target: Path) -> None:
    for part in target.parent.glob(f"{target.name}????????.part"):
        part.unlink(missing_ok=True)


def _tell_of_disk(item: WeightsFile, download: Path, err: Exception) -> None:
    """Raise FetchError for a disk that cannot be written; a full one gets back what the download took."""
    full = getattr(err, "errno", None) == errno.ENOSPC or "No space left" in str(err)
    if full:
        download.unlink(missing_ok=True)
        _drop_parts(download)
    reason = getattr(err, "strerror", None) or err
    raise FetchError(
        f"{item.name}: cannot be written below {places.home()} ({reason}); {places.ROOM}, then fetch again"
    ) from None


def _accept(item: WeightsFile, file: Path, called: str = "") -> None:
    """Check a complete download and put it, or its members, in place. A wrong one is removed, so that no retry continues it."""
    home = places.home() / item.place
    if not item.unpack:
        check_file(item, file)
        if item.sha256 is None:
            _record(item, home.name, file_sha256(file))
        put_in_place(file, home)
        return
    member = called if called in {Path(name).name for name, _ in item.unpack} else None
    if member is None:
        check_file(item, file)
    for name, sha256, unfinished in take(item, file, member):
        found = file_sha256(unfinished)
        if sha256 is not None and found != sha256:
            raise FetchError(
                f"{item.name}: {name}: wanted SHA-256 {sha256}, got {found}; it is another or a damaged file"
            )
        if sha256 is None:
            _record(item, Path(name).name, found)
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        put_in_place(unfinished, home / name)
