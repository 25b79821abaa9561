from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.quality import (
    EXPLANATIONS,
    MIN_SIDE,
    NOT_CHEST_EXPLANATIONS,
    Assessment,
    QualityFlag,
    assess,
    correct,
    reasons,
)
from medfilip.phantom.study import make_study


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """A drawn frontal chest of 12 bits."""
    return make_study(5, 3, size=256).image


@pytest.fixture(scope="module")
def chest8(chest: np.ndarray) -> np.ndarray:
    return (chest // 16).astype(np.uint8)


def test_upright_chest_is_left_alone(chest: np.ndarray) -> None:
    found = assess(chest)
    assert (found.view, found.inverted, found.rotation, found.not_chest_reason) == ("frontal", False, 0, None)
    assert found.chest_score > 0.8 and found.view_score > 0.8 and found.inverted_score < 0.1
    assert set(reasons(found)) <= {QualityFlag.COLLIMATED}
    assert correct(chest, found) is chest


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("turned", [0, 90, 180, 270])
def test_turned_and_negative_chests_are_told_and_put_right(chest8: np.ndarray, turned: int, negative: bool) -> None:
    wrong = np.ascontiguousarray(np.rot90(255 - chest8 if negative else chest8, turned // 90))
    found = assess(wrong)
    assert (found.rotation, found.inverted, found.view) == (turned, negative, "frontal")
    assert (QualityFlag.INVERTED in reasons(found)) is negative
    assert (QualityFlag.ROTATED in reasons(found)) is (turned != 0)
    assert np.array_equal(correct(wrong, found), chest8)


def test_a_negative_of_12_bits_in_16_is_negated_within_12(chest: np.ndarray) -> None:
    negative = (4095 - chest).astype(np.uint16)
    righted = correct(negative, assess(negative))
    assert righted.dtype == np.uint16 and np.array_equal(righted, chest)


@settings(max_examples=25, deadline=None)
@given(index=st.integers(0, 200), turned=st.integers(0, 3), negative=st.booleans(), wide=st.booleans())
def test_what_was_corrected_needs_no_correction(index: int, turned: int, negative: bool, wide: bool) -> None:
    pixels = (make_study(9, index, size=128).image // 16).astype(np.uint8)
    if wide:
        pixels = pixels.astype(np.uint16) * 257
    top = np.iinfo(pixels.dtype).max
    wrong = np.ascontiguousarray(np.rot90(top - pixels if negative else pixels, turned))
    once = correct(wrong, assess(wrong))
    assert np.array_equal(once, pixels)
    assert np.array_equal(correct(once, assess(once)), once)


@pytest.mark.parametrize("level", [0, 90, 255])
def test_frames_are_reported_and_change_nothing_else(chest8: np.ndarray, level: int) -> None:
    framed = np.pad(chest8, ((40, 30), (10, 80)), constant_values=level)
    found = assess(framed)
    assert found.collimated and QualityFlag.COLLIMATED in reasons(found)
    top, left, bottom, right = found.content_box
    assert abs(top - 40) < 25 and abs(left - 10) < 25 and abs(bottom - 296) < 25 and abs(right - 266) < 25
    assert (found.view, found.inverted, found.rotation) == ("frontal", False, 0)
    assert correct(framed, found) is framed


def checkerboard() -> np.ndarray:
    return ((np.indices((300, 300)) // 20).sum(axis=0) % 2 * 200 + 20).astype(np.uint8)


NOT_CHESTS = {
    "blank": np.full((100, 100), 128, np.uint8),
    "too_small": np.random.default_rng(0).integers(0, 255, (MIN_SIDE - 1, 60)).astype(np.uint8),
    "wrong_aspect": np.random.default_rng(0).integers(0, 255, (100, 400)).astype(np.uint8),
    "flat": np.random.default_rng(0).integers(200, 205, (200, 200)).astype(np.uint8),
    "two_level": checkerboard(),
    "noise": np.random.default_rng(0).integers(0, 65536, (300, 300)).astype(np.uint16),
}


@pytest.mark.parametrize("reason", NOT_CHESTS)
def test_what_is_no_chest_has_its_reason(reason: str) -> None:
    found = assess(NOT_CHESTS[reason])
    assert found.not_chest_reason == reason and reason in NOT_CHEST_EXPLANATIONS
    assert (found.chest_score, found.view, found.inverted, found.rotation) == (0.0, "unknown", False, 0)
    expected = QualityFlag.TOO_SMALL if reason == "too_small" else QualityFlag.NOT_CHEST
    assert expected in reasons(found)


def test_clipped_exposures_are_flagged(chest8: np.ndarray) -> None:
    found = assess(chest8)
    dark, bright = np.percentile(chest8, (65, 35))
    over = assess(np.clip(chest8, dark, None).astype(np.uint8))
    under = assess(np.clip(chest8, None, bright).astype(np.uint8))
    assert QualityFlag.OVEREXPOSED in reasons(over) and over.clipped_low > 0.5 > found.clipped_low
    assert QualityFlag.UNDEREXPOSED in reasons(under) and under.clipped_high > 0.5 > found.clipped_high


def test_every_flag_is_explained_in_one_sentence_and_can_be_raised() -> None:
    assert set(EXPLANATIONS) == set(QualityFlag)
    for sentence in (*EXPLANATIONS.values(), *NOT_CHEST_EXPLANATIONS.values()):
        assert sentence.endswith(".") and sentence.count(". ") == 0
    good = Assessment("frontal", 1.0, False, 0.0, 0, 1.0, (0, 0, 9, 9), False, 1.0, None, 0.0, 0.0)
    assert reasons(good) == ()
    raised = {
        *reasons(replace(good, view="lateral", inverted=True, rotation=90, collimated=True)),
        *reasons(replace(good, view="unknown", clipped_low=0.9, clipped_high=0.9)),
        *reasons(replace(good, not_chest_reason="too_small")),
        *reasons(replace(good, not_chest_reason="no_lung_fields")),
    }
    assert raised == set(QualityFlag)


@pytest.mark.parametrize(
    "pixels", [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(MedfilipError) as error:
        assess(pixels)
    assert error.value.code == ErrorCode.IMAGE_UNSUPPORTED


@settings(max_examples=150, deadline=None)
@given(
    pixels=st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=2, max_side=60))
    )
)
def test_any_pixels_get_an_answer(pixels: np.ndarray) -> None:
    check_answer(pixels)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 700), width=st.integers(1, 700), seed=st.integers(0, 99), smooth=st.integers(1, 90))
def test_any_smooth_pixels_get_an_answer(height: int, width: int, seed: int, smooth: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 65536, (height // smooth + 1, width // smooth + 1)).astype(np.uint16)
    check_answer(np.kron(coarse, np.ones((smooth, smooth), np.uint16))[:height, :width])


def check_answer(pixels: np.ndarray) -> None:
    found = assess(pixels)
    top, left, bottom, right = found.content_box
    assert 0 <= top < bottom <= pixels.shape[0] and 0 <= left < right <= pixels.shape[1]
    scores = (found.view_score, found.inverted_score, found.rotation_score, found.chest_score)
    assert all(0 <= score <= 1 + 1e-9 for score in (*scores, found.clipped_low, found.clipped_high))
    assert found.rotation in (0, 90, 180, 270) and (found.not_chest_reason or "blank") in NOT_CHEST_EXPLANATIONS
    righted = correct(pixels, found)
    assert righted.dtype == pixels.dtype and sorted(righted.shape) == sorted(pixels.shape)
    assert found == assess(pixels) and reasons(found) == reasons(assess(pixels.copy(order="F")))
