"""The HTTP side of the gateway: routes, keys, headers, and one shape for every error.

`http_app` needs no Ray: tests run it in-process on the same services that Ray places on a cluster.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medfilip._version import __version__
from medfilip.answers import INTENDED_USE, Diagnosis, Embedding, ErrorAnswer, ErrorBody, Health, Labels, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError
from serve.gateway import Gateway
from serve.keys import KeyRing
from serve.messages import unexpected
from serve.openapi import DIAGNOSE_BODY, EMBED_BODY
from serve.request import read_embed_request, read_request
from serve.settings import ServeSettings

_T = TypeVar("_T")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_STATUS = {
    ErrorCode.UNAUTHENTICATED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.UPLOAD_TIMEOUT: 408,
    ErrorCode.LENGTH_REQUIRED: 411,
    ErrorCode.REQUEST_TOO_LARGE: 413,
    ErrorCode.IMAGE_TOO_LARGE: 413,
    ErrorCode.MEDIA_TYPE_UNSUPPORTED: 415,
    ErrorCode.REQUEST_INVALID: 422,
    ErrorCode.OVERLOADED: 503,
    ErrorCode.REQUEST_TIMEOUT: 504,
}
_HEADERS_OF = {
    ErrorCode.UNAUTHENTICATED: {"WWW-Authenticate": "Bearer"},
    ErrorCode.OVERLOADED: {"Retry-After": "2"},
}
_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def http_app(gateway: Gateway, keys: KeyRing, settings: ServeSettings, *, behind_proxy: bool = False) -> FastAPI:
    """Build the ASGI application.

    Parameters
    ----------
    behind_proxy
        Whether Ray Serve's proxy stands in front, which puts the X-Request-ID into the answer itself.
    """
    app = FastAPI(
        title="MedFILIP",
        version=__version__,
        description=f"Zero-shot diagnosis of chest X-rays; {INTENDED_USE}.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={status: {"model": ErrorAnswer} for status in (401, 403, 503)},
    )
    app.add_middleware(_Guard, keys=keys, names_requests=not behind_proxy)
    app.add_exception_handler(MedfilipError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_routes(app, gateway, settings)
    return app


def _add_routes(app: FastAPI, gateway: Gateway, settings: ServeSettings) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer} for status in (408, 411, 413, 415, 422, 500, 504)
    }

    @app.post("/v1/diagnose", openapi_extra=DIAGNOSE_BODY, responses=refusals)
    async def diagnose(request: Request) -> Diagnosis:
        """Diagnose one study: a radiograph, or several of the same patient and time."""
        gateway.admit()
        try:
            given = await _read_in_time(read_request(request, settings), settings)
            return await gateway.diagnose(given, request.state.request_id)
        finally:
            gateway.leave()

    @app.post("/v1/embed", openapi_extra=EMBED_BODY, responses=refusals)
    async def embed(request: Request) -> Embedding:
        """Embed the images of one study, texts, or both, in one space."""
        gateway.admit()
        try:
            given = await _read_in_time(read_embed_request(request, settings), settings)
            return await gateway.embed(given, request.state.request_id)
        finally:
            gateway.leave()

    @app.get("/v1/model")
    async def model() -> ModelCard:
        """Describe the model."""
        return await gateway.card()

    @app.get("/v1/labels")
    async def labels() -> Labels:
        """List the categories that can be asked for by id."""
        return await gateway.labels()

    @app.get("/healthz")
    async def healthz() -> Health:
        """Say that the gateway runs; needs no key."""
        return Health(status="alive")

    @app.get("/readyz")
    async def readyz() -> Health:
        """Say that an encoder answers; needs no key."""
        await gateway.ready()
        return Health(status="ready")


async def _read_in_time(reading: Awaitable[_T], settings: ServeSettings) -> _T:
    try:
        async with asyncio.timeout(settings.upload_timeout_s):
            return await reading
    except TimeoutError as error:
        raise MedfilipError(
            ErrorCode.UPLOAD_TIMEOUT,
            f"The upload took longer than upload_timeout_s = {settings.upload_timeout_s:g} s.",
            fix="Send the image over a faster connection.",
        ) from error


class _Guard:
    """Outermost layer: names the request, asks for the key, adds headers, and lets no exception out."""

    def __init__(self, app: ASGIApp, keys: KeyRing, names_requests: bool) -> None:
        self._app, self._keys, self._names_requests = app, keys, names_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id")
        name = given if given is not None and _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = name
        started, unread = False, _has_body(headers)

        async def receive_watched() -> Message:
            nonlocal unread
            message = await receive()
            unread = unread and bool(message.get("more_body"))
            return message

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                added = MutableHeaders(scope=message)
                added.update({**_SECURITY_HEADERS, **({"X-Request-ID": name} if self._names_requests else {})})
                if unread:
                    # Otherwise the server would read and throw away a refused body to its end, however long it is.
                    added["Connection"] = "close"
            await send(message)

        try:
            if given is not None and given != name:
                raise MedfilipError(
                    ErrorCode.REQUEST_INVALID,
                    "The header X-Request-ID does not fit: 1 to 64 letters, digits, '.', '_' or '-' are allowed.",
                    fix="Leave it out to get one.",
                )
            if scope["path"].startswith("/v1/"):
                self._keys.check(headers.get("authorization"), headers.get("x-api-key"))
            await self._app(scope, receive_watched, send_guarded)
        except ClientDisconnect:
            return  # nobody is left to answer
        except MedfilipError as error:
            await _error_response(error, name)(scope, receive, send_guarded)
        except Exception as error:
            refused = unexpected(error)
            if not started:
                await _error_response(refused.error(), name)(scope, receive, send_guarded)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _error_response(error: MedfilipError, request_id: str, headers: dict[str, str] | None = None) -> JSONResponse:
    image_problem = error.code.startswith("image_")
    answer = ErrorAnswer(error=ErrorBody(code=error.code, message=error.message, fix=error.fix, request_id=request_id))
    return JSONResponse(
        answer.model_dump(),
        status_code=_STATUS.get(error.code, 422 if image_problem else 500),
        headers={**_HEADERS_OF.get(error.code, {}), **(headers or {})},
    )


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MedfilipError)
    return _error_response(error, request.state.request_id)


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    known = {
        404: MedfilipError(ErrorCode.NOT_FOUND, "There is nothing at this address.", fix="See /openapi.json."),
        405: MedfilipError(
            ErrorCode.METHOD_NOT_ALLOWED, "This address does not take that method.", fix="See /openapi.json."
        ),
    }
    told = known.get(
        error.status_code, MedfilipError(ErrorCode.REQUEST_INVALID, "The request cannot be read.", fix="Check it.")
    )
    return _error_response(told, request.state.request_id, dict(error.headers or {}))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    # The exception repeats the input, so nothing of it is told.
    told = MedfilipError(ErrorCode.REQUEST_INVALID, "The request does not fit.", fix="See /openapi.json.")
    return _error_response(told, request.state.request_id)
