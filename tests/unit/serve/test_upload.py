"""Bodies: read up to a limit, and only at some pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from starlette.requests import Request

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.settings import ServeSettings
from serve.upload import read_body


def read(messages: Callable[[], AsyncIterator[dict[str, object]]], **limits: float) -> bytes:
    """Read what comes, within limits that pydantic would not take either."""

    async def reading() -> bytes:
        source = messages()
        request = Request({"type": "http", "headers": []}, lambda: anext(source))  # type: ignore[arg-type, return-value]
        return await read_body(request, ServeSettings().model_copy(update=limits))

    return asyncio.run(reading())


def test_an_endless_body_is_read_up_to_its_limit() -> None:
    taken = 0

    async def endless() -> AsyncIterator[dict[str, object]]:
        nonlocal taken
        while True:
            taken += 1000
            yield {"type": "http.request", "body": bytes(1000), "more_body": True}

    with pytest.raises(MedfilipError, match="max_body_bytes = 4500"):
        read(endless, max_body_bytes=4500)
    assert taken == 5000


def test_a_body_of_exactly_the_limit_is_read() -> None:
    async def parts() -> AsyncIterator[dict[str, object]]:
        yield {"type": "http.request", "body": b"ab", "more_body": True}
        yield {"type": "http.request", "body": b"cd", "more_body": False}

    assert read(parts, max_body_bytes=4) == b"abcd"


@pytest.mark.parametrize("pause_s", [0.02, 3600.0])
def test_a_body_that_trickles_or_stops_is_given_up(pause_s: float) -> None:
    async def trickle() -> AsyncIterator[dict[str, object]]:
        while True:
            yield {"type": "http.request", "body": b"x", "more_body": True}
            await asyncio.sleep(pause_s)

    with pytest.raises(MedfilipError, match="min_upload_bytes_per_s = 1000") as caught:
        read(trickle, upload_grace_s=0.2, min_upload_bytes_per_s=1000)
    assert caught.value.code == ErrorCode.UPLOAD_TIMEOUT


def test_what_keeps_the_pace_may_take_longer_than_the_grace_but_not_for_ever() -> None:
    sent = 0

    async def steady() -> AsyncIterator[dict[str, object]]:
        nonlocal sent
        while True:
            sent += 100
            yield {"type": "http.request", "body": bytes(100), "more_body": True}
            await asyncio.sleep(0.01)

    with pytest.raises(MedfilipError, match=r"upload_timeout_s = 0\.5"):
        read(steady, upload_grace_s=0.1, min_upload_bytes_per_s=500, upload_timeout_s=0.5)
    assert sent > 100 + 0.1 * 500, "it went on after the grace"
