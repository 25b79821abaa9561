import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging import dicom_file, dicom_pixels
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.limits import DEFLATED_LITTLE, IMPLICIT_LITTLE, ImageLimits
from medfilip.imaging.radiograph import pixel_hash


def region(meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = "1", "SCT", meaning
    return [item]


def code_of(data: bytes, limits: ImageLimits) -> ErrorCode:
    with pytest.raises(MedfilipError) as caught:
        read_dicom(data, limits)
    assert "CANARY" not in str(caught.value) and caught.value.fix
    return caught.value.code


def test_facts_of_the_header(dicom, ramp, limits) -> None:
    result = read_dicom(dicom(ramp, ImagerPixelSpacing=[0.2, 0.2], ViewPosition="LL"), limits)
    assert (result.view, result.spacing_mm, result.bits_stored) == ("lateral", 0.2, 12)
    assert (result.study_uid, result.sop_uid, result.patient_id) == ("2.25.8", "2.25.7", "CANARY-ID")
    assert (result.sex, result.age, result.photometric) == ("F", "054Y", "MONOCHROME2")
    assert result.pixel_hash == pixel_hash(result.pixels)
    assert "CANARY" not in repr(result) and "2.25" not in repr(result)


def test_pixels_are_stretched_to_16_bits(dicom, ramp, limits) -> None:
    pixels = read_dicom(dicom(ramp), limits).pixels
    assert pixels.dtype == np.uint16
    assert np.array_equal(pixels, np.rint(ramp / 4094 * 65535).astype(np.uint16))


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"])
def test_lossless_compression_changes_nothing(dicom, ramp, limits, decoder, syntax) -> None:
    plain = read_dicom(dicom(ramp), limits)
    packed = read_dicom(dicom(ramp, syntax=syntax), limits, decoder)
    assert packed.transfer_syntax == syntax
    assert packed.pixel_hash == plain.pixel_hash


@pytest.mark.parametrize("syntax", [IMPLICIT_LITTLE, DEFLATED_LITTLE])
def test_other_native_encodings_change_nothing(dicom, ramp, limits, syntax) -> None:
    assert read_dicom(dicom(ramp, syntax=syntax), limits).pixel_hash == read_dicom(dicom(ramp), limits).pixel_hash


def test_big_endian_changes_nothing(dicom, ramp, limits) -> None:
    packed = dicom(ramp, syntax="1.2.840.10008.1.2.2")
    assert read_dicom(packed, limits).pixel_hash == read_dicom(dicom(ramp), limits).pixel_hash


def test_a_bare_data_set_is_read(dicom, ramp, limits) -> None:
    data = dicom(ramp, syntax=IMPLICIT_LITTLE)
    length = struct.unpack_from("<I", data, 140)[0]  # group length of the file meta, behind its own 12 bytes
    bare = data[132 + 12 + length :]
    assert read_dicom(bare, limits).pixel_hash == read_dicom(data, limits).pixel_hash


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"Modality": "CT"}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"Modality": "MG"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": region("Knee")}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": None, "StudyDescription": "TEETH, PANORAMIC"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": "", "SeriesDescription": "ABD_AP"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": "THORACIC SPINE"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"PresentationIntentType": "FOR PROCESSING"}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"BurnedInAnnotation": "YES"}, ErrorCode.IMAGE_BURNED_IN),
        ({"Rows": 31}, ErrorCode.IMAGE_UNDECODABLE),
        ({"NumberOfFrames": 65}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"BitsStored": 17, "HighBit": 16}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"Modality": None, "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"Modality": "OT"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": "KNEE"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"BodyPartExamined": "L SPINE"}, ErrorCode.IMAGE_NOT_CHEST),
        ({"NumberOfFrames": 2}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"SamplesPerPixel": 3}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"BitsAllocated": 32}, ErrorCode.IMAGE_UNSUPPORTED),
        ({"PixelData": None}, ErrorCode.IMAGE_NO_PIXELS),
        ({"Rows": 33}, ErrorCode.IMAGE_UNDECODABLE),
        ({"Rows": 0}, ErrorCode.IMAGE_UNDECODABLE),
    ],
)
def test_what_is_no_chest_radiograph_is_refused_with_a_code(dicom, ramp, limits, attributes, code) -> None:
    assert code_of(dicom(ramp, **attributes), limits) == code


@pytest.mark.parametrize("words", ["CXR AND KNEE", "PORTABLE CHEST", "XR ABDOMEN CHEST", "ROUTINE", ""])
def test_a_description_that_may_be_a_chest_is_accepted(dicom, ramp, limits, words) -> None:
    assert read_dicom(dicom(ramp, BodyPartExamined=None, StudyDescription=words), limits).view == "frontal"


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.1.1", None])
def test_a_file_without_modality_is_what_its_class_does_not_deny(dicom, ramp, limits, sop_class) -> None:
    assert read_dicom(dicom(ramp, Modality=None, SOPClassUID=sop_class), limits).view == "frontal"


@pytest.mark.parametrize("body_part", ["THORAX", "", "PORT CHEST", None])
def test_a_body_part_that_may_be_a_chest_is_accepted(dicom, ramp, limits, body_part) -> None:
    assert read_dicom(dicom(ramp, BodyPartExamined=body_part), limits).view == "frontal"


def test_claimed_size_is_refused_before_decoding(dicom, ramp, limits, monkeypatch) -> None:
    monkeypatch.setattr(dicom_pixels, "_native_values", lambda *_: pytest.fail("decoded"))
    assert code_of(dicom(ramp, Rows=60000, Columns=60000), limits) == ErrorCode.IMAGE_TOO_LARGE
    small = ImageLimits(max_inflated_bytes=ramp.nbytes - 1)
    assert code_of(dicom(ramp), small) == ErrorCode.IMAGE_TOO_LARGE


def test_file_size_is_checked_before_the_header(dicom, ramp, monkeypatch) -> None:
    monkeypatch.setattr(dicom_file, "_parse", lambda *_: pytest.fail("parsed"))
    assert code_of(dicom(ramp), ImageLimits(max_file_bytes=1000)) == ErrorCode.IMAGE_TOO_LARGE


def test_a_deflate_bomb_is_not_inflated(dicom, ramp) -> None:
    data = dicom(ramp, syntax=DEFLATED_LITTLE)
    length = struct.unpack_from("<I", data, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = data[: 144 + length] + packer.compress(bytes(50_000_000)) + packer.flush()
    assert len(bomb) < 100_000
    assert code_of(bomb, ImageLimits(max_inflated_bytes=1_000_000)) == ErrorCode.IMAGE_TOO_LARGE
    tracemalloc.start()
    assert code_of(bomb, ImageLimits(max_inflated_bytes=20_000_000)) == ErrorCode.IMAGE_TOO_LARGE
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 4_000_000, "what is too much was never held"


@pytest.mark.parametrize("rest", [0, 1, 300_000])
def test_what_follows_a_deflated_data_set_is_ignored(dicom, rest) -> None:
    # Larger than what is inflated at a time, so that the stream ends within a tail.
    image = np.arange(512 * 1024, dtype=np.uint16).reshape(512, 1024) % 4096
    data = dicom(image, syntax=DEFLATED_LITTLE) + bytes(rest)
    assert np.array_equal(dicom_pixels.decode_dicom(data, ImageLimits()), image)


def test_a_transfer_syntax_outside_the_list_is_refused(dicom, ramp) -> None:
    only_native = ImageLimits(transfer_syntaxes=frozenset({IMPLICIT_LITTLE}))
    assert code_of(dicom(ramp), only_native) == ErrorCode.IMAGE_UNSUPPORTED


def test_burned_in_annotation_is_read_when_it_was_checked(dicom, ramp) -> None:
    checked = ImageLimits(accept_burned_in=True)
    assert read_dicom(dicom(ramp, BurnedInAnnotation="YES"), checked).view == "frontal"


@pytest.mark.parametrize(
    ("attributes", "view_position", "view"),
    [
        ({"ViewPosition": "AP"}, "AP", "frontal"),
        ({"ViewPosition": "XTABLE LATERAL"}, "LATERAL", "lateral"),
        ({"ViewPosition": "", "ViewCodeSequence": region("postero-anterior")}, "PA", "frontal"),
        ({"ViewPosition": None, "ViewCodeSequence": region("left lateral")}, "LL", "lateral"),
        ({"ViewPosition": "LAO"}, None, "unknown"),
        ({"ViewPosition": None}, None, "unknown"),
    ],
)
def test_the_view_is_that_of_the_header(dicom, ramp, limits, attributes, view_position, view) -> None:
    result = read_dicom(dicom(ramp, **attributes), limits)
    assert (result.view_position, result.view) == (view_position, view)


def test_a_header_of_millions_of_elements_is_refused_early(dicom, ramp, limits) -> None:
    data = dicom(ramp, syntax=IMPLICIT_LITTLE)
    length = struct.unpack_from("<I", data, 140)[0]
    begin = 144 + length
    empty = struct.pack("<HHI", 0x0007, 0x0010, 0)
    bomb = data[:begin] + empty * 1_000_000 + data[begin:]
    assert code_of(bomb, limits) == ErrorCode.IMAGE_TOO_LARGE
    item = struct.pack("<HHIHHI", 0x0008, 0x1140, 0xFFFFFFFF, 0xFFFE, 0xE000, 0xFFFFFFFF)
    nested = data[:begin] + item + empty * 1_000_000 + data[begin:]
    assert code_of(nested, limits) == ErrorCode.IMAGE_TOO_LARGE


def test_private_attributes_are_skipped_unread(dicom, ramp, limits) -> None:
    data = dicom(ramp, syntax=IMPLICIT_LITTLE)
    length = struct.unpack_from("<I", data, 140)[0]
    begin = 144 + length
    private = struct.pack("<HHI", 0x0007, 0x1010, 9_000_000) + b"CANARY" * 1_500_000
    assert read_dicom(data[:begin] + private + data[begin:], limits).pixel_hash == read_dicom(data, limits).pixel_hash


def test_values_at_the_top_of_the_word_are_moved_down(dicom, ramp, limits) -> None:
    shifted = dicom(ramp << 4, BitsStored=12, HighBit=15)
    assert read_dicom(shifted, limits).pixel_hash == read_dicom(dicom(ramp), limits).pixel_hash


def test_bits_above_the_stored_ones_are_no_values(dicom, ramp, limits) -> None:
    overlaid = dicom(ramp | (np.arange(64, dtype=np.uint16) % 2 << 13))
    assert read_dicom(overlaid, limits).pixel_hash == read_dicom(dicom(ramp), limits).pixel_hash


@pytest.mark.parametrize("garbage", [b"", b"\x00" * 500, b"%PDF-1.7" + b"x" * 300, b"DICM"])
def test_garbage_is_not_dicom(garbage, limits) -> None:
    assert code_of(garbage, limits) == ErrorCode.IMAGE_NOT_DICOM


def test_warnings_of_the_parser_stay_inside(dicom, ramp, limits, caplog) -> None:
    data = dicom(ramp).replace(b"054Y", b"CANA")  # no valid age; pydicom would quote it
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        read_dicom(data, limits)
    assert not seen and not caplog.records


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(128, 700), st.integers(0, 255)), min_size=1, max_size=6), cut=st.booleans()
)
def test_a_damaged_file_gives_pixels_or_a_code(dicom, ramp, limits, changes, cut) -> None:
    data = bytearray(dicom(ramp))
    for position, value in changes:
        data[position] = value
    if cut:
        del data[changes[0][0] :]
    try:
        result = read_dicom(bytes(data), limits)
    except MedfilipError as error:
        outcome = error.code.value
        told = str(error)
    else:
        outcome, told = f"image_{result.pixels.dtype}", repr(result)
    assert outcome.startswith("image_") and "CANARY" not in told


def test_reading_leaves_the_callers_bytes_alone(dicom, ramp, limits) -> None:
    data = dicom(ramp)
    before = io.BytesIO(data).getvalue()
    read_dicom(data, limits)
    assert data == before
