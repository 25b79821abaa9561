"""Manifests use the entry points of a laptop: their commands parse, their settings exist, nothing drifts."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from medfilip.core.settings import load_settings
from pipelines.job import JOBS

REPOSITORY = Path(__file__).parents[3]
KUBERAY = REPOSITORY / "infra" / "kuberay"


def spec(name: str) -> dict[str, Any]:
    return yaml.safe_load((KUBERAY / name).read_text())["spec"]


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [container for group in groups for container in group["template"]["spec"]["containers"]]


def test_the_ray_job_runs_a_job_with_settings_it_knows() -> None:
    program, job, *overrides = shlex.split(spec("rayjob.yaml")["entrypoint"])
    assert program == "medfilip"
    settings = load_settings(JOBS[job].load().SETTINGS, job, overrides=overrides, environment={})
    assert settings.root.startswith("s3://"), "several nodes need storage they share"


def test_the_ray_service_is_the_serve_config_word_for_word() -> None:
    served = yaml.safe_load(spec("rayservice.yaml")["serveConfigV2"])
    assert served == yaml.safe_load((REPOSITORY / "serve" / "config.yaml").read_text())


@pytest.mark.parametrize(("name", "key"), [("rayjob.yaml", "rayClusterSpec"), ("rayservice.yaml", "rayClusterConfig")])
def test_clusters_ask_for_a_token_and_take_secrets_from_secrets(name: str, key: str) -> None:
    cluster = spec(name)[key]
    pinned = re.search(r"ray\[data,train,default\]==([\d.]+)", (REPOSITORY / "pyproject.toml").read_text())
    assert pinned and cluster["rayVersion"] == pinned[1]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for container in containers(cluster):
        for variable in container["env"]:
            secret = any(word in variable["name"] for word in ("KEY", "SECRET", "TOKEN"))
            assert not secret or "secretKeyRef" in variable["valueFrom"]


def test_locked_sets_hold_hashes_and_leave_out_what_the_index_decides() -> None:
    for name in ("cpu-llm", "dev"):
        folder = REPOSITORY / "infra" / "requirements"
        pins = [line for line in (folder / f"{name}.in").read_text().split() if "==" in line]
        wanted = {re.sub(r"[-_.]+", "-", pin.split("==")[0].lower()) + "==" + pin.split("==")[1] for pin in pins}
        locked = (folder / f"{name}.txt").read_text()
        assert wanted == set(re.findall(r"^(\S+==\S+) \\$", locked, re.MULTILINE))
        assert locked.count("--hash=sha256:") >= len(wanted)
        assert not re.search(r"^(torch|torchvision|torchaudio|triton)==", locked, re.MULTILINE)
