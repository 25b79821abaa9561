"""Calibration: it recovers known curves, refuses inverted ones, and says what stands behind a number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from medfilip.model.calibration import Calibration, Platt, fit_calibration


def sample(slope, intercept, n=4000, seed=0):
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=n) * 2
    return margin, (rng.random(n) < expit(slope * margin + intercept)).astype(np.int64)


def test_a_known_curve_is_recovered():
    margin, truth = sample(1.5, -0.7)
    curve = fit_calibration({"mass": margin}, {"mass": truth}).categories["mass"]
    assert curve.slope == pytest.approx(1.5, abs=0.15)
    assert curve.intercept == pytest.approx(-0.7, abs=0.15)
    assert curve.positives == truth.sum()


def test_probabilities_match_frequencies():
    margin, truth = sample(0.5, 1.0)
    probability, basis = fit_calibration({"mass": margin}, {"mass": truth}).apply(margin, "mass")
    assert basis == "category"
    for low in np.arange(0.2, 0.9, 0.2):
        bin_ = (probability >= low) & (probability < low + 0.2)
        assert truth[bin_].mean() == pytest.approx(probability[bin_].mean(), abs=0.06)


def test_separated_classes_keep_a_finite_curve():
    margin = np.concatenate([np.full(20, -1.0), np.full(20, 1.0)])
    curve = fit_calibration({"mass": margin}, {"mass": (margin > 0).astype(np.int64)}).categories["mass"]
    assert 0.9 < expit(curve.slope + curve.intercept) < 0.99


def test_unknown_rare_and_inverted_categories_get_no_curve_of_their_own():
    margin, truth = sample(1.0, 0.0, n=400)
    rare = np.where(np.arange(400) < 5, 1, 0)
    unknown = np.where(np.arange(400) < 390, -1, truth)
    margins = {"good": margin, "inverted": -margin, "rare": margin, "unknown": margin}
    truths = {"good": truth, "inverted": truth, "rare": rare, "unknown": unknown}
    assert set(fit_calibration(margins, truths).categories) == {"good"}


def test_without_its_own_curve_a_label_uses_the_overall_one_or_says_none():
    curve = Platt(slope=2, intercept=1, positives=9, negatives=9)
    margin = np.array([-1.0, 0.0, 3.0])
    both = Calibration(categories={"mass": curve}, overall=Platt(slope=1, intercept=0, positives=9, negatives=9))
    assert both.apply(margin, "mass")[1] == "category"
    for category in (None, "nodule"):
        probability, basis = both.apply(margin, category)
        assert basis == "overall"
        np.testing.assert_allclose(probability, expit(margin))
    probability, basis = Calibration().apply(margin, "mass")
    assert basis == "none"
    np.testing.assert_allclose(probability, expit(margin / 2))
    assert fit_calibration({}, {}) == Calibration()
