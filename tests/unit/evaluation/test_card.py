"""The card says what was measured, names what is weak, and claims nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.card import write_card
from medfilip.evaluation.diagnosis import DiagnosisResult
from medfilip.evaluation.provenance import RunFacts, run_of
from medfilip.evaluation.subgroups import evaluate_subgroups
from medfilip.evaluation.zero_shot import evaluate_zero_shot
from medfilip.model.checkpoint import Versions
from medfilip.model.diagnoser import Scores
from medfilip.storage.location import Location

RUN = RunFacts(
    job="ingest", run_id="r", fingerprint="f" * 64, code_version="1", counts={"images": 1200},
    rejected={"image_not_chest": 3},
)  # fmt: skip


@pytest.fixture(scope="module")
def card():
    rng = np.random.default_rng(0)
    truth = np.column_stack([rng.integers(0, 2, 200), rng.integers(0, 2, 200), np.zeros(200, int)])
    positive = truth * np.array([4.0, 0.1, 0]) + rng.normal(size=(200, 3))
    bases = ("category", "overall", "none")
    scores = Scores(("edema", "nodule", "mass"), 1 / (1 + np.exp(-positive)), bases, positive, np.zeros((200, 3)))
    patients = [str(at) for at in range(200)]
    result = DiagnosisResult(
        zero_shot=evaluate_zero_shot(scores, truth, patients, resamples=50),
        subgroups=evaluate_subgroups(scores, truth, patients, {"sex": ["F", "M"] * 100}, resamples=50),
    )
    versions = Versions("ontology", "knowledge", synthetic=True, unseen=("cavity",))
    return write_card("abc", versions, result, [RUN], truth="drawn"), result


def test_numbers_are_those_of_the_evaluation(card):
    text, result = card
    for item in result.zero_shot.labels:
        assert f"| {item.label} | {item.positives} | {item.negatives} |" in text
    assert str(result.zero_shot.labels[0].metrics["pnc_auroc"]) in text and str(result.subgroups[0].gap) in text
    assert "images 1,200" in text and "image_not_chest 3" in text.replace("image not chest", "image_not_chest")


def test_what_is_weak_missing_or_not_measured_is_said(card):
    text, _ = card
    limits = text.partition("## Limits")[2]
    assert "nodule" in limits and "edema" not in limits
    assert "for want of images with or without them: mass" in limits
    assert "Kept out of training: cavity" in text and "worthless for patients" in text
    assert "calibrated for edema." in text and "Not calibrated by themselves: nodule" in text
    assert "something else was not measured" in text and "research use only" in text.lower()


def test_a_checkpoint_without_a_run_has_none(tmp_path):
    assert run_of(Location.parse(str(tmp_path / "checkpoint"))) is None
    (tmp_path / "manifest.json").write_text("{}")
    assert run_of(Location.parse(str(tmp_path / "checkpoint"))) is None
