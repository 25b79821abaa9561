"""The DICOMweb client and everything that is stored with it, against a real archive."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient

from medfilip.client import Client
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.reader import read_image
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import PhantomStudy, StudyOptions, make_study
from medfilip.standards.dicomweb import DicomWebClient, Instance
from medfilip.standards.overlay import evidence_segmentation, heat_map_capture
from medfilip.standards.pacs import PacsSettings
from medfilip.standards.source import part10
from medfilip.standards.structured_report import structured_report
from serve.decoding import DecoderService
from serve.encoding import EncoderService
from serve.gateway import Gateway
from serve.guard import Auditor
from serve.keys import KeyRing
from serve.settings import ServeSettings
from serve.web import http_app
from tests.support.app_server import running_app
from tests.support.diagnoses import diagnosis
from tests.support.dicoms import make_dicom
from tests.support.orthanc import PLUGIN, Orthanc, running_orthanc
from tests.unit.serve.conftest import InProcess


@pytest.fixture(scope="module")
def archive(needs_program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    program = needs_program("Orthanc")
    if not PLUGIN.exists():
        pytest.skip("needs the program orthanc-dicomweb")
    with running_orthanc(program, tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def settings(archive: Orthanc, monkeypatch: pytest.MonkeyPatch) -> PacsSettings:
    monkeypatch.setenv("MEDFILIP_PACS_WARD", f"{archive.user}:{archive.password}")
    return PacsSettings.model_validate({"archives": {"ward": {"url": archive.dicom_web}}})


def stored(archive: Orthanc, index: int) -> tuple[PhantomStudy, list[bytes]]:
    study = make_study(21, index, options=StudyOptions(size=128, lateral=1.0))
    files = [dicom_bytes(study, number) for number in range(len(study.images))]
    for file in files:
        assert archive.post("instances", file).is_success
    return study, files


@pytest.mark.parametrize("index", [0, 1, 6])
def test_a_study_is_found_read_and_answered(archive: Orthanc, settings: PacsSettings, index: int) -> None:
    """CR and DX, plain and RLE: what is fetched decodes to what was stored, and answers come to lie beside it."""
    study, files = stored(archive, index)
    # A neighbour in the study that is no radiograph.
    other = make_dicom(
        np.zeros((8, 8), np.uint16),
        Modality="OT",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7",
        StudyInstanceUID=study.study_uid,
        SeriesInstanceUID=f"{study.study_uid}7",
        SOPInstanceUID=f"{study.study_uid}8",
        PatientID=study.patient_id,
    )
    assert archive.post("instances", other).is_success
    with DicomWebClient(settings, "ward") as client:
        found = client.find_radiographs(study.study_uid)
        assert [instance.sop_uid for instance in found] == list(study.sop_uids[: len(files)])
        fetched = [client.fetch(instance) for instance in found]
        for file, sent in zip(fetched, files, strict=True):
            same = [read_image(data, ImageLimits()) for data in (file, sent)]
            assert same[0].pixel_hash == same[1].pixel_hash
            assert same[0].transfer_syntax == same[1].transfer_syntax, "the archive did not decode it"
        pixels = read_image(fetched[0], ImageLimits()).pixels
        told = diagnosis(images=len(files), size=pixels.shape)
        made = [
            structured_report(told, fetched),
            heat_map_capture(told, told.findings[0], fetched[0], pixels),
            evidence_segmentation(told, told.findings[0], fetched[0], pixels),
        ]
        client.store(study.study_uid, [part10(one) for one in made])
        assert client.find_radiographs(study.study_uid) == found, "what was stored is no radiograph"
    (found_again,) = archive.post("tools/lookup", study.study_uid.encode()).json()
    known = archive.get(found_again["Path"].strip("/")).json()
    assert known["MainDicomTags"]["StudyInstanceUID"] == study.study_uid
    modalities = {archive.get(f"series/{one}").json()["MainDicomTags"]["Modality"] for one in known["Series"]}
    assert modalities >= {"SR", "OT", "SEG"} and modalities & {"CR", "DX"}
    assert known["PatientMainDicomTags"]["PatientID"] == study.patient_id


def test_what_was_stored_comes_back_unchanged(archive: Orthanc, settings: PacsSettings) -> None:
    study, files = stored(archive, 9)
    report = structured_report(diagnosis(images=len(files)), files)
    with DicomWebClient(settings, archive.dicom_web) as client:
        client.store(study.study_uid, [part10(report)])
        where = Instance(study.study_uid, report.SeriesInstanceUID, 1, report.SOPInstanceUID, report.SOPClassUID)
        back = pydicom.dcmread(io.BytesIO(client.fetch(where)))
    assert back == pydicom.dcmread(io.BytesIO(part10(report)))


def test_what_is_not_there(settings: PacsSettings) -> None:
    with DicomWebClient(settings, "ward") as client:
        assert client.find_radiographs("1.2.3") == ()
        with pytest.raises(MedfilipError) as caught:
            client.fetch(Instance("1.2.3", "1.2.4", 1, "1.2.5", "1.2.6"))
    assert caught.value.code is ErrorCode.NOT_FOUND and "1.2.3" not in str(caught.value)


@pytest.mark.parametrize("secret", ["tester:wrong", "Bearer wrong", ""])
def test_wrong_credentials(settings: PacsSettings, secret: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDFILIP_PACS_WARD", secret)
    with DicomWebClient(settings, "ward") as client, pytest.raises(MedfilipError) as caught:
        client.find_radiographs("1.2.3")
    assert caught.value.code is ErrorCode.UNAUTHENTICATED


def test_bounds_hold(archive: Orthanc, settings: PacsSettings, tmp_path: Path) -> None:
    study, _ = stored(archive, 10)
    few = settings.model_copy(update={"max_instances": 1})
    with DicomWebClient(few, "ward") as client, pytest.raises(MedfilipError) as caught:
        client.find_radiographs(study.study_uid)
    assert caught.value.code is ErrorCode.REQUEST_TOO_LARGE
    small = settings.model_copy(update={"max_instance_bytes": 20_000})
    with DicomWebClient(small, "ward") as client, pytest.raises(MedfilipError) as caught:
        client.fetch(client.find_radiographs(study.study_uid)[0])
    assert caught.value.code is ErrorCode.IMAGE_TOO_LARGE


def test_an_object_of_another_study_is_not_stored(archive: Orthanc, settings: PacsSettings) -> None:
    study, files = stored(archive, 11)
    report = structured_report(diagnosis(images=len(files)), files)
    before = archive.get("statistics").json()["CountInstances"]
    with DicomWebClient(settings, "ward") as client, pytest.raises(MedfilipError) as caught:
        client.store(f"{study.study_uid}1", [part10(report)])
    assert caught.value.code is ErrorCode.REQUEST_INVALID
    assert archive.get("statistics").json()["CountInstances"] == before


@pytest.fixture
def endpoint(settings: PacsSettings, tiny_checkpoint: Path, tmp_path: Path) -> Iterator[TestClient]:
    """The endpoint's application on its real parts, with the archive in its settings."""
    auditor = Auditor(tmp_path, "test")
    given = ServeSettings(checkpoint=str(tiny_checkpoint), pacs=settings)
    decoder = DecoderService(given.limits, store_size=given.store_size)
    backend = InProcess(decoder, EncoderService(tiny_checkpoint))
    yield TestClient(http_app(Gateway(backend, given), KeyRing([]), given, auditor=auditor))
    decoder.close()
    auditor.close()


def test_the_endpoint_fetches_diagnoses_and_stores(archive: Orthanc, endpoint: TestClient) -> None:
    study, files = stored(archive, 12)
    asked = {"labels": ["nodule", "mass"], "heat_maps": "all", "threshold": "0"}
    sent = endpoint.post("/v1/diagnose", files=[("file", ("x", file)) for file in files], data=asked).json()
    named = {**asked, "study": study.study_uid, "archive": "ward", "store": "true"}
    fetched = endpoint.post("/v1/diagnose", files={"none": b""}, data=named)
    assert fetched.status_code == 422, "an unknown part is refused"
    body = [
        (name, (None, value))
        for name, values in named.items()
        for value in ([values] if isinstance(values, str) else values)
    ]
    fetched = endpoint.post("/v1/diagnose", files=body)
    assert fetched.status_code == 200, fetched.text
    found = fetched.json()
    for one, other in zip(sent["findings"], found["findings"], strict=True):
        assert one["positive_score"] == pytest.approx(other["positive_score"], abs=1e-5)
    mapped = sum(finding["heat_map"]["peak"] > 0 for finding in found["findings"])
    assert (sent["stored"], found["stored"]) == (0, 1 + 2 * mapped) and mapped
    (again,) = archive.post("tools/lookup", study.study_uid.encode()).json()
    known = archive.get(again["Path"].strip("/")).json()
    series = [archive.get(f"series/{one}").json() for one in known["Series"]]
    counts = Counter(one["MainDicomTags"]["Modality"] for one in series for _ in one["Instances"])
    assert counts["SR"] == 1 and counts["SEG"] == mapped
    report = next(one for one in series if one["MainDicomTags"]["Modality"] == "SR")
    read = pydicom.dcmread(io.BytesIO(archive.get(f"instances/{report['Instances'][0]}/file").content))
    evidence = read.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    referenced = {item.ReferencedSOPInstanceUID for one in evidence for item in one.ReferencedSOPSequence}
    assert referenced == set(study.sop_uids[: len(files)])


def test_the_report_that_is_answered_is_the_one_that_is_stored(
    archive: Orthanc, endpoint: TestClient, tmp_path: Path
) -> None:
    study, _ = stored(archive, 13)
    body = [
        (name, (None, value)) for name, value in (("study", study.study_uid), ("store", "true"), ("labels", "mass"))
    ]
    answer = endpoint.post("/v1/diagnose", files=body, headers={"Accept": "application/dicom"})
    uid = pydicom.dcmread(io.BytesIO(answer.content)).SOPInstanceUID
    assert [item["Type"] for item in archive.post("tools/lookup", uid.encode()).json()] == ["Instance"]
    [file] = tmp_path.glob("*.jsonl")
    _, before, after = [json.loads(line) for line in file.read_text().splitlines()]
    assert (before["action"], before["archive"], before["objects"]) == ("store", "ward", 1)
    assert (after["action"], after["status"]) == ("diagnose", 200) and before["inputs"] == after["inputs"]
    assert study.study_uid not in file.read_text()


def test_the_client_asks_for_a_study_and_has_the_answer_stored(archive: Orthanc, endpoint: TestClient) -> None:
    study, files = stored(archive, 14)
    with running_app(endpoint.app) as url, Client(url) as client:
        sent = client.diagnose(files, ["nodule", "mass"], threshold=0)
        fetched = client.diagnose(None, ["nodule", "mass"], threshold=0, study=study.study_uid)
        assert [one.positive_score for one in sent.findings] == pytest.approx(
            [one.positive_score for one in fetched.findings], abs=1e-5
        )
        assert (fetched.stored, len(fetched.images)) == (0, len(files))
        both = client.diagnose(labels="mass", study=study.study_uid, archive="ward", store=True)
        [report] = client.diagnose_as("sr", labels="mass", study=study.study_uid, archive="ward", store=True)
    assert both.stored == 1
    uids = {pydicom.dcmread(io.BytesIO(report)).SOPInstanceUID}
    (again,) = archive.post("tools/lookup", study.study_uid.encode()).json()
    known = archive.get(again["Path"].strip("/")).json()
    series = [archive.get(f"series/{one}").json() for one in known["Series"]]
    reports = [one for one in series if one["MainDicomTags"]["Modality"] == "SR"]
    tags = [archive.get(f"instances/{one}").json() for found in reports for one in found["Instances"]]
    assert len(tags) == 2 and uids < {one["MainDicomTags"]["SOPInstanceUID"] for one in tags}


def test_the_endpoint_tells_what_an_archive_cannot(
    archive: Orthanc, endpoint: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(**fields: str) -> tuple[int, str]:
        answer = endpoint.post("/v1/diagnose", files=[(name, (None, value)) for name, value in fields.items()])
        assert "1.2.3" not in answer.text
        return answer.status_code, answer.json()["error"]["code"]

    assert told(study="1.2.3") == (422, "input_empty")
    assert told(study="no uid") == (422, "request_invalid")
    assert told(study="1.2.3", archive="https://elsewhere/dicom-web") == (422, "uri_not_allowed")
    assert told(archive="ward") == (422, "request_invalid")
    monkeypatch.setenv("MEDFILIP_PACS_WARD", "tester:wrong")
    assert told(study="1.2.3") == (502, "archive_refused"), "it is not the caller who is unknown"
