"""A small OpenAI-compatible HTTP server on this machine: real sockets, scripted answers, and what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SENTENCE = re.compile(r"<(sentence|request)>(.*)</\1>", re.DOTALL)


@dataclass
class Answer:
    """What the server sends: a reply's text, or a bare status with headers."""

    text: str = '{"f":[]}'
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    finish_reason: str = "stop"
    refusal: str | None = None
    cached: int = 0
    body: bytes | None = None


@dataclass
class ChatServer:
    """A running server: ``answer`` decides by sentence and request body; ``asked`` holds the bodies in order."""

    url: str
    asked: list[dict[str, Any]]
    headers: list[dict[str, str]]

    def sentences(self) -> list[str]:
        """Return the sentences asked about, in order."""
        return [sentence_of(body) for body in self.asked]


def sentence_of(body: dict[str, Any]) -> str:
    """Return the sentence, or the request of another kind, that a request asks about."""
    found = _SENTENCE.search(body["messages"][-1]["content"])
    assert found
    return found[2]


@contextmanager
def chat_server(answer: Callable[[str, dict[str, Any]], Answer]) -> Iterator[ChatServer]:
    """Run a server on a free port of this machine."""
    asked: list[dict[str, Any]] = []
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append(body)
            seen.append({name.lower(): value for name, value in self.headers.items()})
            given = answer(sentence_of(body), body)
            content = given.body if given.body is not None else json.dumps(_completion(given)).encode()
            self.send_response(given.status)
            for name, value in given.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield ChatServer(f"http://127.0.0.1:{server.server_port}/v1", asked, seen)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _completion(given: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": given.text, "refusal": given.refusal}
    usage = {
        "prompt_tokens": 700,
        "completion_tokens": len(given.text) // 3,
        "prompt_tokens_details": {"cached_tokens": given.cached},
    }
    return {"choices": [{"index": 0, "message": message, "finish_reason": given.finish_reason}], "usage": usage}
