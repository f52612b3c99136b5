"""Search paths for files: the clone or wheel, `$COCOER_HOME` and the user's cache.

Three kinds of folders, all laid out as a clone of the project is (`checkpoints/`, `thirdparty/`, `configs/`):

- what comes with cocoer (`SHIPPED`, read only): the clone, or the folder inside an installed package;
- what is fetched or made (`roots`): `$COCOER_HOME`, the clone, the user's cache folder. The first of them is written to (`home`);
- the working folder: a relative path that a user gives means this one first (`find`).

Imports nothing heavy.
"""

from __future__ import annotations

import os
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

import platformdirs

HOME_VARIABLE = "COCOER_HOME"

ROOM = f"free space, or set {HOME_VARIABLE} to a folder that you may write to"
"""The remedy where a file cannot be written into `home`."""

_PACKAGE = Path(str(files("cocoer")))

CLONE: Path | None = _PACKAGE.parent if (_PACKAGE.parent / "checkpoints" / "demo").is_dir() else None
"""The project's folder where cocoer runs from a clone (or was installed from one with `pip install -e`), else None."""

SHIPPED: Path = CLONE or _PACKAGE / "shipped"
"""Holds what comes with cocoer: `configs/`, `checkpoints/demo/`, `test_imgs/`."""


def installs(*requirements: str) -> str:
    """The command that installs packages where this Python runs: the clone's own environment has all of them in its lock."""
    return "make venv" if _own_environment() else "pip install " + " ".join(f"'{one}'" for one in requirements)


def installs_gpu_runtime() -> str:
    """The command that puts onnxruntime-gpu in the place of onnxruntime, for both write into one folder."""
    by_hand = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"
    return "make gpu" if _own_environment() else by_hand


def _own_environment() -> bool:
    """Whether this Python is the one that `make` made in the clone."""
    return CLONE is not None and Path(sys.prefix) == CLONE / ".venv"


def roots() -> tuple[Path, ...]:
    """The folders that are searched for fetched and made files, in order."""
    named = os.environ.get(HOME_VARIABLE, "")
    chosen = [_expanded(named).absolute()] if named else []
    try:
        usual = platformdirs.user_cache_path("cocoer", appauthor=False)
    except RuntimeError:  # a user without a home
        usual = Path("~")
    if not usual.is_absolute():  # so platformdirs 4.2 answers without a home
        usual = Path(tempfile.gettempdir()) / f"cocoer-{_user()}"
    return (*chosen, *([CLONE] if CLONE else []), usual)


def _user() -> str:
    """A name that is unique to this user, for a temporary folder."""
    if sys.platform == "win32":
        user = os.environ.get("USERNAME", "user")
    else:
        user = str(os.getuid())
    return user


def _expanded(name: str | Path) -> Path:
    """The path with `~` written out, where this user has a home."""
    return Path(os.path.expanduser(name))


def user_home() -> Path:
    """The user's own folder; where there is none (no HOME, no entry in passwd), one that does not exist."""
    return _expanded("~")


def home() -> Path:
    """The folder for fetched and made files: `$COCOER_HOME`, else the clone, else the user's cache folder."""
    return roots()[0]


def find(name: str | Path) -> Path | None:
    """The file or folder of this name, or None.

    name: absolute, or relative to the working folder, to one of `roots`, or to what comes with cocoer; the first that exists.
    """
    given = _expanded(name)
    return next((path for path in (given, *(root / given for root in (*roots(), SHIPPED))) if path.exists()), None)


def given(name: str | Path) -> Path:
    """The file or folder of this name where `find` sees one, else the name as it stands: a place of the working folder."""
    return find(name) or Path(name)


def nearest_existing(folder: Path) -> Path:
    """The folder itself, or its nearest existing parent."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def place_of(name: str | Path) -> Path:
    """Where the file of this name lies, or, if nowhere yet, where it belongs (in `home`)."""
    return find(name) or home() / name


def shown(path: Path) -> str:
    """A path for messages and commands: relative inside the working folder, else absolute."""
    here = Path.cwd()
    return (path.relative_to(here) if path.is_relative_to(here) else path).as_posix()
