"""The HTTP side of the gateway: routes, keys, headers, and one shape for every error.

`http_app` needs no Ray: tests run it in-process on the same services that Ray places on a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from medfilip._version import __version__
from medfilip.answers import INTENDED_USE, Diagnosis, Embedding, ErrorAnswer, Health, Labels, ModelCard
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.multipart import encode
from serve.gateway import Gateway
from serve.guard import Auditor, Guard, error_response
from serve.keys import KeyRing
from serve.metrics import EndpointMetrics
from serve.openapi import DIAGNOSE_BODY, EMBED_BODY, with_security
from serve.pages import add_page
from serve.rates import CallerLimits
from serve.rendering import MEDIA_TYPES, Form, form_of
from serve.request import DiagnoseRequest, read_embed_request, read_request
from serve.settings import ServeSettings
from serve.tracing import Tracing

_OTHER_FORMS: dict[str, Any] = {kind.partition(";")[0]: {} for form, kind in MEDIA_TYPES.items() if form != "json"}
_DIAGNOSED: dict[int | str, dict[str, Any]] = {
    200: {"model": Diagnosis, "description": "the answer, in the form that Accept names", "content": _OTHER_FORMS},
    406: {"model": ErrorAnswer},
}


def http_app(
    gateway: Gateway,
    keys: KeyRing,
    settings: ServeSettings,
    *,
    behind_proxy: bool = False,
    auditor: Auditor | None = None,
    metrics: EndpointMetrics | None = None,
    tracing: Tracing | None = None,
) -> FastAPI:
    """Build the ASGI application.

    Parameters
    ----------
    gateway, keys, settings
        What answers whom, within which limits.
    behind_proxy
        Whether Ray Serve's proxy stands in front, which puts the X-Request-ID into the answer itself.
    auditor
        Writes the audit log, if there is one.
    metrics
        Where requests are counted.
    tracing
        Where their spans begin.
    """
    app = FastAPI(
        title="MedFILIP",
        version=__version__,
        description=f"Zero-shot diagnosis of chest X-rays; {INTENDED_USE}.",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={503: {"model": ErrorAnswer}},
    )
    app.add_middleware(
        Guard,
        keys=keys,
        limits=CallerLimits(settings.requests_per_minute, settings.concurrent_requests),
        auditor=auditor,
        metrics=metrics or EndpointMetrics(),
        tracing=tracing or Tracing(),
        names_requests=not behind_proxy,
    )
    app.add_exception_handler(MedfilipError, _on_error)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_routes(app, gateway, settings)
    if settings.page:
        add_page(app)
    described = app.openapi
    app.openapi = lambda: with_security(described())  # type: ignore[method-assign]
    return app


def _add_routes(app: FastAPI, gateway: Gateway, settings: ServeSettings) -> None:
    refusals: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorAnswer} for status in (401, 403, 404, 408, 411, 413, 415, 422, 429, 500, 502, 503, 504)
    }

    @app.post("/v1/diagnose", openapi_extra=DIAGNOSE_BODY, responses=refusals | _DIAGNOSED, response_class=Response)
    async def diagnose(request: Request) -> Response:
        """Diagnose one study: a radiograph, or several of the same patient and time."""
        form = form_of(request.headers.get("accept", ""))
        gateway.admit()
        try:
            request.state.audited = given = await read_request(request, settings)
            timings: dict[str, float] = {}
            async with gateway.in_time():
                request.state.audited = given = await gateway.fetched(given)
                diagnosis = await gateway.diagnose(given, request.state.request_id, timings)
                request.state.model = diagnosis.model.fingerprint
                diagnosis, objects = await gateway.stored_form(given, diagnosis)
                kind, body = await _written(gateway, form, diagnosis, given, objects)
            if given.study is not None and objects:
                # Last of all, once everything else has worked, and on record before: it cannot be undone.
                before = getattr(request.state, "recorded_before", None)
                if before is not None:
                    await before(action="store", archive=given.study.archive, objects=len(objects))
                await gateway.store(given.study, objects)
            return Response(body, media_type=kind, headers={"Server-Timing": _server_timing(timings), "Vary": "Accept"})
        finally:
            gateway.leave()

    @app.post("/v1/embed", openapi_extra=EMBED_BODY, responses=refusals)
    async def embed(request: Request) -> Embedding:
        """Embed the images of one study, texts, or both, in one space."""
        gateway.admit()
        try:
            request.state.audited = given = await read_embed_request(request, settings)
            embedding = await gateway.embed(given, request.state.request_id)
            request.state.model = embedding.model
            return embedding
        finally:
            gateway.leave()

    guarded: dict[int | str, dict[str, Any]] = {status: {"model": ErrorAnswer} for status in (401, 403, 429, 504)}

    @app.get("/v1/model", responses=guarded)
    async def model() -> ModelCard:
        """Describe the model."""
        return await gateway.card()

    @app.get("/v1/labels", responses=guarded)
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


async def _written(
    gateway: Gateway, form: Form, diagnosis: Diagnosis, request: DiagnoseRequest, objects: tuple[bytes, ...]
) -> tuple[str, bytes]:
    """Return media type and body of an answer; DICOM objects that will be stored are the ones that are answered."""
    if form == "json":
        return MEDIA_TYPES[form], diagnosis.model_dump_json().encode()
    own = objects and form in ("sr", "objects")
    written = objects if own else await gateway.render(form, diagnosis, request.images)
    return encode(written) if form == "objects" else (MEDIA_TYPES[form], written[0])


def _server_timing(timings: Mapping[str, float]) -> str:
    """Write the stages of a request as browsers and proxies read them (W3C Server Timing): milliseconds."""
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in timings.items())


async def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MedfilipError)
    return _told(request, error)


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
    return _told(request, told, dict(error.headers or {}))


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    # The exception repeats the input, so nothing of it is told.
    told = MedfilipError(ErrorCode.REQUEST_INVALID, "The request does not fit.", fix="See /openapi.json.")
    return _told(request, told)


def _told(request: Request, error: MedfilipError, headers: dict[str, str] | None = None) -> JSONResponse:
    request.state.error_code = str(error.code)
    return error_response(error, request.state.request_id, headers)
