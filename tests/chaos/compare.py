"""Whether a disturbed run ended with the rows of an undisturbed one: sorted by key, run metadata aside."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, read_manifest
from medfilip.storage.schemas import DATASETS, SENTENCE_FINDINGS
from medfilip.storage.shards import read_dataset

COMPARED = ("sentences", "occurrences", "mentions", "resolved_findings", "rejected")


@dataclass(frozen=True)
class Result:
    """Rows of a finished extract run by dataset, what it counted, and the fingerprint of its content."""

    tables: dict[str, pa.Table]
    counts: dict[str, int]
    fingerprint: str


def read_result(run: Location) -> Result:
    """Read the published datasets of a run, each sorted by its key."""
    manifest = read_manifest(run)
    tables = {name: _sorted(name, read_dataset(run, manifest, name)) for name in COMPARED}
    return Result(tables, dict(manifest.counts), manifest.fingerprint)


def _sorted(name: str, table: pa.Table) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in DATASETS[name].key]).combine_chunks()


def difference(found: Result, expected: Result) -> dict[str, Any]:
    """Return what differs, in numbers alone; nothing if the rows and counts are the same."""
    told = {name: _differ(name, found.tables[name], expected.tables[name]) for name in COMPARED}
    told = {name: what for name, what in told.items() if what}
    if found.counts != expected.counts:
        told["counts"] = {
            name: [found.counts.get(name), expected.counts.get(name)]
            for name in sorted(found.counts.keys() | expected.counts.keys())
            if found.counts.get(name) != expected.counts.get(name)
        }
    return told


def only_reports(result: Result, reports: Collection[str]) -> Result:
    """Return the rows of some reports; of ``sentences`` those that stand in them, with their count in them."""
    ids = pa.array(sorted(reports), pa.string())
    tables = dict(result.tables)
    for name in ("occurrences", "mentions", "resolved_findings"):
        tables[name] = tables[name].filter(pc.is_in(tables[name]["report_id"], value_set=ids)).combine_chunks()
    standing = tables["occurrences"].group_by("sentence_id").aggregate([("position", "count")]).sort_by("sentence_id")
    sentences = tables["sentences"]
    sentences = sentences.filter(pc.is_in(sentences["sentence_id"], value_set=standing["sentence_id"].combine_chunks()))
    refused = pc.is_in(tables["rejected"]["id"], value_set=sentences["sentence_id"].cast(pa.string()).combine_chunks())
    tables["rejected"] = tables["rejected"].filter(refused)
    index = sentences.column_names.index("count")
    counted = sentences.set_column(index, sentences.schema.field(index), standing["position_count"])
    tables["sentences"] = counted.combine_chunks()
    return Result(tables, {}, "")


def _differ(name: str, found: pa.Table, expected: pa.Table) -> dict[str, int]:
    if found.equals(expected):
        return {}
    key = DATASETS[name].key
    mine, theirs = ([tuple(row.values()) for row in table.select(key).to_pylist()] for table in (found, expected))
    told = {
        "lost": len(set(theirs) - set(mine)),
        "added": len(set(mine) - set(theirs)),
        "twice": len(mine) - len(set(mine)),
    }
    if not any(told.values()):
        rows = zip(found.to_pylist(), expected.to_pylist(), strict=True)
        told["changed"] = sum(one != other for one, other in rows)
    return {what: number for what, number in told.items() if number}


def cached_rows(root: Location) -> pa.Table:
    """Return the rows of all published increments of the findings cache below a root."""
    extractors = (root / "sentence_findings").children()
    increments = [run for one in extractors for run in one.children() if (run / MANIFEST_NAME).exists()]
    tables = [read_dataset(run, read_manifest(run), SENTENCE_FINDINGS.name) for run in increments]
    return pa.concat_tables(tables) if tables else SENTENCE_FINDINGS.empty()


def cache_difference(root: Location, sentences: pa.Table) -> dict[str, int]:
    """Return how the cache's ids differ from the sentences': each must be there once, and no other."""
    ids = cached_rows(root)["sentence_id"].to_pylist()
    wanted = set(sentences["sentence_id"].to_pylist())
    told = {
        "lost": len(wanted - set(ids)),
        "added": len(set(ids) - wanted),
        "twice": len(ids) - len(set(ids)),
    }
    return {what: number for what, number in told.items() if number}
