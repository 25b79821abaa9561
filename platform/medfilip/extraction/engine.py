"""What every extraction engine does: sentences in, findings with a status out, one row for one row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import pyarrow as pa

from medfilip.core.errors import ErrorCode
from medfilip.storage.schemas import SENTENCE_FINDINGS

FindingRow: TypeAlias = dict[str, Any]
"""A finding as a dictionary with the keys of `medfilip.storage.schemas.FINDING`: the form for hot loops."""

OK = "ok"

LONGEST_SENTENCE = 4_000
"""Characters of a sentence that rules still read, some 600 words: more than anybody writes, and read in a moment."""


@dataclass(frozen=True)
class SentenceResult:
    """What an engine made of one sentence; ``status`` is ``"ok"`` or an `ErrorCode`.

    ``doubts`` say why the engine may be wrong about it; ``ungrounded`` are items of a model's reply that are no
    findings, with the reason (`medfilip.storage.schemas.UNGROUNDED`).
    """

    findings: list[FindingRow]
    status: str = OK
    doubts: tuple[str, ...] = ()
    ungrounded: tuple[dict[str, str], ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    raw_reply: str | None = None


class Engine(Protocol):
    """An extraction engine."""

    name: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of everything that decides its output: data, prompt, model, decoding, engine version."""
        ...

    def extract(self, text: str, context: str | None) -> SentenceResult:
        """Extract the findings of one sentence in normal form."""
        ...


def extract_table(engine: Engine, sentences: pa.Table) -> pa.Table:
    """Run an engine over a table with ``sentence_id``, ``text`` and ``context``; one row in, one row out.

    A sentence above `LONGEST_SENTENCE` is not read: the time of rules grows with more than the square of its words.
    """
    texts, contexts = sentences["text"].to_pylist(), sentences["context"].to_pylist()
    results = [_bounded(engine, text, context) for text, context in zip(texts, contexts, strict=True)]
    return results_table(sentences["sentence_id"], engine.name, results)


def _bounded(engine: Engine, text: str, context: str | None) -> SentenceResult:
    if max(len(text), len(context or "")) > LONGEST_SENTENCE:
        return SentenceResult([], status=ErrorCode.SENTENCE_TOO_LONG)
    return engine.extract(text, context)


def results_table(ids: pa.ChunkedArray, engine: str, results: list[SentenceResult]) -> pa.Table:
    """Build a ``sentence_findings`` table from results in the order of ``ids``."""
    schema = SENTENCE_FINDINGS.columns
    columns = {
        "sentence_id": ids,
        "findings": pa.array([result.findings for result in results], schema.field("findings").type),
        "engine": pa.array([engine] * len(results), pa.string()),
        "status": pa.array([result.status for result in results], pa.string()),
        "doubts": pa.array([list(result.doubts) for result in results], schema.field("doubts").type),
        "ungrounded": pa.array([list(result.ungrounded) for result in results], schema.field("ungrounded").type),
        "input_tokens": pa.array([result.input_tokens for result in results], pa.int32()),
        "output_tokens": pa.array([result.output_tokens for result in results], pa.int32()),
        "cached_tokens": pa.array([result.cached_tokens for result in results], pa.int32()),
        "raw_reply": pa.array([result.raw_reply for result in results], pa.string()),
    }
    return SENTENCE_FINDINGS.conform(pa.table(columns))
