"""Turn `--input` into a stream of images: files, folders, globs, list files, standard input and videos.

Nothing is decoded here but video frames, and nothing is kept: 100,000 images cost the memory of one (and 8 bytes a name).
What cannot be found or opened comes as an item with a fault, in its place; the rest goes on.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from cocoer.data.decode import is_image
from cocoer.own_files import is_own_image
from cocoer.paths import path_marks, same_name

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".heic", ".heif", ".avif", ".svg"}
)
"""File types searched for in a folder. One that cannot be decoded gives a row with an error and is not skipped silently."""

VIDEO_SUFFIXES = frozenset([".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"])
LIST_SUFFIXES = frozenset({".txt", ".lst"})

STDIN = "-"
LONGEST_STEM = 150
"""Bytes of an output file's name; longer ones are cut and end in a checksum (file systems allow 255 with the ending)."""

MOST_STDIN = 256 * 1024 * 1024
"""Bytes that standard input may hold, a list or one image."""

_TAKEN = re.compile(r"\.(figure\d+|boxes|cocoer\d*)$", re.IGNORECASE)
"""How names end that belong to the other files of an image: its panels, boxes given beside it, an answer under another name."""

_RESULT_SUFFIXES = frozenset({".json", ".jsonl", ".png", ".csv", ".yaml"})


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
    stdin: bytes | None = None,
) -> Iterator[InputItem]:
    """All images that `inputs` name, in a fixed order: as given, and by name within a folder or glob.

    recursive: folders with all below them. every: of a video each n-th frame. leave_out: the output's folder: not searched below
    another, and where it is searched itself, without the images that cocoer drew. wanted: says which items to make.
    allow_outside: a list file may name what lies neither below its own folder nor below the working folder; otherwise such a
    line is a fault (lists come from others, too). stdin: what standard input held (`read_stdin`); None reads it where `-` asks.
    Raises ValueError for `every` below 1 and for an empty `inputs`.
    """
    if every < 1:
        raise ValueError(f"--every wants a whole number of at least 1, got {every}")
    if not inputs:
        raise ValueError("no input: wanted an image, folder, glob, list file, video or '-'")
    walk = _Walk(recursive, every, leave_out, wanted, stdin, allow_outside=allow_outside)
    for text in inputs:
        yield from walk.entry(text)


@dataclass(frozen=True)
class Survey:
    """What a run is going to read. total: items, None where only reading a video would tell. marks: of all these files."""

    total: int | None
    marks: frozenset[int]

    def reads(self, path: Path) -> bool:
        """Whether this path is, or may be, one of the files that are read, however either is written."""
        return any(hash_of(mark) in self.marks for mark in path_marks(path))


def survey_inputs(
    inputs: Sequence[str],
    recursive: bool = False,
    leave_out: Path | None = None,
    stdin: bytes | None = None,
    others: Sequence[str | Path | None] = (),
    allow_outside: bool = False,
    expect: Callable[[str, Path | None], None] = lambda name, path: None,
) -> Survey:
    """Walk over all inputs without reading them. others: further files that the run reads (boxes, config, weights).

    allow_outside: as for `iterate_inputs`. expect: told the name and the path of every image and video.
    """
    walk = _Walk(recursive, 1, leave_out, lambda position, key: False, stdin, True, allow_outside)
    walk.expect = expect
    for text in inputs:
        for _ in walk.entry(text):
            pass
    for other in others:
        if other is not None:
            walk.note(Path(other))
    return Survey(None if walk.saw_video else walk.position, frozenset(walk.marks))


def read_stdin() -> bytes:
    """All of standard input, up to one byte more than is allowed; nothing where it is closed."""
    return sys.stdin.buffer.read(MOST_STDIN + 1) if sys.stdin is not None else b""


class _Walk:
    """One pass over the inputs: running position, names already used.

    count_only: make no items, and note what files there are. stdin: what standard input held; None reads it.
    """

    def __init__(
        self,
        recursive: bool,
        every: int,
        leave_out: Path | None,
        wanted: Wanted,
        stdin: bytes | None = None,
        count_only: bool = False,
        allow_outside: bool = False,
    ) -> None:
        self.recursive, self.every, self.wanted, self.stdin = recursive, every, wanted, stdin
        self.leave_out = leave_out.resolve() if leave_out else None
        self.count_only, self.allow_outside, self.saw_video = count_only, allow_outside, False
        self.position = 0
        self.marks: set[int] = set()
        self.expect: Callable[[str, Path | None], None] = lambda name, path: None
        self._used: set[int] = set()

    def note(self, path: Path) -> None:
        """Remember a file that the run reads, and the boxes beside it."""
        if "\0" in str(path) or not path.name:  # no file is called so
            return
        for each in (path, path.with_name(path.stem + ".boxes.json")):
            if each is path or os.path.lexists(each):
                self.marks.update(map(hash_of, path_marks(each)))

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
        if not _is_file(path):  # reading a pipe or a device could block
            what = "wanted a file, got a pipe or device" if _exists(path) else "no such file; check the path"
            fault = f"{name}: {what}"
        yield from self._item(name, stem, source=path, fault=fault)

    def _folder(self, folder: Path) -> Iterator[InputItem]:
        before = self.position
        yield from self._below(folder, folder)
        if self.position == before:
            deep = "" if self.recursive else "; --recursive looks into the folders below it"
            fault = f"wanted a folder with images ({' '.join(sorted(IMAGE_SUFFIXES))}), found none in it{deep}"
            yield from self._faulty(folder, fault)

    def _below(self, folder: Path, top: Path) -> Iterator[InputItem]:
        """Images and videos of a folder by name, then the folders below it."""
        drawn = is_own_image if folder.resolve() == self.leave_out else lambda path: False
        try:
            entries = sorted(os.scandir(folder), key=lambda e: e.name)
        except OSError as err:
            yield from self._faulty(folder, f"cannot be read: {err.strerror or err}")
            return
        # Links to folders count as files: following them could go round in circles.
        names = [e.name for e in entries if not e.is_dir(follow_symlinks=False)]
        folders = [e.name for e in entries if e.is_dir(follow_symlinks=False)] if self.recursive else []
        del entries
        for name in names:
            if Path(name).suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not name.startswith("."):
                path = folder / name
                if not drawn(path):
                    yield from self._file(path, _shown(str(path)), str(path.relative_to(top).with_suffix("")))
        for name in folders:
            if not name.startswith(".") and (folder / name).resolve() != self.leave_out:
                yield from self._below(folder / name, top)

    def _faulty(self, folder: Path, fault: str) -> Iterator[InputItem]:
        """A folder as an item with a fault."""
        name = _shown(str(folder))
        yield from self._item(name, folder.name or "folder", fault=f"{name}: {fault}")

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
        self.note(path)
        try:
            with open(path, "rb") as lines:
                for line in lines:
                    yield from self._line(line, path.parent, within)
        except OSError as err:
            yield from self._item(_shown(str(path)), path.stem, fault=f"{path}: cannot be read: {err.strerror or err}")
            return
        if self.position == before:
            fault = f"{path}: wanted one image per line, the list is empty"
            yield from self._item(_shown(str(path)), path.stem, fault=fault)

    def _line(self, line: bytes, base: Path, within: tuple[Path, ...] | None = None) -> Iterator[InputItem]:
        line = line.removeprefix(b"\xef\xbb\xbf").removesuffix(b"\n").removesuffix(b"\r")
        text = os.fsdecode(line if _exists(Path(os.fsdecode(line))) else line.strip())
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
        data = read_stdin() if self.stdin is None else self.stdin
        before = self.position
        fault = ""
        if len(data) > MOST_STDIN:
            fault = f"standard input: wanted at most {MOST_STDIN >> 20} MB, got more; give a file or a folder"
        elif is_image(data):
            yield from self._item("stdin", "stdin", source=io.BytesIO(data))
        elif b"\0" in data:
            fault = "standard input: wanted the bytes of one image, or a list of paths, one a line; got"
            fault += f" {len(data):,} bytes that are neither"
        else:
            for line in data.split(b"\n"):
                yield from self._line(line, Path())
            fault = "standard input: wanted one image per line, got nothing"
        if self.position == before:
            yield from self._item("-", "stdin", fault=fault)

    def _item(self, name: str, stem: str, **what: Any) -> Iterator[InputItem]:
        """The next item, if it is wanted; its name is taken in any case, so that shares of one input agree."""
        position = self.position
        self.position += 1
        if self.count_only:
            source = what.get("source")
            if isinstance(source, Path):
                self.note(source)
            if not what.get("fault"):
                self.expect(name, source if isinstance(source, Path) else None)
            return
        stem = self._unique(stem)
        if self.wanted(position, name):
            yield InputItem(position, name, stem, **what)

    def _unique(self, stem: str) -> str:
        """A name for output files that no other item of this run has."""
        stem = _plain(stem)
        candidate, number = stem, 1
        while _TAKEN.search(candidate) or (mark := hash_of(same_name(candidate))) in self._used:
            number += 1
            candidate = f"{stem}-{number}"
        self._used.add(mark)
        return candidate

    def _video(self, path: Path, name: str, stem: str) -> Iterator[InputItem]:
        """Every n-th frame, upright, RGB; frames that are not wanted are skipped without unpacking them."""
        self.saw_video = True
        if self.count_only:
            self.note(path)
            self.expect(name, path)
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
                position, label = self.position, self._unique(f"{stem}_{number:06d}")
                self.position += 1
                if not self.wanted(position, f"{name}#{number}"):
                    continue
                good, bgr = video.retrieve()
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
    # A folder that is named as a file could stand in the way of another image's answer.
    parts[:-1] = [f"{p}_" if Path(p).suffix.lower() in _RESULT_SUFFIXES else p for p in parts[:-1]]
    return "/".join(_short(part) for part in parts) or "image"


def _short(part: str) -> str:
    raw = os.fsencode(part)
    if len(raw) <= LONGEST_STEM:
        return raw.decode("utf-8", "replace")
    return raw[: LONGEST_STEM - 17].decode("utf-8", "ignore") + f"-{hash_of(part):016x}"


def _shown(text: str) -> str:
    r"""The text as JSON and terminals can take it: bytes that are no UTF-8 are written out (\xff), so that two names stay two."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _is_file(path: Path) -> bool:
    return _exists(path) and path.is_file()


def _is_folder(path: Path) -> bool:
    return _exists(path) and path.is_dir()
