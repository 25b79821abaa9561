import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medfilip.imaging.thumbnail import THUMBNAIL, content_box, pick, ranks


def textured(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(1).integers(60, 180, (height, width)).astype(np.uint8)


@pytest.mark.parametrize("level", [0, 255, 30])
@pytest.mark.parametrize(("height", "width"), [(200, 300), (64, 64), (700, 500)])
def test_frame_of_any_level_is_found_to_the_pixel(level: int, height: int, width: int) -> None:
    framed = np.full((height + 50, width + 90), level, np.uint8)
    framed[20 : 20 + height, 61 : 61 + width] = textured(height, width)
    assert content_box(framed) == (20, 61, 20 + height, 61 + width)


def test_frames_within_frames_are_found() -> None:
    framed = np.pad(np.pad(textured(100, 100), 9, constant_values=255), 20, constant_values=0)
    assert content_box(framed) == (29, 29, 129, 129)


def test_a_caption_in_a_frame_does_not_end_it() -> None:
    framed = np.pad(textured(400, 400), 60, constant_values=0)
    framed[20:28, 30:42] = 255
    assert content_box(framed) == (60, 60, 460, 460)


def test_noisy_frame_is_a_frame() -> None:
    framed = np.pad(textured(200, 200).astype(np.int64), 40, constant_values=12)
    noisy = framed + np.random.default_rng(0).integers(-2, 3, framed.shape)
    assert content_box(noisy.astype(np.uint16)) == (40, 40, 240, 240)


def test_an_image_without_frame_is_kept_whole() -> None:
    assert content_box(textured(90, 70)) == (0, 0, 90, 70)


def test_nothing_but_frame_has_no_content() -> None:
    assert content_box(np.full((40, 50), 7, np.uint16)) is None


def test_ranks_ignore_the_tone_curve_and_negate_with_the_image() -> None:
    image = np.sort(textured(256, 256).astype(np.int64), axis=1)
    box = (0, 0, 256, 256)
    plain = ranks(pick(image.astype(np.uint16), box))
    assert plain.shape == (THUMBNAIL, THUMBNAIL) and np.abs(plain).max() < 0.5
    assert np.array_equal(ranks(pick((image * 200 + 17).astype(np.uint16), box)), plain)
    assert np.allclose(ranks(pick((255 - image).astype(np.uint16), box)), -plain, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 50), levels=st.integers(1, 4000))
def test_boxes_lie_inside_and_are_not_empty(height: int, width: int, seed: int, levels: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, levels, (height, width)).astype(np.uint16)
    box = content_box(pixels)
    if box is not None:
        assert 0 <= box[0] < box[2] <= height and 0 <= box[1] < box[3] <= width
        assert pick(pixels, box).shape == (256, 256)
