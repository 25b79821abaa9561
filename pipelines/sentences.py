"""Phase 1 of extraction: reports → distinct `sentences` and their `occurrences`.

Each report shard writes its distinct sentences cut by range of their id; each range is then merged on its own. This
is the only exchange of data between workers in the whole job.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.sections import Section
from medfilip.reports.sentences import BODY_GROUP, report_sentences
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import OCCURRENCES, REPORTS, SENTENCES
from medfilip.storage.shards import decode_shard, read_shard, write_shard
from pipelines.runtime import map_parts

NumberedShard = tuple[int, Shard]


def numbered_shards(manifest: Manifest, dataset: str) -> list[NumberedShard]:
    """Return the shards of a dataset with their numbers: the parts of a map over it."""
    return list(enumerate(manifest.dataset(dataset).shards))


def bucket_of(sentence_id: int, buckets: int) -> int:
    """Return the range an id falls into; ranges keep the order of ids, so sorted buckets are sorted overall."""
    return ((sentence_id + (1 << 63)) * buckets) >> 64


def split_reports(
    run: Location, staging: Location, source: Location, manifest: Manifest, buckets: int
) -> dict[str, list[Shard]]:
    """Write ``sentences`` and ``occurrences`` of a run from the ``reports`` of another."""
    split = partial(_split_shard, run=run, staging=staging, source=source, buckets=buckets)
    occurrences = map_parts(staging, "split", split, numbered_shards(manifest, "reports"))
    merge = partial(_merge_bucket, run=run, staging=staging, parts=len(occurrences))
    sentences = map_parts(staging, "merge", merge, list(range(buckets)))
    return {
        "sentences": [Shard(**record["shard"]) for record in sentences],
        "occurrences": [Shard(**record["shard"]) for record in occurrences],
    }


def _split_shard(
    numbered: NumberedShard, *, run: Location, staging: Location, source: Location, buckets: int
) -> dict[str, Any]:
    number, shard = numbered
    table = read_shard(source, shard, REPORTS, ["report_id", "text", "sections"])
    distinct: dict[int, dict[str, Any]] = {}
    occurrences: dict[str, list[Any]] = {name: [] for name in OCCURRENCES.columns.names}
    for report in table.to_pylist():
        for sentence in report_sentences(report["text"], [Section(**section) for section in report["sections"]]):
            row = distinct.setdefault(
                sentence.sentence_id,
                {
                    "sentence_id": sentence.sentence_id,
                    "text": sentence.text,
                    "context": sentence.context,
                    "section_group": BODY_GROUP,
                    "count": 0,
                },
            )
            row["count"] += 1
            for name in ("sentence_id", "section", "start", "end", "position"):
                occurrences[name].append(getattr(sentence, name))
            occurrences["report_id"].append(report["report_id"])
    by_bucket: list[list[dict[str, Any]]] = [[] for _ in range(buckets)]
    for sentence_id in sorted(distinct):
        by_bucket[bucket_of(sentence_id, buckets)].append(distinct[sentence_id])
    for bucket, rows in enumerate(by_bucket):
        write_shard(staging / "split", _bucket_path(bucket, number), SENTENCES, SENTENCES.from_rows(rows))
    table = pa.table({name: pa.array(values) for name, values in occurrences.items()}) if distinct else None
    written = write_shard(run, f"occurrences/part-{number:05d}.parquet", OCCURRENCES, table or OCCURRENCES.empty())
    return {"shard": written.model_dump()}


def _merge_bucket(bucket: int, *, run: Location, staging: Location, parts: int) -> dict[str, Any]:
    merged: dict[int, dict[str, Any]] = {}
    for number in range(parts):
        file = staging / "split" / _bucket_path(bucket, number)
        for row in decode_shard(file.read_bytes(), file, SENTENCES).to_pylist():
            known = merged.setdefault(row["sentence_id"], row)
            if known is row:
                continue
            if (known["text"], known["context"]) != (row["text"], row["context"]):
                raise MedfilipError(
                    ErrorCode.ID_COLLISION,
                    f"Two different sentences share the id {row['sentence_id']}.",
                    fix="Report this: the splitter version must be raised to re-draw all ids.",
                )
            known["count"] += row["count"]
    rows = [merged[sentence_id] for sentence_id in sorted(merged)]
    shard = write_shard(run, f"sentences/part-{bucket:05d}.parquet", SENTENCES, SENTENCES.from_rows(rows))
    return {"shard": shard.model_dump()}


def _bucket_path(bucket: int, number: int) -> str:
    return f"bucket-{bucket:04d}/part-{number:05d}.parquet"
