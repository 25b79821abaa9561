"""The HTTP application: forms of a request, the shape of every error, headers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from fastapi.testclient import TestClient

from medfilip.answers import Diagnosis, Embedding, ErrorAnswer, Labels, ModelCard
from medfilip.core.errors import ErrorCode
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_encode
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import make_study
from serve.gateway import Gateway
from serve.keys import KeyRing, hash_key
from serve.settings import ServeSettings
from serve.web import http_app
from tests.unit.serve.conftest import KEY

LABELS = ["pleural_effusion", "Left  pleural effusion", "something nobody wrote down"]
Make = Callable[..., TestClient]


def error_of(answer: object, status: int, code: ErrorCode) -> str:
    assert answer.status_code == status, answer.text  # type: ignore[attr-defined]
    body = ErrorAnswer.model_validate_json(answer.content).error  # type: ignore[attr-defined]
    assert body.code == code and body.message.endswith(".") and body.fix.endswith(".")
    assert body.request_id == answer.headers["x-request-id"]  # type: ignore[attr-defined]
    return body.message


def test_form_and_raw_body_give_the_same_answer(client: TestClient, phantom_dicom: bytes) -> None:
    form = client.post("/v1/diagnose", files={"file": ("x.dcm", phantom_dicom)}, data={"labels": LABELS})
    raw = client.post(
        "/v1/diagnose", content=phantom_dicom, params={"labels": LABELS}, headers={"Content-Type": "application/dicom"}
    )
    first, second = (Diagnosis.model_validate_json(answer.content) for answer in (form, raw))
    assert first.findings == second.findings and first.request_id != second.request_id
    assert [finding.label for finding in first.findings] == [" ".join(label.split()) for label in LABELS]
    assert [finding.category for finding in first.findings] == ["pleural_effusion", None, None]
    assert [finding.calibrated for finding in first.findings] == [True, False, False]
    assert first.images[0].model_dump() == {
        "view": "frontal", "rows": 512, "columns": 512, "bits": 12, "photometric": "MONOCHROME2", "inverted": False,
        "transfer_syntax": "1.2.840.10008.1.2.1", "grey_values": "full_range", "preview": None, "quality": (),
    }  # fmt: skip
    assert first.intended_use == "research use only" and first.model.training_data == "synthetic training data"
    assert {warning.code for warning in first.warnings} == {"synthetic_training_data", "uncalibrated"}


def test_the_images_of_a_study_are_answered_together(client: TestClient, phantom_dicom: bytes) -> None:
    other = png_encode(read_dicom(phantom_dicom, ImageLimits()).pixels[:, ::-1])
    asked = {"labels": ["nodule"]}

    def score(*files: bytes) -> float:
        answer = client.post("/v1/diagnose", files=[("file", ("x", file)) for file in files], data=asked)
        diagnosis = Diagnosis.model_validate_json(answer.content)
        assert len(diagnosis.images) == len(files)
        return diagnosis.findings[0].positive_score

    alone = score(phantom_dicom), score(other)
    assert min(alone) < score(phantom_dicom, other) < max(alone)
    twice = client.post("/v1/diagnose", files=[("file", ("x", phantom_dicom))] * 2)
    error_of(twice, 422, ErrorCode.IMAGE_DUPLICATE)
    wrong = client.post("/v1/diagnose", files=[("file", ("x", phantom_dicom)), ("file", ("y", b"no image"))])
    assert "Image 2" in error_of(wrong, 422, ErrorCode.IMAGE_UNSUPPORTED)


def test_everything_a_question_can_ask_is_answered(client: TestClient, phantom_dicom: bytes) -> None:
    asked = {
        "labels": ["nodule"], "described": ["star shadow: bright star; ten spikes"], "attributes": "2",
        "heat_maps": "all", "threshold": "0",
    }  # fmt: skip
    answer = client.post("/v1/diagnose", files={"file": phantom_dicom}, data=asked)
    nodule, star = Diagnosis.model_validate_json(answer.content).findings
    assert (nodule.decision, star.decision, star.label, star.category) == ("present", "present", "star shadow", None)
    assert {match.text for match in star.attributes} == {"bright star", "ten spikes"} and len(nodule.attributes) == 2
    assert nodule.heat_map is not None and star.heat_map is not None and nodule.heat_map.width == 32
    assert nodule.operating_point is not None and nodule.operating_point.rule == "request"


def test_images_and_texts_are_embedded_in_one_space(client: TestClient, phantom_dicom: bytes) -> None:
    parts = [("file", ("x", phantom_dicom)), ("texts", (None, "nodule")), ("texts", (None, "no nodule"))]
    both = Embedding.model_validate_json(client.post("/v1/embed", files=parts).content)
    assert both.study is not None and len(both.texts) == 2
    vectors = np.array([both.study, *both.texts])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    texts = Embedding.model_validate_json(client.post("/v1/embed", files=parts[1:]).content)
    assert texts.study is None and texts.texts == both.texts
    raw = client.post("/v1/embed", content=phantom_dicom, headers={"Content-Type": "application/dicom"})
    np.testing.assert_allclose(Embedding.model_validate_json(raw.content).study, both.study, atol=1e-6)
    error_of(client.post("/v1/embed", files=[("labels", (None, "x"))]), 422, ErrorCode.REQUEST_INVALID)


def test_default_labels_are_the_calibrated_categories(client: TestClient, phantom_dicom: bytes) -> None:
    answer = client.post("/v1/diagnose", content=phantom_dicom, headers={"Content-Type": "application/octet-stream"})
    asked = {finding["label"] for finding in answer.json()["findings"]}
    listed = Labels.model_validate_json(client.get("/v1/labels").content)
    assert asked == {"pleural_effusion", "nodule"} == {label.id for label in listed.labels if label.default}
    assert len(listed.labels) > 30 and listed.max_labels == 64


def test_a_png_is_judged_by_its_pixels(client: TestClient, phantom_dicom: bytes) -> None:
    pixels = read_dicom(phantom_dicom, ImageLimits()).pixels
    right = client.post("/v1/diagnose", content=png_encode(pixels), headers={"Content-Type": "image/png"}).json()
    negative = png_encode(65535 - pixels)
    turned = client.post("/v1/diagnose", content=negative, headers={"Content-Type": "image/png"}).json()
    assert right["images"][0]["view"] == "frontal" and right["images"][0]["quality"] == []
    assert turned["images"][0]["inverted"] and "inverted" in {warning["code"] for warning in turned["warnings"]}
    assert turned["findings"] == right["findings"]  # it is turned back before the model sees it


def test_png_of_no_chest_has_no_view_and_says_so(client: TestClient) -> None:
    png = png_encode((np.arange(65536) % 256).astype(np.uint8).reshape(256, 256))
    answer = client.post("/v1/diagnose", content=png, headers={"Content-Type": "image/png"}).json()
    assert answer["images"][0]["transfer_syntax"] == "image/png" and answer["images"][0]["bits"] == 8
    assert "not_chest" in {warning["code"] for warning in answer["warnings"]}
    assert "view_not_frontal" in {warning["code"] for warning in answer["warnings"]}


def test_the_card_says_what_the_model_is(client: TestClient) -> None:
    card = ModelCard.model_validate_json(client.get("/v1/model").content)
    assert card.training_data == "synthetic training data" and card.metrics == {"validation_loss": 1.25}
    assert card.calibrated_categories == ("nodule", "pleural_effusion") and not card.knowledge_changed


@pytest.mark.parametrize("path", ["/v1/diagnose", "/v1/model", "/v1/labels", "/v1/nothing"])
def test_everything_below_v1_needs_a_key(client: TestClient, path: str) -> None:
    error_of(client.get(path, headers={"Authorization": ""}), 401, ErrorCode.UNAUTHENTICATED)
    error_of(client.get(path, headers={"Authorization": "Bearer wrong"}), 403, ErrorCode.FORBIDDEN)


def test_health_and_openapi_need_none(client: TestClient) -> None:
    assert client.get("/healthz", headers={"Authorization": ""}).json() == {"status": "alive"}
    assert client.get("/readyz", headers={"Authorization": ""}).json() == {"status": "ready"}
    paths = client.get("/openapi.json", headers={"Authorization": ""}).json()["paths"]
    assert set(paths) == {"/v1/diagnose", "/v1/embed", "/v1/model", "/v1/labels", "/healthz", "/readyz"}
    assert "multipart/form-data" in paths["/v1/diagnose"]["post"]["requestBody"]["content"]
    error_of(client.get("/docs"), 404, ErrorCode.NOT_FOUND)
    error_of(client.get("/v1/diagnose"), 405, ErrorCode.METHOD_NOT_ALLOWED)


def test_unfit_requests_get_their_code(client_of: Make, phantom_dicom: bytes) -> None:
    client = client_of(max_body_bytes=100_000)
    dicom = {"Content-Type": "application/dicom"}

    def post(**content: object) -> object:
        return client.post("/v1/diagnose", **content)

    error_of(post(json={"a": 1}), 415, ErrorCode.MEDIA_TYPE_UNSUPPORTED)
    error_of(post(content=b"x"), 415, ErrorCode.MEDIA_TYPE_UNSUPPORTED)
    error_of(post(content=b"x", headers={**dicom, "Content-Encoding": "gzip"}), 415, ErrorCode.MEDIA_TYPE_UNSUPPORTED)
    error_of(post(content=phantom_dicom, headers=dicom), 413, ErrorCode.REQUEST_TOO_LARGE)
    error_of(post(content=iter([b"x"]), headers=dicom), 411, ErrorCode.LENGTH_REQUIRED)
    error_of(post(content=b"", headers=dicom), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(content=b"x", params={"label": "mass"}, headers=dicom), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(content=b"PATIENT^NAME", headers=dicom), 422, ErrorCode.IMAGE_UNSUPPORTED)
    error_of(post(files={"image": b"x"}), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(data={"labels": ["mass"]}, files={"labels": b"x"}), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(files=[("file", b"x")] * 5), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(files={"file": b"x"}, data={"labels": ["x" * 900]}), 422, ErrorCode.REQUEST_INVALID)
    form = {"Content-Type": "multipart/form-data; boundary=q"}
    error_of(post(content=b"--q\r\nbroken", headers=form), 422, ErrorCode.REQUEST_INVALID)
    error_of(post(content=b"x", headers={"Content-Type": "multipart/form-data"}), 422, ErrorCode.REQUEST_INVALID)


def test_errors_quote_nothing_of_the_request(client: TestClient, phantom_dicom: bytes) -> None:
    canary = "CANARY-7c1f"
    requests = [
        {"files": {"file": b"x"}, "data": {"labels": [canary * 30]}},
        {"files": {canary: b"x"}, "data": {canary: canary}},
        {"files": {"file": (canary, canary.encode())}},
        {"content": canary.encode(), "headers": {"Content-Type": canary}},
        {"content": b"x", "params": {canary: canary}, "headers": {"Content-Type": "image/png"}},
        {"content": b"x", "headers": {"Content-Type": "image/png", "X-Request-ID": f"{canary}/!"}},
    ]
    for request in requests:
        answer = client.post("/v1/diagnose", **request)
        assert 400 <= answer.status_code < 500
        assert canary not in answer.text and canary not in str(answer.headers)


def test_requests_keep_their_name_and_answers_are_guarded(client: TestClient) -> None:
    answer = client.get("/v1/model", headers={"X-Request-ID": "worklist-17"})
    assert answer.headers["x-request-id"] == "worklist-17"
    assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
    assert client.get("/nothing").headers["x-frame-options"] == "DENY"


def test_a_full_gateway_says_when_to_come_back(client_of: Make, phantom_dicom: bytes, settings: object) -> None:
    gateway = settings.gateway.model_copy(update={"max_admitted": 0})  # type: ignore[attr-defined]
    answer = client_of(gateway=gateway).post("/v1/diagnose", files={"file": phantom_dicom})
    error_of(answer, 503, ErrorCode.OVERLOADED)
    assert int(answer.headers["retry-after"]) > 0


def test_slow_and_failing_parts_are_told_without_their_words(
    client_of: Make, backend: object, phantom_dicom: bytes
) -> None:
    class Hanging(type(backend)):  # type: ignore[misc]
        async def decode(self, data: bytes, image_size: int, preview: bool) -> object:
            await asyncio.sleep(60)

    class Failing(type(backend)):  # type: ignore[misc]
        async def decode(self, data: bytes, image_size: int, preview: bool) -> object:
            raise RuntimeError("PATIENT^NAME")

    parts = backend.decoder, backend.encoder  # type: ignore[attr-defined]
    slow = client_of(Hanging(*parts), request_timeout_s=0.05).post("/v1/diagnose", files={"file": phantom_dicom})
    error_of(slow, 504, ErrorCode.REQUEST_TIMEOUT)
    failing = client_of(Failing(*parts)).post("/v1/diagnose", files={"file": phantom_dicom})
    assert "RuntimeError" in error_of(failing, 500, ErrorCode.INTERNAL) and "PATIENT" not in failing.text


def test_a_caller_that_asks_too_much_is_told_when_to_come_back(client_of: Make) -> None:
    client = client_of(requests_per_minute=3)
    answers = [client.get("/v1/model") for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    error_of(answers[-1], 429, ErrorCode.RATE_LIMITED)
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    assert client.get("/healthz").status_code == 200
    error_of(client.get("/v1/model", headers={"Authorization": "Bearer wrong"}), 403, ErrorCode.FORBIDDEN)


def test_images_of_two_patients_are_never_one_answer(client: TestClient) -> None:
    files = [("file", (str(index), dicom_bytes(make_study(3, index, size=128)))) for index in range(2)]
    for form in ("application/json", "application/fhir+json"):
        answer = client.post("/v1/diagnose", files=files, headers={"Accept": form})
        error_of(answer, 422, ErrorCode.SOURCES_DIFFER)
    error_of(client.post("/v1/embed", files=files), 422, ErrorCode.SOURCES_DIFFER)


@pytest.mark.parametrize("prefix", ["", "/xray"])
@pytest.mark.parametrize("path", ["/v1/diagnose", "/v1/diagnose%0A", "/v1/model", "/v1/nothing", "/v1/"])
def test_no_way_leads_past_the_key(backend: object, settings: ServeSettings, prefix: str, path: str) -> None:
    app = http_app(Gateway(backend, settings), KeyRing([hash_key(KEY)]), settings)  # type: ignore[arg-type]
    stranger = TestClient(app, root_path=prefix)
    answers = [stranger.post(prefix + path, files={"file": b"x"}), stranger.get(prefix + path)]
    assert all(answer.status_code == (404 if "%" in path else 401) for answer in answers)
    known = TestClient(app, root_path=prefix, headers={"X-API-Key": KEY})
    assert known.get(f"{prefix}/v1/model").status_code == 200
