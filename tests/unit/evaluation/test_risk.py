"""Risk and coverage: confident findings first, calibration by bins."""

from __future__ import annotations

import pytest

from medfilip.evaluation.risk import risk_coverage


def test_risk_grows_as_less_confident_findings_are_kept() -> None:
    result = risk_coverage([0.9, 0.8, 0.2, 0.1], [True, True, False, False])
    assert result is not None
    assert [risk for _, risk in result.curve] == pytest.approx([0, 0, 1 / 3, 1 / 2])
    assert result.curve[-1][0] == 1


def test_a_perfect_confidence_has_no_calibration_error() -> None:
    result = risk_coverage([1.0] * 20 + [0.0] * 20, [True] * 20 + [False] * 20)
    assert result is not None and result.calibration_error == 0
    wrong = risk_coverage([1.0] * 20, [False] * 20)
    assert wrong is not None and wrong.calibration_error == 1


def test_without_findings_there_is_no_curve() -> None:
    assert risk_coverage([], []) is None
