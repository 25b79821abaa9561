"""Slow, swollen and cut off: who sends such things is told so with a code, and nobody else notices."""

from __future__ import annotations

import io
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from PIL import Image

from medfilip.answers import ErrorAnswer
from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError
from serve.keys import hash_key
from serve.local import Endpoint, running_endpoint
from serve.settings import GatewaySettings, ServeSettings
from tests.support.bombs import deflated_dicom, deflated_zeros, gzipped_zeros, png
from tests.support.memory import MEGABYTE, PeakMemory

HONEST, HOSTILE = "key-of-an-honest-caller-1", "key-of-a-hostile-caller-1"
PLACES = 4
GIGABYTES = 4 * 2**30
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_checkpoint: Path) -> Iterator[Endpoint]:
    """An endpoint with few places, all of which one key may take, and little patience."""
    settings = ServeSettings(
        port=0, api_key_hashes=(hash_key(HONEST), hash_key(HOSTILE)), upload_grace_s=3, upload_timeout_s=45,
        min_upload_bytes_per_s=10_000, concurrent_requests=PLACES + 1, gateway=GatewaySettings(max_admitted=PLACES),
    )  # fmt: skip
    with running_endpoint(tiny_checkpoint, settings) as running:
        yield running


@pytest.fixture
def honest(endpoint: Endpoint) -> Iterator[Client]:
    with Client(endpoint.url, HONEST) as client:
        yield client


def head(endpoint: Endpoint, length: int, key: str = HOSTILE, kind: str = "application/dicom") -> bytes:
    host = httpx.URL(endpoint.url).netloc.decode()
    lines = ["POST /v1/diagnose HTTP/1.1", f"Host: {host}", f"X-API-Key: {key}", f"Content-Type: {kind}"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def connect(endpoint: Endpoint) -> socket.socket:
    url = httpx.URL(endpoint.url)
    return socket.create_connection((url.host, url.port or 80), timeout=PATIENCE_S)


class Dripper:
    """A connection that sends its head at once or not, and then a byte now and then, until it is closed."""

    def __init__(self, endpoint: Endpoint, opening: bytes, rest: bytes) -> None:
        self.socket = connect(endpoint)
        self.socket.sendall(opening)
        self._rest, self._at = rest, 0

    def drip(self) -> None:
        try:
            self.socket.sendall(self._rest[self._at : self._at + 1])
            self._at = min(self._at + 1, len(self._rest) - 1)
        except OSError:
            pass  # closed by the other side, whose answer is read below

    def answer(self) -> tuple[int, ErrorAnswer]:
        """Read the answer to its end: the other side must close."""
        received = b""
        while piece := self.socket.recv(65536):
            received += piece
        first, _, body = received.partition(b"\r\n\r\n")
        return int(first.split()[1]), ErrorAnswer.model_validate_json(body)


@contextmanager
def dripping(drippers: list[Dripper]) -> Iterator[None]:
    """Let all of them drip, a byte in a tenth of a second."""
    done = threading.Event()

    def drip() -> None:
        while not done.wait(0.1):
            for dripper in drippers:
                dripper.drip()

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        for dripper in drippers:
            dripper.socket.close()


def test_heads_that_trickle_and_strangers_hold_no_place(
    endpoint: Endpoint, honest: Client, phantom_dicom: bytes
) -> None:
    whole = head(endpoint, 10**6)
    drippers = [Dripper(endpoint, b"", whole) for _ in range(200)]
    strangers = [
        Dripper(endpoint, head(endpoint, 10**6, key="of-a-stranger-0123456789"), bytes(100)) for _ in range(50)
    ]
    with dripping(drippers + strangers):
        diagnoses = [honest.diagnose(phantom_dicom, ["nodule"]) for _ in range(5)]
        assert len({diagnosis.findings for diagnosis in diagnoses}) == 1
        answers = [dripper.answer() for dripper in strangers + drippers]
        assert {(status, told.error.code) for status, told in answers[:50]} == {(403, ErrorCode.FORBIDDEN)}
        assert {(status, told.error.code) for status, told in answers[50:]} == {(408, ErrorCode.UPLOAD_TIMEOUT)}


def test_a_head_without_end_is_cut_off(endpoint: Endpoint, honest: Client, phantom_dicom: bytes) -> None:
    honest.health()
    memory, sent = PeakMemory(), 0
    with connect(endpoint) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX-Endless: ")
        try:
            while sent < GIGABYTES:
                connection.sendall(bytes([97]) * MEGABYTE)
                sent += MEGABYTE
        except OSError:
            pass  # the other side has closed
    assert sent < 100 * MEGABYTE and sum(memory.growth().values()) < 100 * MEGABYTE
    assert honest.diagnose(phantom_dicom, ["nodule"]).findings


@pytest.mark.parametrize("silent", [True, False], ids=["stop", "trickle"])
def test_a_body_that_never_ends_gives_its_place_back(
    endpoint: Endpoint, honest: Client, phantom_dicom: bytes, silent: bool
) -> None:
    drippers = [Dripper(endpoint, head(endpoint, 10**6) + bytes(10), bytes(10**5)) for _ in range(PLACES)]
    with dripping([] if silent else drippers), ExitStack() as opened:
        for dripper in drippers:
            opened.enter_context(dripper.socket)
        refused = refusals(honest, phantom_dicom)
        told = [dripper.answer() for dripper in drippers]
        assert {status for status, _ in told} == {408}
        assert {answer.error.code for _, answer in told} == {ErrorCode.UPLOAD_TIMEOUT}
        assert all("min_upload_bytes_per_s" in answer.error.message for _, answer in told), "before upload_timeout_s"
        assert honest.diagnose(phantom_dicom, ["nodule"]).findings
    assert refused <= {ErrorCode.OVERLOADED}


def refusals(client: Client, image: bytes) -> set[str]:
    """Ask until there is an answer, and return the codes until then."""
    codes, until = set(), time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        try:
            client.diagnose(image, ["nodule"])
        except MedfilipError as error:
            codes.add(str(error.code))
            time.sleep(0.2)
        else:
            return codes
    raise AssertionError("no place was given back")


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 120).save(buffer, "PNG")
    return buffer.getvalue()


ZLIB = zlib.MAX_WBITS
BOMBS: dict[str, tuple[Callable[[], bytes], dict[str, str], int]] = {
    "deflated DICOM of 4 GB": (lambda: deflated_dicom(GIGABYTES), {}, 413),
    "PNG of 4 gigapixels": (lambda: png(65_000, 65_000, zeros()), {}, 413),
    "PNG with more pixels than it says, which are not read": (lambda: png(64, 64, zeros()), {}, 200),
    "PNG with a text of 4 GB": (lambda: png(64, 64, picture()[41:-16], (b"zTXt", b"a\0\0" + zeros())), {}, 422),
    "PNG with a profile of 4 GB": (lambda: png(64, 64, picture()[41:-16], (b"iCCP", b"a\0\0" + zeros())), {}, 422),
    "body with Content-Encoding": (lambda: gzipped_zeros(GIGABYTES), {"Content-Encoding": "gzip"}, 415),
    "gzip as an image": (lambda: gzipped_zeros(GIGABYTES), {}, 422),
}


def zeros() -> bytes:
    return deflated_zeros(GIGABYTES, window_bits=ZLIB)


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_a_bomb_costs_a_code_and_little_memory(endpoint: Endpoint, honest: Client, bomb: str) -> None:
    make, headers, status = BOMBS[bomb]
    body = make()
    assert len(body) < 8 * MEGABYTE
    honest.health()
    memory = PeakMemory()
    sent = {"X-API-Key": HOSTILE, "Content-Type": "application/octet-stream", **headers}
    with ThreadPoolExecutor(PLACES) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(f"{endpoint.url}/v1/diagnose", content=body, headers=sent, timeout=PATIENCE_S),
                range(PLACES),
            )
        )
    grown = memory.growth()
    assert {answer.status_code for answer in answers} == {status}, answers[0].text
    if status != 200:
        assert all(ErrorAnswer.model_validate_json(answer.content).error.fix for answer in answers)
    assert sum(grown.values()) < 300 * MEGABYTE, grown


@pytest.mark.parametrize("half_closed", [True, False])
def test_cut_uploads_give_their_places_back(
    endpoint: Endpoint, honest: Client, phantom_dicom: bytes, half_closed: bool
) -> None:
    for _ in range(3 * PLACES):
        with connect(endpoint) as connection:
            connection.sendall(head(endpoint, len(phantom_dicom)) + phantom_dicom[: len(phantom_dicom) // 2])
            if half_closed:
                connection.shutdown(socket.SHUT_WR)
                assert not connection.recv(100), "there is nobody to answer"
    assert refusals(honest, phantom_dicom) <= {ErrorCode.OVERLOADED}


@pytest.mark.parametrize("kept", [0, 1, 131, 132, 140, 400, 5_000, -1])
@pytest.mark.parametrize("form", [True, False])
def test_cut_files_are_refused_with_a_code(endpoint: Endpoint, phantom_dicom: bytes, kept: int, form: bool) -> None:
    cut, key = phantom_dicom[:kept], {"X-API-Key": HONEST}
    url = f"{endpoint.url}/v1/diagnose"
    if form:
        answer = httpx.post(url, files={"file": cut}, headers=key, timeout=PATIENCE_S)
    else:
        raw = {**key, "Content-Type": "application/dicom"}
        answer = httpx.post(url, content=cut, headers=raw, timeout=PATIENCE_S)
    assert answer.status_code == 422, answer.text
    error = ErrorAnswer.model_validate_json(answer.content).error
    assert error.code in set(ErrorCode) and error.code != ErrorCode.INTERNAL and error.fix


def test_a_form_without_its_end_is_refused(endpoint: Endpoint, phantom_dicom: bytes) -> None:
    body = b'--q7x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + phantom_dicom
    headers = {"X-API-Key": HONEST, "Content-Type": "multipart/form-data; boundary=q7x"}
    answer = httpx.post(f"{endpoint.url}/v1/diagnose", content=body, headers=headers, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, ErrorCode.REQUEST_INVALID)
