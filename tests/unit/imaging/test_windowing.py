import numpy as np
import pytest
from pydicom.dataset import Dataset

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.windowing import to_monochrome2


def attributes(bits: int = 12, **others: object) -> Dataset:
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.BitsStored, dataset.BitsAllocated = "MONOCHROME2", bits, 16
    dataset.PixelRepresentation = 0
    for name, value in others.items():
        setattr(dataset, name, value)
    return dataset


def test_without_window_the_range_of_the_image_fills_16_bits() -> None:
    stored = np.array([[1000, 1500], [2000, 3000]], np.uint16)
    assert to_monochrome2(stored, attributes()).tolist() == [[0, 16384], [32768, 65535]]


def test_8_bit_values_stay_as_they_are() -> None:
    stored = np.array([[3, 7], [200, 250]], np.uint8)
    result = to_monochrome2(stored, attributes(bits=8))
    assert result.dtype == np.uint8 and result.tolist() == stored.tolist()


def test_monochrome1_is_inverted() -> None:
    stored = np.array([[3, 7], [200, 250]], np.uint8)
    result = to_monochrome2(stored, attributes(bits=8, PhotometricInterpretation="MONOCHROME1"))
    assert result.tolist() == [[252, 248], [55, 5]]


def test_linear_window_follows_the_formula_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2.1 with c = 100, w = 51: black up to 74.5, white above 124.5, (x - 99.5) / 50 + 0.5 between.
    stored = np.array([[0, 74, 75, 99, 100, 124, 125, 4000]], np.uint16)
    result = to_monochrome2(stored, attributes(WindowCenter=100, WindowWidth=51))
    expected = [0, 0, 0.01, 0.49, 0.51, 0.99, 1, 1]
    assert np.abs(result[0] / 65535 - expected).max() < 1e-5


def test_window_applies_to_rescaled_values() -> None:
    stored = np.array([[1000, 1024, 1049]], np.uint16)
    both = attributes(RescaleSlope=2, RescaleIntercept=-1900, WindowCenter=148.5, WindowWidth=98)
    # Modality values 100, 148, 198 in a window of 99.5 .. 196.5.
    assert np.abs(to_monochrome2(stored, both)[0] / 65535 - [0.5 / 97 + 0.0, 0.5, 1.0]).max() < 6e-3


def test_padding_is_background_and_not_part_of_the_range() -> None:
    stored = np.array([[0, 1000, 3000, 4095]], np.uint16)
    padded = attributes(PixelPaddingValue=4095)
    assert to_monochrome2(stored, padded).tolist() == [[0, 21845, 65535, 0]]
    ranged = attributes(PixelPaddingValue=4095, PixelPaddingRangeLimit=3000, PhotometricInterpretation="MONOCHROME1")
    assert to_monochrome2(stored, ranged).tolist() == [[65535, 0, 0, 0]]
    assert to_monochrome2(stored, attributes(PixelPaddingValue=0, PixelPaddingRangeLimit=4095)).max() == 0


@pytest.mark.parametrize("width", [0, 0.5, -3])
def test_a_window_of_no_width_is_none(width) -> None:
    stored = np.array([[1000, 3000]], np.uint16)
    assert to_monochrome2(stored, attributes(WindowCenter=0, WindowWidth=width)).tolist() == [[0, 65535]]


def test_negative_slope_turns_the_image_around_once() -> None:
    stored = np.array([[0, 4095]], np.uint16)
    plain = attributes(RescaleSlope=-1, RescaleIntercept=4095)
    assert to_monochrome2(stored, plain).tolist() == [[65535, 0]]
    windowed = attributes(RescaleSlope=-1, RescaleIntercept=4095, WindowCenter=2048, WindowWidth=4096)
    assert to_monochrome2(stored, windowed).tolist() == [[65535, 0]]


def test_signed_values() -> None:
    stored = np.array([[-100, 0, 100]], np.int16)
    assert to_monochrome2(stored, attributes(PixelRepresentation=1)).tolist() == [[0, 32768, 65535]]


def test_voi_lut_is_looked_up_and_scaled_by_its_depth() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4, 10, 10])
    item.add_new("LUTData", "US", [0, 100, 900, 1023])
    stored = np.array([[0, 10, 11, 12, 13, 4000]], np.uint16)
    result = to_monochrome2(stored, attributes(VOILUTSequence=[item]))
    assert np.abs(result[0] / 65535 * 1023 - [0, 0, 100, 900, 1023, 1023]).max() < 0.02


def test_modality_lut_comes_first() -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [3, 0, 16])
    item.add_new("LUTData", "US", [300, 200, 100])
    stored = np.array([[0, 1, 2]], np.uint16)
    assert to_monochrome2(stored, attributes(ModalityLUTSequence=[item])).tolist() == [[65535, 32768, 0]]


def test_a_constant_image_is_black() -> None:
    assert to_monochrome2(np.full((2, 2), 77, np.uint16), attributes()).max() == 0


def test_a_rescale_that_is_no_number_is_refused() -> None:
    broken = attributes(RescaleSlope=float("nan"), RescaleIntercept=0)
    with pytest.raises(MedfilipError) as caught, np.errstate(invalid="ignore"):
        to_monochrome2(np.array([[1, 2]], np.uint16), broken)
    assert caught.value.code == ErrorCode.IMAGE_UNDECODABLE


@pytest.mark.parametrize(("kind", "value"), [(np.int16, 65536 - 3000), (np.int16, -3000), (np.uint16, -3000)])
def test_padding_written_with_the_other_sign_is_padding(kind, value) -> None:
    stored = np.array([[-3000, 10, 20]], np.int16).astype(kind)
    assert to_monochrome2(stored, attributes(bits=16, PixelPaddingValue=value)).tolist() == [[0, 0, 65535]]
