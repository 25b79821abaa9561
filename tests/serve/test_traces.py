"""One request to the real endpoint is one trace across its deployments."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest

from serve.local import Endpoint, running_endpoint
from serve.settings import ServeSettings

CANARY = "CANARYQ7XZ"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("traces")


@pytest.fixture(scope="module")
def endpoint(ray_cluster: None, tiny_checkpoint: Path, folder: Path) -> Iterator[Endpoint]:
    with running_endpoint(tiny_checkpoint, ServeSettings(port=0, trace_folder=str(folder))) as opened:
        yield opened


def spans_of(folder: Path, trace: str, count: int) -> list[dict[str, Any]]:
    """Return the spans of a trace once there are so many."""
    until, found = time.monotonic() + PATIENCE_S, []
    while len(found) < count and time.monotonic() < until:
        time.sleep(0.2)
        lines = [line for file in folder.glob("*.jsonl") for line in file.read_text().splitlines(keepends=True)]
        spans = [json.loads(line) for line in lines if line.endswith("\n")]
        found = [span for span in spans if span["context"]["trace_id"] == f"0x{trace}"]
    return found


def test_a_request_is_one_trace_from_the_gateway_to_the_answer(
    endpoint: Endpoint, folder: Path, phantom_dicom: bytes
) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_dicom))
    dataset.PatientName, dataset.PatientID, dataset.StudyDescription = f"{CANARY}^N", CANARY, CANARY
    file = io.BytesIO()
    dataset.save_as(file)
    headers = {
        "X-API-Key": endpoint.api_key or "", "X-Request-ID": "worklist-18", "Accept": "application/dicom",
        "traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": f"x={CANARY}",
    }  # fmt: skip
    answer = httpx.post(
        f"{endpoint.url}/v1/diagnose", params={"labels": f"{CANARY} shadow"}, timeout=60, headers=headers,
        files={"file": (f"{CANARY}.dcm", file.getvalue())},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    spans = {span["name"]: span for span in spans_of(folder, TRACE, 5)}
    assert spans.keys() == {"/v1/diagnose", "decode", "embed", "answer", "render"}
    root = spans.pop("/v1/diagnose")
    assert root["parent_id"] == f"0x{PARENT}" and root["attributes"]["medfilip.request_id"] == "worklist-18"
    assert {span["parent_id"] for span in spans.values()} == {root["context"]["span_id"]}
    services = {name: span["resource"]["attributes"]["service.name"] for name, span in spans.items()}
    assert services == {
        "decode": "medfilip.decoder", "embed": "medfilip.encoder", "answer": "medfilip.encoder",
        "render": "medfilip.decoder",
    }  # fmt: skip
    begun = [spans[name]["start_time"] for name in ("decode", "embed", "answer", "render")]
    assert root["start_time"] <= begun[0] and begun == sorted(begun)
    assert max(span["end_time"] for span in spans.values()) <= root["end_time"]
    texts = [path.read_text() for path in folder.glob("*.jsonl")]
    secrets = (CANARY, dataset.StudyInstanceUID, dataset.SOPInstanceUID, endpoint.api_key or "")
    assert not [secret for text in texts for secret in secrets if secret in text]


def test_a_refusal_is_seen_where_it_came_from(endpoint: Endpoint, folder: Path) -> None:
    trace = TRACE[::-1]
    headers = {"X-API-Key": endpoint.api_key or "", "traceparent": f"00-{trace}-{PARENT}-01"}
    answer = httpx.post(f"{endpoint.url}/v1/diagnose", files={"file": CANARY.encode()}, headers=headers, timeout=60)
    assert answer.status_code == 422
    spans = spans_of(folder, trace, 2)
    assert Counter(span["name"] for span in spans) == {"/v1/diagnose": 1, "decode": 1}
    assert {span["attributes"]["error.type"] for span in spans} == {"image_unsupported"}
