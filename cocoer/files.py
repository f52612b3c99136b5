"""Files on disk: written whole or not at all, hashed, read line by line; folders held by one process at a time.

This is the only module that renames a file into place, hashes a file, or locks a folder.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from filelock import FileLock, Timeout

from cocoer.errors import FolderInUse, OutputError
from cocoer.paths import refuse_input

LOCK_NAME = ".cocoer.lock"

MOST_BYTES = 2**31
"""Bytes of a file that is read at once; DSCT's annotations, the largest that are known, have some hundred million."""

LONGEST_LINE = 2**26
"""Bytes of a line; one of an index has some hundred."""

_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EPERM}
"""What file systems answer that cannot sync a folder (some network mounts, Windows)."""

_MOST_LOCK = 4096
"""Bytes of a lock file, which says who holds it."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems answer that have no locks (NFS without its lock service)."""


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. Raises OSError."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: str | Path, fill: Callable[[Path], object], durable: bool = True) -> None:
    """Let `fill` write a new file beside `path`, sync it, rename it to `path`, sync the folder.

    durable=False leaves the syncs out: for one of thousands of files that are worth nothing until a last file is there.

    The new file's name holds host, process and a random part, and it is created exclusively: no two writers share one, not
    even containers with equal process numbers on one shared folder. Missing folders are made.
    Raises OverwritesInput for a file that the command reads, OutputError where the disk is full or the folder cannot be
    written, and whatever `fill` raises that is no OSError.
    In every case what stood at `path` before is untouched and the unfinished file is gone.
    """
    path = Path(path)
    refuse_input(path)
    unfinished = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_device(path)
        unfinished = new_beside(path)
        fill(unfinished)
        if durable:
            sync_file(unfinished)
            put_in_place(unfinished, path)
        else:
            os.replace(unfinished, path)
    except OutputError:
        raise
    except OSError as err:
        raise cannot_write(path, err) from err
    finally:
        if unfinished is not None:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes) -> None:
    """The whole file or nothing. Raises OutputError."""
    write_file(path, lambda unfinished: unfinished.write_bytes(data))


def write_text(path: str | Path, text: str) -> None:
    """The text as UTF-8, line ends as they are; the whole file or nothing. Raises OutputError."""
    write_bytes(path, text.encode("utf-8"))


def cannot_write(path: Path, err: OSError) -> OutputError:
    """The error that a write to `path` ends with: place, reason, what is kept, remedy."""
    return OutputError(
        f"{path}: cannot be written ({err.strerror or err}); what was written before is kept: "
        "free space or choose another folder"
    )


def _refuse_device(path: Path) -> None:
    """A rename would put a file in the place of a device, a pipe or a socket (/dev/null, /dev/stdout). Raises OutputError."""
    with contextlib.suppress(FileNotFoundError):
        if not (stat.S_ISREG(mode := path.stat().st_mode) or stat.S_ISDIR(mode)):
            raise OutputError(f"{path}: wanted the name of a file to write, got a device, pipe or socket; name a file")


def new_beside(path: Path) -> Path:
    """A new, empty file in the folder of `path` that no other process uses; it keeps the suffix, which some writers need.

    Raises OSError.
    """
    host = "".join(c for c in socket.gethostname() if c.isalnum() or c in "-_")[:32]
    while True:
        unfinished = path.with_name(f".{host}-{os.getpid()}-{secrets.token_hex(6)}.writing{path.suffix}")
        with contextlib.suppress(FileExistsError):
            os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
            return unfinished


def put_in_place(source: Path, target: Path) -> None:
    """Rename a file or folder to `target`, in place of a file that stands there, and make that outlast a power cut.

    Raises OSError.
    """
    os.replace(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder: first its name, so that a kill in between leaves no half folder under a good one. Raises OSError."""
    going = folder.with_name(folder.name + ".removing")
    shutil.rmtree(going, ignore_errors=True)
    os.replace(folder, going)
    shutil.rmtree(going)


def sync_file(path: Path) -> None:
    """Wait until a file's bytes are on the disk. Raises OSError."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in a folder outlast a power cut, where its file system can. Raises OSError."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders; a folder that may be written and not read is as it is
        return
    try:
        os.fsync(handle)
    except OSError as err:
        if err.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


def open_input(path: str | Path) -> BinaryIO:
    """A file opened for reading. Raises OSError, also for a device, which may never end.

    A pipe that somebody writes is read to its end (`<(command)` of a shell); one that nobody has open is empty, without a wait.
    """
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    try:
        mode = os.fstat(file.fileno()).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            raise OSError(errno.EINVAL, "wanted a file, got a device", str(path))
        if stat.S_ISFIFO(mode) and sys.platform != "win32":
            os.set_blocking(file.fileno(), True)
    except OSError:
        file.close()
        raise
    return file


def open_table(path: str | Path) -> TextIO:
    """A UTF-8 file, with or without a byte order mark, opened for the `csv` module. Raises OSError as `open_input` does."""
    return io.TextIOWrapper(open_input(path), encoding="utf-8-sig", newline="")


def read_file(path: str | Path, most: int = MOST_BYTES) -> bytes:
    """A file's bytes. Raises OSError, also for a device (which may never end) and for more than `most` bytes."""
    with open_input(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"has more than {most:,} bytes", str(path))
    return data


def read_json(path: str | Path, most: int = MOST_BYTES) -> Any:
    """What a JSON file holds, UTF-8 with or without a byte order mark.

    Raises OSError as `read_file` does, and ValueError as `parse_json` does.
    """
    return parse_json(read_file(path, most).decode("utf-8-sig"))


def parse_json(text: str | bytes) -> Any:
    """A parsed JSON text. Raises ValueError for invalid JSON, too deep nesting, and numbers with too many digits for Python."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_lines(path: str | Path, torn: bool = True) -> Iterator[str]:
    r"""The lines of a UTF-8 file, without their ends, cut at "\n" alone (JSON text may hold U+0085 and U+2028 as they are).

    A byte order mark and a "\r" before the "\n" are left out. torn: also a last line without "\n", which a killed run leaves.
    Raises OSError, also for a line of more than `LONGEST_LINE` bytes (a device never ends), and UnicodeDecodeError that names the
    line.
    """
    with open_input(path) as file:
        for number, raw in enumerate(iter(lambda: file.readline(LONGEST_LINE + 1), b""), start=1):
            if len(raw) > LONGEST_LINE:
                raise OSError(errno.EFBIG, f"line {number} has more than {LONGEST_LINE:,} bytes", str(path))
            if not raw.endswith(b"\n") and not torn:
                return
            line = raw.removesuffix(b"\n").removesuffix(b"\r")
            try:
                yield (line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).decode("utf-8")
            except UnicodeDecodeError as err:
                raise UnicodeDecodeError(
                    err.encoding, err.object, err.start, err.end, f"{err.reason} (line {number})"
                ) from None


@contextlib.contextmanager
def hold_folder(folder: str | Path, name: str = LOCK_NAME) -> Iterator[None]:
    """While active, this process alone writes into `folder`, which is made where it is missing.

    name: of the lock file, for a folder that several may write into, each a part of its own.

    The operating system's lock on a file in the folder ends with its process, so a killed process does not block others. The
    file names its holder and is removed at the end, as is a folder that was made here and is empty.
    On a file system without locks a warning says so.
    Raises FolderInUse that says who writes there, OutputError where the folder cannot be written.
    """
    folder = Path(folder)
    made = [place for place in (folder, *folder.parents) if not os.path.lexists(place)]
    lock = FileLock(folder / name, is_singleton=False, thread_local=False)
    try:
        for more_tries in (2, 1, 0):
            folder.mkdir(parents=True, exist_ok=True)
            _check_lock(folder / name)
            try:
                lock.acquire(blocking=False)
                break
            except FileNotFoundError:  # whoever held it has just removed the empty folder
                if not more_tries:
                    raise
    except Timeout:
        raise FolderInUse(
            f"{folder}: {_holder(folder / name)} writes into this folder; wait until that has ended, or choose another"
            " folder"
        ) from None
    except OutputError:
        raise
    except OSError as err:
        if err.errno not in _NO_LOCKS:
            raise cannot_write(folder, err) from err
        warnings.warn(
            f"{folder}: this file system has no locks ({err.strerror}); start no second run in it", stacklevel=3
        )
        yield
        return
    try:
        _sign(lock)
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held: whoever opened it meanwhile sees that the name is gone
            (folder / name).unlink(missing_ok=True)
        lock.release()
        with contextlib.suppress(OSError):  # of a start that failed, no empty folder is left
            for place in made:
                place.rmdir()


def hold_file(path: str | Path) -> contextlib.AbstractContextManager[None]:
    """While active, this process alone makes the file `path`; as `hold_folder`, so a closed folder is said before the work."""
    path = Path(path)
    return hold_folder(path.parent, f".{path.name}.lock")


@contextlib.contextmanager
def wait_for(lock: Path) -> Iterator[None]:
    """While active, this process alone holds the file `lock`; others wait for it. It ends with its process. Raises OSError."""
    with FileLock(lock, is_singleton=False, thread_local=False):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # while it is held, as in `hold_folder`
                lock.unlink(missing_ok=True)


def _check_lock(path: Path) -> None:
    """A lock is emptied when it is taken: nothing but a lock may stand there. Raises OutputError."""
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1 or found.st_size > _MOST_LOCK:
            raise OutputError(f"{path}: is no lock of cocoer, and it stays; remove it, or choose another folder")


def _sign(lock: Any) -> None:
    """Write the holder into a lock file; a soft lock (on file systems without kernel locks) has its own record."""
    if type(lock) is not FileLock:
        return
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])[:80]
    facts = {"host": socket.gethostname(), "process": os.getpid(), "command": command}
    facts["since"] = datetime.now().astimezone().isoformat(timespec="seconds")
    with contextlib.suppress(OSError):
        Path(lock.lock_file).write_text(json.dumps(facts) + "\n", encoding="utf-8")


def _holder(lock: Path) -> str:
    """The holder of a lock, for an error message."""
    try:
        said = json.loads(lock.read_text(encoding="utf-8"))
        process, host, command, since = (said[key] for key in ("process", "host", "command", "since"))
        return f"process {process} on {host} ({command}, since {since})"
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another process"
