"""Extracting the wanted members of a download, by name, from a zip, tar (plain or compressed), 7z, or the bare file itself."""

from __future__ import annotations

import lzma
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from cocoer.errors import FetchError
from cocoer.weights.catalog import WeightsFile

_BLOCK = 1 << 20
MOST_BYTES = 2**34
"""Bytes of an unpacked member; the largest that is wanted has some hundred million."""

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    RuntimeError,
)
_SEVEN_ZIP = b"7z\xbc\xaf\x27\x1c"

Taker = Callable[[str, Path], object]
"""(name inside the archive, file to write)."""


def take(item: WeightsFile, file: Path, member: str | None = None) -> Iterator[tuple[str, str | None, Path]]:
    """Each wanted member of `file` in a temporary file of its own, with its name in `item.unpack` and its checksum.

    A member is found by its file name, in whatever folder of the archive; nothing else is taken out.
    member: `file` is this member itself. A file that is no archive stands for the first member, where the entry allows that
    (`item.bare`). Optional members may be missing. Raises FetchError for a damaged archive and for a missing member.
    """
    with tempfile.TemporaryDirectory(prefix=f"{item.name}-", dir=file.parent) as folder:
        unfinished = Path(folder) / "member"
        if member is not None or (item.bare and not is_archive(file)):
            name, sha256 = next(e for e in item.unpack if member is None or Path(e[0]).name == member)
            shutil.copyfile(file, unfinished)
            yield name, sha256, unfinished
            return
        with _opened(item, file) as (names, extract):
            for wanted, sha256 in (*item.unpack, *((name, None) for name in item.optional)):
                found = _inside(item, names, wanted)
                if found is None:
                    continue
                try:
                    extract(found, unfinished)
                except FetchError:
                    raise
                except _DAMAGE as err:
                    raise FetchError(f"{item.name}: the archive is damaged ({err}); fetch it again") from None
                yield wanted, sha256, unfinished


def _inside(item: WeightsFile, names: list[str], wanted: str) -> str | None:
    """The archive's name of a wanted member, the one in the outermost folder; None for an optional one that is missing."""
    base = PurePosixPath(wanted).name
    found = [name for name in names if PurePosixPath(name).name == base]
    if found:
        return min(found, key=lambda name: (name.count("/"), name))
    if wanted in item.optional:
        return None
    shown = ", ".join(sorted(PurePosixPath(name).name for name in names)[:8])
    raise FetchError(f"{item.name}: the archive has no {base}; it has {shown}")


def is_archive(file: Path) -> bool:
    """Whether a file is a zip, tar or 7z of files; a PyTorch checkpoint, itself a zip, does not count."""
    kind = _kind(file)
    if kind == "zip":
        try:
            with zipfile.ZipFile(file) as bundle:
                return not any(PurePosixPath(name).name == "data.pkl" for name in bundle.namelist())
        except zipfile.BadZipFile:
            return True  # a damaged one, which `take` says
    return kind == "7z" or tarfile.is_tarfile(file)


def _kind(file: Path) -> str:
    """`zip`, `7z` or `tar` by how the file begins: a plain tar that ends in a zip looks like a zip from its end."""
    with file.open("rb") as handle:
        start = handle.read(6)
    return "zip" if start[:2] == b"PK" else "7z" if start == _SEVEN_ZIP else "tar"


@contextmanager
def _opened(item: WeightsFile, file: Path) -> Iterator[tuple[list[str], Taker]]:
    """The names of an archive's files, and what writes one of them somewhere."""
    kind = _kind(file)
    try:
        if kind == "zip":
            with zipfile.ZipFile(file) as bundle:
                yield bundle.namelist(), lambda name, to: _copied(bundle.open(name), to)
        elif kind == "7z":
            yield _seven_zip(item, file)
        else:
            with tarfile.open(file) as tar:
                names = [entry.name for entry in tar.getmembers() if entry.isreg()]
                yield names, lambda name, to: _copied(tar.extractfile(name), to)
    except FetchError:
        raise
    except _DAMAGE as err:
        raise FetchError(f"{item.name}: the archive is damaged ({err}); fetch it again") from None


def _seven_zip(item: WeightsFile, file: Path) -> tuple[list[str], Taker]:
    """As `_opened`, of a 7z archive. Raises FetchError where py7zr is missing."""
    try:
        import py7zr
    except ImportError:
        raise FetchError(
            f"{item.name}: came as a 7z archive, and py7zr is not installed; run `pip install py7zr` and this command again"
        ) from None

    def extract(name: str, to: Path) -> None:
        with tempfile.TemporaryDirectory(dir=to.parent) as folder, py7zr.SevenZipFile(file) as archive:
            archive.extract(path=folder, targets=[name])
            shutil.move(Path(folder) / name, to)

    try:
        with py7zr.SevenZipFile(file) as archive:
            return [entry.filename for entry in archive.list() if not entry.is_directory], extract
    except (py7zr.exceptions.ArchiveError, struct.error) as err:  # the second: py7zr 1.1 at a short header
        raise FetchError(f"{item.name}: the archive is damaged ({err}); fetch it again") from None


def _copied(source: IO[bytes] | None, unfinished: Path) -> None:
    assert source is not None, "only regular files are listed"
    left = MOST_BYTES
    with source, unfinished.open("wb") as target:
        while block := source.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise zipfile.BadZipFile(f"a file in it unpacks to more than {MOST_BYTES:,} bytes")
            target.write(block)
