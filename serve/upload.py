"""The body of a request: in memory up to a limit, and only from callers who send it at some pace.

A request with images holds one of the few places of its gateway from its head on. Whoever sends a byte now and then
would keep it until ``upload_timeout_s``, so an upload that falls behind the least pace ends earlier.
"""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.settings import ServeSettings


async def read_body(request: Request, settings: ServeSettings) -> bytes:
    """Read a body, and give up at the first chunk that would exceed ``max_body_bytes``, or when it comes too slowly.

    At any moment ``upload_grace_s`` + received bytes / ``min_upload_bytes_per_s`` is the time it may have taken.

    Raises
    ------
    MedfilipError
        ``REQUEST_TOO_LARGE`` or ``UPLOAD_TIMEOUT``.
    """
    body, clock = bytearray(), asyncio.get_running_loop().time
    begun = clock()

    def due() -> float:
        paced_s = settings.upload_grace_s + len(body) / settings.min_upload_bytes_per_s
        return begun + min(settings.upload_timeout_s, paced_s)

    try:
        async with asyncio.timeout_at(due()) as until:
            async for chunk in request.stream():
                if len(body) + len(chunk) > settings.max_body_bytes:
                    raise too_large(settings.max_body_bytes)
                body += chunk
                until.reschedule(due())
    except TimeoutError as error:
        raise _too_slow(settings, clock() - begun) from error
    return bytes(body)


def too_large(limit: int) -> MedfilipError:
    """Return the refusal of a body larger than ``limit`` bytes."""
    return MedfilipError(
        ErrorCode.REQUEST_TOO_LARGE,
        f"The request is larger than max_body_bytes = {limit}.",
        fix="Send the images of one study per request, without other files.",
    )


def _too_slow(settings: ServeSettings, seconds: float) -> MedfilipError:
    message = f"The upload took longer than upload_timeout_s = {settings.upload_timeout_s:g} s."
    if seconds < settings.upload_timeout_s:
        message = f"The upload is slower than min_upload_bytes_per_s = {settings.min_upload_bytes_per_s}."
    return MedfilipError(ErrorCode.UPLOAD_TIMEOUT, message, fix="Send the image over a faster connection.")
