"""``medfilip submit`` against a real cluster with a dashboard and token authentication, started and ended here."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from medfilip.phantom.corpus import write_corpus

TOKEN = "0123456789abcdef" * 4
HEAD = """
import sys, time, ray
ray.init(address="local", num_cpus=8, include_dashboard=True, dashboard_port=int(sys.argv[1]), log_to_driver=False,
         object_store_memory=200 << 20)
print("ready", flush=True)
sys.stdin.read()
ray.shutdown()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(token: str = TOKEN) -> dict[str, str]:
    # Jobs run with the `python` and `pip` the cluster finds on its path, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    common = {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    return {**os.environ, **common, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """Start a cluster of its own; it ends when its standard input closes."""
    port = free_port()
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        text=True,
    )
    assert head.stdin and head.stdout
    assert "ready" in head.stdout.readline()
    address = f"http://127.0.0.1:{port}"
    request = urllib.request.Request(f"{address}/api/version", headers={"Authorization": f"Bearer {TOKEN}"})
    for _ in range(60):
        try:
            urllib.request.urlopen(request, timeout=2).close()
            break
        except OSError:
            time.sleep(1)
    yield address
    head.stdin.close()
    head.wait(60)


def submit(address: str, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "submit", *arguments, "--address", address],
        capture_output=True,
        text=True,
        env=environment(token),
        timeout=280,
    )


@pytest.mark.timeout(600)
def test_a_job_runs_on_the_cluster_and_its_log_and_exit_code_come_back(dashboard: str, tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus", 6, seed=1)
    result = submit(dashboard, "ingest", f"reports={tmp_path}/corpus", f"root={tmp_path}/runs")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "ingest finished" in result.stdout, "the job's own output is followed"
    assert list((tmp_path / "runs").glob("ingest-*/*/manifest.json"))

    failed = submit(dashboard, "extract", f"reports={tmp_path}/nowhere", f"root={tmp_path}/runs")
    assert failed.returncode == 1
    assert "[input_not_published]" in failed.stdout and "Traceback" not in failed.stdout


def test_a_wrong_token_is_told(dashboard: str, tmp_path: Path) -> None:
    result = submit(dashboard, "ingest", f"reports={tmp_path}", f"root={tmp_path}", token="f" * 64)
    assert result.returncode == 1
    assert "[unauthenticated]" in result.stderr and "RAY_AUTH_TOKEN" in result.stderr
