"""Zero-shot numbers: POS and PNC apart, unknown left out, missing classes named."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip import ErrorCode, MedfilipError
from medfilip.evaluation.zero_shot import evaluate_zero_shot
from medfilip.model.diagnoser import Scores


def scores(positive, negative):
    positive, negative = np.array(positive, float), np.array(negative, float)
    labels = tuple(f"label {i}" for i in range(positive.shape[1]))
    probability = 1 / (1 + np.exp(negative - positive))
    return Scores(labels, probability, ("none",) * len(labels), positive, negative)


def test_pos_and_pnc_are_told_apart():
    # the positive prompt ranks perfectly, but the negated prompt rises even faster: PNC is inverted
    found = evaluate_zero_shot(
        scores([[1.0], [2], [3], [4]], [[0.0], [2], [4], [6]]),
        np.array([[0], [0], [1], [1]]),
        list("abcd"),
        resamples=20,
    )
    assert found.labels[0].metrics["pos_auroc"].value == 1
    assert found.labels[0].metrics["pnc_auroc"].value == 0


def test_unknown_images_do_not_count():
    truth = np.array([[0], [1], [-1], [-1]])
    found = evaluate_zero_shot(scores([[0.0], [1], [9], [-9]], [[0.0]] * 4), truth, list("abcd"), resamples=5).labels[0]
    assert (found.positives, found.negatives, found.unknown) == (1, 1, 2)
    assert found.metrics["pos_auroc"].value == 1


def test_a_label_without_positives_is_named_and_in_no_mean():
    truth = np.array([[0, 0], [1, 0], [0, 0], [1, 0]])
    found = evaluate_zero_shot(scores(np.eye(4)[:, :2], np.zeros((4, 2))), truth, list("abcd"), resamples=5)
    assert found.skipped == ("label 1",)
    assert found.labels[1].skipped == "no positive images"
    assert not found.labels[1].metrics and not found.labels[1].curve
    assert found.macro["pnc_auroc"].value == found.labels[0].metrics["pnc_auroc"].value


def test_macro_is_the_plain_mean_and_lies_in_its_interval():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (80, 3))
    found = evaluate_zero_shot(
        scores(truth + rng.normal(size=(80, 3)), np.zeros((80, 3))),
        truth,
        [str(i // 2) for i in range(80)],
        resamples=100,
    )
    mean = np.mean([item.metrics["pnc_auroc"].value for item in found.labels])
    assert found.macro["pnc_auroc"].value == pytest.approx(mean)
    assert found.macro["pnc_auroc"].low < mean < found.macro["pnc_auroc"].high
    assert found.patients == 40


def test_the_threshold_that_is_given_is_used():
    given = scores([[0.0], [1], [2], [3]], [[0.0]] * 4)
    truth = np.array([[0], [0], [1], [1]])
    low = evaluate_zero_shot(given, truth, list("abcd"), resamples=5).labels[0]
    high = evaluate_zero_shot(given, truth, list("abcd"), thresholds={"label 0": 0.85}, resamples=5).labels[0]
    assert (low.threshold, high.threshold) == (0.5, 0.85)
    assert low.metrics["f1"].value == pytest.approx(2 / 3) and high.metrics["f1"].value == pytest.approx(1)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(MedfilipError) as caught:
        evaluate_zero_shot(scores([[1.0]], [[0.0]]), np.array([[1, 0]]), ["a"])
    assert caught.value.code == ErrorCode.SCHEMA_MISMATCH
