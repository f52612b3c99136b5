"""Local folders and buckets behind one class: pyarrow's file systems, and fsspec's for the others."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pyarrow import fs as arrow_fs

from cocoer.errors import OutputError, ScaleError, one_line
from cocoer.files import write_bytes

_SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.-]+://")
_ARROW = frozenset({"s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"})
_SECRET = re.compile(r"(^|&)[^=&]*(secret|password|token|account_key)[^=&]*=[^&]", re.IGNORECASE)
_RIGHTS = "check the address, your credentials and that they may list and read it"


@dataclass(frozen=True)
class Place:
    """A folder or file. fs: a pyarrow file system. path: in it. uri: how users and other machines name it.

    The options of a bucket (`s3://bucket/folder?region=...&endpoint_override=...`) stay at the end of the uri.
    """

    fs: Any
    path: str
    uri: str

    @property
    def local(self) -> Path | None:
        """The path on this machine; None in a bucket."""
        return Path(self.path) if isinstance(self.fs, arrow_fs.LocalFileSystem) else None

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> Place:
        """The containing folder."""
        address, options = self._uri_parts()
        return Place(self.fs, self.path.rpartition("/")[0], address.rpartition("/")[0] + options)

    def __truediv__(self, below: str) -> Place:
        address, options = self._uri_parts()
        written = below if self.local is not None else quote(below)
        return Place(self.fs, f"{self.path.rstrip('/')}/{below}", f"{address.rstrip('/')}/{written}{options}")

    def _uri_parts(self) -> tuple[str, str]:
        """The address and, of a bucket, `?` with its options."""
        address, mark, options = self.uri.partition("?") if self.local is None else (self.uri, "", "")
        return address, mark + options

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """Bytes from `offset` on, all or `size` of them. Raises OSError."""
        with self.fs.open_input_file(self.path) as file:
            data: bytes = file.read_at((file.size() if size is None else size), offset)
        return data

    def size(self) -> int:
        """Bytes of a file. Raises OSError where there is none."""
        found = self.fs.get_file_info(self.path)
        if found.type != arrow_fs.FileType.File:
            raise FileNotFoundError("no such file")
        return int(found.size)

    def write(self, data: bytes) -> None:
        """The whole file or nothing (a bucket shows an object when it is complete). Raises OutputError."""
        if self.local is not None:
            write_bytes(self.local, data)
            return
        try:
            with self.fs.open_output_stream(self.path) as file:
                file.write(data)
        except OSError as err:
            raise OutputError(f"{self.uri}: cannot be written ({err}); {_RIGHTS}, then run the same command") from err

    def note(self, data: bytes) -> None:
        """A small file that need not outlast a power cut. Raises OSError."""
        self.fs.create_dir(self.parent.path, recursive=True)
        with self.fs.open_output_stream(self.path) as file:
            file.write(data)

    def files(self, recursive: bool = False) -> list[Place]:
        """The files in a folder, by name; none where it is missing. Raises OSError."""
        selector = arrow_fs.FileSelector(self.path, recursive=recursive, allow_not_found=True)
        start = len(self.path.rstrip("/")) + 1
        paths = sorted(f.path for f in self.fs.get_file_info(selector) if f.type == arrow_fs.FileType.File)
        return [self / path[start:] for path in paths]

    def delete(self) -> None:
        """Remove the file if it exists. Raises OSError."""
        if self.fs.get_file_info(self.path).type == arrow_fs.FileType.File:
            self.fs.delete_file(self.path)

    def delete_folder(self) -> None:
        """Remove the folder and its content if it exists. Raises OSError."""
        if self.fs.get_file_info(self.path).type == arrow_fs.FileType.Directory:
            self.fs.delete_dir(self.path)


def place_of(text: str, base: Place | None = None) -> Place:
    """The place that a path or URI names. base: of relative paths; None: the working folder.

    Raises ScaleError for an address of which no installed file system knows the kind, and for one with a password or key in it:
    addresses stand in rows, logs and other machines' memory.
    """
    if text.startswith("file://"):
        text = unquote(urlsplit(text).path)
    if not _SCHEME.match(text):
        if base is not None and not os.path.isabs(text):
            return base / os.path.normpath(text)
        whole = os.path.abspath(text)
        return Place(_local(), whole, whole)
    try:
        parts = urlsplit(text)
    except ValueError as err:
        raise ScaleError(f"{text}: is no address ({err})") from None
    if parts.password is not None or (parts.scheme in _ARROW and _SECRET.search(parts.query)):
        raise ScaleError(
            f"{parts.scheme}://...@{parts.netloc.rpartition('@')[2]}{parts.path}: holds a password or key, and addresses are"
            " written into the data set; leave it out and set it in the environment (AWS_ACCESS_KEY_ID and"
            " AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS, ...)"
        )
    try:
        if parts.scheme in _ARROW:
            fs, top = _bucket(parts.scheme, parts.netloc, parts.query)
            return Place(fs, f"{top.rstrip('/')}{unquote(parts.path)}".rstrip("/"), text)
        if "::" in text:
            raise ValueError("chained addresses are not read")
        import fsspec

        inner, path = fsspec.core.url_to_fs(unquote(text))
        # a mark that belongs to a name is written as such, so that it does not begin options
        return Place(arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(inner)), path.rstrip("/"), text.replace("?", "%3F"))
    except (OSError, ValueError, ImportError) as err:
        raise ScaleError(f"{text}: cannot be opened ({one_line(err)}); {_RIGHTS}") from None


@lru_cache
def _local() -> Any:
    return arrow_fs.LocalFileSystem()


@lru_cache
def _bucket(scheme: str, netloc: str, query: str) -> tuple[Any, str]:
    """The file system of a bucket and the path of its top: asked for once, for a region may have to be looked up."""
    found: tuple[Any, str] = arrow_fs.FileSystem.from_uri(f"{scheme}://{netloc}/{f'?{query}' if query else ''}")
    return found


def listed(place: Place) -> Iterator[str]:
    """The paths of all files below a bucket's folder, from there on, by name. Raises ScaleError."""
    try:
        selector = arrow_fs.FileSelector(place.path, recursive=True)
        infos = place.fs.get_file_info(selector)
    except OSError as err:
        raise ScaleError(f"{place.uri}: cannot be listed ({one_line(err)}); {_RIGHTS}") from None
    start = len(place.path.rstrip("/")) + 1
    yield from sorted(i.path[start:] for i in infos if i.type == arrow_fs.FileType.File)


def is_file(place: Place) -> bool:
    """Whether the file exists. Raises ScaleError if that cannot be determined."""
    try:
        return bool(place.fs.get_file_info(place.path).type == arrow_fs.FileType.File)
    except OSError as err:
        raise ScaleError(f"{place.uri}: cannot be looked at ({one_line(err)}); {_RIGHTS}") from None
