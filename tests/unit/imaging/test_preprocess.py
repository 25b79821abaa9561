import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.preprocess import MODEL_MEAN, MODEL_STD, letterbox, png_decode, png_encode, to_model, to_store

BLACK = (0 - MODEL_MEAN) / MODEL_STD


def noise(height: int, width: int, dtype: type = np.uint16) -> np.ndarray:
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (height, width)).astype(dtype)


def test_store_keeps_small_images_as_they_are() -> None:
    pixels = noise(30, 20)
    assert np.array_equal(to_store(pixels, 30), pixels)


def test_store_means_over_blocks() -> None:
    pixels = np.array([[0, 10, 255, 255], [20, 31, 255, 254]], np.uint8)
    assert to_store(pixels, 2).tolist() == [[15, 255]]  # means 15.25 and 254.75, rounded


def test_store_weighs_pixels_by_the_area_they_share() -> None:
    # 3 -> 2: each output covers 1.5 inputs.
    assert to_store(np.array([[0, 90, 300]], np.uint16), 2).tolist() == [[30, 230]]


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.integers(1, 40))
def test_store_geometry_and_brightness(height: int, width: int, size: int) -> None:
    pixels = noise(height, width)
    stored = to_store(pixels, size)
    assert stored.dtype == pixels.dtype and max(stored.shape) == min(size, max(pixels.shape))
    if max(height, width) > size:
        assert abs(stored.shape[0] - height * size / max(height, width)) <= 0.5 or stored.shape[0] == 1
    assert abs(float(stored.mean()) - float(pixels.mean())) <= 0.51


def test_model_input_is_a_centred_letterbox() -> None:
    result = to_model(np.full((10, 40), 255, np.uint8), 16)
    assert result.shape == (1, 16, 16) and result.dtype == np.float32
    assert letterbox((10, 40), 16) == (6, 0, 4, 16)
    assert np.array_equal(np.flatnonzero(result[0, :, 0] > 0), [6, 7, 8, 9])
    assert np.allclose(result[0, 6:10], (1 - MODEL_MEAN) / MODEL_STD) and np.allclose(result[0, :6], BLACK)


def test_model_input_keeps_16_bits_apart() -> None:
    # Equal in their upper 8 bits: an 8-bit path would make them the same.
    pair = to_model(np.array([[0x8000, 0x80FF], [0x8000, 0x80FF]], np.uint16), 2)[0]
    assert pair[0, 1] - pair[0, 0] == pytest.approx(255 / 65535 / MODEL_STD, rel=1e-3)


def test_8_and_16_bits_agree() -> None:
    pixels = noise(50, 33, np.uint8)
    assert np.array_equal(to_model(pixels, 24), to_model(pixels.astype(np.uint16) * 257, 24))


def test_enlarging_interpolates_linearly() -> None:
    row = to_model(np.array([[0, 255], [0, 255]], np.uint8), 4)[0, 0] * MODEL_STD + MODEL_MEAN
    assert np.allclose(row, [0, 0.25, 0.75, 1])


def test_the_bits_are_fixed() -> None:
    # A change of these hashes changes what every trained model sees.
    ramp = (np.arange(97 * 61, dtype=np.uint32) * 11 % 65536).astype(np.uint16).reshape(97, 61)
    stored = to_store(ramp, 64)
    assert stored.shape == (64, 40)
    assert hashlib.sha256(stored.astype("<u2").tobytes()).hexdigest()[:16] == "529524b0d4a6a939"
    assert hashlib.sha256(to_model(stored, 32).astype("<f4").tobytes()).hexdigest()[:16] == "94f0629e3981b21c"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_is_lossless(dtype: type) -> None:
    pixels = noise(13, 29, dtype)
    back = png_decode(png_encode(pixels))
    assert back.dtype == dtype and np.array_equal(back, pixels)


def test_png_of_a_view_is_the_png_of_its_values() -> None:
    pixels = noise(20, 20)[::2, ::3]
    assert np.array_equal(png_decode(png_encode(pixels)), pixels)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"no image"])
def test_a_damaged_column_is_a_coded_error(data: bytes) -> None:
    with pytest.raises(MedfilipError) as caught:
        png_decode(data)
    assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(MedfilipError, match=r"uint8 or uint16 \[H, W\]"):
        to_model(pixels, 8)
