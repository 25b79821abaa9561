"""The phantom job without images: files registered in the manifest, and a next step that fits."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipelines.phantom import PhantomSettings, run


def test_reports_alone(tmp_path: Path) -> None:
    outcome = run(PhantomSettings(root=str(tmp_path), count=6, images=False))
    corpus = Path(outcome.location) / "corpus"
    assert {file.name for file in corpus.iterdir()} == {"reports-00000.parquet", "truth.jsonl", "phantom.json"}
    assert pq.read_table(corpus / "reports-00000.parquet").num_rows == 6
    assert "images=" not in outcome.next_steps[0] and str(corpus) in outcome.next_steps[0]
    assert run(PhantomSettings(root=str(tmp_path), count=6, images=False)).already_finished


def test_without_truth(tmp_path: Path) -> None:
    outcome = run(PhantomSettings(root=str(tmp_path), count=2, images=False, truth=False))
    assert not (Path(outcome.location) / "corpus" / "truth.jsonl").exists()
