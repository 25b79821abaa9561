"""The order in which rows are seen: a pure function of seed and epoch, the same for any number of processes.

Global batch k of an epoch is rows [kB, (k+1)B) of the epoch's order, and each process takes a contiguous slice of it.
A run can therefore be resumed at any step, with any number of processes, without reading what it has already seen.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medfilip.core.ids import hash64
from medfilip.model.distributed import World

_UNSIGNED = (1 << 64) - 1
_BLOCK, _WINDOW = 64, 65_536


def draw(*parts: object) -> int:
    """Return an unsigned 64-bit number that depends on the parts alone: the seed of everything random in training."""
    return hash64(*(str(part) for part in parts)) & _UNSIGNED


@lru_cache(maxsize=2)
def epoch_order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of ``rows`` rows in an epoch, read-only.

    Up to 65,536 rows it is a permutation drawn uniformly. Rows lie in it as their images are stored, so in a larger
    corpus blocks of 64 neighbouring rows are shuffled, and then the rows within windows of 65,536: a stored row group
    is read for a while and then not again in that epoch.
    """
    generator = np.random.default_rng(draw("order", seed, epoch))
    if rows <= _WINDOW:
        order = generator.permutation(rows)
    else:
        blocks = generator.permutation(-(-rows // _BLOCK))
        order = (blocks[:, None] * _BLOCK + np.arange(_BLOCK)).ravel()
        order = order[order < rows]
        for start in range(0, rows, _WINDOW):
            generator.shuffle(order[start : start + _WINDOW])
    order.setflags(write=False)
    return order


def steps_per_epoch(rows: int, global_batch: int) -> int:
    """Count the global batches of an epoch; an incomplete last one is left out (its rows come in another order next).

    With fewer rows than one batch, the single batch holds all of them.
    """
    return max(rows // global_batch, 1)


def batch_rows(rows: int, global_batch: int, *, seed: int, step: int) -> tuple[int, NDArray[np.int64]]:
    """Return epoch and rows of a global step, counted from 0 over the whole run; a batch is sorted as it is stored."""
    epoch, position = divmod(step, steps_per_epoch(rows, global_batch))
    return epoch, np.sort(epoch_order(rows, seed, epoch)[position * global_batch : (position + 1) * global_batch])


def rank_slice(length: int, world: World) -> slice:
    """Return this process's part of a batch; the parts differ by at most one row."""
    return slice(length * world.rank // world.size, length * (world.rank + 1) // world.size)
