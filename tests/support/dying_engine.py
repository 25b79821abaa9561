"""An engine actor whose model is a fault: it answers without a model, and its process dies of certain sentences."""

from __future__ import annotations

import os
import uuid
import zlib
from typing import Any

from ray.llm._internal.batch.stages.base import StatefulStageUDF

from pipelines.vllm_actor import JournaledEngine


def is_poison(text: str) -> bool:
    """Whether the engine dies of a sentence: about one in thirty; in the corpus of the tests, of several in a batch."""
    return zlib.crc32(text.encode()) % 30 == 19


class DyingEngine(JournaledEngine):
    """Everything of the real actor but the engine."""

    def __init__(self, *args: Any, journal: str, session: str, **kwargs: Any) -> None:
        StatefulStageUDF.__init__(self, kwargs["data_column"], kwargs["expected_input_keys"])
        self._open_journal(journal, session)
        self.should_continue_on_error = True
        self.engine_kwargs = {"disable_log_stats": True}

    async def _generate_with_error_handling(self, row: dict[str, Any], batch_uuid: uuid.UUID) -> dict[str, Any]:
        if is_poison(row["text"]):
            os._exit(1)
        return {
            self.IDX_IN_BATCH_COLUMN: row[self.IDX_IN_BATCH_COLUMN],
            "generated_text": '{"f":[]}',
            "num_input_tokens": 700,
            "num_generated_tokens": 4,
            "num_cached_tokens": None,
            "time_taken_llm": 0.01,
            "batch_uuid": batch_uuid.hex,
            "__inference_error__": "",
        }
