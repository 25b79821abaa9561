"""The client against an archive that lies, dawdles or sends others elsewhere; a real one is in tests/processes."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import load_settings
from medfilip.standards import multipart
from medfilip.standards.dicomweb import DicomWebClient, Instance
from medfilip.standards.pacs import PacsSettings
from tests.support.dicoms import make_dicom

IMAGE = make_dicom(np.zeros((8, 8), np.uint16), SeriesInstanceUID="2.25.9")
WANTED = Instance("2.25.8", "2.25.9", 1, "2.25.7", "1.2.840.10008.5.1.4.1.1.1")


@dataclass
class Script:
    """What the server sends to everything, and what it was asked."""

    status: int = 200
    body: bytes = b"[]"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/dicom+json"})
    pause_s: float = 0.0
    asked: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    script: Script

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.script.asked.append((self.path, dict(self.headers), body))
        self.send_response(self.script.status)
        for name, value in self.script.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(self.script.body)))
        self.end_headers()
        try:
            if not self.script.pause_s:
                self.wfile.write(self.script.body)
            for one in self.script.body if self.script.pause_s else b"":
                self.wfile.write(bytes([one]))
                self.wfile.flush()
                time.sleep(self.script.pause_s)
        except OSError:
            pass  # the client hung up, as it should

    do_POST = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Scripted", (Handler,), {"script": script}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    script.url = f"http://127.0.0.1:{server.server_address[1]}/rs"
    yield script
    server.shutdown()
    server.server_close()


@contextmanager
def client(script: Script, **changes: Any) -> Iterator[DicomWebClient]:
    told = {"archives": {"ward": {"url": script.url}}, "read_timeout_s": 5} | changes
    with DicomWebClient(PacsSettings.model_validate(told), "ward") as opened:
        yield opened


def failure(script: Script, work: Callable[[DicomWebClient], object], **changes: Any) -> MedfilipError:
    with client(script, **changes) as opened, pytest.raises(MedfilipError) as caught:
        work(opened)
    assert "CANARY" not in str(caught.value) and "2.25" not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value


def find(opened: DicomWebClient) -> object:
    return opened.find_radiographs(WANTED.study_uid)


def fetch(opened: DicomWebClient) -> object:
    return opened.fetch(WANTED)


def store(opened: DicomWebClient) -> object:
    return opened.store(WANTED.study_uid, [IMAGE])


def found(**changes: Any) -> dict[str, Any]:
    values = {"00080016": WANTED.sop_class, "00080018": "2.25.7", "0020000E": "2.25.9", "00200013": 1} | changes
    return {tag: {"vr": "UI", "Value": [value]} for tag, value in values.items()}


def sends(script: Script, body: object, content_type: str = "application/dicom+json", status: int = 200) -> Script:
    script.body = body if isinstance(body, bytes) else json.dumps(body).encode()
    script.headers, script.status = {"Content-Type": content_type}, status
    return script


@pytest.mark.parametrize("work", [find, fetch, store])
@pytest.mark.parametrize(
    ("status", "code"),
    [
        (301, ErrorCode.ENDPOINT_UNREACHABLE),
        (307, ErrorCode.ENDPOINT_UNREACHABLE),
        (400, ErrorCode.ENDPOINT_UNREACHABLE),
        (401, ErrorCode.UNAUTHENTICATED),
        (403, ErrorCode.FORBIDDEN),
        (404, ErrorCode.NOT_FOUND),
        (413, ErrorCode.REQUEST_TOO_LARGE),
        (500, ErrorCode.ENDPOINT_UNREACHABLE),
        (503, ErrorCode.OVERLOADED),
    ],
)
def test_a_failure_has_a_code_and_no_redirect_is_followed(script: Script, work: Any, status: int, code: str) -> None:
    script.status, script.body = status, b"CANARY"
    script.headers = {"Location": f"{script.url}/elsewhere"}
    assert failure(script, work).code == code
    assert len(script.asked) == 1


def test_only_radiographs_are_found_and_sorted(script: Script) -> None:
    second, other_class = (
        found(**{"00080018": "2.25.71", "00200013": 2}),
        found(**{"00080016": "1.2.840.10008.5.1.4.1.1.2"}),
    )
    sends(script, [second, found(), other_class])
    with client(script) as opened:
        assert [one.sop_uid for one in opened.find_radiographs("2.25.8")] == ["2.25.7", "2.25.71"]
    assert [path for path, _, _ in script.asked] == [
        f"/rs/studies/2.25.8/instances?Modality={one}&limit=17" for one in ("CR", "DX")
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"CANARY",
        b"\xff\xfe",
        b"[" * 100_000,
        b'"CANARY"',
        b"[1]",
        [found(**{"00080018": "CANARY"})],
        [found(**{"00080018": "../../../admin"})],
        [found(**{"0020000E": None})],
        [{"00080016": {"Value": [WANTED.sop_class]}}],
    ],
)
def test_an_answer_that_is_none_is_refused(script: Script, body: object) -> None:
    assert failure(sends(script, body), find).code is ErrorCode.REPLY_INVALID


@pytest.mark.parametrize("body", [b"", b"[]", [{}], [{"00080016": {"Value": []}}], [{"00080016": 3}]])
def test_nothing_found_is_nothing(script: Script, body: object) -> None:
    sends(script, body, status=204 if body == b"" else 200)
    with client(script) as opened:
        assert opened.find_radiographs("2.25.8") == ()


def test_bounds_hold_while_reading(script: Script) -> None:
    sends(script, b" " * 5000)
    assert failure(script, find, max_query_bytes=4096).code is ErrorCode.IMAGE_TOO_LARGE
    sends(script, IMAGE + b"\0" * 5000, "application/dicom")
    assert failure(script, fetch, max_instance_bytes=4096).code is ErrorCode.IMAGE_TOO_LARGE
    many = [found(**{"00080018": f"2.25.{number}"}) for number in range(1, 4)]
    assert failure(sends(script, many), find, max_instances=2).code is ErrorCode.REQUEST_TOO_LARGE
    asked = len(script.asked)
    big = failure(script, lambda opened: opened.store("2.25.8", [IMAGE * 9]), max_store_bytes=1024)
    assert big.code is ErrorCode.REQUEST_TOO_LARGE and len(script.asked) == asked, "nothing was sent"


def test_a_dawdling_archive_is_left(script: Script) -> None:
    sends(script, b" " * 2000)
    script.pause_s = 0.02
    assert failure(script, find, total_timeout_s=0.3).code is ErrorCode.REQUEST_TIMEOUT
    script.pause_s = 3
    assert failure(script, find, read_timeout_s=0.2).code is ErrorCode.REQUEST_TIMEOUT


def test_a_compressed_answer_is_refused(script: Script) -> None:
    sends(script, gzip.compress(b" " * 10_000_000))
    script.headers["Content-Encoding"] = "gzip"
    assert failure(script, find).code is ErrorCode.REPLY_INVALID
    assert script.asked[0][1]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("single", [True, False])
def test_an_image_is_handed_out_as_it_came(script: Script, single: bool) -> None:
    kind, body = ("application/dicom", IMAGE) if single else multipart.encode([IMAGE])
    sends(script, body, kind)
    with client(script) as opened:
        assert opened.fetch(WANTED) == IMAGE


@pytest.mark.parametrize(
    "files", [[], [IMAGE, IMAGE], [make_dicom(np.zeros((8, 8), np.uint16), SOPInstanceUID="2.25.1")]]
)
def test_another_image_than_asked_for_is_refused(script: Script, files: list[bytes]) -> None:
    kind, body = multipart.encode(files)
    assert failure(sends(script, body, kind), fetch).code is ErrorCode.REPLY_INVALID


def test_what_is_no_image_is_refused(script: Script) -> None:
    assert failure(sends(script, b"CANARY", "text/html"), fetch).code is ErrorCode.REPLY_INVALID
    assert failure(sends(script, b"CANARY", "application/dicom"), fetch).code is ErrorCode.IMAGE_NOT_DICOM
    assert failure(sends(script, b"CANARY", "multipart/related; boundary=x"), fetch).code is ErrorCode.REPLY_INVALID


@pytest.mark.parametrize("status", [200, 202, 409])
def test_what_was_not_stored_is_told(script: Script, status: int) -> None:
    failed = {"00081198": {"Value": [{"00081155": {"Value": ["2.25.7"]}, "00081197": {"Value": [0xA700]}}]}}
    error = failure(sends(script, failed, status=status), store)
    assert error.code is ErrorCode.STORE_REFUSED and "A700" in str(error) and "0 of 1" in str(error)
    assert failure(sends(script, [], status=status), store).code is ErrorCode.STORE_REFUSED
    stored = {"00081199": {"Value": [{"00081155": {"Value": ["2.25.7"]}}]}}
    sends(script, stored, status=status)
    with client(script) as opened:
        opened.store("2.25.8", [IMAGE])
    path, headers, body = script.asked[-1]
    assert path == "/rs/studies/2.25.8" and multipart.decode(headers["Content-Type"], body) == [IMAGE]


@pytest.mark.parametrize("uid", ["", "CANARY", "../1", "1.2/../../x", "1." * 40, "1.2\r\nX: y", "01.2"])
def test_a_uid_never_becomes_a_path(script: Script, uid: str) -> None:
    for work in (
        lambda opened: opened.find_radiographs(uid),
        lambda opened: opened.fetch(Instance("1.2", uid, 0, "1.2", "1.2")),
        lambda opened: opened.store(uid, [IMAGE]),
    ):
        assert failure(script, work).code is ErrorCode.REQUEST_INVALID
    assert not script.asked


@pytest.mark.parametrize(("secret", "header"), [("a:b", "Basic YTpi"), ("Bearer T", "Bearer T"), ("", None)])
def test_credentials_come_from_the_secret_of_the_archive(
    script: Script, secret: str, header: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDFILIP_PACS_WARD", secret)
    monkeypatch.setenv("MEDFILIP_PACS_OTHER", "x:y")
    with client(script) as opened:
        find(opened)
    assert script.asked[0][1].get("Authorization") == header


def test_neither_uids_nor_secrets_are_logged(
    script: Script, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MEDFILIP_PACS_WARD", "CANARY:CANARY")
    caplog.set_level(logging.INFO)
    with client(script) as opened:
        find(opened)
    assert "2.25.8" not in caplog.text and "CANARY" not in caplog.text


def test_a_secret_that_is_none_is_told(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFILIP_PACS_WARD", "CANARY")
    with pytest.raises(MedfilipError) as caught, client(script):
        pass
    assert caught.value.code is ErrorCode.SECRET_MISSING and "CANARY" not in str(caught.value)


@pytest.mark.parametrize("wanted", ["", "other", "https://pacs.example", "https://pacs.example/rs/../x", "WARD"])
def test_only_archives_of_the_settings_are_talked_to(wanted: str) -> None:
    settings = PacsSettings.model_validate({"archives": {"ward": {"url": "https://pacs.example/rs/"}}})
    with pytest.raises(MedfilipError) as caught:
        DicomWebClient(settings, wanted)
    assert caught.value.code is ErrorCode.URI_NOT_ALLOWED
    for known in ("ward", "https://pacs.example/rs", "https://pacs.example/rs/"):
        DicomWebClient(settings, known).close()


@pytest.mark.parametrize(
    "url",
    [
        "http://pacs.example/rs",
        "http://10.0.0.1/rs",
        "http://127.0.0.1.example/rs",
        "ftp://127.0.0.1",
        "https://CANARY:CANARY@pacs.example",
        "https://pacs.example?x=CANARY",
        "https://",
        "https://pacs example",
        "pacs",
    ],
)
def test_an_address_that_is_open_or_odd_is_refused(url: str) -> None:
    with pytest.raises(MedfilipError) as caught:
        load_settings(PacsSettings, "pacs", overrides=[f"archives.ward.url='{url}'"], environment={})
    assert caught.value.code is ErrorCode.CONFIG_INVALID and "CANARY" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8042/rs", "http://[::1]:8042", "https://pacs.example/rs"])
def test_https_and_loopback_are_allowed(url: str) -> None:
    settings = load_settings(PacsSettings, "pacs", overrides=[f"archives.ward.url='{url}'"], environment={})
    assert settings.archives["ward"].url == url


@pytest.mark.parametrize("name", ["Ward", "a b", "../x", "", "a" * 33, "ä"])
def test_names_of_archives_can_be_names_of_secrets(name: str) -> None:
    with pytest.raises(ValueError, match="small letters"):
        PacsSettings.model_validate({"archives": {name: {"url": "https://pacs.example"}}})


def test_a_certificate_file_that_is_none(tmp_path: Any) -> None:
    for file in (tmp_path / "missing.pem", tmp_path / "empty.pem"):
        archive = {"url": "https://pacs.example", "ca_file": str(file)}
        (tmp_path / "empty.pem").write_text("CANARY")
        with pytest.raises(MedfilipError) as caught:
            DicomWebClient(PacsSettings.model_validate({"archives": {"ward": archive}}), "ward")
        assert caught.value.code is ErrorCode.CONFIG_INVALID


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_multipart_gives_back_what_it_was_given(files: list[bytes]) -> None:
    assert multipart.decode(*multipart.encode(files)) == files


@given(st.text(max_size=60), st.binary(max_size=300), st.booleans())
def test_any_body_is_parts_or_refused(kind: str, body: bytes, related: bool) -> None:
    content_type = f'multipart/related; boundary="x{kind}"' if related else kind
    try:
        assert isinstance(multipart.decode(content_type, b"--x" + body), list)
    except MedfilipError as error:
        code = error.code
        assert code is ErrorCode.REPLY_INVALID
