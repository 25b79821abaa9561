"""Drift: none on what the reference holds, all of it on what it never saw."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from medfilip.answers import DiagnosedFinding
from serve.metrics import WINDOW, DriftMonitor, EndpointMetrics


def finding(probability: float, category: str = "mass") -> DiagnosedFinding:
    return DiagnosedFinding(
        label=category, category=category, probability=probability, calibrated=True, calibration="category",
        positive_score=0.0, negative_score=0.0,
    )  # fmt: skip


def test_the_distance_is_that_of_kolmogorov_and_smirnov() -> None:
    values = np.random.default_rng(0).beta(2, 1, 300)
    monitor = DriftMonitor({})
    told = {}
    for value in values:
        told = monitor.take([], float(value))
    assert told == {"embedding": pytest.approx(kstest(values, "uniform").statistic)}


def test_recent_answers_count_and_too_few_say_nothing() -> None:
    monitor = DriftMonitor({"mass": 0.2, "nodule": 0.5})
    for number in range(49):
        assert monitor.take([finding(0.2)], 0.5) == {}, number
    assert monitor.take([finding(0.2)], None) == {"score": pytest.approx(0.0)}
    for _ in range(WINDOW):
        told = monitor.take([finding(0.9), finding(0.4, "edema")], 1.0)
    assert told == {"score": pytest.approx(0.7), "embedding": pytest.approx(1.0)}


def test_stages_are_timed_and_summed_without_ray() -> None:
    metrics, timings = EndpointMetrics(), dict[str, float]()
    for _ in range(2):
        with metrics.stage("decoder", timings):
            pass
    with pytest.raises(ZeroDivisionError), metrics.stage("encoder", timings):
        raise ZeroDivisionError
    assert set(timings) == {"decoder", "encoder"} and min(timings.values()) >= 0
