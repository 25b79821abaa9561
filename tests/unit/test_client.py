"""The client: answers as models, failures with the endpoint's code."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

import medfilip
from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError

KNOWN = {"error": {"code": "overloaded", "message": "Full.", "fix": "Wait.", "request_id": "r"}}
ANSWERS = {
    "/readyz": (200, json.dumps({"status": "ready", "added_later": 1})),
    "/v1/model": (503, json.dumps(KNOWN)),
    "/v1/labels": (504, "<html>a proxy's page</html>"),
    "/v1/diagnose": (200, "{}"),
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, body = ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_package_exports_the_client() -> None:
    assert medfilip.Client is Client
    with pytest.raises(AttributeError, match="Nothing"):
        medfilip.Nothing  # noqa: B018


def test_answers_and_failures(url: str) -> None:
    with Client(url, "key") as client:
        assert client.health().status == "ready"
        for call, code in (
            (client.model, ErrorCode.OVERLOADED),
            (client.labels, ErrorCode.REQUEST_TIMEOUT),
            (lambda: client.diagnose(b"x"), ErrorCode.INTERNAL),
            (lambda: client.diagnose("/nowhere.dcm"), ErrorCode.INPUT_NOT_FOUND),
        ):
            with pytest.raises(MedfilipError) as caught:
                call()
            assert caught.value.code == code
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(MedfilipError) as caught:
        nobody.health()
    assert caught.value.code == ErrorCode.ENDPOINT_UNREACHABLE
