"""``medfilip export``: resolved findings of a run as one file for scorers and spreadsheets."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from medfilip.evaluation.openi import SCHEMA, predictions
from medfilip.evaluation.profile import load_profile
from medfilip.findings.ontology import load_ontology
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.shards import iter_shards


def export_predictions(findings: str, out: Path, profile: str | None = None) -> None:
    """Write the ``resolved_findings`` of an extract run to ``out``, under an export profile if one is named."""
    run = run_folder(findings)
    chosen = load_profile(profile) if profile else None
    shards = iter_shards(run, read_manifest(run), "resolved_findings")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with pq.ParquetWriter(out, SCHEMA) as writer:
        for table in predictions(shards, load_ontology(), chosen):
            writer.write_table(table)
            rows += table.num_rows
    sys.stdout.write(f"{rows} findings written to {out}\n")
