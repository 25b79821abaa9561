"""The endpoint as a real Ray Serve application over HTTP: numbers, limits, batches, and what its logs hold."""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pydicom
import pytest

from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import to_model, to_store
from medfilip.imaging.reader import read_image
from medfilip.model.diagnoser import Diagnoser
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from serve.local import APPLICATION, Endpoint, running_endpoint
from serve.settings import ServeSettings

LABELS = ["pleural_effusion", "nodule", "left pleural effusion", "a shadow that nobody described"]
CANARY = "CANARYQ7XZ"
GIGABYTE = 10**9


@pytest.fixture
def client(endpoint: Endpoint) -> Iterator[Client]:
    with Client(endpoint.url, endpoint.api_key) as opened:
        yield opened


def test_the_endpoint_gives_the_numbers_of_the_library(
    client: Client, tiny_checkpoint: Path, phantom_dicom: bytes
) -> None:
    answer = client.diagnose(phantom_dicom, LABELS)
    diagnoser = Diagnoser.load(tiny_checkpoint)
    pixels = to_model(to_store(read_image(phantom_dicom, ImageLimits()).pixels), diagnoser.image_size)
    bank = diagnoser.encode_labels(LABELS)
    scores = diagnoser.score(diagnoser.encode_images(pixels[None]), bank)
    assert [finding.label for finding in answer.findings] == LABELS
    assert [finding.probability for finding in answer.findings] == pytest.approx(scores.probability_NL[0], abs=1e-5)
    assert [finding.negative_score for finding in answer.findings] == pytest.approx(scores.negative_NL[0], abs=1e-5)
    assert [finding.calibrated for finding in answer.findings] == [True, True, False, False]
    assert (answer.model.fingerprint, answer.model.label_set) == (diagnoser.fingerprint, bank.fingerprint)
    assert answer.model.training_data == "synthetic training data"


def test_a_file_is_diagnosed_for_default_labels(client: Client, tmp_path: Path, phantom_dicom: bytes) -> None:
    (tmp_path / "image.dcm").write_bytes(phantom_dicom)
    answer = client.diagnose(tmp_path / "image.dcm")
    assert {finding.label for finding in answer.findings} == {"pleural_effusion", "nodule"}
    assert client.model().fingerprint == answer.model.fingerprint and client.health().status == "ready"


def test_mistakes_come_back_with_their_codes(client: Client, endpoint: Endpoint, phantom_dicom: bytes) -> None:
    with pytest.raises(MedfilipError) as caught:
        client.diagnose(b"no image at all")
    assert caught.value.code == ErrorCode.IMAGE_UNSUPPORTED
    for key, code in ((None, ErrorCode.UNAUTHENTICATED), ("wrong", ErrorCode.FORBIDDEN)):
        with Client(endpoint.url, key) as other, pytest.raises(MedfilipError) as caught:
            other.diagnose(phantom_dicom)
        assert caught.value.code == code


def test_one_request_id_goes_through(endpoint: Endpoint) -> None:
    key = {"X-API-Key": endpoint.api_key or ""}
    answer = httpx.get(f"{endpoint.url}/v1/nothing", headers={**key, "X-Request-ID": "worklist-17"})
    assert answer.headers.get_list("x-request-id") == ["worklist-17"]
    assert answer.json()["error"]["request_id"] == "worklist-17" and answer.status_code == 404
    answer = httpx.get(f"{endpoint.url}/v1/model", headers=key)
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(
    ("length", "status"), [(f"Content-Length: {GIGABYTE}", 413), ("Transfer-Encoding: chunked", 411)]
)
@pytest.mark.parametrize("known", [True, False])
def test_a_gigabyte_is_refused_before_it_is_sent(endpoint: Endpoint, length: str, status: int, known: bool) -> None:
    address = httpx.URL(endpoint.url)
    head = (
        f"POST /v1/diagnose HTTP/1.1\r\nHost: {address.host}\r\nContent-Type: application/dicom\r\n"
        f"X-API-Key: {endpoint.api_key if known else 'wrong'}\r\n{length}\r\n\r\n"
    )
    million = bytes(10**6)
    chunk = million if status == 413 else b"f4240\r\n" + million + b"\r\n"
    accepted = 0
    with socket.create_connection((address.host, address.port or 80), timeout=30) as connection:
        connection.sendall(head.encode())
        try:
            while accepted < GIGABYTE:
                connection.sendall(chunk)
                accepted += len(million)
        except OSError:
            pass  # the server has answered and closed
        answer = connection.recv(1000).decode()
    assert answer.startswith(f"HTTP/1.1 {status if known else 403} ")
    # What the proxy took in until the answer of the gateway reached it; measured 7 to 23 MB, on a busy machine.
    assert accepted < GIGABYTE // 5


def test_requests_sent_together_are_computed_together(endpoint: Endpoint) -> None:
    from ray import serve as rayserve

    encoder = rayserve.get_deployment_handle("encoder", APPLICATION)
    files = [dicom_bytes(make_study(5, index, size=128)) for index in range(8)]
    before = encoder.batches.remote().result()
    with Client(endpoint.url, endpoint.api_key) as shared, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda file: shared.diagnose(file, LABELS), files))
        after = encoder.batches.remote().result()
        alone = [shared.diagnose(file, LABELS) for file in files[:2]]
    sizes = {size: count - before.get(size, 0) for size, count in after.items() if count > before.get(size, 0)}
    assert sum(size * count for size, count in sizes.items()) == 8 and max(sizes) > 1
    for one, other in zip(alone, together, strict=False):
        scores = [finding.positive_score for finding in other.findings]
        assert [finding.positive_score for finding in one.findings] == pytest.approx(scores, abs=1e-5)


def test_nothing_of_a_patient_is_answered_or_logged(endpoint: Endpoint, client: Client, phantom_dicom: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(phantom_dicom))
    dataset.PatientName, dataset.PatientID = f"{CANARY}^NAME", f"{CANARY}-ID"
    dataset.ImageComments = dataset.StudyDescription = f"{CANARY} comment"
    good = io.BytesIO()
    dataset.save_as(good)
    dataset.Rows = 5000  # more than there are pixels for
    bad = io.BytesIO()
    dataset.save_as(bad)

    assert CANARY not in client.diagnose(good.getvalue(), ["mass"]).model_dump_json()
    key = {"X-API-Key": endpoint.api_key or ""}
    raw = {**key, "Content-Type": "application/dicom"}
    url = f"{endpoint.url}/v1/diagnose"
    labelled = httpx.post(url, params={"labels": f"{CANARY} label"}, content=good.getvalue(), headers=raw)
    assert labelled.status_code == 200
    errors = [
        httpx.post(url, content=bad.getvalue(), headers=raw),
        httpx.post(url, params={"labels": CANARY * 30}, content=good.getvalue(), headers=raw),
        httpx.post(url, files={"file": (CANARY, CANARY.encode())}, data={"labels": [CANARY]}, headers=key),
        httpx.post(f"{url}/{CANARY}", params={CANARY: CANARY}, headers=key),
    ]
    assert [answer.status_code for answer in errors] == [422, 422, 422, 404]
    assert all(CANARY not in answer.text for answer in errors)

    from ray._private.worker import global_worker

    time.sleep(1)  # logs are written by other processes
    session = Path(global_worker.node.get_session_dir_path())
    logs = [path for path in (session / "logs").rglob("*") if path.is_file()]
    assert any("serve" in path.parts for path in logs)
    # Addresses of clients and keys are as private as names.
    secrets = [CANARY.encode(), (endpoint.api_key or "").encode()]
    assert not [path for path in logs for secret in secrets if secret in path.read_bytes()]


def test_a_second_start_leaves_the_first_alone(tiny_checkpoint: Path, endpoint: Endpoint) -> None:
    port = httpx.URL(endpoint.url).port
    taken = ServeSettings(checkpoint="", port=port)
    with pytest.raises(MedfilipError) as caught, running_endpoint(tiny_checkpoint, taken):
        pass
    assert caught.value.code == ErrorCode.PORT_TAKEN
    # Nor may it take over, and at its end shut down, a Serve that it did not start.
    with pytest.raises(MedfilipError, match="already"), running_endpoint(tiny_checkpoint):
        pass
    assert httpx.get(f"{endpoint.url}/healthz").json() == {"status": "alive"}
