"""The order of persons: a function of (seed, epoch, position), whatever the number of processes."""

from __future__ import annotations

from itertools import zip_longest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoer.data.sampler import PersonBatchSampler, SamplerState, epoch_order

SIZES = {"n": st.integers(1, 60), "batch": st.integers(1, 9), "world": st.integers(1, 5), "seed": st.integers(0, 99)}


def ranks(n: int, batch: int, world: int, seed: int = 0, shuffle: bool = True, drop_last: bool = False):  # type: ignore[no-untyped-def]
    return [PersonBatchSampler(n, batch, seed, shuffle, drop_last, r, world) for r in range(world)]


@given(**SIZES)
def test_evaluation_sees_every_person_once_in_order_over_all_processes(
    n: int, batch: int, world: int, seed: int
) -> None:
    parts = [list(s) for s in ranks(n, batch, world, seed, shuffle=False)]
    steps = [[d for p in step for d in p or []] for step in zip_longest(*parts)]
    seen = [index for step in steps for _, index in step]
    assert sorted(seen) == list(range(n))
    assert [len(p) for p in parts] == [len(s) for s in ranks(n, batch, world, seed, shuffle=False)]
    if world == 1:
        assert seen == list(range(n))


@given(**SIZES)
def test_training_gives_every_process_as_many_batches_and_all_persons(
    n: int, batch: int, world: int, seed: int
) -> None:
    parts = [list(s) for s in ranks(n, batch, world, seed)]
    assert len({len(p) for p in parts}) == 1 == len({len(s) for s in ranks(n, batch, world, seed)})
    assert len(parts[0]) == len(ranks(n, batch, world, seed)[0])
    seen = [index for p in parts for b in p for _, index in b]
    assert set(seen) == set(range(n)) and len(seen) < n + world
    assert all(1 <= len(b) <= batch for p in parts for b in p)


@given(steps=st.integers(1, 6), batch=st.integers(1, 4), world=st.integers(1, 4), seed=st.integers(0, 99))
def test_processes_share_out_the_batches_of_one_process(steps: int, batch: int, world: int, seed: int) -> None:
    n = steps * batch * world
    alone = list(PersonBatchSampler(n, batch * world, seed))
    parts = [list(s) for s in ranks(n, batch, world, seed)]
    together = [[d for p in step for d in p] for step in zip(*parts, strict=True)]
    assert together == alone


@given(n=st.integers(2, 60), batch=st.integers(1, 7), seed=st.integers(0, 9), epoch=st.integers(0, 4), data=st.data())
def test_a_resumed_run_goes_on_with_the_next_person(
    n: int, batch: int, seed: int, epoch: int, data: st.DataObject
) -> None:
    sampler = PersonBatchSampler(n, batch, seed)
    sampler.set_state(epoch)
    whole = list(sampler)
    used = data.draw(st.integers(0, len(whole)))
    state = sampler.state_after(used)
    again = PersonBatchSampler(n, batch, seed)
    again.set_state(state.epoch, state.position)
    if used == len(whole):
        assert state == SamplerState(epoch + 1, 0)
    else:
        assert list(again) == whole[used:] and len(again) == len(whole) - used


def test_resuming_with_more_processes_keeps_the_order() -> None:
    one = PersonBatchSampler(40, 4, seed=5)
    rest = [draw for batch in list(one)[3:] for draw in batch]
    state = one.state_after(3)
    two = ranks(40, 2, 2, seed=5)
    for sampler in two:
        sampler.set_state(state.epoch, state.position)
    assert [d for step in zip(*two, strict=True) for part in step for d in part] == rest


def test_the_order_changes_with_seed_and_epoch_and_with_nothing_else() -> None:
    orders = {(s, e): tuple(epoch_order(50, s, e)) for s in range(3) for e in range(3)}
    assert len(set(orders.values())) == 9
    assert all(sorted(o) == list(range(50)) for o in orders.values())
    assert tuple(epoch_order(50, 1, 1)) == orders[1, 1]
    assert {epoch for batch in PersonBatchSampler(9, 2) for epoch, _ in batch} == {0}


def test_an_order_never_changes_from_one_version_to_the_next() -> None:
    """A run is resumed, and compared with an older one, by its seed alone: these came from the first version."""
    assert epoch_order(8, 0, 0).tolist() == [0, 5, 7, 6, 2, 4, 1, 3]
    assert epoch_order(8, 1, 2).tolist() == [5, 6, 3, 4, 0, 7, 1, 2]
    assert list(PersonBatchSampler(8, 8)) == [[(0, i) for i in epoch_order(8, 0, 0)]]  # seed 0 where none is given


def test_iterating_ahead_does_not_move_the_state() -> None:
    sampler = PersonBatchSampler(20, 4, seed=1)
    list(sampler)
    assert sampler.state == SamplerState() and sampler.state_after(2) == SamplerState(0, 8)


def test_drop_last_leaves_out_the_rest_but_never_everything() -> None:
    assert [len(b) for b in PersonBatchSampler(10, 4, drop_last=True)] == [4, 4]
    assert [len(b) for b in PersonBatchSampler(3, 4, drop_last=True)] == [3]
    sampler = PersonBatchSampler(10, 4, drop_last=True)
    assert sampler.state_after(2) == SamplerState(1, 0)
    sampler.set_state(3)
    assert sampler.state == SamplerState(3, 0)
    sampler.set_state(3, 4)  # 6 of 10 persons are left: one batch of 4, and a rest of 2
    assert [len(b) for b in sampler] == [4]
    whole = PersonBatchSampler(4, 4, drop_last=True)
    whole.set_state(0, 2)  # the epoch has had its batch, so its rest is not the only one
    assert list(whole) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [((0, 4), "at least one person"), ((4, 0), "batch size"), ((4, 4, 0, True, False, 2, 2), "rank 2 of 2")],
)
def test_wrong_numbers_are_named(arguments: tuple[int, ...], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        PersonBatchSampler(*arguments)
    with pytest.raises(ValueError, match=r"position in 0\.\.4"):
        PersonBatchSampler(4, 2).set_state(0, 5)
