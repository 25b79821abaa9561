"""Run lengths: column by column, relative starts, and nothing outside the image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.run_lengths import EMPTY, rle_decode, rle_encode

masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@given(mask=masks)
def test_round_trip(mask: np.ndarray) -> None:
    text = rle_encode(mask)
    assert np.array_equal(rle_decode(text, mask.shape), mask)
    assert (text == EMPTY) == (not mask.any())


def test_pixels_are_counted_down_the_columns_from_the_end_of_the_last_run() -> None:
    # 3 rows, 4 columns; skip 1, two pixels to the bottom of the first column, skip 2, then one pixel
    mask = rle_decode("1 2 2 1", (3, 4))
    assert [(int(row), int(column)) for row, column in np.argwhere(mask)] == [(1, 0), (2, 0), (2, 1)]
    assert rle_encode(mask) == "1 2 2 1"


def test_the_example_of_the_challenge() -> None:
    """Begins 387,620 pixels down the columns of an image of 1024 rows: in column 378."""
    mask = rle_decode("387620 23 996 33", (1024, 1024))
    assert mask.sum() == 56 and mask[548:571, 378].all() and mask[543:576, 379].all()


@given(text=st.text(max_size=12))
def test_other_text_is_refused_or_decoded_within_the_image(text: str) -> None:
    code: ErrorCode | None = None
    try:
        assert rle_decode(text, (4, 4)).shape == (4, 4)
    except MedfilipError as error:
        code = error.code
    assert code in (None, ErrorCode.SCHEMA_MISMATCH)


@pytest.mark.parametrize("text", ["", "1", "1 2 3", "a b", "-2 3", "0 17", "16 1", "1.5 2", "9999999999 1"])
def test_what_is_no_mask_of_the_image(text: str) -> None:
    with pytest.raises(MedfilipError) as caught:
        rle_decode(text, (4, 4))
    assert caught.value.code == ErrorCode.SCHEMA_MISMATCH
