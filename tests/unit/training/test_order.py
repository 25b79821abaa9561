"""The order of rows: every row once an epoch, the same for any number of processes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medfilip.model.distributed import World
from medfilip.training.order import batch_rows, draw, epoch_order, rank_slice, steps_per_epoch


def test_an_epoch_is_a_permutation_that_depends_on_seed_and_epoch():
    first = epoch_order(50, seed=1, epoch=0)
    assert sorted(first) == list(range(50))
    assert np.array_equal(first, epoch_order(50, seed=1, epoch=0))
    assert not np.array_equal(first, epoch_order(50, seed=1, epoch=1))
    assert not np.array_equal(first, epoch_order(50, seed=2, epoch=0))


def test_global_batches_cover_the_epoch_once():
    steps = steps_per_epoch(50, 8)
    assert steps == 6
    batches = [batch_rows(50, 8, seed=0, step=steps + k) for k in range(steps)]
    assert {epoch for epoch, _ in batches} == {1}
    seen = np.concatenate([rows for _, rows in batches])
    order = epoch_order(50, seed=0, epoch=1)
    assert all(np.array_equal(rows, np.sort(order[8 * k : 8 * k + 8])) for k, (_, rows) in enumerate(batches))
    assert len(set(seen.tolist())) == 48


def test_a_large_corpus_is_read_window_by_window_and_every_row_once():
    rows = 150_001
    order = epoch_order(rows, seed=3, epoch=2)
    assert np.array_equal(np.sort(order), np.arange(rows))
    for start in range(0, rows, 65_536):
        window = order[start : start + 65_536]
        assert len(np.unique(window // 64)) <= len(window) // 64 + 2, "neighbours stay in one window"
        assert abs(np.corrcoef(window, np.arange(len(window)))[0, 1]) < 0.02, "and are shuffled in it"
    assert not np.array_equal(order, epoch_order(rows, seed=3, epoch=3))


def test_a_corpus_smaller_than_a_batch_is_one_batch():
    epoch, rows = batch_rows(5, 8, seed=0, step=3)
    assert epoch == 3 and sorted(rows) == [0, 1, 2, 3, 4]


@given(length=st.integers(0, 100), size=st.integers(1, 16))
def test_slices_of_processes_partition_a_batch_evenly(length, size):
    parts = [list(range(length))[rank_slice(length, World(rank, size))] for rank in range(size)]
    assert [row for part in parts for row in part] == list(range(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_draws_depend_on_every_part():
    assert draw("a", 1, 2) == draw("a", 1, 2) != draw("a", 12)
    assert 0 <= draw("x") < 1 << 64
