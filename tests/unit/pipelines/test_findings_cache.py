"""The findings cache: failures of an engine are tried again, and a damaged increment names its own cure."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.storage.location import Location
from pipelines.findings_cache import FindingsCache


def rows(*ids: int, failed: int) -> pa.Table:
    results = [SentenceResult([], status=ErrorCode.ENGINE_FAILED if i == failed else "ok") for i in ids]
    return results_table(pa.chunked_array([pa.array(ids, pa.int64())]), "lexicon", results)


def test_each_id_is_published_once_and_failures_are_left_out(tmp_path: Path) -> None:
    cache = FindingsCache(Location.parse(tmp_path), "extractor")
    cache.publish("run-1", rows(3, 1, 2, failed=2))
    cache.publish("run-2", rows(3, 2, failed=0))
    assert cache.read()["sentence_id"].to_pylist() == [1, 2, 3]
    assert (cache.rows_of("run-1"), cache.rows_of("run-2")) == (2, 1)


def test_a_damaged_increment_says_what_to_delete(tmp_path: Path) -> None:
    cache = FindingsCache(Location.parse(tmp_path), "extractor")
    cache.publish("run-1", rows(1, failed=0))
    next(tmp_path.rglob("run-1/part-*.parquet")).write_bytes(b"damaged")
    with pytest.raises(MedfilipError, match=r"Delete the folder .*run-1") as caught:
        cache.known_ids()
    assert caught.value.code is ErrorCode.SHARD_CORRUPT
