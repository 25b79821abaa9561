"""Risk against coverage: by hand, and what a useless and a perfect confidence mean."""

from __future__ import annotations

import numpy as np
import pytest

from medfilip.evaluation.metrics import each_once
from medfilip.evaluation.selective import risk_coverage
from medfilip.model.calibration import confidence_of


def test_by_hand():
    wrong, confidence = np.array([False, True, False, True]), np.array([4.0, 3.0, 2.0, 1.0])
    area, risk = risk_coverage(wrong, confidence, each_once(4), coverage=0.5)
    assert area[0] == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert risk[0] == pytest.approx(1 / 2)


def test_a_resample_is_the_images_it_repeats():
    rng = np.random.default_rng(0)
    wrong, confidence = rng.random(30) < 0.3, rng.permutation(30).astype(float)
    weights = rng.integers(0, 3, (1, 30)).astype(np.uint16)
    rows = np.repeat(np.arange(30), weights[0])
    alone = risk_coverage(wrong[rows], confidence[rows], each_once(len(rows)))
    # images that a resample repeats are answered together, so only the area within them may differ a little
    assert risk_coverage(wrong, confidence, weights)[0][0] == pytest.approx(alone[0][0], abs=0.02)


def test_abstaining_helps_only_if_what_is_wrong_is_unsure():
    wrong = np.arange(100) >= 90
    sure_of_right, sure_of_wrong = np.arange(100)[::-1].astype(float), np.arange(100).astype(float)
    assert risk_coverage(wrong, sure_of_right, each_once(100))[1][0] == 0
    assert risk_coverage(wrong, sure_of_wrong, each_once(100))[1][0] == pytest.approx(10 / 90)


def test_confidence_grows_away_from_the_threshold():
    found = confidence_of(np.array([0.3, 0.31, 0.05, 0.9, 0.0, 1.0]), 0.3)
    assert found[0] == pytest.approx(0) and found[1] < found[2] < found[3] < found[4]
    assert np.isfinite(found).all()
