"""Phases 3 and 4 of extraction: sentence findings → `mentions` in reports → `resolved_findings` of studies.

A worker holds one report shard, its occurrences, and of the findings those of the sentences that stand in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from medfilip.core.ids import hash64_each
from medfilip.findings.resolve_table import resolve_mentions
from medfilip.reports.sentences import normal_form
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import EVIDENCE, MENTIONS, OCCURRENCES, REPORTS, RESOLVED_FINDINGS
from medfilip.storage.shards import read_shard, write_shard
from pipelines.runtime import Progress, collector_paused, map_parts
from pipelines.sentences import REPORTS_AT_ONCE, NumberedShard, numbered_shards
from pipelines.settle import look_up

Positions = npt.NDArray[np.int64]


def find_mentions(
    run: Location,
    staging: Location,
    source: Location,
    manifest: Manifest,
    occurrences: Sequence[Shard],
    buckets: int,
    progress: Progress | None = None,
) -> tuple[dict[str, list[Shard]], Counter[str]]:
    """Write ``mentions`` and ``resolved_findings``, one shard for one report shard, as ``occurrences`` has."""
    work = partial(_mentions_of_shard, run=run, staging=staging, source=source, buckets=buckets)
    parts = list(zip(numbered_shards(manifest, "reports"), occurrences, strict=True))
    records = map_parts(staging, "mentions", work, parts, progress=progress)
    counts: Counter[str] = Counter()
    for record in records:
        counts.update(record["counts"])
    shards = {name: [Shard(**record[name]) for record in records] for name in (MENTIONS.name, RESOLVED_FINDINGS.name)}
    return shards, counts


def _mentions_of_shard(
    part: tuple[NumberedShard, Shard], *, run: Location, staging: Location, source: Location, buckets: int
) -> dict[str, Any]:
    (number, shard), where = part
    reports = read_shard(source, shard, REPORTS, ["report_id", "study_id", "text"])
    name = f"part-{number:05d}.parquet"
    occurrences = read_shard(run, where, OCCURRENCES)
    lookup = look_up(staging, np.unique(occurrences["sentence_id"].to_numpy()), buckets)
    mentions, resolved, with_findings = [MENTIONS.empty()], [RESOLVED_FINDINGS.empty()], 0
    for some, stands in _slices(reports, occurrences):
        mentions.append(mentions_of(stands, lookup, some))
        with collector_paused():
            resolved.append(resolve_mentions(mentions[-1]))
        with_findings += pc.count_distinct(mentions[-1]["report_id"]).as_py()
    tables = {MENTIONS: pa.concat_tables(mentions), RESOLVED_FINDINGS: pa.concat_tables(resolved)}
    shards = {
        schema.name: write_shard(run, f"{schema.name}/{name}", schema, table).model_dump()
        for schema, table in tables.items()
    }
    conflicts = int(pc.sum(tables[RESOLVED_FINDINGS]["conflict"]).as_py() or 0)
    counts = {"reports": reports.num_rows, "reports_with_findings": with_findings, "conflicts": conflicts}
    return {**shards, "counts": counts}


def _slices(reports: pa.Table, occurrences: pa.Table) -> Iterator[tuple[pa.Table, pa.Table]]:
    """Yield some reports at a time with their occurrences, which stand in the order of the reports."""
    owner = pc.index_in(occurrences["report_id"], value_set=reports["report_id"].combine_chunks()).to_numpy()
    for start in range(0, reports.num_rows, REPORTS_AT_ONCE):
        begin, end = np.searchsorted(owner, [start, start + REPORTS_AT_ONCE])
        yield reports.slice(start, REPORTS_AT_ONCE), occurrences.slice(begin, end - begin)


def mentions_of(occurrences: pa.Table, lookup: pa.Table, reports: pa.Table) -> pa.Table:
    """Return the mentions of reports: every finding of every sentence that stands in them, in the order of the text.

    Parameters
    ----------
    occurrences
        Where sentences stand, in the order of reports and text.
    lookup
        Sentences with findings (`pipelines.settle.LOOKUP`), sorted by id.
    reports
        ``report_id``, ``study_id`` and ``text``.
    """
    known = lookup["sentence_id"].to_numpy()
    ids = occurrences["sentence_id"].to_numpy()
    at = np.searchsorted(known, ids)
    held = np.flatnonzero(known[np.minimum(at, max(0, len(known) - 1))] == ids) if len(known) else at[:0]
    occurrences, rows = occurrences.take(held), lookup.take(at[held])
    if not rows.num_rows:
        return MENTIONS.empty()
    report = pc.index_in(occurrences["report_id"], value_set=reports["report_id"].combine_chunks())
    lists = rows["findings"].combine_chunks()
    parent = pc.list_parent_indices(lists).to_numpy()
    findings = pc.list_flatten(lists)
    index = _within(parent)
    columns = {name: pc.struct_field(findings, name) for name in (field.name for field in findings.type)}
    columns["evidence"] = _in_reports(
        columns["evidence"], parent, occurrences, rows["text"], _words(occurrences, report, reports)
    )
    report_ids = occurrences["report_id"].take(parent)
    numbers = (map(str, column) for column in (occurrences["position"].take(parent).to_pylist(), index.tolist()))
    columns |= {
        "mention_id": pa.array(hash64_each(report_ids.to_pylist(), *numbers)),
        "report_id": report_ids,
        "study_id": reports["study_id"].take(report.take(parent)),
        "sentence_id": occurrences["sentence_id"].take(parent),
        "section": occurrences["section"].take(parent),
        "engine": rows["engine"].take(parent),
    }
    return MENTIONS.conform(pa.table({name: columns[name] for name in MENTIONS.columns.names}))


def _words(occurrences: pa.Table, report: pa.ChunkedArray, reports: pa.Table) -> list[str]:
    """Return the characters of each occurrence in its report."""
    texts = reports["text"].to_pylist()
    spans = zip(report.to_pylist(), occurrences["start"].to_pylist(), occurrences["end"].to_pylist(), strict=True)
    return [texts[number][start:end] for number, start, end in spans]


def _within(parent: Positions) -> Positions:
    """Return for each item of a flattened list its number within its list, given the (sorted) numbers of the lists."""
    first = np.searchsorted(parent, parent)
    return np.arange(len(parent)) - first


def _in_reports(
    evidence: pa.Array, parent: Positions, occurrences: pa.Table, normal: pa.ChunkedArray, raw: list[str]
) -> pa.Array:
    """Move evidence spans from a sentence's normal form to the characters of its report.

    Most sentences differ from their normal form in case alone: there a span only moves by where the sentence begins.
    """
    spans = pc.list_flatten(evidence)
    owner = parent[pc.list_parent_indices(evidence).to_numpy()]
    begins = occurrences["start"].to_numpy().astype(np.int64)
    starts = pc.struct_field(spans, "start").to_numpy().astype(np.int64)
    ends = pc.struct_field(spans, "end").to_numpy().astype(np.int64)
    new_starts, new_ends = begins[owner] + starts, begins[owner] + ends
    same = np.array([own.lower().startswith(form) for own, form in zip(raw, normal.to_pylist(), strict=True)], bool)
    for span in np.flatnonzero(~same[owner]):
        offsets = _offsets(raw[owner[span]])
        new_starts[span] = begins[owner[span]] + offsets[starts[span]]
        new_ends[span] = begins[owner[span]] + offsets[ends[span] - 1] + 1
    moved = pa.StructArray.from_arrays(
        [pc.struct_field(spans, "slot"), pa.array(new_starts, pa.int32()), pa.array(new_ends, pa.int32())],
        fields=list(EVIDENCE),
    )
    lengths = pc.fill_null(pc.list_value_length(evidence), 0).to_numpy()
    return pa.ListArray.from_arrays(pa.array(np.append([0], np.cumsum(lengths)), pa.int32()), moved)


@lru_cache(maxsize=65_536)
def _offsets(raw: str) -> list[int]:
    return normal_form(raw)[1]
