"""The outermost layer of the HTTP side: names, keys, limits, the audit log, headers, and no exception gets out."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfilip.answers import ErrorAnswer, ErrorBody
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from serve.audit import AuditLog
from serve.keys import KeyRing
from serve.messages import unexpected
from serve.metrics import EndpointMetrics
from serve.rates import CallerLimits, RateLimitedError
from serve.tracing import Span, Tracing

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.NOT_ACCEPTABLE: 406,
    ErrorCode.UPLOAD_TIMEOUT: 408,
    ErrorCode.LENGTH_REQUIRED: 411,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.IMAGE_TOO_LARGE: 413,
    ErrorCode.MEDIA_TYPE_UNSUPPORTED: 415,
    ErrorCode.REQUEST_INVALID: 422,
    ErrorCode.URI_NOT_ALLOWED: 422,
    ErrorCode.INPUT_EMPTY: 422,
    ErrorCode.SOURCE_UNIDENTIFIED: 422,
    ErrorCode.SOURCES_DIFFER: 422,
    ErrorCode.IMAGE_DUPLICATE: 422,
    ErrorCode.MAP_UNFIT: 422,
    # What an archive said, or did not say.
    ErrorCode.ENDPOINT_UNREACHABLE: 502,
    ErrorCode.REPLY_INVALID: 502,
    ErrorCode.STORE_REFUSED: 502,
    ErrorCode.ARCHIVE_REFUSED: 502,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.AUDIT_FAILED: 503,
    ErrorCode.REQUEST_TIMEOUT: 504,
}
_HEADERS_OF = {
    ErrorCode.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
    ErrorCode.OVERLOADED: {"Retry-After": "2"},
    ErrorCode.AUDIT_FAILED: {"Retry-After": "30"},
}
_ACTIONS = frozenset({"diagnose", "embed", "model", "labels"})
_access_log = logging.getLogger("ray.serve.medfilip.access")
_access_log.setLevel(logging.INFO)  # Serve's own lines stay at its level; this one goes to the same JSON file
_PRIVATE = "/v1/"
_GONE = "client_disconnected"
_STRANGERS_A_MINUTE = 60
_RECORDED = ("/v1/diagnose", "/v1/embed")
"""What looks at images: recorded in the audit log."""
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Auditor:
    """Writes the audit log of one gateway from a thread of its own.

    Parameters
    ----------
    folder, writer
        See `serve.audit.AuditLog`.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._log = AuditLog(folder, writer)
        self._thread = ThreadPoolExecutor(max_workers=1)

    async def record(self, facts: Mapping[str, Any], request: Audited | None, body: bytes) -> None:
        """Append one request; ``body`` is what will be answered."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, facts, request, body)

    def close(self) -> None:
        """Append the closing line."""
        self._thread.submit(self._log.close).result()
        self._thread.shutdown()

    def _write(self, facts: Mapping[str, Any], request: Audited | None, body: bytes) -> None:
        asked = {} if request is None else {"inputs": request.input_hashes(), "question": request.question_hash()}
        self._log.write({**facts, **asked, "output": sha256_bytes(body)})


class Audited(Protocol):
    """A request that was read."""

    def input_hashes(self) -> list[str]:
        """Return the SHA-256 of each file."""
        ...

    def question_hash(self) -> str:
        """Return the SHA-256 of what is asked about them."""
        ...


class Guard:
    """Names the request, asks for the key, counts, records, adds headers, and lets no exception out.

    Parameters
    ----------
    app
        What it stands around.
    keys, limits
        Who may ask, and how much.
    auditor
        Where requests that look at images are recorded before they are answered; ``None`` for nowhere.
    metrics
        Where requests are counted.
    tracing
        Where their spans begin.
    names_requests
        Whether X-Request-ID is answered here: Ray Serve's proxy does it itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        keys: KeyRing,
        limits: CallerLimits,
        auditor: Auditor | None,
        metrics: EndpointMetrics,
        tracing: Tracing,
        names_requests: bool,
    ) -> None:
        self._app, self._keys, self._limits, self._auditor = app, keys, limits, auditor
        self._metrics, self._tracing, self._names_requests = metrics, tracing, names_requests
        self._strangers: deque[float] = deque()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, headers, state = time.perf_counter(), Headers(scope=scope), scope.setdefault("state", {})
        given = headers.get("x-request-id")
        name = given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        state |= {"request_id": name, "path": _route_path(scope)}
        recorded = state["path"].rstrip("/") in _RECORDED and scope["method"] == "POST"
        auditor = self._auditor if recorded else None
        shown = name if self._names_requests else None
        exchange = _Exchange(send, shown, unread=_has_body(headers), hold=auditor is not None)
        if auditor is not None:
            state["recorded_before"] = partial(self._before, auditor, scope)
        try:
            await self._answer(scope, receive, exchange)
        except (ClientDisconnect, asyncio.CancelledError) as gone:
            # Nobody is left to answer, but what was done for them is on record.
            state["error_code"] = _GONE
            if auditor is not None:
                await asyncio.shield(self._record(auditor, scope, exchange))
            if isinstance(gone, asyncio.CancelledError):
                raise
            return
        if auditor is not None and self._worth_a_line(state):
            try:
                await asyncio.shield(self._record(auditor, scope, exchange))
            except MedfilipError as error:
                exchange.recall()
                await self._tell(error, scope, receive, exchange)
        await exchange.release()
        if state["path"].startswith(_PRIVATE):
            self._tell_operator(scope, exchange, time.perf_counter() - begin)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        """Let the application answer whoever may ask; everything but a caller who left becomes an answer."""
        state, headers = scope["state"], Headers(scope=scope)

        async def receive_watched() -> Message:
            message = await receive()
            exchange.unread = exchange.unread and bool(message.get("more_body"))
            return message

        try:
            _check(state, headers)
            with ExitStack() as counted:
                # Whatever is asked for below this must have a key, whether it is there or not.
                if state["path"].startswith(_PRIVATE):
                    caller = self._keys.check(headers.get("authorization"), headers.get("x-api-key"))
                    state["caller"] = caller.name
                    counted.enter_context(self._limits.request(caller))
                    # Strangers and those who ask too much leave no trace: they could fill a disk with them.
                    traced = self._tracing.request(headers, _action(state), state["request_id"])
                    counted.callback(_tell_span, counted.enter_context(traced), state, exchange)
                await self._app(scope, receive_watched, exchange.send)
        except ClientDisconnect:
            raise
        except MedfilipError as error:
            await self._tell(error, scope, receive, exchange)
        except Exception as error:
            refused = unexpected(error)
            if exchange.recall():
                await self._tell(refused.error(), scope, receive, exchange)

    async def _tell(self, error: MedfilipError, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        scope["state"]["error_code"] = str(error.code)
        await error_response(error, scope["state"]["request_id"])(scope, receive, exchange.send)

    def _tell_operator(self, scope: Scope, exchange: _Exchange, seconds: float) -> None:
        """Count a request, and log one line about it that holds nothing of it: no address, which may hold labels."""
        state = scope["state"]
        action, code = _action(state), state.get("error_code")
        self._metrics.answered(action, exchange.status, code)
        _access_log.info(
            "%s %s %s %.0f ms", action, exchange.status, code or "-", seconds * 1000,
            extra={"medfilip_request": state["request_id"], "caller": state.get("caller")},
        )  # fmt: skip

    def _worth_a_line(self, state: Mapping[str, Any]) -> bool:
        """Whether a request is recorded: of those that nobody answers for, only so many a minute.

        They look at no image, and a flood of them would fill the disk and hold up every answer.
        """
        if "caller" in state:
            return True
        now = time.monotonic()
        while self._strangers and self._strangers[0] <= now - 60:
            self._strangers.popleft()
        if len(self._strangers) >= _STRANGERS_A_MINUTE:
            return False
        self._strangers.append(now)
        return True

    async def _before(self, auditor: Auditor, scope: Scope, **facts: Any) -> None:
        """Record what is about to be done elsewhere, before it is done."""
        state = scope["state"]
        known = {"request_id": state["request_id"], "caller": state.get("caller"), "model": state.get("model")}
        await asyncio.shield(auditor.record({**known, **facts}, state.get("audited"), b""))

    async def _record(self, auditor: Auditor, scope: Scope, exchange: _Exchange) -> None:
        state = scope["state"]
        facts = {
            "request_id": state["request_id"],
            "caller": state.get("caller"),
            "action": state["path"].strip("/").removeprefix("v1/"),
            "status": exchange.status,
            "code": state.get("error_code"),
            "model": state.get("model"),
        }
        await auditor.record(facts, state.get("audited"), exchange.body)


class _Exchange:
    """What is sent for one request: with headers of ours, and held back until it was recorded where it must be."""

    def __init__(self, send: Send, name: str | None, *, unread: bool, hold: bool) -> None:
        self._send, self._name, self._hold = send, name, hold
        self._held: list[Message] = []
        self.unread, self.started, self.status = unread, False, 0

    async def send(self, message: Message) -> None:
        """Send a message of the application, or hold it."""
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            added = MutableHeaders(scope=message)
            for key, value in _SECURITY_HEADERS.items():
                added.setdefault(key, value)
            if self._name is not None:
                added["X-Request-ID"] = self._name
            if self.unread:
                # Otherwise the server would read and throw away a refused body to its end, however long it is.
                added["Connection"] = "close"
        if self._hold:
            self._held.append(message)
        else:
            await self._send(message)

    @property
    def body(self) -> bytes:
        """What is held of the body."""
        return b"".join(message.get("body", b"") for message in self._held)

    def recall(self) -> bool:
        """Drop what is held; return whether nothing was sent, so that something else can be."""
        self._held.clear()
        return self._hold or not self.started

    async def release(self) -> None:
        """Send what was held."""
        for message in self._held:
            await self._send(message)
        self._held.clear()


def _action(state: Mapping[str, Any]) -> str:
    """Return what is asked for, by a name of ours: an address may hold anything."""
    route = state["path"].rstrip("/").removeprefix(_PRIVATE)
    return route if route in _ACTIONS else "other"


def _tell_span(span: Span, state: Mapping[str, Any], exchange: _Exchange) -> None:
    span.tell(status=exchange.status or None)
    span.fail(state.get("error_code") or (None if exchange.started else "unanswered"))


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _route_path(scope: Scope) -> str:
    """Return the path that routes are looked up by: behind a prefix the address holds more than that (ASGI)."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and (path + "/").startswith(root.rstrip("/") + "/") else path


def _check(state: Mapping[str, Any], headers: Headers) -> None:
    """Refuse a name and a path that nobody should send; a route also matches with a newline behind it."""
    if headers.get("x-request-id", state["request_id"]) != state["request_id"]:
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID,
            "The header X-Request-ID does not fit: 1 to 64 letters, digits, '.', '_' or '-' are allowed.",
            fix="Leave it out to get one.",
        )
    if not state["path"].isprintable():
        raise MedfilipError(ErrorCode.NOT_FOUND, "There is nothing at this address.", fix="See /openapi.json.")


def error_response(error: MedfilipError, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Write an error in the one shape that all have."""
    retry = {"Retry-After": str(error.retry_after_s)} if isinstance(error, RateLimitedError) else {}
    image_problem = error.code.startswith("image_")
    answer = ErrorAnswer(error=ErrorBody(code=error.code, message=error.message, fix=error.fix, request_id=request_id))
    return JSONResponse(
        answer.model_dump(),
        status_code=_STATUS.get(error.code, 422 if image_problem else 500),
        headers={**_HEADERS_OF.get(error.code, {}), **retry, **(headers or {})},
    )
