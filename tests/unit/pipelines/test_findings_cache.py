"""The findings cache: ranges, what counts of several answers, and a damaged increment that names its own cure."""

from __future__ import annotations

import itertools
from pathlib import Path

import pyarrow as pa
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.storage.location import Location
from pipelines.findings_cache import FindingsCache
from pipelines.sentences import bucket_bounds, cut_sorted

LOW, HIGH = -(1 << 62), 1 << 62


def publish(cache: FindingsCache, run: str, statuses: dict[int, str], buckets: int = 2) -> None:
    ids = pa.array(sorted(statuses), pa.int64())
    results = [SentenceResult([], status=statuses[i]) for i in ids.to_pylist()]
    table = results_table(pa.chunked_array([ids]), run, results)
    cuts = cut_sorted(ids.to_numpy(), buckets)
    parts = [table.slice(cuts[b], cuts[b + 1] - cuts[b]) for b in range(buckets)]
    shards = [cache.write_range(run, b, buckets, part) for b, part in enumerate(parts)]
    cache.publish(run, shards, {"output_tokens": len(statuses)})


def rows(cache: FindingsCache, buckets: int) -> list[tuple[int, str, str]]:
    found = [cache.read_range(bucket, buckets, ["engine"]).to_pylist() for bucket in range(buckets)]
    return [(row["sentence_id"], row["status"], row["engine"]) for part in found for row in part]


@pytest.fixture
def cache(tmp_path: Path) -> FindingsCache:
    return FindingsCache(Location.parse(tmp_path), "extractor")


@pytest.mark.parametrize("buckets", [1, 2, 3, 7])
def test_ranges_hold_every_id_once_however_they_were_cut(cache: FindingsCache, buckets: int) -> None:
    publish(cache, "run-1", {LOW: "ok", -5: "ok", 0: "ok", HIGH: "ok"}, buckets=3)
    publish(cache, "run-2", {7: "ok"}, buckets=2)
    assert [row[0] for row in rows(cache, buckets)] == [LOW, -5, 0, 7, HIGH]
    others = [cache.read_range(bucket, buckets, [], without="run-1") for bucket in range(buckets)]
    assert [sentence for part in others for sentence in part["sentence_id"].to_pylist()] == [7]
    assert cache.spent_by("run-1") == {"output_tokens": 4}
    assert (cache.rows_of("run-1"), cache.rows_of("run-2"), cache.has("run-3")) == (4, 1, False)


def test_the_bounds_of_ranges_leave_no_gap() -> None:
    for buckets in (1, 3, 8, 4096):
        bounds = [bucket_bounds(bucket, buckets) for bucket in range(buckets)]
        assert bounds[0][0] == -(1 << 63) and bounds[-1][1] == (1 << 63) - 1
        assert all(end + 1 == begin for (_, end), (begin, _) in itertools.pairwise(bounds))


def test_a_usable_answer_counts_before_a_failure_and_a_later_one_before_an_earlier(cache: FindingsCache) -> None:
    failed = ErrorCode.ENGINE_FAILED
    publish(cache, "run-1", {1: failed, 2: "ok", 3: failed})
    publish(cache, "run-2", {1: "ok", 2: failed, 3: ErrorCode.REPLY_EMPTY})
    assert rows(cache, 1) == [(1, "ok", "run-2"), (2, "ok", "run-1"), (3, "reply_empty", "run-2")]


def test_an_increment_that_is_not_published_does_not_count(cache: FindingsCache) -> None:
    cache.write_range("run-1", 0, 1, cache.read_range(0, 1))
    assert rows(cache, 1) == [] and not cache.has("run-1")


def test_a_damaged_increment_says_what_to_delete(cache: FindingsCache) -> None:
    publish(cache, "run-1", {1: "ok"})
    for shard in Path(cache.folder.path).rglob("run-1/part-*.parquet"):
        shard.write_bytes(b"damaged")
    with pytest.raises(MedfilipError, match=r"Delete the folder .*run-1") as caught:
        cache.read_range(1, 2)
    assert caught.value.code is ErrorCode.SHARD_CORRUPT
