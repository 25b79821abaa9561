"""Metrics of one class and patient-wise intervals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, matthews_corrcoef, recall_score, roc_auc_score
from torchmetrics.functional.classification import binary_calibration_error

from medfilip import ErrorCode, MedfilipError
from medfilip.evaluation.metrics import (
    auprc,
    auprcs,
    auroc,
    aurocs,
    best_threshold,
    calibration_error_by_chance,
    calibration_errors,
    decisions,
    each_once,
    f1,
    interval,
    patient_resamples,
    resample_weights,
    weighted_means,
)


def test_values_by_hand():
    truth, score = np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.35, 0.8])
    assert auroc(truth, score) == pytest.approx(0.75)
    assert auprc(truth, score) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert f1(truth, score, 0.35) == pytest.approx(0.8)
    assert best_threshold(truth, score) == pytest.approx(0.35)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), distinct=st.integers(1, 12))
def test_the_formulas_are_scikit_learns_ties_included(seed, distinct):
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], rng.integers(0, 2, 20)])
    score = rng.integers(0, distinct, 22) / 4
    assert auroc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert auprc(truth, score) == pytest.approx(average_precision_score(truth, score))
    assert f1(truth, score, 1.0) == pytest.approx(f1_score(truth, score >= 1.0, zero_division=0.0))


@pytest.mark.parametrize("truth", [np.zeros(3, int), np.ones(3, int), np.array([], int)])
def test_one_class_alone_has_no_number(truth):
    score = np.arange(len(truth), dtype=float)
    assert auroc(truth, score) is None
    assert auprc(truth, score) is None
    assert f1(truth, score, 0.5) is None
    assert best_threshold(truth, score) is None


def test_patients_are_resampled_whole():
    patients = ["a", "b", "a", "c", "b", "a"]
    samples = patient_resamples(patients, 50, seed=3)
    for sample in samples:
        counts = np.bincount(sample, minlength=6)
        assert counts[0] == counts[2] == counts[5] and counts[1] == counts[4]
        assert counts[0] + counts[1] + counts[3] == 3
    again = patient_resamples(patients, 50, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(samples, again, strict=True))


def test_repeating_images_of_a_patient_does_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    truth, score = rng.integers(0, 2, 60), rng.normal(size=60)

    def width(times):
        t, s = np.repeat(truth, times), np.repeat(score, times)
        patients = [str(i) for i in np.repeat(np.arange(60), times)]
        found = interval(lambda rows: auroc(t[rows], s[rows]), len(t), patient_resamples(patients, 200))
        return found.high - found.low

    assert width(4) == pytest.approx(width(1), rel=1e-9)


def test_the_interval_covers_the_true_value_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(60):
        truth = np.repeat([0, 1], 40)
        score = rng.normal(size=80) + truth  # AUROC of two unit normals one apart: Phi(1 / sqrt 2) = .7602
        samples = patient_resamples([str(i) for i in range(80)], 100, seed=int(rng.integers(1 << 30)))
        found = interval(lambda rows, t=truth, s=score: auroc(t[rows], s[rows]), 80, samples)
        covered += found.low <= 0.7602 <= found.high
    assert covered >= 50


def test_a_rare_class_gets_a_value_without_bounds():
    truth = np.array([1] + [0] * 9)
    samples = patient_resamples([str(i) for i in range(10)], 100)
    found = interval(lambda rows: auroc(truth[rows], np.arange(10.0)[rows]), 10, samples)
    assert found.value == 0 and found.low is None and found.high is None


def test_nothing_to_evaluate():
    with pytest.raises(MedfilipError) as caught:
        patient_resamples([], 10)
    assert caught.value.code == ErrorCode.NOT_ENOUGH_DATA


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1 << 30), distinct=st.integers(1, 12))
def test_all_resamples_at_once_are_each_of_them(seed, distinct):
    rng = np.random.default_rng(seed)
    truth, score = rng.integers(0, 2, 22), rng.integers(0, distinct, 22) / distinct
    patients = [str(i) for i in rng.integers(0, 9, 22)]
    rows = [np.arange(22), *patient_resamples(patients, 7, seed=seed)]
    weights = resample_weights(patients, 7, seed=seed)
    counts = decisions(truth, score >= 0.5, weights)
    together = (aurocs(truth, score, weights), auprcs(truth, score, weights), counts.f1, counts.mcc)
    for at, drawn in enumerate(rows):
        t, s = truth[drawn], score[drawn]
        if 0 < t.sum() < len(t):
            alone = (
                roc_auc_score(t, s),
                average_precision_score(t, s),
                f1_score(t, s >= 0.5, zero_division=0.0),
                matthews_corrcoef(t, s >= 0.5),
            )
            assert [found[at] for found in together] == pytest.approx(alone)
            assert counts.sensitivity[at] == pytest.approx(recall_score(t, s >= 0.5))
            assert counts.specificity[at] == pytest.approx(recall_score(1 - t, s < 0.5))
        else:
            assert all(np.isnan(found[at]) for found in together)


def test_the_calibration_error_is_that_of_torchmetrics():
    rng = np.random.default_rng(2)
    truth, probability = rng.integers(0, 2, 500), rng.random(500)
    reference = binary_calibration_error(torch.tensor(probability), torch.tensor(truth), n_bins=15, norm="l1")
    assert calibration_errors(truth, probability, each_once(500))[0] == pytest.approx(float(reference), abs=1e-6)


def test_the_best_threshold_is_the_best_of_all():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, 60)
    score = np.round(rng.normal(size=60) + truth, 1)
    best = best_threshold(truth, score)
    assert f1(truth, score, best) == max(f1(truth, score, value) for value in np.unique(score))


def test_means_leave_out_what_is_not_known():
    weights = np.array([[1, 1, 1], [2, 0, 1]], np.uint16)
    assert weighted_means(weights, np.array([1.0, np.nan, 0.0])).tolist() == [0.5, pytest.approx(2 / 3)]


def test_right_probabilities_have_the_calibration_error_of_chance():
    rng = np.random.default_rng(4)
    probability = rng.random(400) ** 2
    by_chance = calibration_error_by_chance(probability)
    right = [
        calibration_errors((rng.random(400) < probability).astype(int), probability, each_once(400))[0]
        for _ in range(50)
    ]
    assert by_chance == pytest.approx(np.mean(right), rel=0.1) and by_chance > 0.02
    assert calibration_error_by_chance(np.repeat(probability, 100)) < by_chance / 5
    wrong = calibration_errors((rng.random(400) < probability**3).astype(int), probability, each_once(400))[0]
    assert wrong > 2 * by_chance
