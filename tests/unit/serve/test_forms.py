"""The forms of an answer: chosen by Accept, and the same findings in each."""

from __future__ import annotations

import io
import json

import pydicom
import pytest
from fastapi.testclient import TestClient

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_encode
from medfilip.imaging.reader import read_image
from medfilip.standards.multipart import decode
from serve.rendering import form_of

ASKED = {"labels": ["pleural_effusion", "a shadow"], "heat_maps": "all", "threshold": "0.001"}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/html, application/json;q=0.9", "json"),
        ("application/fhir+json", "fhir"),
        ("Application/FHIR+JSON; charset=utf-8", "fhir"),
        ("application/json;q=0.2, application/dicom", "sr"),
        ("application/dicom;q=0, application/json", "json"),
        ('multipart/related; type="application/dicom"', "objects"),
    ],
)
def test_the_form_is_the_one_most_wanted(accept: str, form: str) -> None:
    assert form_of(accept) == form


@pytest.mark.parametrize("accept", ["text/html", "application/dicom;q=0", "image/png;q=x", ";"])
def test_other_forms_are_refused(accept: str) -> None:
    with pytest.raises(MedfilipError, match="fhir") as caught:
        form_of(accept)
    assert caught.value.code is ErrorCode.NOT_ACCEPTABLE


def post(client: TestClient, data: bytes, accept: str) -> object:
    return client.post("/v1/diagnose", files={"file": data}, data=ASKED, headers={"Accept": accept})


def test_fhir_says_what_json_says(client: TestClient, phantom_dicom: bytes) -> None:
    told = post(client, phantom_dicom, "application/json").json()
    answer = post(client, phantom_dicom, "application/fhir+json")
    assert answer.headers["content-type"] == "application/fhir+json"
    report = json.loads(answer.content)
    assert report["resourceType"] == "DiagnosticReport" and report["status"] == "preliminary"
    values = [
        part["valueQuantity"]["value"]
        for item in report["contained"] if item["resourceType"] == "Observation"
        for part in item["component"] if any(code["code"].endswith("probability") for code in part["code"]["coding"])
    ]  # fmt: skip
    assert values == pytest.approx([finding["probability"] for finding in told["findings"]], abs=1e-3)


def test_dicom_objects_lie_in_the_study_of_the_image(client: TestClient, phantom_dicom: bytes) -> None:
    source = pydicom.dcmread(io.BytesIO(phantom_dicom))
    single = pydicom.dcmread(io.BytesIO(post(client, phantom_dicom, "application/dicom").content))
    answer = post(client, phantom_dicom, 'multipart/related; type="application/dicom"')
    objects = [pydicom.dcmread(io.BytesIO(part)) for part in decode(answer.headers["content-type"], answer.content)]
    told = post(client, phantom_dicom, "application/json").json()
    mapped = sum(finding["heat_map"]["peak"] > 0 for finding in told["findings"])
    assert [one.Modality for one in objects] == ["SR", *["OT", "SEG"] * mapped] and mapped
    for one in (single, *objects):
        assert (one.StudyInstanceUID, one.PatientID) == (source.StudyInstanceUID, source.PatientID)
        assert one.SOPInstanceUID != source.SOPInstanceUID
    assert single.Modality == "SR"


def test_a_png_belongs_to_no_study(client: TestClient, phantom_dicom: bytes) -> None:
    png = png_encode(read_image(phantom_dicom, ImageLimits()).pixels)
    assert post(client, png, "application/fhir+json").status_code == 200
    answer = post(client, png, "application/dicom")
    assert answer.status_code == 422 and answer.json()["error"]["code"] == "image_not_dicom"
    assert post(client, png, "text/html").status_code == 406
