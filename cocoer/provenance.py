"""What made a result: the revision of the source tree and the versions of the libraries."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_LIBRARIES = ("torch", "torchvision", "open_clip_torch", "numpy", "scikit-learn", "safetensors")


@lru_cache
def git_revision(folder: Path | None = None) -> str:
    """The revision of the source tree, with `+changes` where files differ from it; `unknown` outside a checkout."""
    where = str(folder or Path(__file__).resolve().parents[1])
    try:
        head = subprocess.run(
            ["git", "-C", where, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=20, check=True
        )
        dirty = subprocess.run(
            ["git", "-C", where, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def library_versions() -> dict[str, str]:
    """Versions of Python, of this package and of what the numbers depend on."""
    out = {"python": platform.python_version()}
    for name in ("cocoer", *_LIBRARIES):
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            out[name] = "not installed as a package"
    return out


def says_synthetic(metadata: Mapping[str, Any]) -> bool:
    """Whether a weights file's metadata marks it as trained on synthetic scenes, by its field or its note."""
    return bool(metadata.get("synthetic")) or "synthetic" in str(metadata.get("note", "")).lower()
