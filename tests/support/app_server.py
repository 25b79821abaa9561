"""An ASGI application on a port of this machine, in a thread of the test: real sockets without Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

_STARTING_S = 30


@contextmanager
def running_app(app: Any, **options: Any) -> Iterator[str]:
    """Serve an application, and yield its address; options are uvicorn's."""
    given = {"host": "127.0.0.1", "port": 0, "log_level": "critical", "lifespan": "off", **options}
    server = uvicorn.Server(uvicorn.Config(app, **given))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + _STARTING_S
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        assert server.started, "the application does not listen"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
