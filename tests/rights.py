"""Programs without root's rights, for tests that would otherwise be skipped where root runs them, as in containers."""

from __future__ import annotations

import ctypes
import os
import sys

import pytest

needs_rights = pytest.mark.skipif(
    sys.platform != "linux" and getattr(os, "geteuid", lambda: 1)() == 0, reason="root cannot be kept from reading here"
)


def as_anybody() -> None:
    """What lets root past permissions is taken from the program that is executed next (Linux: capabilities 1 and 2)."""
    if sys.platform == "linux":
        for capability in (1, 2):
            ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
