"""``medfilip submit`` against a real cluster with a dashboard and token authentication, started and ended here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from medfilip.phantom.corpus import write_corpus
from tests.support.head import running_head

TOKEN = "0123456789abcdef" * 4


def environment(token: str = TOKEN) -> dict[str, str]:
    # Jobs run with the `python` and `pip` the cluster finds on its path, as in an activated environment.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    common = {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1"}
    return {**os.environ, **common, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    with running_head(environment(), {"Authorization": f"Bearer {TOKEN}"}) as address:
        yield address


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
