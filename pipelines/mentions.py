"""Phases 3 and 4 of extraction: sentence findings → `mentions` in reports → `resolved_findings` of studies."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from medfilip.core.ids import hash64
from medfilip.extraction.engine import OK
from medfilip.findings.resolve import resolve_report
from medfilip.reports.sentences import normal_form
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import MENTIONS, OCCURRENCES, REPORTS, RESOLVED_FINDINGS
from medfilip.storage.shards import decode_shard, read_shard, write_shard
from pipelines.runtime import map_parts
from pipelines.sentences import NumberedShard, numbered_shards

LOOKUP_NAME = "lookup.arrow"


def write_lookup(staging: Location, findings: pa.Table) -> None:
    """Write the sentence findings, sorted by id, where every worker can map them into memory.

    Once for a run: after a crash the cache may know more, and half of the mentions would have been made with less.
    """
    if (staging / LOOKUP_NAME).exists():
        return
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, findings.schema) as writer:
        writer.write_table(findings.combine_chunks())
    (staging / LOOKUP_NAME).write_bytes(sink.getvalue().to_pybytes())


def find_mentions(
    run: Location, staging: Location, source: Location, manifest: Manifest
) -> tuple[dict[str, list[Shard]], Counter[str]]:
    """Write ``mentions`` and ``resolved_findings``, one shard for one report shard."""
    work = partial(_mentions_of_shard, run=run, staging=staging, source=source)
    records = map_parts(staging, "mentions", work, numbered_shards(manifest, "reports"))
    counts: Counter[str] = Counter()
    for record in records:
        counts += Counter(record["counts"])
    shards = {name: [Shard(**record[name]) for record in records] for name in (MENTIONS.name, RESOLVED_FINDINGS.name)}
    return shards, counts


def _mentions_of_shard(
    numbered: NumberedShard, *, run: Location, staging: Location, source: Location
) -> dict[str, Any]:
    number, shard = numbered
    lookup = _Lookup.open(str(staging / LOOKUP_NAME))
    reports = {
        row["report_id"]: row
        for row in read_shard(source, shard, REPORTS, ["report_id", "study_id", "text"]).to_pylist()
    }
    name = f"part-{number:05d}.parquet"
    file = run / f"occurrences/{name}"
    by_report: dict[str, list[dict[str, Any]]] = {report_id: [] for report_id in reports}
    for occurrence in decode_shard(file.read_bytes(), file, OCCURRENCES).to_pylist():
        report = reports[occurrence["report_id"]]
        by_report[occurrence["report_id"]] += _mentions(occurrence, report, lookup)
    mentions = [mention for found in by_report.values() for mention in found]
    resolved = [finding for found in by_report.values() for finding in resolve_report(found)]
    return {
        MENTIONS.name: write_shard(run, f"mentions/{name}", MENTIONS, MENTIONS.from_rows(mentions)).model_dump(),
        RESOLVED_FINDINGS.name: write_shard(
            run, f"resolved_findings/{name}", RESOLVED_FINDINGS, RESOLVED_FINDINGS.from_rows(resolved)
        ).model_dump(),
        "counts": {
            "reports": len(reports),
            "reports_with_findings": sum(bool(found) for found in by_report.values()),
            "conflicts": sum(finding["conflict"] for finding in resolved),
        },
    }


def _mentions(occurrence: dict[str, Any], report: dict[str, Any], lookup: _Lookup) -> list[dict[str, Any]]:
    row = lookup.row(occurrence["sentence_id"])
    if row is None or not row["findings"]:
        return []
    start = occurrence["start"]
    _, offsets = normal_form(report["text"][start : occurrence["end"]])
    return [
        {
            **finding,
            "evidence": [
                {
                    "slot": span["slot"],
                    "start": start + offsets[span["start"]],
                    "end": start + offsets[span["end"] - 1] + 1,
                }
                for span in finding["evidence"]
            ],
            "mention_id": hash64(report["report_id"], str(occurrence["position"]), str(index)),
            "report_id": report["report_id"],
            "study_id": report["study_id"],
            "sentence_id": occurrence["sentence_id"],
            "section": occurrence["section"],
            "engine": row["engine"],
        }
        for index, finding in enumerate(row["findings"])
    ]


class _Lookup:
    """Findings by sentence id: binary search over a sorted, memory-mapped table."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._ids = table["sentence_id"].to_numpy()
        self._rows: dict[int, dict[str, Any] | None] = {}

    @staticmethod
    @lru_cache(maxsize=2)
    def open(uri: str) -> _Lookup:
        location = Location.parse(uri)
        source = pa.memory_map(location.path) if location.scheme == "file" else pa.BufferReader(location.read_bytes())
        return _Lookup(pa.ipc.open_file(source).read_all())

    def row(self, sentence_id: int) -> dict[str, Any] | None:
        """Return findings and engine of a sentence; ``None`` where no engine could settle it."""
        if sentence_id not in self._rows:
            position = int(np.searchsorted(self._ids, sentence_id))
            found = position < len(self._ids) and self._ids[position] == sentence_id
            row = self._table.slice(position, 1).to_pylist()[0] if found else None
            self._rows[sentence_id] = row if row and row["status"] == OK else None
        return self._rows[sentence_id]
