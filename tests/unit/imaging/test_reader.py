import io
import zlib

import numpy as np
import pytest
from PIL import Image

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import pixel_hash
from medfilip.imaging.reader import read_image


def encode(pixels: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def grey() -> np.ndarray:
    return np.arange(256, dtype=np.uint8).reshape(8, 32)


def test_png_keeps_16_bits(limits, decoder) -> None:
    pixels = np.arange(0, 65536, 64, dtype=np.uint16).reshape(16, 64)
    result = read_image(encode(pixels, "PNG"), limits, decoder)
    assert np.array_equal(result.pixels, pixels) and result.pixels.dtype == np.uint16
    assert (result.bits_stored, result.transfer_syntax, result.view) == (16, "image/png", "unknown")


def test_jpeg(grey, limits, decoder) -> None:
    result = read_image(encode(grey, "JPEG", quality=95), limits, decoder)
    assert result.transfer_syntax == "image/jpeg"
    assert np.abs(result.pixels.astype(int) - grey).max() < 8


def test_the_orientation_of_a_jpeg_is_undone(limits, decoder) -> None:
    tall = np.zeros((64, 32), np.uint8)
    tall[:32] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to stand upright
    sideways = np.ascontiguousarray(np.rot90(tall))
    pixels = read_image(encode(sideways, "JPEG", quality=95, exif=exif), limits, decoder).pixels
    assert pixels.shape == tall.shape and np.abs(pixels.astype(int) - tall).max() < 20


def test_a_grey_image_saved_in_colour_is_read(grey, limits, decoder) -> None:
    assert np.array_equal(read_image(encode(np.dstack([grey] * 3), "PNG"), limits, decoder).pixels, grey)


def test_a_coloured_image_is_refused(grey, limits, decoder) -> None:
    with pytest.raises(MedfilipError) as caught:
        read_image(encode(np.dstack([grey, grey, 255 - grey]), "PNG"), limits, decoder)
    assert caught.value.code == ErrorCode.IMAGE_UNSUPPORTED


def test_dicom_and_png_of_the_same_pixels_hash_alike(grey, dicom, limits, decoder) -> None:
    from_png = read_image(encode(grey, "PNG"), limits, decoder)
    assert read_image(dicom(grey, bits=8), limits).pixel_hash == from_png.pixel_hash


def test_size_is_refused_from_the_header(limits) -> None:
    # A PNG header that claims 60000 x 60000, and no pixels behind it: a decoder would fail otherwise.
    data = encode(np.zeros((4, 4), np.uint8), "PNG")
    size = (60000).to_bytes(4, "big")
    claimed = data[:16] + size + size + data[24:29]
    claimed += zlib.crc32(claimed[12:29]).to_bytes(4, "big") + data[33:]
    with pytest.raises(MedfilipError) as caught:
        read_image(claimed, limits)
    assert caught.value.code == ErrorCode.IMAGE_TOO_LARGE and "max_pixels" in caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_truncated_file_is_undecodable(limits, decoder, kind) -> None:
    data = encode(np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8), kind)
    with pytest.raises(MedfilipError) as caught:
        read_image(data[: len(data) // 2], limits, decoder)
    assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE


@pytest.mark.parametrize("data", [b"", b"GIF89a" + bytes(300), b"hello"])
def test_other_files_are_unsupported(data, limits) -> None:
    with pytest.raises(MedfilipError) as caught:
        read_image(data, limits)
    assert caught.value.code == ErrorCode.IMAGE_UNSUPPORTED


def test_file_size_comes_first() -> None:
    with pytest.raises(MedfilipError) as caught:
        read_image(bytes(11), ImageLimits(max_file_bytes=10))
    assert caught.value.code == ErrorCode.IMAGE_TOO_LARGE


def test_pixel_hash_tells_shape_type_and_order_apart() -> None:
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)
    others = [pixels.reshape(3, 2), pixels.astype(np.uint16), pixels[::-1], pixels + 1]
    assert len({pixel_hash(one) for one in [pixels, *others]}) == 5
    assert pixel_hash(pixels.astype("<u2")) == pixel_hash(pixels.astype(">u2"))
    assert pixel_hash(pixels.T.copy().T) == pixel_hash(pixels)
