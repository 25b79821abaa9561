"""What the quality checks look at: the exposed field without its frame, and a small picture of it.

Both work on at most 256 x 256 pixels picked evenly, so that a radiograph of 25 megapixels costs what one of 1 does.
Picked, not averaged: the means of the thumbnail's cells average 8 x 8 of them anyway, and a two-level page stays two
levels. Sums are integers and ranks are exact, so the same pixels give the same thumbnail on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfilip.imaging.radiograph import Pixels

Box = tuple[int, int, int, int]
"""``(row0, col0, row1, col1)``, half open."""

THUMBNAIL = 32
"""Side of the thumbnail, in cells."""
_PER_CELL = 8
_PICKED = THUMBNAIL * _PER_CELL

FRAME_TOLERANCE = 0.03
"""How far, in shares of the image's range of greys, a pixel may lie from the level of its frame (noise, JPEG)."""
FRAME_SHARE = 0.97
"""Share of a line that must lie at the frame's level: a marker or a caption in the frame stays part of it."""
_ROUNDS = 4  # frames within frames: a white film border inside a black letterbox inside a screen's grey


def pick(pixels: Pixels, box: Box) -> NDArray[np.int64]:
    """Pick 256 x 256 pixels of ``box`` evenly, as ``int64``; smaller images repeat theirs."""
    rows, columns = _spread(box[0], box[2]), _spread(box[1], box[3])
    return pixels[rows[:, None], columns[None, :]].astype(np.int64)


def _spread(start: int, stop: int) -> NDArray[np.intp]:
    """Even positions from ``start`` to ``stop``, each the middle of its share."""
    return np.asarray(start + (2 * np.arange(_PICKED) + 1) * (stop - start) // (2 * _PICKED), dtype=np.intp)


def ranks(picked: NDArray[Any]) -> NDArray[np.float32]:
    """Means of the cells of a picked image, as ranks: ``float32`` ``[32, 32]`` between -0.5 and 0.5.

    Ranks do not change when an exposure, a window or a gamma does, and a negative has the same ranks with the other
    sign. Equal means share the mean of their ranks.
    """
    cells = picked.reshape(THUMBNAIL, _PER_CELL, THUMBNAIL, _PER_CELL).sum(axis=(1, 3))
    return equalise(cells)


def equalise(cells: NDArray[Any]) -> NDArray[np.float32]:
    """Replace values ``[h, w]`` by their ranks between -0.5 and 0.5."""
    _, place, count = np.unique(cells, return_inverse=True, return_counts=True)
    middle = np.cumsum(count) - (count + 1) / 2  # mean rank of each distinct value, from 0
    shares = (middle + 0.5) / cells.size - 0.5
    return shares[place].reshape(cells.shape).astype(np.float32)


def content_box(pixels: Pixels) -> Box | None:
    """Find the exposed field inside constant frames; ``None`` when nothing but frame is there.

    A frame is a run of lines from an edge inwards that all lie at one level: black or white collimation, film borders,
    letterboxing. Slanted borders are not found, and air beside the patient counts as frame where it reaches an edge
    as one level.

    Parameters
    ----------
    pixels
        ``uint8`` or ``uint16`` ``[H, W]``.
    """
    height, width = pixels.shape
    picked = pick(pixels, (0, 0, height, width))
    low, high = np.percentile(picked, (0.5, 99.5))
    tolerance = max(FRAME_TOLERANCE * float(high - low), 1.0)
    top, left, bottom, right = 0, 0, _PICKED, _PICKED
    for _ in range(_ROUNDS):
        before = (top, left, bottom, right)
        top += _depth(picked[top:bottom, left:right], tolerance)
        bottom -= _depth(picked[top:bottom, left:right][::-1], tolerance)
        left += _depth(picked[top:bottom, left:right].T, tolerance)
        right -= _depth(picked[top:bottom, left:right].T[::-1], tolerance)
        if top >= bottom or left >= right:
            return None
        if before == (top, left, bottom, right):
            break
    return _refine(pixels, (top, left, bottom, right), tolerance)


def _depth(lines: NDArray[np.int64], tolerance: float) -> int:
    """How many lines from the first on lie at the level of the first."""
    if not lines.size:
        return 0
    level = np.median(lines[0])
    framed = (np.abs(lines - level) <= tolerance).mean(axis=1) >= FRAME_SHARE
    return len(lines) if framed.all() else int(np.argmin(framed))


def _refine(pixels: Pixels, coarse: Box, tolerance: float) -> Box:
    """Turn a box in picked lines into pixels: the edge lies between the last framed line and the first that is not."""
    rows, columns = _spread(0, pixels.shape[0]), _spread(0, pixels.shape[1])
    inside = pixels[rows[coarse[0]] : rows[coarse[2] - 1] + 1, columns[coarse[1]] : columns[coarse[3] - 1] + 1]
    step = max(1, inside.shape[1] // _PICKED)
    top = _edge(pixels[:, columns[coarse[1]] : columns[coarse[3] - 1] + 1 : step], rows, coarse[0], tolerance)
    flipped = pixels[::-1, columns[coarse[1]] : columns[coarse[3] - 1] + 1 : step]
    bottom = _edge(flipped, pixels.shape[0] - 1 - rows[::-1], _PICKED - coarse[2], tolerance)
    step = max(1, inside.shape[0] // _PICKED)
    across = pixels[rows[coarse[0]] : rows[coarse[2] - 1] + 1 : step].T
    left = _edge(across, columns, coarse[1], tolerance)
    right = _edge(across[::-1], pixels.shape[1] - 1 - columns[::-1], _PICKED - coarse[3], tolerance)
    return top, left, pixels.shape[0] - bottom, pixels.shape[1] - right


def _edge(lines: NDArray[Any], positions: NDArray[np.intp], first: int, tolerance: float) -> int:
    """Pixels before the first line that is not frame, which is ``positions[first]`` or shortly before."""
    if first == 0:
        return 0
    start, stop = int(positions[first - 1]), int(positions[first])
    return start + min(_depth(lines[start : stop + 1].astype(np.int64), tolerance), stop - start)
