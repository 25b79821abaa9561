"""Bounds on the heads of requests, set in the HTTP proxies of Ray Serve: before any key, route or limit of ours.

Uvicorn waits for a head without end, and its parser appends whatever comes to what it has. Measured without this: one
connection that sent 274 MB of one header kept a proxy so busy copying that it failed its health check and was
replaced, together with every request in it; connections that send nothing live until the caller ends them.

Serve offers no setting for either. It does call a function of its user in each proxy before that listens
(``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.heads:bound_heads``, in the environment of every node).
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import uvicorn.protocols.http.auto
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from medfilip.answers import ErrorAnswer, ErrorBody
from medfilip.core.errors import ErrorCode

HEAD_TIMEOUT_S = 10.0
"""Longest wait for a head: from the opening of a connection, or from the first byte of a later request."""
MAX_HEAD_BYTES = 64 * 2**10
"""Of a head, beyond the piece in which it begins."""


class BoundedHeads(HttpToolsProtocol):
    """A connection whose heads must be short and come soon."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: asyncio.TimerHandle | None = None
        self._unfinished, self._went_on = 0, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take a piece; refuse what neither ends a head nor holds a piece of a body for too long (trailers too)."""
        self._went_on = False
        super().data_received(data)
        self._unfinished = 0 if self._went_on else self._unfinished + len(data)
        if self._unfinished > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(
                b"431 Request Header Fields Too Large",
                ErrorCode.REQUEST_TOO_LARGE,
                f"The head of the request is larger than {MAX_HEAD_BYTES} bytes.",
                "Send labels in a form instead of the address.",
            )

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Take a head."""
        self._went_on = True
        self._stop_waiting()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; how many and how fast is for the gateway to say."""
        self._went_on = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._went_on = True
        super().on_message_complete()

    def _wait(self) -> None:
        self._stop_waiting()
        self._waiting = self.loop.call_later(HEAD_TIMEOUT_S, self._too_late)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _too_late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(
                b"408 Request Timeout",
                ErrorCode.UPLOAD_TIMEOUT,
                f"The head of the request did not come within {HEAD_TIMEOUT_S:g} s.",
                "Send it at once.",
            )

    def _refuse(self, status: bytes, code: ErrorCode, message: str, fix: str) -> None:
        """Answer in the shape of every other error, unless another answer is on its way, and close."""
        if self.cycle is None or self.cycle.response_complete:
            told = ErrorBody(code=code, message=message, fix=fix, request_id=uuid.uuid4().hex)
            body = ErrorAnswer(error=told).model_dump_json().encode()
            head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)
        self.transport.close()


def bound_heads() -> list[Any]:
    """Let every HTTP server that this process starts from now on bound the heads of requests.

    Returns
    -------
    list
        Empty: Serve would take middlewares, which see no request before its head is complete.
    """
    if issubclass(uvicorn.protocols.http.auto.AutoHTTPProtocol, HttpToolsProtocol):
        uvicorn.protocols.http.auto.AutoHTTPProtocol = BoundedHeads
    return []
