"""What is no pixel goes from Pixel Data, and every stored value stays."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate

from medfilip.imaging.deidentify import Deidentifier
from medfilip.imaging.dicom_pixels import decode_dicom
from medfilip.imaging.hidden_bytes import without_remarks
from medfilip.imaging.limits import EXPLICIT_BIG, EXPLICIT_LITTLE, ImageLimits
from tests.support.dicoms import make_dicom

SIGNED = (np.arange(2048, dtype=np.int16) * 2 - 2048).reshape(32, 64)


def pixel_data(data: bytes) -> bytes:
    value: bytes = pydicom.dcmread(io.BytesIO(data)).PixelData
    return value


def cleaned(data: bytes) -> bytes:
    result = Deidentifier(b"k" * 16, ImageLimits())(data).data
    assert np.array_equal(decode_dicom(result, ImageLimits()), decode_dicom(data, ImageLimits()))
    return result


def jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [EXPLICIT_LITTLE, EXPLICIT_BIG])
def test_bits_above_the_stored_ones_go(ramp, syntax) -> None:
    plain, hidden = make_dicom(ramp, syntax=syntax), make_dicom(ramp | 0x9000, syntax=syntax)
    assert pixel_data(cleaned(hidden)) == pixel_data(cleaned(plain)) == pixel_data(plain)


@pytest.mark.parametrize(
    ("words", "expected"), [(SIGNED, SIGNED), (SIGNED & 0x0FFF, SIGNED & 0x0FFF), (SIGNED ^ 0x4000, SIGNED)]
)
def test_signs_are_no_hidden_bits(words, expected) -> None:
    assert pixel_data(cleaned(make_dicom(words))) == expected.tobytes()


def test_values_at_the_top_of_the_word_stay(ramp) -> None:
    for data in (make_dicom(ramp << 4, HighBit=15), make_dicom(ramp, HighBit=7)):
        assert pixel_data(cleaned(data)) == pixel_data(data)


def test_what_stands_behind_the_pixels_goes(ramp) -> None:
    data = cleaned(make_dicom(ramp, PixelData=ramp.tobytes() + b"CANARY"))
    assert pixel_data(data) == ramp.tobytes() and b"CANARY" not in data


def test_remarks_in_a_codestream_go(ramp) -> None:
    grey = (ramp >> 4).astype(np.uint8)
    file = pydicom.dcmread(io.BytesIO(make_dicom(grey, bits=8)))
    file.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    remarks = jpeg(grey, comment=b"CANARY", exif=b"Exif\0\0CANARY") + b"CANARY"
    file.PixelData = encapsulate([remarks])
    file["PixelData"].VR, file["PixelData"].is_undefined_length = "OB", True
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    assert b"CANARY" not in cleaned(buffer.getvalue())


def test_frames_without_remarks_stay(ramp) -> None:
    plain = jpeg((ramp >> 4).astype(np.uint8))
    assert without_remarks(plain) == plain and without_remarks(b"\0\0run lengths") == b"\0\0run lengths"
    main = b"\xff\x4f\xff\x51\x00\x04ab"
    comment, tile = b"\xff\x64\x00\x08\x00\x01text", b"\xff\x90\x00\x0a12345678\xff\x93data\xff\xd9"
    assert without_remarks(main + comment + tile + b"behind") == main + tile
    for end in range(len(plain)):
        assert len(without_remarks(plain[:end])) <= end  # whatever is cut off
