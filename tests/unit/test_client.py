"""The client: answers as models, failures with the endpoint's code."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image

import medfilip
from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.pacs import PacsSettings
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.gateway import Gateway
from serve.keys import KeyRing, hash_key
from serve.settings import ServeSettings
from serve.web import http_app
from tests.support.app_server import running_app
from tests.unit.serve.conftest import KEY, InProcess

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
            (client.diagnose, ErrorCode.REQUEST_INVALID),
            (client.embed, ErrorCode.REQUEST_INVALID),
        ):
            with pytest.raises(MedfilipError) as caught:
                call()
            assert caught.value.code == code
    with Client("http://127.0.0.1:9") as nobody, pytest.raises(MedfilipError) as caught:
        nobody.health()
    assert caught.value.code == ErrorCode.ENDPOINT_UNREACHABLE


@pytest.fixture(scope="module")
def real(tiny_checkpoint: Path) -> Iterator[Client]:
    """A client of the real application, which knows an archive that is not there."""
    archives = {"ward": {"url": "http://127.0.0.1:9/dicom-web"}}
    given = ServeSettings(pacs=PacsSettings.model_validate({"archives": archives}))
    decoder = DecoderService(given.limits, store_size=given.store_size)
    gateway = Gateway(InProcess(decoder, EncoderService(tiny_checkpoint)), given)
    with running_app(http_app(gateway, KeyRing([hash_key(KEY)]), given)) as url, Client(url, KEY) as client:
        yield client
    decoder.close()


def test_everything_that_can_be_asked_over_reaches_the_question(real: Client, phantom_dicom: bytes) -> None:
    answer = real.diagnose(
        [phantom_dicom], ["nodule", "größerer Schatten"], described={"star shadow": ["bright star", "ten spikes"]},
        threshold=0, attributes=2, heat_maps="present", preview=True,
    )  # fmt: skip
    assert [finding.label for finding in answer.findings] == ["nodule", "größerer Schatten", "star shadow"]
    assert [len(finding.attributes) for finding in answer.findings] == [2, 0, 2]
    assert all(finding.heat_map and finding.decision == "present" for finding in answer.findings)
    assert [finding.operating_point.rule for finding in answer.findings if finding.operating_point] == ["request"] * 3
    assert answer.images[0].preview is not None
    assert Image.open(io.BytesIO(base64.b64decode(answer.images[0].preview))).size == (512, 512)
    assert real.diagnose(phantom_dicom, "nodule", preview=False).images[0].preview is None
    rules = {finding.operating_point for finding in real.diagnose(phantom_dicom, operating_point=None).findings}
    assert rules and None not in rules


def test_a_study_of_an_archive_is_asked_for_instead_of_an_image(real: Client, phantom_dicom: bytes) -> None:
    def code(*given: bytes, **asked: object) -> ErrorCode:
        with pytest.raises(MedfilipError) as caught:
            real.diagnose(*given, **asked)  # type: ignore[arg-type]
        return caught.value.code

    # The archive does not answer: so far the request has come.
    assert code(study="1.2.3", store=True) == code(study="1.2.3", archive="ward") == ErrorCode.ENDPOINT_UNREACHABLE
    assert code(study="1.2.3", archive="https://elsewhere/dicom-web") == ErrorCode.URI_NOT_ALLOWED
    assert code(phantom_dicom, study="1.2.3") == code(archive="ward", store=True) == ErrorCode.REQUEST_INVALID
    assert code(phantom_dicom, store=True) == code(labels="nodule") == ErrorCode.REQUEST_INVALID
