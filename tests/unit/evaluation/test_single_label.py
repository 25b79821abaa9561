"""One label out of several: against scikit-learn, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from medfilip import ErrorCode, MedfilipError
from medfilip.evaluation.single_label import evaluate_single_label
from medfilip.model.diagnoser import Scores


def scores(positive, negative):
    labels = tuple("abcd"[: positive.shape[1]])
    return Scores(labels, np.full(positive.shape, 0.5), ("none",) * len(labels), positive, negative)


def test_the_numbers_are_scikit_learns():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    positive = np.eye(4)[truth] + rng.normal(scale=0.8, size=(90, 4))
    negative = rng.normal(size=(90, 4))
    found = evaluate_single_label(scores(positive, negative), truth, [str(i // 3) for i in range(90)], resamples=50)
    for result, score in ((found.pos, positive), (found.pnc, positive - negative)):
        answer = score.argmax(axis=1)
        assert result.accuracy.value == pytest.approx(accuracy_score(truth, answer))
        assert result.macro_f1.value == pytest.approx(f1_score(truth, answer, labels=[0, 1, 2], average="macro"))
        recall = confusion_matrix(truth, answer, labels=range(4)).diagonal()[:3] / np.bincount(truth)
        assert result.balanced_accuracy.value == pytest.approx(recall.mean())
        assert np.array(result.confusion).tolist() == confusion_matrix(truth, answer, labels=range(4)).tolist()
        assert result.accuracy.low < result.accuracy.value < result.accuracy.high
    assert found.missing == ("d",) and found.patients == 30 and found.chance == 0.25


def test_balanced_accuracy_without_missing_labels_is_scikit_learns():
    truth = np.array([0, 0, 0, 1])
    positive = np.array([[2.0, 1], [2, 1], [1, 2], [1, 2]])
    found = evaluate_single_label(scores(positive, 0 * positive), truth, list("wxyz"), resamples=5)
    assert found.pos.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(truth, [0, 0, 1, 1]))


@pytest.mark.parametrize("truth", [[0, 2], [0, -1], [0]])
def test_what_does_not_belong_together_is_refused(truth):
    with pytest.raises(MedfilipError) as caught:
        evaluate_single_label(scores(np.eye(2), np.eye(2)), np.array(truth), ["p", "q"])
    assert caught.value.code == ErrorCode.SCHEMA_MISMATCH
