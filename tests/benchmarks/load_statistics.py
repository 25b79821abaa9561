"""What is said of the requests of a load test: pure functions of when each was due, sent and answered, and how."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

OK = 200
REFUSED = frozenset({429, 503})
"""Answers of an endpoint that has no room: honest, if they come at once."""


class Request(NamedTuple):
    """One request; times in seconds since its phase began.

    Attributes
    ----------
    due
        When it should have been sent; a generator that falls behind does not make an endpoint look faster.
    ended
        When its answer, or the news that there will be none, was there.
    status
        HTTP status; ``None`` if no answer came.
    """

    due: float
    ended: float
    status: int | None

    @property
    def latency(self) -> float:
        """Seconds that whoever sent it waited."""
        return self.ended - self.due


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """Return the times of a Poisson process of ``rate`` per second within ``seconds``."""
    dice = random.Random(seed)
    times, now = [], dice.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += dice.expovariate(rate)
    return times


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of all do not exceed; ``None`` of none."""
    if not values:
        return None
    rank = max(1, -(-len(values) * round(share * 1000) // 1000))
    return sorted(values)[rank - 1]


def summary(requests: Sequence[Request], seconds: float) -> dict[str, Any]:
    """Return counts by kind of answer, answers per second, and percentiles of the wait in milliseconds."""
    statuses = Counter(request.status for request in requests)
    answered = [request.latency for request in requests if request.status == OK]
    refused = [request.latency for request in requests if request.status in REFUSED]
    return {
        "requests": len(requests),
        "answered": statuses[OK],
        "refused": {str(status): statuses[status] for status in sorted(REFUSED) if statuses[status]},
        "errors": {str(s): n for s, n in statuses.items() if s is not None and s != OK and s not in REFUSED},
        "lost": statuses[None],
        "answered_per_s": statuses[OK] / seconds,
        "p50_ms": _ms(percentile(answered, 0.5)),
        "p99_ms": _ms(percentile(answered, 0.99)),
        "refused_p99_ms": _ms(percentile(refused, 0.99)),
    }


def after_a_kill(requests: Sequence[Request], killed: float) -> dict[str, Any]:
    """Return what a kill at ``killed`` cost: failures, those beyond what was on its way, and how long they went on.

    A request fails if it is answered with anything but 200.
    """
    failed = [request for request in requests if request.status != OK and request.ended >= killed]
    in_flight = [request for request in requests if request.due < killed <= request.ended]
    later = [request for request in failed if request.due >= killed]
    return {
        "in_flight": len(in_flight),
        "failed": len(failed),
        "failed_in_flight": len(failed) - len(later),
        "failed_beyond_in_flight": len(later),
        # From then on every request that was sent was answered.
        "recovery_s": max((request.due for request in later), default=killed) - killed,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(1000 * seconds, 2)
