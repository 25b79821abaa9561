"""Phase 1 of extraction: reports → distinct `sentences` and their `occurrences`.

Each report shard writes its distinct sentences cut by range of their id; each range is then merged on its own. This
is the only exchange of data between workers in the whole job, and no process ever holds more than a shard or a range.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.sections import Section
from medfilip.reports.sentences import BODY_GROUP, report_sentences
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import OCCURRENCES, REPORTS, SENTENCES
from medfilip.storage.shards import read_shard, read_staged, write_shard, write_staged
from pipelines.runtime import Progress, map_parts

NumberedShard = tuple[int, Shard]
Ids = npt.NDArray[np.int64]

REPORTS_PER_BUCKET = 100_000
REPORTS_AT_ONCE = 5_000
"""Reports of a shard that a worker holds as Python objects at a time."""
_LEAST_BUCKETS = 8


def numbered_shards(manifest: Manifest, dataset: str) -> list[NumberedShard]:
    """Return the shards of a dataset with their numbers: the parts of a map over it."""
    return list(enumerate(manifest.dataset(dataset).shards))


def default_buckets(reports: int) -> int:
    """Return how many ranges of ids keep a range small enough for one worker."""
    return max(_LEAST_BUCKETS, -(-reports // REPORTS_PER_BUCKET))


def bucket_bounds(bucket: int, buckets: int) -> tuple[int, int]:
    """Return the first and the last id of a range; ranges keep the order of ids: sorted ranges are sorted overall."""
    first, after = (-(-(number << 64) // buckets) - (1 << 63) for number in (bucket, bucket + 1))
    return first, after - 1


def cut_sorted(ids: Ids, buckets: int) -> npt.NDArray[np.int64]:
    """Return where each of ``buckets`` ranges begins in sorted ``ids``, and their length at the end."""
    firsts = np.array([bucket_bounds(bucket, buckets)[0] for bucket in range(buckets)], np.int64)
    return np.append(np.searchsorted(ids, firsts), len(ids))


def split_reports(
    run: Location,
    staging: Location,
    source: Location,
    manifest: Manifest,
    buckets: int,
    progress: Progress | None = None,
) -> dict[str, list[Shard]]:
    """Write ``sentences`` and ``occurrences`` of a run from the ``reports`` of another."""
    split = partial(_split_shard, run=run, staging=staging, source=source, buckets=buckets)
    occurrences = map_parts(staging, "split", split, numbered_shards(manifest, "reports"), progress=progress)
    merge = partial(_merge_bucket, run=run, staging=staging, parts=len(occurrences))
    sentences = map_parts(staging, "merge", merge, list(range(buckets)), progress=progress)
    return {
        "sentences": [Shard(**record["shard"]) for record in sentences],
        "occurrences": [Shard(**record["shard"]) for record in occurrences],
    }


def _split_shard(
    numbered: NumberedShard, *, run: Location, staging: Location, source: Location, buckets: int
) -> dict[str, Any]:
    number, shard = numbered
    reports = read_shard(source, shard, REPORTS, ["report_id", "text", "sections"])
    words: dict[int, tuple[str, str | None]] = {}
    slices = [reports.slice(start, REPORTS_AT_ONCE) for start in range(0, reports.num_rows, REPORTS_AT_ONCE)]
    occurrences = pa.concat_tables([OCCURRENCES.empty(), *(_occurrences(part, words) for part in slices)])
    ids, counts = np.unique(occurrences["sentence_id"].to_numpy(), return_counts=True)
    distinct = _sentences(ids, [words[int(sentence)] for sentence in ids], counts)
    cuts = cut_sorted(ids, buckets)
    for bucket in range(buckets):
        part = distinct.slice(cuts[bucket], cuts[bucket + 1] - cuts[bucket])
        write_staged(staging / "split" / _bucket_path(bucket, number), SENTENCES, part)
    written = write_shard(run, f"occurrences/part-{number:05d}.parquet", OCCURRENCES, occurrences)
    return {"shard": written.model_dump()}


def _occurrences(reports: pa.Table, words: dict[int, tuple[str, str | None]]) -> pa.Table:
    """Return where sentences stand in some reports, and note text and context of those not yet in ``words``."""
    columns: dict[str, list[Any]] = {name: [] for name in OCCURRENCES.columns.names}
    for report_id, text, sections in zip(*(reports[name].to_pylist() for name in reports.column_names), strict=True):
        sentences = report_sentences(text, [Section(**section) for section in sections])
        for sentence in sentences:
            words.setdefault(sentence.sentence_id, (sentence.text, sentence.context))
            for name in ("sentence_id", "section", "start", "end", "position"):
                columns[name].append(getattr(sentence, name))
        columns["report_id"] += [report_id] * len(sentences)
    table = pa.table({field.name: pa.array(columns[field.name], field.type) for field in OCCURRENCES.columns})
    return OCCURRENCES.conform(table)


def _sentences(ids: Ids, words: list[tuple[str, str | None]], counts: npt.NDArray[np.int64]) -> pa.Table:
    return pa.table(
        {
            "sentence_id": ids,
            "text": pa.array([text for text, _ in words], pa.string()),
            "context": pa.array([context for _, context in words], pa.string()),
            "section_group": pa.array([BODY_GROUP] * len(ids), pa.string()),
            "count": counts,
        }
    )


def _merge_bucket(bucket: int, *, run: Location, staging: Location, parts: int) -> dict[str, Any]:
    tables = [read_staged(staging / "split" / _bucket_path(bucket, number), SENTENCES) for number in range(parts)]
    merged = merge_sentences(pa.concat_tables(tables) if tables else SENTENCES.empty())
    shard = write_shard(run, f"sentences/part-{bucket:05d}.parquet", SENTENCES, merged)
    return {"shard": shard.model_dump()}


def merge_sentences(table: pa.Table) -> pa.Table:
    """Fold rows of one id into one with their counts added, sorted by id; one id for two sentences is an error."""
    order = np.argsort(table["sentence_id"].to_numpy(), kind="stable")
    table = table.take(order).combine_chunks()
    ids, firsts, inverse = np.unique(table["sentence_id"].to_numpy(), return_index=True, return_inverse=True)
    leading = table.take(firsts)
    for column in ("text", "context"):
        stated = pc.fill_null(table[column], "\0")
        if not pc.all(pc.equal(stated, pc.fill_null(leading[column], "\0").take(inverse))).as_py() and len(ids):
            raise MedfilipError(
                ErrorCode.ID_COLLISION,
                "Two different sentences share one id.",
                fix="Report this: the splitter version must be raised to re-draw all ids.",
            )
    counts = np.bincount(inverse, weights=table["count"].to_numpy(), minlength=len(ids)).astype(np.int64)
    index = leading.column_names.index("count")
    return leading.set_column(index, "count", pa.array(counts, pa.int64()))


def _bucket_path(bucket: int, number: int) -> str:
    return f"bucket-{bucket:04d}/part-{number:05d}.parquet"
