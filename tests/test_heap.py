"""Freed memory that stays: a second tensor of the same size costs the kernel no new pages."""

from __future__ import annotations

import resource

import pytest
import torch

from cocoer import heap
from cocoer.benchmark.timing import memory_mb


def new_pages() -> int:
    """Pages that the kernel had to provide while a tensor of 64 MiB was filled and freed."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(heap._function("mallopt") is None, reason="needs glibc")
def test_kept_memory_is_used_again_and_can_be_given_back() -> None:
    assert heap.keep_freed_memory()
    new_pages()
    held, kept = memory_mb(), new_pages()
    assert heap.give_freed_memory_back()
    assert memory_mb() < held - 60
    assert kept * 5 < new_pages()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_function", lambda name: None)
    assert not heap.keep_freed_memory() and not heap.give_freed_memory_back()
