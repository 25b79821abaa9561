"""What a de-identified file still says: nothing of the patient, the same every time, and all of its pixels."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.deidentify import METHOD, Deidentifier
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.reader import read_image
from tests.support.dicoms import make_dicom

KEY = b"a key of the tests"
SYNTAXES = [
    "1.2.840.10008.1.2.1",
    "1.2.840.10008.1.2",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.2",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.4.80",
]
_TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
_READ_BY_THE_IMAGE = {
    "SpecificCharacterSet", "PhotometricInterpretation", "Modality", "BurnedInAnnotation", "VOILUTFunction",
}  # fmt: skip


@pytest.fixture
def deidentify() -> Deidentifier:
    return Deidentifier(KEY, ImageLimits())


def full_of_canaries(pixels: np.ndarray) -> bytes:
    """A file with a canary in every attribute that holds text, in items, private attributes and overlays."""
    file = pydicom.dcmread(io.BytesIO(make_dicom(pixels)))
    inner = Dataset()
    inner.PatientName = inner.CodeMeaning = "CANARY^INNER"
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        if not keyword or retired or tag >> 16 in (0x0000, 0x0002, 0xFFFE) or (tag in file and keyword != "PatientID"):
            continue
        if vr in _TEXTS and keyword not in _READ_BY_THE_IMAGE:
            file.add_new(tag, vr, "CANARY")
        elif vr == "DA":
            file.add_new(tag, vr, "19870605")
        elif vr == "SQ" and keyword not in ("ModalityLUTSequence", "VOILUTSequence", "AnatomicRegionSequence"):
            file.add_new(tag, vr, [inner])
    block = file.private_block(0x0011, "CANARY MAKER", create=True)
    block.add_new(1, "LO", "CANARY PRIVATE")
    file.add_new(0x60000022, "LO", "CANARY OVERLAY")
    file.add_new(0x60003000, "OW", b"CANARY")
    buffer = io.BytesIO()
    file.save_as(buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_no_attribute_that_may_name_somebody_is_left(ramp, deidentify) -> None:
    data = full_of_canaries(ramp)
    assert data.count(b"CANARY") > 500
    result = pydicom.dcmread(io.BytesIO(deidentify(data).data))
    left = {
        keyword_for_tag(element.tag)
        for element in result.iterall()
        if element.VR != "SQ" and "CANARY" in str(element.value)
    }
    # Free words that say how the image was made, none of which Table E.1-1 of PS3.15 lists.
    assert left <= {
        "Manufacturer", "ManufacturerModelName", "CodeMeaning", "ImageType", "PresentationLUTShape", "ConversionType",
        "PixelSpacingCalibrationType", "RescaleType", "LossyImageCompression", "LossyImageCompressionMethod",
        "PixelIntensityRelationship", "PatientOrientation", "Laterality", "ImageLaterality", "PatientPosition", "Grid",
        "FilterType", "DetectorType", "PresentationIntentType", "CodeValue", "CodingSchemeDesignator",
        "CodingSchemeVersion", "ModalityLUTType",
    }  # fmt: skip
    assert not any(element.tag.is_private or element.tag.group == 0x6000 for element in result.iterall())
    assert "19870605" not in str(result) and not result.StudyDate and not result.AccessionNumber


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_pixels_and_what_they_mean_stay(ramp, deidentify, limits, decoder, syntax) -> None:
    data = make_dicom(ramp, syntax=syntax, WindowCenter=2000, WindowWidth=3000, PhotometricInterpretation="MONOCHROME1")
    before, after = (read_image(one, limits, decoder) for one in (data, deidentify(data).data))
    assert before.pixel_hash == after.pixel_hash and before.transfer_syntax == after.transfer_syntax
    assert (after.view_position, after.sex, after.age) == ("PA", None, None)
    assert after.study_uid != before.study_uid and after.study_uid.startswith("2.")


def test_the_same_key_gives_the_same_file_and_another_one_another(ramp, deidentify) -> None:
    data = make_dicom(ramp)
    first = deidentify(data)
    assert Deidentifier(KEY, ImageLimits())(data).data == first.data
    other = Deidentifier(b"another key of the tests", ImageLimits())(data)
    assert other.patient_id != first.patient_id and other.study_uid != first.study_uid


def test_files_of_one_study_stay_together(ramp, deidentify) -> None:
    one, two = (deidentify(make_dicom(ramp, SOPInstanceUID=f"2.25.{uid}")) for uid in (70, 71))
    assert (one.patient_id, one.study_uid) == (two.patient_id, two.study_uid) and one.sop_uid != two.sop_uid


def test_a_deidentified_file_stays_as_it_is(ramp, deidentify) -> None:
    once = deidentify(make_dicom(ramp))
    again = deidentify(once.data)
    assert again.already and again.data == once.data and not once.already
    assert pydicom.dcmread(io.BytesIO(once.data)).PatientIdentityRemoved == "YES"


def test_what_was_written_into_a_deidentified_file_goes_again(ramp, deidentify) -> None:
    once = deidentify(make_dicom(ramp))
    file = pydicom.dcmread(io.BytesIO(once.data))
    file.ReferringPhysicianName, file.InstitutionName, file.StudyDate = "CANARY", "CANARY", "20200131"
    file.preamble = b"CANARY".ljust(128, b"\0")
    buffer = io.BytesIO()
    file.save_as(buffer)
    again = deidentify(buffer.getvalue())
    assert again.data == once.data and not again.already


def test_items_hold_codes_and_tables_only(ramp, deidentify) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "R-10206", "SRT", "antero-posterior"
    item.Manufacturer, item.PixelData = "CANARY", b"CANARY"
    item["PixelData"].VR = "OB"
    data = deidentify(make_dicom(ramp, ViewCodeSequence=[item])).data
    assert b"CANARY" not in data and b"antero-posterior" in data


def test_a_mark_alone_is_not_believed(ramp, deidentify) -> None:
    forged = make_dicom(ramp, DeidentificationMethod=METHOD, PatientIdentityRemoved="YES", PatientID="CANARY-12345678")
    result = deidentify(forged)
    assert not result.already and b"CANARY" not in result.data
    foreign = Deidentifier(b"another key of the tests", ImageLimits())(make_dicom(ramp))
    assert not deidentify(foreign.data).already


def test_characteristics_are_kept_on_request_up_to_ninety(ramp) -> None:
    keep = Deidentifier(KEY, ImageLimits(), keep_characteristics=True)
    result = pydicom.dcmread(io.BytesIO(keep(make_dicom(ramp, PatientAge="094Y")).data))
    assert (result.PatientSex, result.PatientAge) == ("F", "090Y")
    codes = [item.CodeValue for item in result.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113108"]


def test_burned_in_annotation_is_refused(ramp, deidentify) -> None:
    with pytest.raises(MedfilipError) as caught:
        deidentify(make_dicom(ramp, BurnedInAnnotation="YES"))
    assert caught.value.code == ErrorCode.IMAGE_BURNED_IN


def test_what_is_no_image_has_a_code(deidentify) -> None:
    with pytest.raises(MedfilipError) as caught:
        deidentify(b"not DICOM at all")
    assert caught.value.code == ErrorCode.IMAGE_NOT_DICOM
