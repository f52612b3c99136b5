"""What `--input` names, as a stream of images: files, folders, globs, list files, standard input, videos.

Nothing is decoded here but video frames, and nothing is kept: 100,000 images cost the memory of one (and 8 bytes a name).
What cannot be found or opened comes as an item with a fault, in its place; the rest goes on.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif", ".svg"}
)
"""What a folder is searched for. Some of these cannot be decoded; then the row says so, and the file is not passed over."""

VIDEO_SUFFIXES = frozenset([".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"])
LIST_SUFFIXES = frozenset({".txt", ".lst"})

STDIN = "-"
LONGEST_STEM = 150
"""Bytes of an output file's name; longer ones are cut and end in a checksum (file systems allow 255 with the ending)."""

MOST_STDIN = 256 * 1024 * 1024
"""Bytes of one image handed in through standard input."""


@dataclass(frozen=True)
class InputItem:
    """One image or video frame, not decoded.

    position: its number in the whole input, from 0, the same in every process. name: how results call it, as the user wrote it.
    stem: its output files' name, unique in this run, perhaps with folders. source: where it is (None for a frame or a fault).
    frame: number of the frame in a video, and pixels: that frame, RGB. fault: what is wrong; then there is nothing to decode.
    """

    position: int
    name: str
    stem: str
    source: Path | io.BytesIO | None = None
    frame: int | None = None
    pixels: Image.Image | None = None
    fault: str = ""

    @property
    def key(self) -> str:
        """Names the item in results and for `--resume`."""
        return self.name if self.frame is None else f"{self.name}#{self.frame}"


Wanted = Callable[[int, str], bool]
"""(position, key) -> whether the item is wanted; what is not is neither decoded nor yielded."""


def is_single_image(inputs: Sequence[str]) -> bool:
    """Whether the input is one image file and nothing else."""
    if len(inputs) != 1 or inputs[0] == STDIN:
        return False
    path = Path(inputs[0])
    return path.suffix.lower() not in VIDEO_SUFFIXES | LIST_SUFFIXES and _is_file(path)


def iterate_inputs(
    inputs: Sequence[str],
    *,
    recursive: bool = False,
    every: int = 1,
    leave_out: Path | None = None,
    wanted: Wanted = lambda position, key: True,
    allow_outside: bool = False,
) -> Iterator[InputItem]:
    """All images that `inputs` name, in a fixed order: as given, and by name within a folder or glob.

    recursive: folders with all below them. every: of a video each n-th frame. leave_out: a folder that is not searched (the
    output's). wanted: says which items to make. allow_outside: a list file may name what lies neither below its own folder nor
    below the working folder; otherwise such a line is a fault (lists come from others, too).
    Raises ValueError for `every` below 1 and for an empty `inputs`.
    """
    if every < 1:
        raise ValueError(f"--every wants a whole number of at least 1, got {every}")
    if not inputs:
        raise ValueError("no input: wanted an image, folder, glob, list file, video or '-'")
    walk = _Walk(recursive, every, leave_out.resolve() if leave_out else None, wanted, allow_outside=allow_outside)
    for text in inputs:
        yield from walk.entry(text)


def count_inputs(
    inputs: Sequence[str], recursive: bool = False, leave_out: Path | None = None, allow_outside: bool = False
) -> int | None:
    """How many items there are, for a progress bar; None where only reading them (a video, standard input) would tell."""
    if STDIN in inputs or any(Path(text).suffix.lower() in VIDEO_SUFFIXES for text in inputs):
        return None
    walk = _Walk(
        recursive, 1, leave_out.resolve() if leave_out else None, lambda position, key: False, True, allow_outside
    )
    for text in inputs:
        for _ in walk.entry(text):
            pass
    return None if walk.saw_video else walk.position


class _Walk:
    """One pass over the inputs: running position, names already used."""

    def __init__(
        self,
        recursive: bool,
        every: int,
        leave_out: Path | None,
        wanted: Wanted,
        count_only: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.recursive, self.every, self.leave_out, self.wanted = recursive, every, leave_out, wanted
        self.count_only, self.allow_outside, self.saw_video = count_only, allow_outside, False
        self.position = 0
        self._used: set[int] = set()

    def entry(self, text: str) -> Iterator[InputItem]:
        """What one `--input` stands for."""
        path = Path(text)
        if text == STDIN:
            yield from self._stdin()
        elif _is_folder(path):
            yield from self._folder(path)
        elif path.suffix.lower() in LIST_SUFFIXES and _is_file(path):
            yield from self._list(path)
        elif glob.has_magic(text) and not _exists(path):
            yield from self._glob(text)
        else:
            yield from self._file(path, _shown(text), path.stem)

    def _file(self, path: Path, name: str, stem: str) -> Iterator[InputItem]:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            yield from self._video(path, name, stem)
            return
        fault = ""
        if not _is_file(path):  # reading a pipe or a device could wait for ever
            fault = (
                f"{name}: wanted a file, got a pipe or device"
                if _exists(path)
                else f"{name}: no such file; check the path"
            )
        yield from self._item(name, stem, source=path, fault=fault)

    def _folder(self, folder: Path) -> Iterator[InputItem]:
        before = self.position
        yield from self._below(folder, folder)
        if self.position == before:
            deep = "" if self.recursive else "; --recursive looks into the folders below it"
            yield from self._item(
                _shown(str(folder)),
                folder.name or "folder",
                fault=f"{_shown(str(folder))}: wanted a folder with images ({' '.join(sorted(IMAGE_SUFFIXES))}), "
                f"found none in it{deep}",
            )

    def _below(self, folder: Path, top: Path) -> Iterator[InputItem]:
        """Images and videos of a folder by name, then the folders below it."""
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as err:
            reason = err.strerror or str(err)
            yield from self._item(
                _shown(str(folder)), folder.name or "folder", fault=f"{_shown(str(folder))}: cannot be read: {reason}"
            )
            return
        names = [e.name for e in entries if not _entry_is_folder(e)]
        folders = [e.name for e in entries if _entry_is_folder(e)] if self.recursive else []
        del entries
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not name.startswith("."):
                path = folder / name
                yield from self._file(path, _shown(str(path)), str(path.relative_to(top).with_suffix("")))
        for name in folders:
            if not name.startswith(".") and (folder / name).resolve() != self.leave_out:
                yield from self._below(folder / name, top)

    def _glob(self, pattern: str) -> Iterator[InputItem]:
        before = self.position
        for text in sorted(glob.iglob(pattern, recursive=self.recursive or "**" in pattern)):
            path = Path(text)
            if not path.is_dir():
                yield from self._file(path, _shown(text), path.stem)
        if self.position == before:
            yield from self._item(_shown(pattern), "glob", fault=f"{_shown(pattern)}: no file fits this pattern")

    def _list(self, path: Path) -> Iterator[InputItem]:
        """One path a line; relative ones from the working folder, or else from the list's."""
        before = self.position
        within = None if self.allow_outside else (path.parent.resolve(), Path.cwd())
        try:
            with open(path, "rb") as lines:
                for line in lines:
                    yield from self._line(line, path.parent, within)
        except OSError as err:
            yield from self._item(_shown(str(path)), path.stem, fault=f"{path}: cannot be read: {err.strerror or err}")
            return
        if self.position == before:
            yield from self._item(
                _shown(str(path)), path.stem, fault=f"{path}: wanted one image a line, the list is empty"
            )

    def _line(self, line: bytes, base: Path, within: tuple[Path, ...] | None = None) -> Iterator[InputItem]:
        text = os.fsdecode(line.strip().removeprefix(b"\xef\xbb\xbf"))
        if not text or text.startswith("#"):
            return
        path = Path(text)
        if not _exists(path) and not path.is_absolute() and _exists(base / path):
            path = base / path
        if within is not None and _exists(path) and not any(path.resolve().is_relative_to(top) for top in within):
            fault = (
                f"{_shown(text)}: a list names it, and it lies neither below the list's folder nor below this one; if you trust"
                " the list, add --set data.allow_outside=true"
            )
            yield from self._item(_shown(text), path.stem, fault=fault)
        elif _is_folder(path):
            yield from self._folder(path)
        else:
            yield from self._file(path, _shown(text), path.stem)

    def _stdin(self) -> Iterator[InputItem]:
        """Paths, one a line; or the bytes of one image."""
        stream = sys.stdin.buffer
        first = stream.readline(4096)
        if b"\x00" in first or first[:3] in (b"\xff\xd8\xff", b"\x89PN") or first[:4] in (b"GIF8", b"RIFF"):
            data = first + stream.read(MOST_STDIN)
            yield from self._item("stdin", "stdin", source=io.BytesIO(data))
            return
        before = self.position
        while first:
            yield from self._line(first, Path())
            first = stream.readline()
        if self.position == before:
            yield from self._item("-", "stdin", fault="standard input: wanted one image a line, got nothing")

    def _item(self, name: str, stem: str, **what: Any) -> Iterator[InputItem]:
        """The next item, if it is wanted; its name is taken in any case, so that shares of one input agree."""
        position = self.position
        self.position += 1
        if self.count_only:
            return
        stem = self._unique(stem)
        if self.wanted(position, name):
            yield InputItem(position, name, stem, **what)

    def _unique(self, stem: str) -> str:
        """A name for output files that no other item of this run has."""
        stem = _plain(stem)
        candidate, number = stem, 1
        while (mark := hash_of(candidate.casefold())) in self._used:
            number += 1
            candidate = f"{stem}-{number}"
        self._used.add(mark)
        return candidate

    def _video(self, path: Path, name: str, stem: str) -> Iterator[InputItem]:
        """Every n-th frame, upright, RGB; frames that are not wanted are skipped without unpacking them."""
        self.saw_video = True
        if self.count_only:
            return
        import cv2

        stem = self._unique(stem)
        video = cv2.VideoCapture(str(path)) if _is_file(path) else None
        number = -1
        try:
            while video is not None and video.grab():
                number += 1
                if number % self.every:
                    continue
                position = self.position
                self.position += 1
                if not self.wanted(position, f"{name}#{number}"):
                    continue
                good, bgr = video.retrieve()
                label = f"{stem}_{number:06d}"
                if not good:
                    yield InputItem(position, name, label, frame=number, fault=f"{name}: frame {number} is damaged")
                    continue
                yield InputItem(position, name, label, frame=number, pixels=Image.fromarray(bgr[..., ::-1].copy()))
        finally:
            if video is not None:
                video.release()
        if number < 0:
            what = "wanted a video that OpenCV can read, got none of its frames" if _is_file(path) else "no such file"
            yield from self._item(name, stem, fault=f"{name}: {what}")


def hash_of(text: str) -> int:
    """A 64-bit checksum, the same in every process (Python's own `hash` of a text is not)."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(text), digest_size=8).digest(), "big")


def _plain(stem: str) -> str:
    """The stem as a safe relative path: no way up, no drive, every part short enough for a file system."""
    parts = [p for p in Path(stem).parts if p not in ("..", ".", os.sep) and not p.endswith(":")]
    return "/".join(_short(part) for part in parts) or "image"


def _short(part: str) -> str:
    raw = os.fsencode(part)
    if len(raw) <= LONGEST_STEM:
        return _shown(part)
    return raw[: LONGEST_STEM - 17].decode("utf-8", "ignore") + f"-{hash_of(part):016x}"


def _shown(text: str) -> str:
    """The text as JSON and terminals can take it: bytes that are no UTF-8 become the replacement character."""
    return os.fsencode(text).decode("utf-8", "replace")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _is_folder(path: Path) -> bool:
    return _exists(path) and path.is_dir()


def _entry_is_folder(entry: os.DirEntry[str]) -> bool:
    """Links to folders count as files: following them could go round in circles."""
    return entry.is_dir(follow_symlinks=False)
