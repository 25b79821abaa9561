"""Running it: another model without a pause, and what Prometheus is told."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
import torch

from medfilip.client import Client
from medfilip.core.errors import MedfilipError
from medfilip.model.checkpoint import load_checkpoint, save_checkpoint
from medfilip.model.dual_encoder import DualEncoder
from serve.local import Endpoint

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def other_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model, whose input has another size."""
    made = load_checkpoint(tiny_checkpoint)
    torch.manual_seed(1)
    model = DualEncoder(made.model.config.model_copy(update={"image_size": 48}), made.model.tokenizer)
    folder = tmp_path_factory.mktemp("other")
    save_checkpoint(folder, model, made.versions, calibration=made.calibration)
    return folder


def test_another_model_takes_over_and_no_request_fails(
    endpoint: Endpoint, tiny_checkpoint: Path, other_checkpoint: Path, phantom_dicom: bytes
) -> None:
    seen: list[str] = []
    failed: list[MedfilipError] = []
    done = threading.Event()

    def ask() -> None:
        with Client(endpoint.url, endpoint.api_key) as client:
            while not done.is_set():
                try:
                    seen.append(client.diagnose(phantom_dicom, ["nodule"]).model.fingerprint)
                except MedfilipError as error:
                    failed.append(error)

    def wait_for(fingerprint: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while seen[-1:] != [fingerprint] and time.monotonic() < until:
            time.sleep(0.1)

    old, new = (load_checkpoint(folder).fingerprint for folder in (tiny_checkpoint, other_checkpoint))
    askers = [threading.Thread(target=ask) for _ in range(3)]
    for thread in askers:
        thread.start()
    try:
        wait_for(old)
        with pytest.raises(MedfilipError):
            endpoint.replace_model(tiny_checkpoint.parent / "nothing")
        endpoint.replace_model(other_checkpoint)
        wait_for(new)
        with Client(endpoint.url, endpoint.api_key) as client:
            time.sleep(2.5)  # gateways ask for the card again
            assert (client.model().fingerprint, client.model().image_size) == (new, 48)
        endpoint.replace_model(tiny_checkpoint)
        wait_for(old)
    finally:
        done.set()
        for thread in askers:
            thread.join()
    assert failed == []
    assert set(seen) == {old, new} and seen[-1] == old


def test_prometheus_is_told_what_happened_and_no_label(endpoint: Endpoint, phantom_dicom: bytes) -> None:
    import ray

    with Client(endpoint.url, endpoint.api_key) as client:
        client.diagnose(phantom_dicom, ["a canary shadow"])
        with pytest.raises(MedfilipError):
            client.diagnose(b"no image")
    [node] = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    wanted = {"requests_total", "stage_seconds_bucket", "batch_images_bucket", "label_sets_total", "findings_total"}
    until, found, text = time.monotonic() + PATIENCE_S, Counter[str](), ""
    refused = 'code="image_unsupported"'
    while not (found.keys() >= wanted and refused in text) and time.monotonic() < until:
        time.sleep(1)
        text = httpx.get(address, timeout=10).text
        found = Counter(re.findall(r"^ray_medfilip_(\w+)\{", text, flags=re.MULTILINE))
    assert found.keys() >= wanted
    lines = [line for line in text.splitlines() if line.startswith("ray_medfilip_requests_total")]
    assert any(refused in line and 'status="422"' in line for line in lines)
    assert {"decoder", "encoder", "embed", "answer"} <= set(re.findall(r'stage="(\w+)"', text))
    assert "canary" not in text and (endpoint.api_key or "") not in text


def test_stages_of_a_request_are_told_to_its_sender(endpoint: Endpoint, phantom_dicom: bytes) -> None:
    key = {"X-API-Key": endpoint.api_key or ""}
    answer = httpx.post(f"{endpoint.url}/v1/diagnose", files={"file": phantom_dicom}, headers=key, timeout=60)
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"]))
    assert stages.keys() == {"decoder", "encoder", "labels", "answer"}
    assert float(stages["encoder"]) >= float(stages["answer"]) + float(stages["labels"]) - 0.2
