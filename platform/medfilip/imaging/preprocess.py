"""The one preprocessing of images, in two halves, shared by ingestion, training, evaluation and the endpoint.

A model sees ``to_model(to_store(pixels), size)`` and nothing else. Both halves resample in integers with exact
weights and divide once at the end, so the same pixels give the same bits on every machine: no library's resize, whose
rounding changes with version and processor, stands between a training run and the endpoint that serves it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.radiograph import Pixels

DEFAULT_STORE_SIZE = 1024
MODEL_MEAN = 0.5
MODEL_STD = 0.25
"""Normalisation of model input: constants, so that it depends on no data set. Padding has the grey value 0."""

_BLOCK_BYTES = 256 * 1024


def to_store(pixels: Pixels, store_size: int = DEFAULT_STORE_SIZE) -> Pixels:
    """Shrink to what is stored: aspect kept, long side at most ``store_size``, never enlarged, type kept.

    Each output pixel is the mean of the area it covers, rounded half up.

    Parameters
    ----------
    pixels
        ``uint8`` or ``uint16`` ``[H, W]``.
    store_size
        Largest length of the long side, in pixels.
    """
    _check(pixels, store_size)
    height, width = _fit(pixels.shape[0], pixels.shape[1], store_size)
    if max(pixels.shape) <= store_size:
        return pixels
    sums, weight = _resample(pixels, height, width)
    means = np.floor_divide(sums + weight // 2, weight)
    return means.astype(np.uint8) if pixels.dtype == np.uint8 else means.astype(np.uint16)


def to_model(pixels: Pixels, size: int) -> NDArray[np.float32]:
    """Turn stored pixels into model input: letterboxed to a square, scaled to [0, 1], normalised.

    Parameters
    ----------
    pixels
        ``uint8`` or ``uint16`` ``[H, W]``; 16 bits are kept up to the division that gives [0, 1].
    size
        Side of the square, in pixels.

    Returns
    -------
    ndarray
        ``float32`` ``[1, size, size]``: ``(grey - MODEL_MEAN) / MODEL_STD``.
    """
    _check(pixels, size)
    top, left, height, width = letterbox((pixels.shape[0], pixels.shape[1]), size)
    sums, weight = _resample(pixels, height, width)
    square = np.zeros((1, size, size), dtype=np.float64)
    square[0, top : top + height, left : left + width] = sums / (weight * int(np.iinfo(pixels.dtype).max))
    return ((square - MODEL_MEAN) / MODEL_STD).astype(np.float32)


def letterbox(shape: tuple[int, int], size: int) -> tuple[int, int, int, int]:
    """Where an image of ``shape`` lies in a square of side ``size``: ``(top, left, height, width)``, centred."""
    height, width = _fit(shape[0], shape[1], size)
    return (size - height) // 2, (size - width) // 2, height, width


def png_encode(pixels: Pixels) -> bytes:
    """Encode ``uint8`` or ``uint16`` ``[H, W]`` as a greyscale PNG of the same depth, without loss."""
    from PIL import Image

    _check(pixels, 1)
    mode, dtype = ("L", "u1") if pixels.dtype == np.uint8 else ("I;16", "<u2")
    buffer = io.BytesIO()
    size = (pixels.shape[1], pixels.shape[0])
    Image.frombytes(mode, size, np.ascontiguousarray(pixels, dtype=dtype).tobytes()).save(
        buffer, "PNG", compress_level=4
    )
    return buffer.getvalue()


def png_decode(data: bytes) -> Pixels:
    """Decode a PNG that `png_encode` made. For files from outside use `medfilip.imaging.reader.read_image`.

    Raises
    ------
    MedfilipError
        ``IMAGE_UNDECODABLE`` if the bytes are no greyscale PNG of 8 or 16 bits.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.mode == "L":
                return np.array(image)
            if image.mode == "I;16":
                return np.array(image).astype(np.uint16)
    except (OSError, SyntaxError, ValueError) as error:
        raise _not_stored() from error
    raise _not_stored()


def _not_stored() -> MedfilipError:
    return MedfilipError(
        ErrorCode.IMAGE_UNDECODABLE,
        "The column 'pixels' does not hold a greyscale PNG of 8 or 16 bits.",
        fix="Run ingestion again.",
    )


def _check(pixels: NDArray[Any], size: int) -> None:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or pixels.size == 0 or size < 1:
        raise MedfilipError(
            ErrorCode.IMAGE_UNSUPPORTED,
            f"Preprocessing takes uint8 or uint16 [H, W] and a size of at least 1, "
            f"not {pixels.dtype} {list(pixels.shape)} and {size}.",
            fix="Pass the pixels of a Radiograph.",
        )


def _fit(height: int, width: int, size: int) -> tuple[int, int]:
    """Scale ``height`` x ``width`` so that the long side is ``size``; sides round half up and are at least 1."""
    long = max(height, width)
    return max(1, (2 * height * size + long) // (2 * long)), max(1, (2 * width * size + long) // (2 * long))


def _resample(pixels: Pixels, height: int, width: int) -> tuple[NDArray[np.float64], int]:
    """Resample to ``[height, width]``: whole sums, and the weight that divides them.

    Every number is whole. Sums of one direction fit 32 bits up to 65,537 input rows; sums of both are at most 65535
    times the weight, far below the 2^53 up to which ``float64`` is exact, and which processors multiply fastest.
    """
    down, weight = _resample_rows(pixels.astype(np.uint32), height)
    across, other = _resample_rows(np.ascontiguousarray(down.T, dtype=np.float64), width)
    return across.T, weight * other


def _resample_rows(values: NDArray[Any], rows: int) -> tuple[NDArray[Any], int]:
    """Resample the first axis to ``rows``: area mean when it shrinks, linear interpolation when it grows."""
    count = values.shape[0]
    if rows == count:
        return values, 1
    first, weights = _area_weights(count, rows) if rows < count else _linear_weights(count, rows)
    total = np.zeros((rows, *values.shape[1:]), dtype=values.dtype)
    # By blocks of output rows that stay in the processor's cache for all of their taps.
    step = max(1, _BLOCK_BYTES // max(1, total[0].nbytes))
    for begin in range(0, rows, step):
        block = slice(begin, begin + step)
        for tap in range(weights.shape[1]):
            row = np.minimum(first[block] + tap, count - 1)
            total[block] += values[row] * weights[block, tap, None].astype(values.dtype)
    return total, int(weights[0].sum())


def _area_weights(count: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First input row of each output row, and the weights [R, T] of it and those that follow; they sum to ``count``.

    Output row i covers [i, i + 1) x count / rows of the input; all is multiplied by ``rows`` to stay whole.
    """
    begin = np.arange(rows, dtype=np.int64) * count
    first = begin // rows
    taps = int(np.max((begin + count - 1) // rows - first)) + 1
    below = (first[:, None] + np.arange(taps)) * rows
    overlap = np.minimum(below + rows, begin[:, None] + count) - np.maximum(below, begin[:, None])
    return first, np.maximum(overlap, 0)


def _linear_weights(count: int, rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Input row below the centre of each output row, and the weights [R, 2] of it and the next; they sum to 2 x rows.

    The centre of output row i lies at (2 i + 1) count / (2 rows) - 1/2, clamped to the first and last input row.
    """
    position = (2 * np.arange(rows, dtype=np.int64) + 1) * count - rows
    first, part = np.divmod(np.clip(position, 0, 2 * rows * (count - 1)), 2 * rows)
    return first, np.stack([2 * rows - part, part], axis=1)
