"""Calibration: it recovers known curves, refuses inverted ones, and says what stands behind a number."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import f1_score, recall_score

from medfilip.model.calibration import (
    Calibration,
    Isotonic,
    Platt,
    Temperature,
    confidence_of,
    fit_calibration,
    operating_point,
)


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


def bent(n=3000, seed=4):
    """Margins whose log odds are not linear in them, which no sigmoid fits."""
    rng = np.random.default_rng(seed)
    margin = rng.normal(size=n) * 2
    return margin, (rng.random(n) < np.where(margin > 0, 0.9, 0.2)).astype(np.int64)


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic", "auto"])
def test_every_method_is_calibrated_where_its_form_fits(method):
    margin, truth = bent() if method == "isotonic" else sample(1 / 6, 0.0)
    curve = fit_calibration({"mass": margin}, {"mass": truth}, method=method).categories["mass"]
    new_margin, new_truth = bent(seed=5) if method == "isotonic" else sample(1 / 6, 0.0, seed=5)
    probability = curve.probability(new_margin)
    for low in np.arange(0, 1, 0.25):
        rows = (probability >= low) & (probability < low + 0.25)
        if rows.sum() > 200:
            assert new_truth[rows].mean() == pytest.approx(probability[rows].mean(), abs=0.05)
    assert probability.min() > 0 and probability.max() < 1


def test_a_temperature_is_recovered():
    margin, truth = sample(1 / 6, 0.0, n=20_000)
    curve = fit_calibration({"mass": margin}, {"mass": truth}, method="temperature").categories["mass"]
    assert isinstance(curve, Temperature) and curve.temperature == pytest.approx(3, rel=0.1)


def test_auto_takes_what_fits_and_isotonic_needs_images():
    margin, truth = bent()
    assert isinstance(fit_calibration({"a": margin}, {"a": truth}, method="auto").categories["a"], Isotonic)
    few = fit_calibration({"a": margin[:60]}, {"a": truth[:60]}, method="isotonic").categories["a"]
    assert isinstance(few, Platt)
    assert fit_calibration({"a": -margin}, {"a": truth}, method="auto").categories == {}


def test_operating_points_follow_their_rule():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 300)
    score = expit(rng.normal(size=300) + 1.5 * truth)
    thresholds = np.unique(score)
    for rule in ("f1", "youden", "sensitivity"):
        point = operating_point(score, truth, rule, sensitivity=0.95)
        called = score >= point.threshold
        assert point.sensitivity == pytest.approx(recall_score(truth, called))
        assert point.specificity == pytest.approx(recall_score(1 - truth, ~called))
        if rule == "f1":
            assert f1_score(truth, called) == pytest.approx(max(f1_score(truth, score >= t) for t in thresholds))
        if rule == "sensitivity":
            assert point.sensitivity >= 0.95
            assert recall_score(truth, score >= thresholds[thresholds > point.threshold][1]) < 0.95 + 0.01


def test_what_is_written_is_read_again_with_its_kind():
    margin, truth = bent()
    curves = {m: fit_calibration({"a": margin}, {"a": truth}, method=m) for m in ("platt", "temperature", "isotonic")}
    for found in curves.values():
        again = Calibration.model_validate_json(found.model_dump_json())
        assert again == found and type(again.categories["a"]) is type(found.categories["a"])
        assert again.operating_points["a"].positives == truth.sum()


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_intervals_hold_what_they_promise(method):
    rng = np.random.default_rng(0)
    asked, inside = np.array([-2.0, 0.0, 1.5]), []
    for _ in range(200):
        margins = rng.normal(0, 2, 300)
        # What a temperature can say is among what Platt's curve can: half the margin, tempered.
        truth = (rng.random(300) < expit(margins / (2 * 0.8))).astype(np.int64)
        calibration = fit_calibration({"mass": margins}, {"mass": truth}, method=method)
        low, high = calibration.interval(asked, "mass")
        assert np.all(low <= calibration.apply(asked, "mass")[0]) and np.all(
            calibration.apply(asked, "mass")[0] <= high
        )
        right = expit(asked / (2 * 0.8))
        inside.append((low <= right) & (right <= high))
    assert np.all(np.abs(np.mean(inside, axis=0)[[0, 2]] - 0.95) < 0.04)


def test_nine_tenths_are_decided_by_every_rule():
    rng = np.random.default_rng(1)
    margins = rng.normal(0, 2, 400)
    truth = (rng.random(400) < expit(margins)).astype(np.int64)
    calibration = fit_calibration({"mass": margins}, {"mass": truth}, rule="youden")
    assert calibration.operating_point("mass") == calibration.operating_points["mass"]
    assert {calibration.operating_point("mass", rule).rule for rule in ("f1", "youden", "sensitivity")} == {
        "f1", "youden", "sensitivity",
    }  # fmt: skip
    probability, _ = calibration.apply(margins, "mass")
    for point in (calibration.operating_point("mass", rule) for rule in ("f1", "youden", "sensitivity")):
        decided = confidence_of(probability, point.threshold) >= point.undecided
        assert 0.9 <= decided.mean() < 0.91 and point.undecided > 0
    assert calibration.operating_point(None) is None and calibration.operating_point("nodule") is None
