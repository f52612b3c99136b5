"""Getting, checking and unpacking the files of `weights_catalog`: resumable, verified before they are put in place.

A download grows in `PLACE.part` beside its place and is renamed when size and checksum agree, so a file under its final name
is always whole. Only addresses of the catalog are opened, and only by `cocoer weights fetch`.
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from cocoer import __version__
from cocoer.errors import FetchError
from cocoer.files import file_sha256, put_in_place
from cocoer.weights import places
from cocoer.weights.catalog import WeightsFile

Progress = Callable[[int, "int | None"], None]
"""(bytes there, bytes in all or None)."""

BLOCK = 1 << 20
TIMEOUT_S = 60


def check_file(item: WeightsFile, path: Path) -> str:
    """Compare a file with the size and checksum that its publisher states; returns what was checked, in words.

    Raises FetchError where they differ.
    """
    size = path.stat().st_size
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
    if not item.unpack:
        return check_file(item, item.files[0])
    said = []
    for path, (member, sha256) in zip(item.files, item.unpack, strict=True):
        if sha256 is not None and (found := file_sha256(path)) != sha256:
            raise FetchError(f"{path}: wanted SHA-256 {sha256}, got {found}; fetch {item.name} again")
        said.append(f"{member}: " + ("SHA-256 agrees" if sha256 else "no checksum is published"))
    return "; ".join(said)


def fetch(item: WeightsFile, progress: Progress = lambda done, total: None) -> None:
    """Download a file of the catalog, continue where an earlier try stopped, check it and put it in place.

    Raises FetchError: nothing under the final name has changed then, and what came so far is kept for the next try.
    """
    if item.url is None:
        raise FetchError(
            f"{item.name}: its publisher offers no fixed address; get it by hand from {item.page} and run "
            f"`cocoer weights fetch {item.name} --from FILE`"
        )
    target = _archive(item)
    part = target.with_name(target.name + ".part")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        _download(item, part, progress)
        _accept(item, part)
    except OSError as err:
        raise FetchError(f"{part}: cannot be written ({err.strerror or err}); {places.ROOM}") from None


def put(item: WeightsFile, source: Path) -> None:
    """Take a file that somebody brought along (a machine without a network), check it and put a copy in place.

    source: the file as published; for an archive also the one member that is needed. Raises FetchError.
    """
    if not source.is_file():
        raise FetchError(f"--from {source}: no such file")
    try:
        if item.unpack and not zipfile.is_zipfile(source):
            _put_member(item, source)
            return
        part = _archive(item).with_name(_archive(item).name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, part)
        _accept(item, part)
    except OSError as err:
        raise FetchError(f"{item.name}: cannot be put in place ({err.strerror or err}); {places.ROOM}") from None


def _archive(item: WeightsFile) -> Path:
    """Where the download itself goes: its place, or beside the folder it is unpacked into."""
    place = item.files[0].parent if item.unpack else item.files[0]
    return place.with_name(place.name + ".zip") if item.unpack else place


def _download(item: WeightsFile, part: Path, progress: Progress) -> None:
    """Fill `part`, from where it ends."""
    assert item.url is not None, "fetch() has checked that there is an address"
    have = part.stat().st_size if part.exists() else 0
    if item.size is not None and have >= item.size:
        have = have if have == item.size else 0
        if have:
            return
    headers = {"User-Agent": f"cocoer/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    request = urllib.request.Request(item.url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            if answer.status != 206:
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else item.size
            with part.open("ab" if have else "wb") as file:
                while block := answer.read(BLOCK):
                    file.write(block)
                    have += len(block)
                    progress(have, total)
        if total is not None and have < total:
            raise FetchError(
                f"{item.name}: the connection ended after {have:,} of {total:,} bytes; run it again, it continues"
            )
    except urllib.error.HTTPError as err:
        if err.code == 416 and have:  # nothing after what is there: whole, or another file
            return
        raise FetchError(f"{item.name}: {item.url} answers {err.code} {err.reason}; see {item.page}") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as err:
        reason = getattr(err, "reason", err)
        raise FetchError(
            f"{item.name}: cannot be downloaded ({reason}). Without a network: get {item.url} elsewhere and run "
            f"`cocoer weights fetch {item.name} --from FILE`"
        ) from None


def _accept(item: WeightsFile, part: Path) -> None:
    """Check a complete download and put it, or its members, in place. A wrong one is removed, so that no retry builds on it."""
    try:
        check_file(item, part)
        if item.unpack:
            _unpack(item, part)
            part.unlink()
        else:
            put_in_place(part, item.files[0])
    except FetchError as err:
        part.unlink(missing_ok=True)
        raise FetchError(str(err).replace(".part", "")) from None


def _unpack(item: WeightsFile, archive: Path) -> None:
    """The wanted members of a zip, each written beside its place and renamed; nothing else is taken out of it."""
    try:
        with zipfile.ZipFile(archive) as bundle:
            names = {Path(name).name: name for name in bundle.namelist()}
            for path, (member, sha256) in zip(item.files, item.unpack, strict=True):
                if member not in names:
                    raise FetchError(
                        f"{item.name}: the archive holds no {member}; it has {', '.join(sorted(names)[:8])}"
                    )
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_name(path.name + ".part")
                with bundle.open(names[member]) as source, unfinished.open("wb") as file:
                    shutil.copyfileobj(source, file, BLOCK)
                _place(item, unfinished, path, sha256)
    except zipfile.BadZipFile as err:
        raise FetchError(f"{item.name}: the archive is damaged ({err}); fetch it again") from None


def _put_member(item: WeightsFile, source: Path) -> None:
    """One member of an archive, brought along by itself."""
    for path, (member, sha256) in zip(item.files, item.unpack, strict=True):
        if source.name == member or (sha256 is not None and len(item.unpack) == 1):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(path.name + ".part")
            shutil.copyfile(source, unfinished)
            _place(item, unfinished, path, sha256)
            return
    wanted = ", ".join(member for member, _ in item.unpack)
    raise FetchError(f"--from {source}: wanted the zip archive of {item.name} or {wanted}, got {source.name}")


def _place(item: WeightsFile, unfinished: Path, path: Path, sha256: str | None) -> None:
    if sha256 is not None and (found := file_sha256(unfinished)) != sha256:
        unfinished.unlink(missing_ok=True)
        raise FetchError(
            f"{item.name}: {path.name}: wanted SHA-256 {sha256}, got {found}; it is another or a damaged file"
        )
    put_in_place(unfinished, path)
