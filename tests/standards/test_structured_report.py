from __future__ import annotations

import io
import logging
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.sr import ComprehensiveSR
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import dicom_bytes
from medfilip.phantom.study import StudyOptions, make_study
from medfilip.standards.source import part10
from medfilip.standards.structured_report import structured_report
from tests.support.diagnoses import diagnosis, finding
from tests.support.dicoms import make_dicom

_COPIED = (
    "PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime ReferringPhysicianName "
    "StudyID AccessionNumber"
)
_OWN = (
    "SpecificCharacterSet InstanceCreationDate InstanceCreationTime SOPClassUID SOPInstanceUID ContentDate ContentTime "
    "Modality Manufacturer CodingSchemeIdentificationSequence SeriesDescription ManufacturerModelName "
    "ReferencedPerformedProcedureStepSequence DeviceSerialNumber SoftwareVersions ContributingEquipmentSequence "
    "SeriesInstanceUID SeriesNumber InstanceNumber ValueType ConceptNameCodeSequence ContinuityOfContent "
    "PerformedProcedureCodeSequence CurrentRequestedProcedureEvidenceSequence CompletionFlag VerificationFlag "
    "PreliminaryFlag ContentTemplateSequence ContentSequence"
)
COPIED, OWN = _COPIED.split(), _OWN.split()


def values(item: Dataset, name: str) -> list[object]:
    """Values of the content items of one name, at any depth."""
    found = []
    for child in item.get("ContentSequence", []):
        if child.ConceptNameCodeSequence[0].CodeMeaning == name:
            kind = child.ValueType
            if kind == "NUM":
                found.append(float(child.MeasuredValueSequence[0].NumericValue))
            elif kind == "CODE":
                code = child.ConceptCodeSequence[0]
                found.append((code.get("CodeValue") or code.LongCodeValue, code.CodingSchemeDesignator))
            else:
                found.append(child.get("TextValue", child))
        found += values(child, name)
    return found


def groups(report: Dataset) -> list[Dataset]:
    return values(report, "Measurement Group")  # type: ignore[return-value]


@pytest.mark.parametrize("index", range(4))
def test_phantoms_give_reports_that_others_read(
    index: int, verified: Callable[[Dataset], bytes], needs_program: Callable[[str], str], tmp_path: Path
) -> None:
    """CR and DX, MONOCHROME1 and 2, with and without a lateral image."""
    program = needs_program("dsrdump")
    study = make_study(11, index, options=StudyOptions(size=128, lateral=1.0))
    files = [dicom_bytes(study, number) for number in range(len(study.images))]
    report = structured_report(diagnosis(images=len(files)), files)
    (tmp_path / "report.dcm").write_bytes(verified(report))
    said = subprocess.run([program, str(tmp_path / "report.dcm")], capture_output=True, text=True)
    assert said.returncode == 0 and "Comprehensive SR Document" in said.stdout
    assert not [line for line in said.stderr.splitlines() if line.startswith("E:")]
    assert "research use only" in said.stdout.lower()


def test_it_belongs_to_the_study_and_is_new(phantom_dicom: bytes) -> None:
    source = pydicom.dcmread(io.BytesIO(phantom_dicom))
    report, other = (structured_report(diagnosis(), [phantom_dicom]) for _ in range(2))
    for name in COPIED:
        assert report[name].value == source[name].value or not (report[name].value or source[name].value)
    for name in ("SeriesInstanceUID", "SOPInstanceUID"):
        assert len({report[name].value, other[name].value, source[name].value}) == 3
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == source.StudyInstanceUID
    assert series.SeriesInstanceUID == source.SeriesInstanceUID
    assert image.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert (report.PreliminaryFlag, report.VerificationFlag) == ("PRELIMINARY", "UNVERIFIED")


def test_nothing_else_is_copied() -> None:
    """Whatever a header holds beside identity: comments, addresses, history, private data."""
    canaries = {
        "PatientComments": "CANARY",
        "PatientAddress": "CANARY",
        "EthnicGroup": "CANARY",
        "OtherPatientIDs": "CANARY",
        "AdditionalPatientHistory": "CANARY",
        "StudyDescription": "CANARY",
        "ClinicalTrialSubjectID": "CANARY",
        "InstitutionName": "CANARY",
        "PerformingPhysicianName": "CANARY",
        "ImageComments": "CANARY",
        "Manufacturer": "CANARY",
        "SeriesInstanceUID": "2.25.9",
    }
    source = pydicom.dcmread(io.BytesIO(make_dicom(np.zeros((8, 8), np.uint16), **canaries)))
    source.private_block(0x0011, "CANARY", create=True).add_new(1, "LO", "CANARY")
    report = structured_report(diagnosis(size=(8, 8)), [source])
    assert {element.keyword for element in report} <= {*COPIED, *OWN}
    assert b"CANARY" not in part10(report).replace(b"CANARY-ID", b"").replace(b"CANARY^NAME", b"")


def test_every_kind_of_finding_is_said(phantom_dicom: bytes) -> None:
    report = structured_report(diagnosis(), [phantom_dicom])
    present, nodule, absent, abstained, own_codes, in_words = groups(report)
    assert values(present, "Finding") == [("60046008", "SCT")]
    assert values(present, "Probability that the finding is present") == [0.83]
    assert values(present, "Lower end of 95 % interval of probability") == [0.71]
    assert values(present, "Upper end of 95 % interval of probability") == [0.9]
    assert values(present, "Logit of prompts that say it is there") == [3.25]
    assert values(present, "Logit of prompts that say it is not") == [-1.5]
    assert values(present, "Probability from which it is called present") == [0.4]
    assert values(present, "Decision") == [("52101004", "SCT")]
    assert values(present, "Severity") == [("6736007", "SCT")]
    assert values(present, "Finding Site") == [("site.lung_base", "99MEDFILIP")]
    assert values(present, "Laterality") == [("7771000", "SCT")]
    assert values(present, "Visual attribute and how well it fits") == ["density: homogeneous grey; +0.120"]
    assert values(nodule, "Finding Site") == [("45653009", "SCT")]
    assert values(nodule, "Laterality") == [("24028007", "SCT")], "right_upper_lobe is a side and a site"
    assert values(absent, "Decision") == [("272519000", "SCT")]
    assert values(absent, "Finding") == [("answer.described_finding", "99MEDFILIP")]
    assert not values(absent, "Lower end of 95 % interval of probability")
    assert values(abstained, "Decision") == [("373068000", "SCT")]
    assert "Not decided" in str(values(abstained, "Comment"))
    assert values(abstained, "Finding") == [("costophrenic_angle_blunting", "99MEDFILIP")]
    assert values(own_codes, "Laterality") == [("51440002", "SCT")]
    assert values(own_codes, "Severity") == [("severity.borderline", "99MEDFILIP")]
    assert str(values(in_words, "Comment")[0]).endswith("ä"), "the whole label, however long"


def test_it_says_what_made_it_and_what_limits_it(phantom_dicom: bytes) -> None:
    told = diagnosis(abstentions=("not_chest", "unfamiliar_image"))
    report = structured_report(told, [phantom_dicom])
    assert values(report, "Device Observer Serial Number") == [told.model.fingerprint]
    assert f"model fingerprint {told.model.fingerprint}" in values(report, "Algorithm Parameters")
    assert f"label set {told.model.label_set}" in values(report, "Algorithm Parameters")
    words = " ".join(map(str, values(report, "Comment")))
    for expected in ("Research use only", "synthetic training data", "no chest radiograph", "Trained on phantoms."):
        assert expected in words
    again = structured_report(told, [phantom_dicom])
    assert values(again, "Device Observer UID")[0].UID == values(report, "Device Observer UID")[0].UID  # type: ignore[attr-defined]


def test_its_times_are_local_as_those_of_the_study(phantom_dicom: bytes) -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
    local = f"{moment.astimezone():%Y%m%d%H%M%S}"
    report = structured_report(diagnosis(), [phantom_dicom], created=moment)
    assert report.ContentDate + report.ContentTime == local
    assert report.InstanceCreationDate + report.InstanceCreationTime == local


def test_neither_names_nor_uids_are_logged_or_warned_of(
    phantom_dicom: bytes, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    source = pydicom.dcmread(io.BytesIO(phantom_dicom))
    source.PatientName = "CANARY"  # without a caret, of which highdicom warns with the name
    caplog.set_level(logging.DEBUG)
    report = structured_report(diagnosis(), [source])
    part10(report)
    assert str(report.PatientName) == "CANARY"
    said = caplog.text + " ".join(str(warning.message) for warning in recwarn)
    assert "CANARY" not in said and source.StudyInstanceUID not in said and source.SOPInstanceUID not in said


def test_highdicom_reads_it_back(phantom_dicom: bytes) -> None:
    file = pydicom.dcmread(io.BytesIO(part10(structured_report(diagnosis(), [phantom_dicom]))))
    content = ComprehensiveSR.from_dataset(file).content
    found = content.get_image_measurement_groups()
    assert len(found) == len(diagnosis().findings)
    assert found[0].finding_type == codes.SCT.PleuralEffusion
    assert len(content.get_image_measurement_groups(finding_type=codes.SCT.Nodule)) == 1


def test_an_answer_without_findings_has_no_report(phantom_dicom: bytes) -> None:
    empty = diagnosis(finding()).model_copy(update={"findings": ()})
    with pytest.raises(MedfilipError) as caught:
        structured_report(empty, [phantom_dicom])
    assert caught.value.code is ErrorCode.INPUT_EMPTY
