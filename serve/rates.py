"""How much one caller may ask for: requests in any minute, and requests at a time.

Counted in each gateway by itself: an endpoint with two of them lets a caller have up to twice as much.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.keys import Caller

_MINUTE_S = 60.0


@dataclass
class _Use:
    begun: deque[float] = field(default_factory=deque)
    running: int = 0


class CallerLimits:
    """Counts the requests of callers.

    Parameters
    ----------
    requests_per_minute, concurrent_requests
        Of callers without limits of their own.
    clock
        Seconds that only rise.
    """

    def __init__(
        self, requests_per_minute: int, concurrent_requests: int, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute, self._at_a_time, self._clock = requests_per_minute, concurrent_requests, clock
        self._uses: dict[str, _Use] = {}

    @contextmanager
    def request(self, caller: Caller) -> Iterator[None]:
        """Count a request while it runs.

        Raises
        ------
        MedfilipError
            ``RATE_LIMITED``, with the seconds after which it would be taken as ``retry_after_s``.
        """
        use = self._uses.setdefault(caller.name, _Use())
        now = self._clock()
        while use.begun and use.begun[0] <= now - _MINUTE_S:
            use.begun.popleft()
        at_a_time = caller.concurrent_requests or self._at_a_time
        if use.running >= at_a_time:
            raise RateLimitedError(f"concurrent_requests = {at_a_time} requests at a time", 1)
        per_minute = caller.requests_per_minute or self._per_minute
        if len(use.begun) >= per_minute:
            wait_s = use.begun[0] + _MINUTE_S - now
            raise RateLimitedError(f"requests_per_minute = {per_minute} requests in a minute", math.ceil(wait_s))
        use.begun.append(now)
        use.running += 1
        try:
            yield
        finally:
            use.running -= 1


class RateLimitedError(MedfilipError):
    """A caller has used what it may.

    Attributes
    ----------
    retry_after_s
        Seconds after which the request would be taken.
    """

    def __init__(self, limit: str, retry_after_s: int) -> None:
        super().__init__(
            ErrorCode.RATE_LIMITED,
            f"This API key may have {limit}, and has them.",
            fix="Send the request again after the seconds in Retry-After.",
        )
        self.retry_after_s = max(1, retry_after_s)
