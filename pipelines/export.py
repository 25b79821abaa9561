"""``medfilip export``: resolved findings of a run as one file for scorers and spreadsheets."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq

from medfilip.evaluation.openi import predictions
from medfilip.storage.manifest import read_manifest, run_folder
from medfilip.storage.shards import read_dataset


def export_predictions(findings: str, out: Path) -> None:
    """Write the ``resolved_findings`` of an extract run to ``out``."""
    run = run_folder(findings)
    table = predictions(read_dataset(run, read_manifest(run), "resolved_findings"))
    out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out)
    sys.stdout.write(f"{table.num_rows} findings written to {out}\n")
