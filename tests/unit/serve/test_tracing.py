"""Spans: those of a request belong together, its caller's trace goes on, and nothing of its content is in them."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.gateway import Gateway
from serve.keys import KeyRing, hash_key
from serve.messages import Refused
from serve.settings import ServeSettings
from serve.tracing import Tracing, check_tracing
from serve.web import http_app
from tests.unit.serve.conftest import KEY, InProcess

CANARY = "CANARYQ7XZ"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]


@pytest.fixture
def tracing(tmp_path: Path) -> Iterator[Tracing]:
    opened = Tracing(ServeSettings(trace_folder=str(tmp_path)), "gateway", "r1")
    yield opened
    opened.close()


@pytest.fixture
def client(backend: InProcess, settings: ServeSettings, tracing: Tracing) -> TestClient:
    app = http_app(Gateway(backend, settings), KeyRing([hash_key(KEY)]), settings, tracing=tracing)
    return TestClient(app, headers={"Authorization": f"Bearer {KEY}"})


def test_a_request_goes_on_with_the_trace_of_its_caller(
    client: TestClient, tracing: Tracing, tmp_path: Path, phantom_dicom: bytes
) -> None:
    sent = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": f"x={CANARY}", "baggage": f"x={CANARY}"}
    answer = client.post(
        "/v1/diagnose", files={"file": (f"{CANARY}.dcm", phantom_dicom)}, data={"labels": f"{CANARY} shadow"},
        headers={**sent, "X-Request-ID": "worklist-17"},
    )  # fmt: skip
    assert answer.status_code == 200
    refused = client.post("/v1/diagnose", files={"file": (CANARY, CANARY.encode())}, headers=sent)
    assert refused.status_code == 422
    client.get(f"/v1/{CANARY}", headers=sent)
    tracing.close()
    good, bad, unknown = written(tmp_path)
    for span in (good, bad, unknown):
        assert (span["context"]["trace_id"], span["parent_id"]) == (f"0x{TRACE}", f"0x{PARENT}")
        assert CANARY not in json.dumps(span) and span["events"] == []
    assert (good["name"], bad["name"], unknown["name"]) == ("/v1/diagnose", "/v1/diagnose", "/v1/other")
    assert good["attributes"] == {"medfilip.request_id": "worklist-17", "medfilip.status": 200}
    assert bad["attributes"]["error.type"] == ErrorCode.IMAGE_UNSUPPORTED and bad["status"]["status_code"] == "ERROR"
    assert good["resource"]["attributes"]["service.name"] == "medfilip.gateway"


def test_a_trace_begins_where_the_caller_has_none_or_nonsense(
    client: TestClient, tracing: Tracing, tmp_path: Path
) -> None:
    for headers in ({}, {"traceparent": CANARY}, {"traceparent": f"00-{'0' * 32}-{PARENT}-01"}):
        assert client.get("/v1/model", headers=headers).status_code == 200
    tracing.close()
    spans = written(tmp_path)
    assert len({span["context"]["trace_id"] for span in spans}) == 3 and {span["parent_id"] for span in spans} == {None}


def test_strangers_and_who_does_not_want_it_are_not_traced(
    client: TestClient, tracing: Tracing, tmp_path: Path
) -> None:
    assert client.get("/v1/model", headers={"Authorization": "Bearer wrong"}).status_code == 403
    assert client.get("/healthz").status_code == 200
    assert client.get("/v1/model", headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}).status_code == 200
    tracing.close()
    assert written(tmp_path) == []


def test_what_is_told_to_another_process_is_the_current_span(tracing: Tracing, tmp_path: Path) -> None:
    assert tracing.current() is None
    with tracing.request({}, "diagnose", "a"):
        told = tracing.current()
        with tracing.span("decode", told) as span:
            span.tell(images=2, status=None)
            span.outcome(Refused(ErrorCode.INTERNAL, CANARY, CANARY))
    with pytest.raises(ValueError, match=CANARY), tracing.span("answer", told):
        raise ValueError(CANARY)
    with tracing.span("embed", None) as nobody:
        nobody.tell(images=1)
    tracing.close()
    assert tracing.current() is None
    spans = {span["name"]: span for span in written(tmp_path)}
    assert spans.keys() == {"/v1/diagnose", "decode", "answer"}, "without a request there is no trace"
    assert spans["decode"]["parent_id"] == spans["answer"]["parent_id"] == spans["/v1/diagnose"]["context"]["span_id"]
    assert spans["decode"]["attributes"] == {"medfilip.images": 2, "error.type": "internal"}
    assert CANARY not in json.dumps(spans)


def test_only_a_share_of_requests_is_traced(tmp_path: Path) -> None:
    some = Tracing(ServeSettings(trace_folder=str(tmp_path), trace_share=0.5), "gateway", "r1")
    for _ in range(200):
        with some.request({}, "model", "a"), some.span("answer", some.current()):
            pass
    some.close()
    names = [span["name"] for span in written(tmp_path)]
    assert 50 < names.count("/v1/model") < 150 and names.count("answer") == names.count("/v1/model")


def test_a_collector_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        settings = ServeSettings(trace_otlp=True)
        check_tracing(settings)
        opened = Tracing(settings, "gateway", "r1")
        with opened.request({"traceparent": f"00-{TRACE}-{PARENT}-01"}, "embed", "a"):
            pass
        opened.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    [(path, body)] = received
    [of_service] = ExportTraceServiceRequest.FromString(body).resource_spans
    [span] = of_service.scope_spans[0].spans
    assert (path, span.name, span.trace_id.hex()) == ("/v1/traces", "/v1/embed", TRACE)


def test_a_collector_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    check_tracing(ServeSettings(trace_folder="/somewhere"))
    with pytest.raises(MedfilipError, match="collector") as caught:
        check_tracing(ServeSettings(trace_otlp=True))
    assert caught.value.code == ErrorCode.CONFIG_INVALID
    monkeypatch.setattr("serve.tracing._EXPORTER", "opentelemetry.nothing.of.it")
    with pytest.raises(MedfilipError) as caught:
        check_tracing(ServeSettings(trace_otlp=True))
    assert caught.value.code == ErrorCode.DEPENDENCY_MISSING
