"""What a model is asked beside the rules, and what counts as disagreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from medfilip.extraction.engine import SentenceResult, results_table
from medfilip.extraction.routing import disagreements, in_audit, unsettled
from medfilip.findings.finding import Finding
from medfilip.findings.ontology import load_ontology


def finding(category: str, certainty: str = "present", side: str | None = None) -> dict[str, Any]:
    return Finding.model_validate({"category": category, "certainty": certainty, "laterality": side}).to_row()


def test_a_doubt_and_nothing_else_leaves_a_sentence_unsettled() -> None:
    results = [SentenceResult([]), SentenceResult([finding("nodule")], doubts=("long_sentence",)), SentenceResult([])]
    table = results_table(pa.chunked_array([pa.array([1, 2, 3], pa.int64())]), "lexicon", results)
    assert unsettled(table).tolist() == [False, True, False]


def test_the_audit_sample_is_a_fair_draw_that_only_id_and_seed_decide() -> None:
    ids = np.random.default_rng(0).integers(-(1 << 63), 1 << 63, 50_000, dtype=np.int64)
    drawn = in_audit(ids, 0.02, seed=7)
    assert 0.017 < drawn.mean() < 0.023
    assert (in_audit(ids[::-1], 0.02, seed=7) == drawn[::-1]).all()
    assert in_audit(ids, 0.02, seed=8)[drawn].mean() < 0.1, "another seed, another sample"
    assert in_audit(ids, 0.05, seed=7)[drawn].all(), "a larger share holds the smaller"
    assert not in_audit(ids, 0.0, seed=7).any() and in_audit(ids, 1.0, seed=7).all()


@pytest.mark.parametrize(
    ("rules", "model", "kinds"),
    [
        ([], [], []),
        ([finding("nodule")], [finding("nodule")], []),
        ([finding("nodule")], [], ["category"]),
        ([], [finding("nodule", "uncertain")], ["category"]),
        ([finding("nodule", "absent")], [], []),
        ([finding("fracture")], [finding("rib_fracture")], []),
        ([finding("nodule")], [finding("edema")], ["category"]),
        ([finding("nodule")], [finding("nodule", "absent")], ["certainty"]),
        ([finding("nodule", "present", "left")], [finding("nodule", "present", "right")], ["side"]),
        ([finding("nodule", "present", "left")], [finding("nodule")], ["side"]),
        ([finding("nodule", "absent", "left")], [finding("nodule", "absent")], []),
        (
            [finding("edema"), finding("nodule", "present", "left")],
            [finding("nodule", "uncertain", "right")],
            ["category", "certainty", "side"],
        ),
    ],
)
def test_disagreement_has_a_kind(rules: list[dict[str, Any]], model: list[dict[str, Any]], kinds: list[str]) -> None:
    assert disagreements(rules, model, load_ontology()) == kinds
