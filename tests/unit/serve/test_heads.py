"""Heads of requests: short and soon, or refused in the shape of every other error, on real sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn.protocols.http.auto
from fastapi import FastAPI, Request

from medfilip.answers import ErrorAnswer
from medfilip.core.errors import ErrorCode
from serve import heads
from serve.heads import BoundedHeads, bound_heads
from tests.support.app_server import running_app


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.URL]:
    """An application that tells how long a body was, with less patience than the real ones have."""
    monkeypatch.setattr(heads, "HEAD_TIMEOUT_S", 0.5)
    app = FastAPI()

    @app.post("/")
    async def count(request: Request) -> int:
        return len(await request.body())

    with running_app(app, http=BoundedHeads) as address:
        yield httpx.URL(address)


def exchange(url: httpx.URL, *pieces: bytes, pause_s: float = 0.0) -> bytes:
    """Send pieces and read until the other side closes; what it no longer takes is not sent."""
    with socket.create_connection((url.host, url.port or 80), timeout=20) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(pause_s)
        except OSError:
            pass
        answer = b""
        try:
            while piece := connection.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass  # it closed with bytes unread
        return answer


def told(answer: bytes) -> tuple[bytes, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.split()[1], ErrorAnswer.model_validate_json(body).error.code


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    "pieces", [[], [HEAD], [HEAD[:1], HEAD[1:9]], [b"\r\n"]], ids=["nothing", "half", "drops", "blank"]
)
def test_a_head_that_does_not_come_is_waited_for_only_so_long(url: httpx.URL, pieces: list[bytes]) -> None:
    assert told(exchange(url, *pieces, pause_s=0.1)) == (b"408", ErrorCode.UPLOAD_TIMEOUT)


def test_bytes_do_not_prolong_the_wait(url: httpx.URL) -> None:
    assert told(exchange(url, *[bytes([byte]) for byte in HEAD], pause_s=0.1)) == (b"408", ErrorCode.UPLOAD_TIMEOUT)


@pytest.mark.parametrize("line", [b"X-Long: %b" % (b"a" * 200), b"X-Short: 1\r\n"], ids=["value", "fields"])
def test_a_head_without_end_is_refused(url: httpx.URL, line: bytes) -> None:
    pieces = [HEAD, *[line * 20] * 5000]
    assert told(exchange(url, *pieces, pause_s=0.00001)) == (b"431", ErrorCode.REQUEST_TOO_LARGE)


def test_a_second_request_must_come_as_soon(url: httpx.URL) -> None:
    whole = HEAD + b"Content-Length: 0\r\n\r\n"
    first, _, second = exchange(url, whole, HEAD).rpartition(b"HTTP/1.1 ")
    assert first.startswith(b"HTTP/1.1 200") and second.startswith(b"408")


def test_trailers_without_end_end_the_connection(url: httpx.URL) -> None:
    chunked = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    lines = [b"X-Trailer: 1\r\n" * 100] * 5000
    assert exchange(url, chunked, *lines, pause_s=0.00001) == b"", "the application waits for them, so has no answer"


def test_long_and_slow_bodies_are_not_heads(url: httpx.URL) -> None:
    parts = [bytes(10**6), b"", bytes(10)]

    def body() -> Iterator[bytes]:
        for part in parts:
            time.sleep(0.3)
            yield part

    assert httpx.post(url, content=body(), timeout=20).json() == 10**6 + 10
    fields = {f"x-{number}": "a" * 1000 for number in range(50)}
    with httpx.Client(headers=fields) as client:
        assert [client.post(url, content=bytes(size)).json() for size in (0, 10**6, 3)] == [0, 10**6, 3]


def test_servers_that_start_later_use_it(monkeypatch: pytest.MonkeyPatch) -> None:
    auto = uvicorn.protocols.http.auto
    monkeypatch.setattr(auto, "AutoHTTPProtocol", auto.AutoHTTPProtocol)
    assert bound_heads() == []
    config = uvicorn.Config(FastAPI(), log_config=None)
    config.load()
    assert config.http_protocol_class is BoundedHeads
