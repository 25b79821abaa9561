"""How an image enters: its view from table, header or pixels; negatives and turns; what is no chest."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.intake import QualityChecks, take_in
from medfilip.imaging.reader import read_image
from medfilip.phantom.study import make_study
from tests.support.dicoms import make_dicom


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """12-bit values of a frontal phantom."""
    return make_study(5, 0, size=256).image


@pytest.fixture(scope="module")
def grey(chest: np.ndarray) -> np.ndarray:
    return (chest >> 4).astype(np.uint8)


def test_an_upright_chest_enters_as_it_is(grey, limits, decoder) -> None:
    image = take_in(png(grey), limits, decoder)
    assert np.array_equal(image.pixels, grey) and not image.set_upright
    assert (image.view, image.view_source, image.quality) == ("frontal", "pixels", ())


@pytest.mark.parametrize("quarters", [1, 3])
def test_turned_and_negative_pngs_are_set_upright(grey, limits, decoder, quarters) -> None:
    changed = np.ascontiguousarray(np.rot90(255 - grey, quarters))
    image = take_in(png(changed), limits, decoder)
    assert np.array_equal(image.pixels, grey) and image.set_upright
    assert set(image.quality) == {"inverted", "rotated"}
    assert image.pixel_hash == read_image(png(changed), limits, decoder).pixel_hash  # that of the file
    kept = take_in(png(changed), limits, decoder, checks=QualityChecks(set_upright=False))
    assert np.array_equal(kept.pixels, changed) and kept.quality == image.quality


def test_a_header_is_believed_and_what_pixels_say_is_told(chest, limits) -> None:
    image = take_in(make_dicom(4095 - chest), limits)  # a negative that calls itself MONOCHROME2
    plain = read_image(make_dicom(4095 - chest), limits)
    assert np.array_equal(image.pixels, plain.pixels) and "inverted" in image.quality
    assert (image.view, image.view_source, image.view_position) == ("frontal", "header", "PA")


def test_a_table_stands_over_the_header(chest, limits) -> None:
    image = take_in(make_dicom(chest), limits, stated_view="AP Supine")
    assert (image.view_source, image.view_position) == ("table", "AP")
    unknown = take_in(make_dicom(chest), limits, stated_view="oblique")
    assert (unknown.view_source, unknown.view_position) == ("header", "PA")


def test_without_a_word_the_pixels_tell_the_view(chest, limits) -> None:
    image = take_in(make_dicom(chest, ViewPosition=""), limits)
    assert (image.view, image.view_source, image.view_position) == ("frontal", "pixels", None)


def test_what_is_no_chest_is_refused_with_its_reason_or_told(limits, decoder) -> None:
    page = np.full((300, 200), 255, np.uint8)
    page[40:260:12, 20:180:3] = 0
    with pytest.raises(MedfilipError) as caught:
        take_in(png(page), limits, decoder)
    assert caught.value.code == ErrorCode.IMAGE_NOT_CHEST and "two_level" in caught.value.message
    accepted = take_in(png(page), limits, decoder, checks=QualityChecks(not_chest="accept"))
    assert "not_chest" in accepted.quality and accepted.view == "unknown"
