"""Masks as run lengths, column by column, as the SIIM-ACR challenge writes them: starts count from the end before.

``"5 2 3 1"`` on an image of height H: skip 5 pixels down the first column, 2 are in the mask, skip 3, 1 is in it.
Counting begins at the top of the left column and goes on at the top of the next one.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError

EMPTY = "-1"
"""What stands for an empty mask."""
_NUMBERS = re.compile(r"\d{1,9}(?: \d{1,9})*")


def rle_decode(text: str, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Decode run lengths to a mask ``[H, W]``.

    Raises
    ------
    MedfilipError
        ``SCHEMA_MISMATCH`` if the text is no run lengths, or they leave the image.
    """
    flat = np.zeros(shape[0] * shape[1], np.bool_)
    if text.strip() != EMPTY:
        words = text.split()
        if not _NUMBERS.fullmatch(" ".join(words)) or len(words) % 2:
            raise _mismatch("are no pairs of start and length")
        edges = np.array(words, np.int64).cumsum()
        if int(edges[-1]) > flat.size:
            raise _mismatch(f"leave the image of {shape[1]} x {shape[0]} pixels")
        for begin, end in zip(edges[0::2], edges[1::2], strict=True):
            flat[begin:end] = True
    return flat.reshape(shape[1], shape[0]).T


def rle_encode(mask: NDArray[np.bool_]) -> str:
    """Encode a mask ``[H, W]`` as `rle_decode` reads it."""
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return " ".join(map(str, np.diff(edges, prepend=0))) if edges.size else EMPTY


def _mismatch(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SCHEMA_MISMATCH, f"The run lengths of a mask {what}.", fix="Give the table as it is shipped."
    )
