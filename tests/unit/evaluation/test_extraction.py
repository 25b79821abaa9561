"""Extraction numbers: pairing, slots, categories and intervals over reports."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.evaluation.extraction import evaluate_extraction, pair_mentions


def row(category, certainty="present", report="r1", **slots):
    return {"report_id": report, "category": category, "certainty": certainty, **slots}


def run(predicted, truth, reports=("r1",), **options):
    return evaluate_extraction(predicted, truth, reports, resamples=options.pop("resamples", 50), **options)


def test_perfect_agreement_is_one_everywhere():
    rows = [row("nodule", severity="mild", laterality="left", sites=["lung_apex"], change="new"), row("mass", "absent")]
    found = run(rows, rows)
    assert all(item.f1.value == item.precision.value == item.recall.value == 1 for item in found.slots.values())
    assert all(item.f1.value == 1 for item in found.categories.values())


def test_counts_by_hand():
    truth = [
        row("nodule", severity="mild", sites=["lung_apex", "upper_lobe"]),
        row("mass", "absent"),
        row("edema"),
    ]
    predicted = [
        row("nodule", severity="severe", laterality="left", sites=["lung_apex"]),
        row("mass"),
        row("fracture"),
        row("scarring"),
    ]
    slots = run(predicted, truth).slots
    assert (slots["mention"].right, slots["mention"].predicted, slots["mention"].true) == (2, 4, 3)
    assert slots["mention"].f1.value == pytest.approx(4 / 7)
    assert slots["certainty"].right == 1
    assert (slots["severity"].right, slots["severity"].predicted, slots["severity"].true) == (0, 1, 1)
    assert slots["laterality"].recall is None and slots["laterality"].precision.value == 0
    assert slots["sites"].precision.value == 1 and slots["sites"].recall.value == 0.5
    assert slots["exact"].right == 0


def test_a_wrong_certainty_costs_the_category():
    found = run([row("mass")], [row("mass", "absent")])
    assert found.slots["mention"].f1.value == 1
    assert found.categories["mass"].f1.value == 0


def test_pairs_prefer_agreement_and_use_each_mention_once():
    left, right = row("nodule", laterality="left"), row("nodule", laterality="right")
    assert pair_mentions([right, left], [left, right]) == [(right, right), (left, left)]
    assert len(pair_mentions([left, left], [left])) == 1
    assert pair_mentions([left], [row("mass", laterality="left")]) == []


def test_a_missing_slot_equals_none_and_empty():
    found = run([row("mass", severity=None, sites=[])], [row("mass")])
    assert found.slots["exact"].f1.value == 1


def test_intervals_resample_reports():
    reports = [f"r{i}" for i in range(100)]
    truth = [row("mass", report=name) for name in reports]
    found = run(truth[:80], truth, reports, resamples=500).slots["mention"]
    assert found.recall.value == pytest.approx(0.8)
    spread = 1.96 * np.sqrt(0.8 * 0.2 / 100)
    assert found.recall.low == pytest.approx(0.8 - spread, abs=0.03)
    assert found.recall.high == pytest.approx(0.8 + spread, abs=0.03)
    assert run(truth[:80], truth, reports, resamples=500).slots["mention"] == found


@pytest.mark.parametrize(("reports", "code"), [((), ErrorCode.NOT_ENOUGH_DATA), (("r2",), ErrorCode.SCHEMA_MISMATCH)])
def test_reports_must_be_there(reports, code):
    with pytest.raises(MedfilipError) as caught:
        run([row("mass")], [], reports)
    assert caught.value.code == code
