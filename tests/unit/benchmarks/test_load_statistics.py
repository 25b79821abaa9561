"""What a load test says of requests: shares, percentiles, and what a kill cost."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.benchmarks.load_statistics import Request, after_a_kill, arrivals, percentile, summary


def test_arrivals_are_random_ordered_and_as_many_as_asked_for() -> None:
    times = arrivals(50, 20, seed=1)
    assert times == sorted(times) and times[0] > 0 and times[-1] < 20
    assert len(times) == pytest.approx(1000, abs=4 * 1000**0.5)
    assert times == arrivals(50, 20, seed=1) != arrivals(50, 20, seed=2)
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation / mean == pytest.approx(1, abs=0.15), "as a Poisson process has it"


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([3.0], 0.99, 3.0),
        ([4, 1, 3, 2], 0.5, 2),
        ([4, 1, 3, 2], 0.51, 3),
        (range(1, 101), 0.99, 99),
        (range(1, 102), 0.99, 100),
        ([1, 2], 0.0, 1),
        ([1, 2], 1.0, 2),
    ],
)
def test_a_percentile_is_the_least_value_that_enough_do_not_exceed(values, share, expected) -> None:
    assert percentile(list(values), share) == expected


def test_a_summary_counts_every_request_once() -> None:
    requests = [
        Request(0.0, 0.1, 200), Request(1.0, 1.3, 200), Request(2.0, 2.02, 503), Request(2.5, 2.51, 429),
        Request(3.0, 3.5, 500), Request(4.0, 64.0, None),
    ]  # fmt: skip
    told = summary(requests, seconds=4.0)
    assert told["requests"] == 6 == told["answered"] + 2 + 1 + told["lost"]
    assert told["refused"] == {"429": 1, "503": 1} and told["errors"] == {"500": 1} and told["lost"] == 1
    assert (told["answered_per_s"], told["p50_ms"], told["p99_ms"]) == (0.5, 100.0, 300.0)
    assert told["refused_p99_ms"] == 20.0
    assert summary([], 1.0)["p50_ms"] is None


def test_the_wait_counts_from_when_a_request_was_due() -> None:
    assert Request(due=1.0, ended=3.0, status=200).latency == 2.0


def test_what_a_kill_cost() -> None:
    requests = [
        Request(0.0, 1.0, 503),  # failed and ended before the kill: nothing to do with it
        Request(4.9, 5.2, 503),  # on its way
        Request(4.8, 5.4, 200),  # on its way, and answered
        Request(5.5, 5.6, 503),  # sent afterwards
        Request(6.0, 6.1, 200),
        Request(7.5, 9.0, None),
        Request(8.0, 8.1, 200),
    ]
    assert after_a_kill(requests, killed=5.0) == {
        "in_flight": 2, "failed": 3, "failed_in_flight": 1, "failed_beyond_in_flight": 2, "recovery_s": 2.5,
    }  # fmt: skip
    assert after_a_kill(requests[:3], killed=5.0)["recovery_s"] == 0
