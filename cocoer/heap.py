"""The C library's heap: whether memory that tensors free stays with the process. Linux with glibc; elsewhere nothing happens."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt's names for its settings, malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let freed memory stay with this process for the next tensors; True where the C library can do that.

    glibc hands large blocks back at once and asks for them again in the next step, and the kernel then zeroes every page
    anew: 7 % of a training step of 8 or 16 persons on one CPU core.
    """
    mallopt = _function("mallopt")
    return mallopt is not None and all(mallopt(name, _NEVER) == 1 for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))


def give_freed_memory_back() -> bool:
    """Hand everything that is free back to the system; True where something was."""
    trim = _function("malloc_trim")
    return trim is not None and trim(0) == 1


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    """A function of the C library that this process runs on, or None where there is no such function."""
    try:
        return getattr(ctypes.CDLL(None), name, None)
    except (OSError, TypeError):  # TypeError: Windows has no library without a name
        return None
