"""A Chromium of the system, where there is one, for tests of pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
"""Path of the browser, None where none is installed."""

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


def browse(path: Path, *options: str) -> str:
    """Headless Chromium on a local file; its standard output."""
    assert BROWSER is not None
    profile = f"--user-data-dir={path.parent / 'profile'}"
    done = subprocess.run(
        [BROWSER, "--headless", *FLAGS, profile, *options, path.as_uri()],
        capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    return done.stdout
