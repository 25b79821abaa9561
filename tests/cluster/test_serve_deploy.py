"""``serve deploy serve/config.yaml`` on a real cluster with a dashboard, which changes its model under load."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from medfilip.client import Client
from medfilip.core.errors import MedfilipError
from medfilip.model.checkpoint import load_checkpoint, save_checkpoint
from medfilip.model.dual_encoder import DualEncoder
from tests.support.head import free_port, running_head

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"
KEY = "a-key-of-the-tests-0123456789"
CALLERS = 3
PATIENCE_S = 200.0


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """Of the cluster and of the command: keys, and what the image of `infra/docker` sets."""
    root = CONFIG.parents[1]
    return {
        **os.environ,
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": os.pathsep.join((str(root / "platform"), str(root))),
        "MEDFILIP_API_KEYS": KEY,
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve.heads:bound_heads",
    }


@pytest.fixture(scope="module")
def dashboard(environment: dict[str, str]) -> Iterator[str]:
    with running_head(environment) as address:
        yield address


def answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except OSError:
        return False
    return True


def wait_for(what: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.2)


def adapted(checkpoint: Path, port: int) -> dict[str, Any]:
    """Return the file of the repository for this machine: it has no GPU and few cores; nothing else is changed."""
    content: dict[str, Any] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    content["http_options"] |= {"host": "127.0.0.1", "port": port}
    [application] = content["applications"]
    pools = application["args"]
    pools["encoder"] |= {"device": "cpu", "num_gpus": 0}
    pools["gateway"] |= {"min_replicas": 1, "max_replicas": 1}
    pools["decoder"] |= {"min_replicas": 1, "max_replicas": 1}
    pools["requests_per_minute"] = 1_000_000
    [encoder] = application["deployments"]
    encoder["user_config"]["checkpoint"] = str(checkpoint)
    return content


@dataclass
class Deployer:
    """Runs the command of Ray Serve."""

    dashboard: str
    environment: dict[str, str]
    folder: Path

    def deploy(self, content: dict[str, Any]) -> None:
        file = self.folder / "config.yaml"
        file.write_text(yaml.safe_dump(content), encoding="utf-8")
        done = self._serve("deploy", str(file))
        assert done.returncode == 0, done.stdout + done.stderr

    def running(self) -> bool:
        status = yaml.safe_load(self._serve("status").stdout) or {}
        applications = status.get("applications", {})
        assert all(one["status"] != "DEPLOY_FAILED" for one in applications.values()), status
        return [one["status"] for one in applications.values()] == ["RUNNING"]

    def _serve(self, command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("serve")
        return subprocess.run(
            [str(program), command, *arguments, "-a", self.dashboard],
            capture_output=True, text=True, env=self.environment, timeout=PATIENCE_S,
        )  # fmt: skip


@dataclass
class Callers:
    """Callers that ask one thing after the other, and note which model answered."""

    url: str
    image: bytes
    seen: list[str] = field(default_factory=list)
    failed: list[MedfilipError] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        with Client(self.url, KEY) as client:
            while not self.done.wait(0.05):
                try:
                    self.seen.append(client.diagnose(self.image, ["nodule"]).model.fingerprint)
                except MedfilipError as error:
                    self.failed.append(error)


@pytest.mark.timeout(600)
def test_a_deployed_endpoint_changes_its_model_under_load(
    dashboard: str, environment: dict[str, str], tiny_checkpoint: Path, phantom_dicom: bytes, tmp_path: Path
) -> None:
    made = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(2)
    save_checkpoint(tmp_path / "other", DualEncoder(made.model.config, made.model.tokenizer), made.versions)
    old, new = made.fingerprint, load_checkpoint(tmp_path / "other").fingerprint
    deployer, port = Deployer(dashboard, environment, tmp_path), free_port()
    url = f"http://127.0.0.1:{port}"

    deployer.deploy(adapted(tiny_checkpoint, port))
    wait_for(lambda: answers(f"{url}/readyz"))
    wait_for(deployer.running)
    with Client(url, KEY) as client:
        assert client.model().fingerprint == client.diagnose(phantom_dicom).model.fingerprint == old
        with pytest.raises(MedfilipError):
            client.diagnose(phantom_dicom, "a" * 300)

    callers = Callers(url, phantom_dicom)
    threads = [threading.Thread(target=callers.ask) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(callers.seen) > 10 * CALLERS)
        deployer.deploy(adapted(tmp_path / "other", port))
        wait_for(lambda: callers.seen[-CALLERS:] == [new] * CALLERS)
        with Client(url, KEY) as client:
            wait_for(lambda: client.model().fingerprint == new)
        wait_for(deployer.running)
    finally:
        callers.done.set()
        for thread in threads:
            thread.join()
    assert callers.failed == []
    assert set(callers.seen) == {old, new} and callers.seen[-1] == new
    changes = sum(one != other for one, other in zip(callers.seen, callers.seen[1:], strict=False))
    assert changes < 2 * CALLERS, Counter(callers.seen)
