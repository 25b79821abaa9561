"""Limits of callers: any minute, and at a time."""

from __future__ import annotations

import pytest

from medfilip.core.errors import ErrorCode
from serve.keys import Caller
from serve.rates import CallerLimits, RateLimitedError

ONE, OTHER = Caller("one"), Caller("other", requests_per_minute=5, concurrent_requests=1)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_no_minute_holds_more_than_its_requests() -> None:
    clock = Clock()
    limits = CallerLimits(3, 10, clock=clock)
    for second in (0, 20, 40):
        clock.now = 100 + second
        with limits.request(ONE):
            pass
    clock.now = 150.5
    with pytest.raises(RateLimitedError, match="requests_per_minute = 3") as caught, limits.request(ONE):
        pass
    assert caught.value.code == ErrorCode.RATE_LIMITED and caught.value.retry_after_s == 10
    with limits.request(OTHER):
        pass
    clock.now = 160.0
    with limits.request(ONE):
        pass
    with pytest.raises(RateLimitedError) as caught, limits.request(ONE):
        pass
    assert caught.value.retry_after_s == 20, "the request of second 20 leaves the minute next"


def test_requests_at_a_time_are_given_back_whatever_happens() -> None:
    limits = CallerLimits(100, 2)
    with limits.request(ONE), limits.request(ONE):
        with pytest.raises(RateLimitedError, match="concurrent_requests = 2"), limits.request(ONE):
            pass
        with limits.request(OTHER), pytest.raises(RateLimitedError, match="= 1 "), limits.request(OTHER):
            pass
    with pytest.raises(ZeroDivisionError), limits.request(ONE), limits.request(ONE):
        raise ZeroDivisionError
    with limits.request(ONE), limits.request(ONE):
        pass
