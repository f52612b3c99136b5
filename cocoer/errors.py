"""The one error of every weights file, in a file of its own because both readers and writers of weights raise it."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A weights file that cannot be used; the text names the file, what was wanted, what is there, and the remedy."""
