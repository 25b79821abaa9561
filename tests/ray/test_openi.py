"""The main job on real reports: ingest → extract on Ray, scored by the collection's protocol. Data stays outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from medfilip.findings.ontology import load_ontology
from pipelines.export import export_predictions
from tests.ray.conftest import run_job


@pytest.mark.data
def test_agreement_with_the_annotators_of_real_reports(ray_cluster: None, data_folder: Path, tmp_path: Path) -> None:
    corpus, scorer = data_folder / "openi" / "open", data_folder / "openi" / "scoring" / "score_openi.py"
    root = f"root={tmp_path}/runs"
    ingest = run_job("ingest", f"reports={corpus}", root)
    assert ingest.manifest.rejected == {"report_empty": 17}
    assert ingest.manifest.counts["reports"] == 2351
    extract = run_job("extract", f"reports={ingest.location}", root)
    export_predictions(extract.location, tmp_path / "predictions.parquet")
    command = [sys.executable, str(scorer), str(corpus / "reports.parquet"), str(tmp_path / "predictions.parquet")]
    subprocess.run([*command, "--json", str(tmp_path / "scores.json"), "--bootstrap", "10", "--quiet"], check=True)
    scores = json.loads((tmp_path / "scores.json").read_text())
    point = scores["variants"][scores["primary"]]["point"]
    # Floors against regressions, below what was measured.
    floors = {
        "micro_f1": 0.93,
        "lenient_f1": 0.95,
        "macro_f1": 0.89,
        "f1_lat": 0.88,
        "f1_site_lenient": 0.875,
        "f1_sev_lenient": 0.905,
        "f1_triplet_lenient": 0.815,
        "normal_specificity_standard": 0.97,
        "nih14_micro_f1": 0.93,
    }
    assert not {name: point[name] for name, floor in floors.items() if point[name] < floor}
    # What the collection does not know is the ontology's own, and nothing else is unknown.
    issues = scores["pred_issues"]
    assert set(issues.pop("unknown_category")["values"]) <= set(load_ontology().categories)
    assert not any(issue["count"] for name, issue in issues.items() if name.startswith("unknown"))


@pytest.mark.data
def test_the_command_measures_what_the_scorer_measures(ray_cluster: None, data_folder: Path, tmp_path: Path) -> None:
    corpus = data_folder / "openi" / "open"
    root = f"root={tmp_path}/runs"
    ingest = run_job("ingest", f"reports={corpus}", "keep_report_ids=true", root)
    extract = run_job("extract", f"reports={ingest.location}", root)
    truth = f"truth={corpus}/reports.parquet"
    ours = run_job(
        "evaluate_extraction", f"findings={extract.location}", truth, f"reports={ingest.location}", "errors=true", root
    ).manifest.metrics
    export_predictions(extract.location, tmp_path / "predictions.parquet")
    scorer = data_folder / "openi" / "scoring" / "score_openi.py"
    command = [sys.executable, str(scorer), str(corpus / "reports.parquet"), str(tmp_path / "predictions.parquet")]
    subprocess.run([*command, "--json", str(tmp_path / "scores.json"), "--bootstrap", "10", "--quiet"], check=True)
    scores = json.loads((tmp_path / "scores.json").read_text())
    theirs = scores["variants"][scores["primary"]]["point"]
    same = {
        "category_micro_f1": "micro_f1",
        "category_macro_f1": "macro_f1",
        "category_lenient_f1": "lenient_f1",
        "side_f1": "f1_lat",
        "severity_f1": "f1_sev_lenient",
        "normal_clean": "normal_specificity_standard",
        "nih14_micro_f1": "nih14_micro_f1",
    }
    for own, name in same.items():
        assert ours[own] == pytest.approx(theirs[name], abs=0.002), own
