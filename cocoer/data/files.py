"""Read size and content hash of many image files in threads, with a progress bar; a broken file is a result."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from cocoer.data.decode import decode_image, image_path, image_size
from cocoer.errors import ImageError
from cocoer.files import read_file

_ENDS = (b"\xff\xd9", b"IEND\xaeB`\x82")  # the last marker of a JPEG, the last chunk of a PNG
_TAIL = 32  # bytes; some writers pad behind the end

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileFacts:
    """One image file. width, height: pixels after EXIF rotation, from the header. content: hash of all bytes.

    error: empty, or why the file cannot be used (width and height are 0 then).
    """

    width: int = 0
    height: int = 0
    content: str = ""
    error: str = ""


def read_facts(path: Path) -> FileFacts:
    """Read one file once: its hash and, from its header, its size. A broken file is a result, not an error.

    A JPEG or PNG that does not end as such files end may be truncated; only then, and for other formats, are all pixels decoded.
    """
    try:
        if path.exists() and not path.is_file():
            return FileFacts(error="unreadable file: wanted an image, got a folder, pipe or device")
        data = read_file(path)
    except FileNotFoundError:
        return FileFacts(error="missing file")
    except OSError as err:
        return FileFacts(error=f"unreadable file: {err.strerror}")
    content = hashlib.blake2b(data, digest_size=16).hexdigest()
    file = io.BytesIO(data)
    file.name = path.name
    try:
        width, height = image_size(file)
        if not any(mark in data[-_TAIL:] for mark in _ENDS):
            file.seek(0)
            decode_image(file)
    except ImageError as err:
        return FileFacts(content=content, error=f"unreadable image: {err}")
    return FileFacts(width, height, content)


def scan_files(
    root: Path,
    images: Sequence[str],
    words: str = "reading images",
    allow_outside: bool = False,
    follow_links: bool = False,
) -> dict[str, FileFacts]:
    """Facts by image path, for paths relative to `root`; one that leads out of it is an error (`decode.image_path`)."""

    def facts(image: str) -> FileFacts:
        try:
            return read_facts(image_path(root, image, allow_outside, follow_links))
        except ImageError as err:
            return FileFacts(error=str(err))

    found = in_threads(facts, images, words)
    return dict(zip(images, found, strict=True))


def in_threads(work: Callable[[T], R], items: Sequence[T], words: str, unit: str = "image") -> Iterator[R]:
    """`work` on every item, results in order; Pillow and hashing let go of the interpreter, so threads help.

    A progress bar appears on a terminal when it takes longer than a second.
    """
    with ThreadPoolExecutor(2 * available_cores()) as pool:
        yield from progress(pool.map(work, items), len(items), words, unit)


def progress(items: Iterable[T], total: int, words: str, unit: str = "image") -> Iterable[T]:
    """The items, with a progress bar on a terminal and silence elsewhere."""
    bar: Iterable[T] = tqdm(items, total=total, desc=words, unit=unit, delay=1, disable=None)
    return bar


def available_cores() -> int:
    """Cores that this process may use: in a container often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
