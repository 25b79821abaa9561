"""The page and the numbers: self-contained, escaped, repeatable, and in agreement."""

from __future__ import annotations

import json
import re

import numpy as np

from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.extraction import evaluate_extraction
from medfilip.evaluation.report import write_report
from medfilip.evaluation.zero_shot import evaluate_zero_shot
from medfilip.model.diagnoser import Scores


def write(folder, **options):
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.integers(0, 2, 40), np.zeros(40, int)])
    positive = truth + rng.normal(size=(40, 2))
    labels = ("no $5 <b>label</b>", "mass")
    scores = Scores(labels, 1 / (1 + np.exp(-positive)), ("category", "none"), positive, np.zeros((40, 2)))
    zero_shot = evaluate_zero_shot(scores, truth, [str(i) for i in range(40)], resamples=50)
    row = {"report_id": "r", "category": "mass", "certainty": "present"}
    extraction = evaluate_extraction([row], [row], ["r"], resamples=20)
    page, numbers = write_report(
        folder, title="Evaluation", facts={"model": "abc"}, extraction=extraction,
        diagnosis=DiagnosisResult(zero_shot=zero_shot),
        **{"synthetic": True, **options},
    )  # fmt: skip
    return page.read_text(), json.loads(numbers.read_text()), zero_shot


def test_the_page_loads_nothing_and_follows_the_theme(tmp_path):
    page, _, _ = write(tmp_path)
    addresses = set(re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\'\s)>]+)', page))
    assert all(address.startswith("#") for address in addresses)
    assert "<script" not in page and "@import" not in page
    assert "prefers-color-scheme: dark" in page and "<svg" in page


def test_labels_are_escaped(tmp_path):
    page, _, _ = write(tmp_path)
    assert "<b>label" not in page
    assert "&lt;b&gt;label" in page


def test_page_and_json_hold_the_same_numbers(tmp_path):
    page, numbers, zero_shot = write(tmp_path)
    value = numbers["diagnosis"]["zero_shot"]["labels"][0]["metrics"]["pnc_auroc"]["value"]
    assert value == zero_shot.labels[0].metrics["pnc_auroc"].value
    assert f"{value:.3f} [" in page
    assert "not evaluated: no positive images" in page
    assert numbers["extraction"]["slots"]["exact"]["f1"]["value"] == 1


def test_synthetic_data_is_said_and_only_then(tmp_path):
    assert "Synthetic data" in write(tmp_path / "a")[0]
    assert "Synthetic data" not in write(tmp_path / "b", synthetic=False)[0]


def test_writing_twice_gives_the_same_bytes(tmp_path):
    assert write(tmp_path / "a")[0] == write(tmp_path / "b")[0]
