"""The order of persons: depends on (seed, epoch) alone, is cut into batches and divided among processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

PersonDraw = tuple[int, int]
"""(epoch, index of the person): what a dataset is asked for. The epoch chooses the augmentation."""


@dataclass(frozen=True)
class SamplerState:
    """A place in training: `position` persons of the epoch's global order have been used, over all processes."""

    epoch: int = 0
    position: int = 0


def epoch_order(
    num_persons: int, seed: int, epoch: int, shuffle: bool = True
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The global order [num_persons] of one epoch; without `shuffle` the order of the index."""
    if not shuffle:
        return np.arange(num_persons)
    key = np.random.SeedSequence((seed, epoch, 0x0DE4))  # a stream of its own, apart from any person's augmentation
    return np.random.Generator(np.random.Philox(key)).permutation(num_persons)


class PersonBatchSampler(Sampler[list[PersonDraw]]):
    """Batches of `PersonDraw` for one of `world_size` processes.

    The epoch's order is cut into global batches of batch_size * world_size persons, each split into contiguous parts by rank. So
    two processes with 4 persons see in each step the very persons that one process with 8 sees, and a run resumed at (epoch,
    position) goes on with the next person, also with another number of workers or processes.

    Training (`shuffle`): every rank gets the same number of batches. A last global batch with fewer persons than processes is
    topped up from the start of the order. Evaluation: every person exactly once; a rank may get one batch less.
    Iterating does not move the state, because loader workers read ahead: the consumer calls `state_after`.
    """

    def __init__(
        self,
        num_persons: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_persons < 1 or batch_size < 1:
            raise ValueError(
                f"wanted at least one person and a batch size of at least 1, got {num_persons} and {batch_size}"
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"wanted 0 <= rank < world_size, got rank {rank} of {world_size}")
        self.num_persons, self.batch_size, self.seed = num_persons, batch_size, seed
        self.shuffle, self.drop_last, self.rank, self.world_size = shuffle, drop_last, rank, world_size
        self.state = SamplerState()

    @property
    def global_batch(self) -> int:
        """Persons a step over all processes."""
        return self.batch_size * self.world_size

    def set_state(self, epoch: int, position: int = 0) -> None:
        """The next iteration starts in `epoch` after `position` persons of its global order."""
        if epoch < 0 or not 0 <= position <= self.num_persons:
            raise ValueError(f"wanted epoch >= 0 and position in 0..{self.num_persons}, got {epoch} and {position}")
        self.state = SamplerState(epoch, position)

    def state_after(self, batches: int) -> SamplerState:
        """The state when `batches` batches of this iteration have been used; the end of an epoch is the next one's start."""
        position = self.state.position + batches * self.global_batch
        return (
            SamplerState(self.state.epoch + 1, 0) if batches >= len(self) else SamplerState(self.state.epoch, position)
        )

    def __len__(self) -> int:
        """Batches that this rank still gets in this epoch."""
        return sum(1 for start in self._starts() if self.shuffle or self._part(start)[0] < self._part(start)[1])

    def __iter__(self) -> Iterator[list[PersonDraw]]:
        order = epoch_order(self.num_persons, self.seed, self.state.epoch, self.shuffle)
        epoch = self.state.epoch
        for start in self._starts():
            first, last = self._part(start)
            if first < last or self.shuffle:
                yield [(epoch, int(order[i % self.num_persons])) for i in range(first, last)]

    def _starts(self) -> range:
        """Where the remaining global batches begin. An incomplete one is left out by `drop_last`, unless it is the only one."""
        stop = self.num_persons
        if self.drop_last and self.num_persons >= self.global_batch:
            whole = (self.num_persons - self.state.position) // self.global_batch
            stop = self.state.position + whole * self.global_batch
        return range(self.state.position, stop, self.global_batch)

    def _part(self, start: int) -> tuple[int, int]:
        """The places [first, last) in the order that this rank takes of the global batch beginning at `start`."""
        count = min(self.global_batch, self.num_persons - start)
        if self.shuffle:
            count = max(count, self.world_size)
        return start + count * self.rank // self.world_size, start + count * (self.rank + 1) // self.world_size
