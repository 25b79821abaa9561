from __future__ import annotations

import io
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.standards.source import part10, read_source, read_sources
from medfilip.standards.structured_report import structured_report
from tests.support.diagnoses import diagnosis, finding
from tests.support.dicoms import make_dicom

PIXELS = np.zeros((8, 8), np.uint16)
TEXT = {"PatientName": 64, "PatientID": 64, "StudyID": 16, "AccessionNumber": 16, "ReferringPhysicianName": 64}


def dicom(**changes: Any) -> bytes:
    return make_dicom(PIXELS, **({"SeriesInstanceUID": "2.25.9"} | changes))


def with_raw(name: str, value: Any, representation: str | None = None) -> Dataset:
    """Attributes of an image, one of them as no honest program would write it."""
    dataset = pydicom.dcmread(io.BytesIO(dicom()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
        patch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.IGNORE)
        dataset.add_new(name, representation or pydicom.datadict.dictionary_VR(name), value)
    return dataset


def code_of(source: bytes | Dataset) -> ErrorCode:
    with pytest.raises(MedfilipError) as caught:
        read_source(source)
    assert "CANARY" not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("value", ["", "CANARY", "1..2", "1.02.3", "1." + "9" * 64, ["1.2", "1.3"], b"\0\1"])
def test_an_image_without_its_uids_has_no_report(name: str, value: Any) -> None:
    if isinstance(value, bytes):
        assert code_of(with_raw(name, value, "UN")) is ErrorCode.SOURCE_UNIDENTIFIED
    else:
        assert code_of(with_raw(name, value)) is ErrorCode.SOURCE_UNIDENTIFIED


@pytest.mark.parametrize("name", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "Rows"])
def test_nor_has_one_where_they_are_missing(name: str) -> None:
    source = pydicom.dcmread(io.BytesIO(dicom()))
    delattr(source, name)
    assert code_of(source) is ErrorCode.SOURCE_UNIDENTIFIED


@pytest.mark.parametrize(
    "uid", ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.88.33", "1.2.3", "1.2.840.10008.1.1"]
)
def test_what_is_no_radiograph_is_refused(uid: str) -> None:
    assert code_of(dicom(SOPClassUID=uid)) is ErrorCode.SOURCE_UNIDENTIFIED


@pytest.mark.parametrize("data", [b"", b"CANARY", b"\x89PNG\r\n\x1a\n", dicom()[:200]])
def test_what_is_no_dicom_is_refused(data: bytes) -> None:
    assert code_of(data) in (ErrorCode.IMAGE_NOT_DICOM, ErrorCode.SOURCE_UNIDENTIFIED)


@pytest.mark.parametrize("value", ["X" * 65, "A\\B", "A\nB", "A\x1bB", b"\xff\xfe", ["a", "b"]])
def test_an_identity_is_never_changed(value: Any) -> None:
    representation = "UN" if isinstance(value, bytes) else None
    assert code_of(with_raw("PatientID", value, representation)) is ErrorCode.SOURCE_UNIDENTIFIED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", "CANARY" * 20),
        ("PatientName", "a^b^c^d^e^f"),
        ("PatientSex", "CANARY"),
        ("PatientBirthDate", "20230231"),
        ("PatientBirthDate", "1950.01.02"),
        ("StudyDate", "CANARY"),
        ("StudyTime", "25:00"),
        ("StudyID", "CANARY" * 4),
        ("AccessionNumber", "a\tb"),
        ("ReferringPhysicianName", "A\nB"),
    ],
)
def test_other_values_that_break_their_rules_are_left_out(name: str, value: str) -> None:
    assert read_source(with_raw(name, value)).dataset[name].value in ("", None)


def test_what_is_missing_is_there_and_empty() -> None:
    dataset = read_source(dicom(PatientID=None, PatientName=None, PatientSex=None)).dataset
    for name in ("PatientID", "PatientName", "PatientSex", "PatientBirthDate", "StudyDate", "StudyID"):
        assert dataset[name].value in ("", None)
    assert "IssuerOfPatientID" not in dataset


def test_names_in_any_script_survive() -> None:
    source = pydicom.dcmread(io.BytesIO(dicom()))
    source.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    source.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    buffer = io.BytesIO()
    source.save_as(buffer)
    report = structured_report(diagnosis(finding("Erguß"), size=(8, 8)), [buffer.getvalue()])
    read = pydicom.dcmread(io.BytesIO(part10(report)))
    assert str(read.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"


@pytest.mark.parametrize("classes", ["1.1", "1.1.1", "1.1.1.1", "1.7", "1.7.2", "1.7.3"])
def test_every_class_of_radiograph_gives_a_report(classes: str) -> None:
    uid = f"1.2.840.10008.5.1.4.1.{classes}"
    report = structured_report(diagnosis(size=(8, 8)), [dicom(SOPClassUID=uid, Modality="RG")])
    series = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    assert series.ReferencedSOPSequence[0].ReferencedSOPClassUID == uid


def test_images_of_one_answer_are_of_one_study() -> None:
    told, first = diagnosis(images=2, size=(8, 8)), dicom()
    assert len(read_sources(told, [first, dicom(SOPInstanceUID="2.25.70")])) == 2
    for second in (
        dicom(SOPInstanceUID="2.25.70", StudyInstanceUID="2.25.80"),
        dicom(SOPInstanceUID="2.25.70", PatientID="OTHER"),
        first,
    ):
        with pytest.raises(MedfilipError) as caught:
            read_sources(told, [first, second])
        assert caught.value.code is ErrorCode.SOURCES_DIFFER
    with pytest.raises(MedfilipError) as caught:
        read_sources(told, [first])
    assert caught.value.code is ErrorCode.SOURCES_DIFFER


def report_or_code(source: bytes | Dataset) -> Dataset | ErrorCode:
    try:
        return structured_report(diagnosis(finding(), size=(8, 8)), [source])
    except MedfilipError as error:
        return error.code


VALUES = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="0123456789.^=\\:", max_size=80),
    st.lists(st.text(max_size=5), max_size=3),
    st.binary(max_size=40),
)
GARBLED = (
    "PatientName PatientID IssuerOfPatientID PatientBirthDate PatientSex StudyDate StudyTime StudyID AccessionNumber "
    "ReferringPhysicianName SpecificCharacterSet Modality PatientOrientation ImagerPixelSpacing BurnedInAnnotation "
    "StudyInstanceUID SeriesInstanceUID SOPInstanceUID SOPClassUID Rows Columns LossyImageCompression"
)
FUZZED = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@FUZZED
@given(st.dictionaries(st.sampled_from(GARBLED.split()), VALUES, min_size=1, max_size=4))
def test_garbled_attributes_give_an_object_or_a_code(garbled: dict[str, Any]) -> None:
    source = pydicom.dcmread(io.BytesIO(dicom()))
    for name, value in garbled.items():
        tag = pydicom.tag.Tag(name)
        raw = value if isinstance(value, bytes) else "\\".join([value] if isinstance(value, str) else value).encode()
        vr = pydicom.datadict.dictionary_VR(name)
        # As it comes from a file: undecoded, with whatever length and bytes it has.
        source._dict[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(raw), raw, 0, False, True)
    report = report_or_code(source)
    if isinstance(report, ErrorCode):
        assert report is ErrorCode.SOURCE_UNIDENTIFIED
        return
    read = pydicom.dcmread(io.BytesIO(part10(report)))
    assert read.StudyInstanceUID == report.StudyInstanceUID
    for name, longest in TEXT.items():
        assert len(str(read[name].value or "").split("=")[0]) <= longest


@FUZZED
@given(st.data())
def test_flipped_bytes_give_an_object_or_a_code(data: st.DataObject) -> None:
    file = bytearray(dicom())
    for _ in range(data.draw(st.integers(1, 6))):
        file[data.draw(st.integers(128, len(file) - 1))] = data.draw(st.integers(0, 255))
    report = report_or_code(bytes(file))
    assert isinstance(report, ErrorCode) or part10(report)
