"""A cluster with a dashboard, as ``ray start --head`` makes it, for tests that talk to it over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 100.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_head(environment: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Start a cluster, yield the address of its dashboard, and end it.

    Its agent, which starts submitted jobs, takes a port that is free: on the port of every other cluster's agent, only
    that of the first cluster on a machine answers.
    """
    dashboard = free_port()
    ports = {
        "port": free_port(), "dashboard-port": dashboard, "dashboard-agent-listen-port": 0,
        "ray-client-server-port": free_port(), "min-worker-port": 0, "max-worker-port": 0,
    }  # fmt: skip
    given = {"num-cpus": 8, "object-store-memory": 200 << 20, "include-dashboard": "true"} | ports
    arguments = [f"--{name}={value}" for name, value in given.items()]
    program = str(Path(sys.executable).with_name("ray"))
    head = subprocess.Popen(
        [program, "start", "--head", "--block", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(environment),
    )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    request = urllib.request.Request(f"{address}/api/version", headers=dict(headers or {}))
    until = time.monotonic() + PATIENCE_S
    try:
        while not _answers(request):
            assert head.poll() is None, "the cluster ended while it started"
            assert time.monotonic() < until, "the cluster did not start"
            time.sleep(0.2)
        yield address
    finally:
        head.terminate()
        try:
            head.wait(60)
        except subprocess.TimeoutExpired:
            head.kill()
            head.wait()


def _answers(request: urllib.request.Request) -> bool:
    try:
        urllib.request.urlopen(request, timeout=2).close()
    except OSError:
        return False
    return True
