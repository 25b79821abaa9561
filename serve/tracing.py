"""Traces of requests across the parts of the endpoint, as OpenTelemetry spans; off unless the settings ask for them.

One request is one trace: a span of the gateway, and below it ``decode`` for each image, ``embed``, ``answer`` and
``render`` where they ran. A caller's ``traceparent`` (W3C Trace Context) is taken on; ``tracestate`` and ``baggage``
are not, since anything may stand in them. Spans hold the request id, times, counts and codes, and nothing of a request.
Ray Serve's own tracing is not used: it sets up one exporter for all applications of a cluster, and names spans after
its own internals.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.messages import Refused
from serve.settings import ServeSettings

_COLLECTOR = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_EXPORTER = "opentelemetry.exporter.otlp.proto.http"
_SEND_EVERY_MS = 1000


class Span:
    """A part of the work on a request; one that nobody records by default."""

    def __init__(self, span: Any = None) -> None:
        self._span = span

    def tell(self, **facts: str | int | None) -> None:
        """Add what is known now, under ``medfilip.``; never anything of the request itself."""
        for name, value in facts.items():
            if self._span is not None and value is not None:
                self._span.set_attribute(f"medfilip.{name}", value)

    def fail(self, code: str | None) -> None:
        """Say that it failed with a code, if there is one."""
        if self._span is not None and code is not None:
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)
            self._span.set_attribute("error.type", code)

    def outcome(self, found: object) -> None:
        """Say that it failed if what was found is a refusal."""
        if isinstance(found, Refused):
            self.fail(str(found.code))


class Tracing:
    """Makes the spans of one replica; without settings that ask for them it makes none.

    Parameters
    ----------
    settings
        ``trace_folder``, ``trace_otlp`` and ``trace_share``; of a local folder, one file a replica.
    deployment, replica
        Where the spans come from.
    """

    def __init__(self, settings: ServeSettings | None = None, deployment: str = "", replica: str = "") -> None:
        self._provider: Any = None
        self._file: Any = None
        if settings is None or not (settings.trace_folder or settings.trace_otlp):
            return
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        named = {"service.name": f"medfilip.{deployment}", "service.instance.id": replica}
        # Of a caller who samples by itself, its choice holds.
        sampler = ParentBased(TraceIdRatioBased(settings.trace_share))
        # One of its own: the process may have another for Ray.
        self._provider = TracerProvider(sampler, Resource.create(named))
        self._export(settings, f"{deployment}-{replica}")
        self._tracer = self._provider.get_tracer("medfilip")

    @contextmanager
    def request(self, headers: Mapping[str, str], action: str, request_id: str) -> Iterator[Span]:
        """Begin the trace of a request, or go on with that of its caller, and make its span the current one."""
        with self.span(f"/v1/{action}", headers.get("traceparent"), served=True) as span:
            span.tell(request_id=request_id)
            yield span

    @contextmanager
    def span(self, name: str, parent: str | None, *, served: bool = False) -> Iterator[Span]:
        """Begin a span below ``parent``, a ``traceparent``; without one, or with a damaged one, a trace begins."""
        if self._provider is None or (parent is None and not served):
            yield Span()
            return
        from opentelemetry.context import Context
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        context = TraceContextTextMapPropagator().extract({"traceparent": parent} if parent else {}, Context())
        # Texts of exceptions may quote a request.
        with self._tracer.start_as_current_span(
            name, context, SpanKind.SERVER if served else SpanKind.INTERNAL,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            yield Span(span)

    def current(self) -> str | None:
        """Return the ``traceparent`` of the current span, for another process; ``None`` if nothing is traced."""
        if self._provider is None:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        return carrier.get("traceparent")

    def close(self) -> None:
        """Export what is left."""
        if self._provider is not None:
            self._provider.shutdown()
            self._provider = None
        if self._file is not None:
            self._file.close()

    def _export(self, settings: ServeSettings, name: str) -> None:
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

        if settings.trace_folder:
            folder = Path(settings.trace_folder).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            self._file = (folder / f"{name}.jsonl").open("a", encoding="utf-8")
            written = ConsoleSpanExporter(out=self._file, formatter=lambda span: span.to_json(indent=None) + "\n")
            self._provider.add_span_processor(BatchSpanProcessor(written, schedule_delay_millis=_SEND_EVERY_MS))
        if settings.trace_otlp:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            sent = BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=_SEND_EVERY_MS)
            self._provider.add_span_processor(sent)


def check_tracing(settings: ServeSettings) -> None:
    """Check that what the settings ask for can be had.

    Raises
    ------
    MedfilipError
        ``DEPENDENCY_MISSING`` or ``CONFIG_INVALID``.
    """
    if not settings.trace_otlp:
        return
    try:
        found = find_spec(_EXPORTER)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise MedfilipError(
            ErrorCode.DEPENDENCY_MISSING,
            "The exporter of OpenTelemetry is not installed, and trace_otlp is true.",
            fix="Install it with: pip install 'medfilip[tracing]'; or set trace_folder instead.",
        )
    if not any(os.environ.get(name) for name in _COLLECTOR):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "trace_otlp is true, and no collector is named.",
            fix="Set OTEL_EXPORTER_OTLP_ENDPOINT in the environment of the cluster, such as http://HOST:4318.",
        )
