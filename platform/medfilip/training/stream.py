"""Batches prepared in the background while the model works on the one before."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from threadpoolctl import threadpool_limits

from medfilip.model.distributed import World
from medfilip.model.tokenizer import Tokenizer
from medfilip.training.data import Batch, PairSet
from medfilip.training.order import batch_rows, rank_slice
from medfilip.training.settings import TrainSettings
from medfilip.training.step import tokens_of


def _without_helpers() -> None:
    """Keep the tensor operations of this thread in this thread.

    Each thread that uses OpenMP gets helpers of its own, and as soon as there are more of them than cores, those of the
    training go to sleep after every operation: building batches in 25 ms held steps of 370 ms up by 150 ms.
    """
    torch.get_num_threads()  # at its first use in a thread PyTorch sets a number of its own
    threadpool_limits(1, user_api="openmp")


class BatchStream:
    """The parts of a run's global batches that one process works on, in order.

    Parameters
    ----------
    pairs, tokenizer, settings, world
        What to read, and which part of it.
    pin
        Put pixels into page-locked memory, from which a GPU copies without waiting.

    Attributes
    ----------
    waited
        Seconds for which the training had to wait for batches so far.
    """

    def __init__(
        self, pairs: PairSet, tokenizer: Tokenizer, settings: TrainSettings, world: World, *, pin: bool = False
    ) -> None:
        self._pairs, self._tokenizer, self._settings, self._world, self._pin = pairs, tokenizer, settings, world, pin
        self.waited = 0.0

    def steps(self, first: int, last: int) -> Iterator[tuple[int, Batch]]:
        """Yield (step, batch) for the steps [first, last); nothing before ``first`` is read or decoded."""
        ahead = self._settings.prefetch
        threads = self._settings.decode_threads
        with (
            ThreadPoolExecutor(1, "batch", _without_helpers) as builder,
            ThreadPoolExecutor(threads, "decode", _without_helpers) as decoders,
        ):
            pool = decoders if threads > 1 else None

            def build(step: int) -> Batch:
                return self._build(step, pool)

            coming: deque[Future[Batch]] = deque()
            try:
                for step in range(first, last):
                    begun = time.perf_counter()
                    if ahead:
                        for wanted in range(step + len(coming), min(step + ahead + 1, last)):
                            coming.append(builder.submit(build, wanted))
                        batch = coming.popleft().result()
                    else:
                        batch = build(step)
                    self.waited += time.perf_counter() - begun
                    yield step, batch
            finally:
                for future in coming:
                    future.cancel()

    def _build(self, step: int, threads: ThreadPoolExecutor | None) -> Batch:
        settings = self._settings
        epoch, rows = batch_rows(len(self._pairs), settings.global_batch, seed=settings.seed, step=step)
        mine = rows[rank_slice(len(rows), self._world)].tolist()
        batch = self._pairs.batch(mine, epoch=epoch, settings=settings, threads=threads)
        pixels_I1SS = batch.pixels_I1SS.pin_memory() if self._pin else batch.pixels_I1SS
        return replace(batch, pixels_I1SS=pixels_I1SS, tokens=tokens_of(batch, self._tokenizer))
