"""An S3 endpoint that fails: a proxy before a real one, which spoils a seeded share of the requests."""

from __future__ import annotations

import http.client
import logging
import random
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

BUCKET = "chaos"
FAULTS = ("500", "503", "reset", "lost")
"""Internal error, slow down, a connection cut before the request is done, and one cut after it was done."""

_HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "expect", "content-length"}
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>spoiled</Message></Error>'


def s3_environment(url: str) -> dict[str, str]:
    """Return what a client needs to use an endpoint."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def moto() -> Iterator[str]:
    """Run a real S3 API with an empty bucket; yields its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    try:
        _client(url).create_bucket(Bucket=BUCKET)
        yield url
    finally:
        server.stop()


def _client(url: str) -> Any:
    import boto3

    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


def bucket_files(url: str, prefix: str) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of the bucket below a prefix, their keys relative to it."""
    client = _client(url)
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/"):
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                body = client.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()
                yield item["Key"].removeprefix(f"{prefix}/"), body


class FaultyS3:
    """A running proxy.

    Attributes
    ----------
    url
        Its address.
    share
        Share of requests that are spoiled; may be changed while it runs.
    requests, spoiled
        How many there were.
    """

    def __init__(self, url: str, share: float, seed: int) -> None:
        self.url = url
        self.share = share
        self.requests = 0
        self.spoiled = 0
        self._rng = random.Random(seed)
        self._lock = threading.Lock()

    def draw(self) -> str | None:
        """Return the fault of the next request, or ``None``."""
        with self._lock:
            self.requests += 1
            if self._rng.random() >= self.share:
                return None
            self.spoiled += 1
            return self._rng.choice(FAULTS)


@contextmanager
def faulty_s3(target: str, share: float, seed: int) -> Iterator[FaultyS3]:
    """Run a proxy before the endpoint ``target``."""
    to = urlsplit(target)
    assert to.hostname and to.port
    server = _Server(("127.0.0.1", 0), _Handler)
    server.faults = FaultyS3(f"http://127.0.0.1:{server.server_port}", share, seed)
    server.target = (to.hostname, to.port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.faults
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True
    faults: FaultyS3
    target: tuple[str, int]

    def handle_error(self, *_: object) -> None:
        pass  # a client that was killed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_request(self) -> None:
        body = self._body()
        fault = self.server.faults.draw()
        if fault == "reset":
            self._reset()
        elif fault in ("500", "503"):
            code = "InternalError" if fault == "500" else "SlowDown"
            self._send(int(fault), [("Content-Type", "application/xml")], _ERROR.format(code=code).encode())
        else:
            status, headers, content = self._forward(body)
            if fault == "lost":
                self._reset()
            else:
                self._send(status, headers, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_request

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.server.target, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        try:
            connection.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        length = str(len(content))
        for name, value in headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _reset(self) -> None:
        # Lingering for no time sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass
