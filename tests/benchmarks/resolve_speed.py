"""How fast mentions become findings: by columns, and report by report, on the mentions of a finished run.

Usage: ``python -m tests.benchmarks.resolve_speed RUN [--shards 2] [--out OUT.json]``, where RUN is the folder of an
extract run. The two must give the same table.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from medfilip.findings.ontology import load_ontology
from medfilip.findings.resolve import resolve_report
from medfilip.findings.resolve_table import resolve_mentions
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.schemas import MENTIONS, RESOLVED_FINDINGS
from medfilip.storage.shards import read_shard
from pipelines.runtime import collector_paused
from tests.benchmarks.environment import write_result


def resolve_by_report(mentions: pa.Table) -> pa.Table:
    """Resolve the mentions of reports, one report after the other."""
    by_report: dict[str, list[dict[str, Any]]] = {}
    for mention in mentions.to_pylist():
        by_report.setdefault(mention["report_id"], []).append(mention)
    return RESOLVED_FINDINGS.from_rows([row for found in by_report.values() for row in resolve_report(found)])


def timed(resolve: Callable[[pa.Table], pa.Table], tables: list[pa.Table]) -> tuple[pa.Table, float]:
    """Resolve tables of mentions, and return the findings with the seconds of the processor it took."""
    begun = time.process_time()
    with collector_paused():
        found = [resolve(table) for table in tables]
    return pa.concat_tables(found), time.process_time() - begun


def main() -> None:
    """Compare and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=str)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = Location.parse(given.run)
    shards = read_manifest(run).dataset("mentions").shards[: given.shards]
    tables = [read_shard(run, shard, MENTIONS) for shard in shards]
    load_ontology()
    findings, by_columns = timed(resolve_mentions, tables)
    expected, by_report = timed(resolve_by_report, tables)
    assert findings.equals(expected)
    reports = sum(pc.count_distinct(table["report_id"]).as_py() for table in tables)
    result = {
        "reports_with_findings": reports,
        "mentions": sum(table.num_rows for table in tables),
        "findings": findings.num_rows,
        "microseconds_a_report": {
            "by_columns": round(by_columns / reports * 1e6, 1),
            "by_report": round(by_report / reports * 1e6, 1),
        },
        "times_as_fast": round(by_report / by_columns, 2),
    }
    write_result(given.out, result)


if __name__ == "__main__":
    main()
