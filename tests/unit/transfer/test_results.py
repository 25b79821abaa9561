"""Numbers of a row: means over seeds, intervals over patients, differences on the same patients."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from medfilip.evaluation.metrics import interval, patient_resamples
from medfilip.transfer.results import Ranking, dice_statistic, difference, remembered

RNG = np.random.default_rng(0)
TRUTH = (RNG.random((60, 3)) < 0.4).astype(np.int64)
TRUTH[:, 2] = 0
TRUTH[:5, 0] = -1
SCORES = RNG.normal(size=(2, 60, 3)) + TRUTH
EVERYTHING = np.arange(60)
SAMPLES = patient_resamples([f"p{at // 2}" for at in range(60)], 40)


def test_the_mean_over_seeds_and_labels_with_both_classes():
    expected = np.mean(
        [roc_auc_score(TRUTH[5:, 0], run[5:, 0]) for run in SCORES]
        + [roc_auc_score(TRUTH[:, 1], run[:, 1]) for run in SCORES]
    )
    assert Ranking(TRUTH, SCORES).macro(EVERYTHING) == pytest.approx(expected)
    assert Ranking(TRUTH[:, 2:], SCORES[:, :, 2:]).macro(EVERYTHING) is None


def test_labels_one_by_one():
    rows = Ranking(TRUTH, SCORES).label_rows(["a", "b", "c"], SAMPLES)
    assert [(row.label, row.positives + row.negatives, row.unknown) for row in rows] == [
        ("a", 55, 5), ("b", 60, 0), ("c", 60, 0),
    ]  # fmt: skip
    assert rows[0].auroc.value == pytest.approx(np.mean([roc_auc_score(TRUTH[5:, 0], run[5:, 0]) for run in SCORES]))
    expected = np.mean([average_precision_score(TRUTH[:, 1], run[:, 1]) for run in SCORES])
    assert rows[1].auprc.value == pytest.approx(expected)
    assert rows[1].auroc.low < rows[1].auroc.value < rows[1].auroc.high
    assert rows[2].auroc is None and rows[2].auprc is None


def test_a_difference_is_paired():
    one = Ranking(TRUTH, SCORES).macro
    assert difference(one, one)(EVERYTHING) == 0
    same = interval(difference(one, Ranking(TRUTH, SCORES).macro), 60, SAMPLES)
    assert (same.low, same.high) == (0, 0), "equal on every resample, whoever is in it"
    worse = Ranking(TRUTH, SCORES - 0.5 * TRUTH).macro
    assert interval(difference(one, worse), 60, SAMPLES).low > 0
    assert difference(one, lambda _: None)(EVERYTHING) is None


def test_dice_with_and_without_empty_masks():
    dice = np.array([[1.0, 0.0, 0.5, 0.9], [1.0, 1.0, 0.7, 0.9]])
    lesion = np.array([False, False, True, True])
    assert dice_statistic(dice, np.ones(4, bool))(np.arange(4)) == pytest.approx(0.75)
    assert dice_statistic(dice, lesion)(np.arange(4)) == pytest.approx(0.75)
    assert dice_statistic(dice, lesion)(np.array([0, 1, 2])) == pytest.approx(0.6)
    assert dice_statistic(dice, lesion)(np.array([0, 1])) is None


def test_the_same_rows_are_computed_once():
    asked = []
    statistic = remembered(lambda rows: asked.append(len(rows)) or float(rows.sum()))
    assert statistic(np.arange(4)) == statistic(np.arange(4)) == 6.0
    assert statistic(np.array([3, 2, 1, 0])) == 6.0 and statistic(np.arange(3)) == 3.0
    assert asked == [4, 4, 3]
