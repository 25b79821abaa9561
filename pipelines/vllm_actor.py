"""The vLLM actor of ``ray.data.llm`` with what it lacks: a journal of attempts, and prefix-cache hits for each row.

It stands on internals of the one Ray version that is pinned (2.60): ``vLLMEngineStageUDF`` keeps neither the number of
cached tokens, which vLLM reports, nor which rows an engine died of. Imported only where Ray and vLLM are installed.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import ray
from ray.llm._internal.batch.stages.vllm_engine_stage import vLLMEngineStageUDF

from medfilip.core.errors import ErrorCode
from medfilip.storage.location import Location
from pipelines.attempts import AttemptJournal


class JournaledEngine(vLLMEngineStageUDF):  # type: ignore[misc]
    """An engine actor that writes down what it is about to run; see `pipelines.attempts`."""

    def __init__(self, *args: Any, journal: str, session: str, **kwargs: Any) -> None:
        self._open_journal(journal, session)
        self._cached: dict[int, int | None] = {}
        super().__init__(*args, **kwargs)
        self._generate_without_count = self.llm._generate_async
        self.llm._generate_async = self._generate_and_count

    def _open_journal(self, journal: str, session: str) -> None:
        # The id of an actor stays the same when Ray starts it again.
        actor = ray.get_runtime_context().get_actor_id() or "actor"
        self._journal = AttemptJournal(Location.parse(journal), session, actor)
        self._journal.recover()
        self._running = 0
        """Batches in the engine; -1 while a suspect has it to itself."""
        self._idle = asyncio.Condition()

    async def _generate_and_count(self, request: Any) -> Any:
        output = await self._generate_without_count(request)
        self._cached[request.request_id] = getattr(output, "num_cached_tokens", None)
        return output

    async def _generate_with_error_handling(self, row: dict[str, Any], batch_uuid: uuid.UUID) -> dict[str, Any]:
        output: dict[str, Any] = await super()._generate_with_error_handling(row, batch_uuid)
        return output | {"num_cached_tokens": self._cached.pop(output["request_id"], None)}

    async def udf(self, batch: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """Run a batch: suspects one by one with the engine to themselves, all others together."""
        suspects: list[dict[str, Any]] = []
        others: list[dict[str, Any]] = []
        for row in batch:
            if self._journal.is_quarantined(row["sentence_id"]):
                yield _not_run(row[self.IDX_IN_BATCH_COLUMN])
            else:
                (suspects if self._journal.is_suspect(row["sentence_id"]) else others).append(row)
        if others:
            async with self._idle:
                await self._idle.wait_for(lambda: self._running >= 0)
                self._running += 1
            try:
                async for output in self._journaled(others, suspect=False):
                    yield output
            finally:
                await self._leave()
        for row in suspects:
            async with self._idle:
                await self._idle.wait_for(lambda: self._running == 0)
                self._running = -1
            try:
                async for output in self._journaled([row], suspect=True):
                    yield output
            finally:
                await self._leave()

    async def _leave(self) -> None:
        async with self._idle:
            self._running = max(0, self._running - 1)
            self._idle.notify_all()

    async def _journaled(self, rows: list[dict[str, Any]], *, suspect: bool) -> AsyncIterator[dict[str, Any]]:
        ids = [row["sentence_id"] for row in rows]
        entry = await asyncio.to_thread(self._journal.begin, ids, suspect=suspect)
        async for output in super().udf(rows):
            yield output
        await asyncio.to_thread(self._journal.end, entry)


def _not_run(index: int) -> dict[str, Any]:
    """Return the output of a row that is not given to the engine, in the shape of one that it failed on."""
    return {
        vLLMEngineStageUDF.IDX_IN_BATCH_COLUMN: index,
        "generated_text": "",
        "num_input_tokens": 0,
        "num_generated_tokens": 0,
        "num_cached_tokens": None,
        "__inference_error__": str(ErrorCode.ENGINE_QUARANTINED),
    }
