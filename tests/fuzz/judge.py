"""What must hold of the reader whatever it is given."""

import re
import time
from dataclasses import dataclass

import numpy as np

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.intake import QualityChecks, take_in
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits

LIMITS = ImageLimits(
    max_file_bytes=2**20,
    max_pixels=2**20,
    max_inflated_bytes=2**22,
    max_header_bytes=2**18,
    max_frames=8,
    decode_timeout_s=2.0,
    decode_memory_bytes=2**28,
)
_ALL = QualityChecks(not_chest="accept")
_IMAGE_CODES = {code for code in ErrorCode if code.startswith("image_")}
_SLACK_S = 5.0


@dataclass(frozen=True)
class Outcome:
    """What became of an input.

    ``kind`` tells outcomes apart without their numbers: a code with its message, or the type of the pixels.
    """

    kind: str
    seconds: float


def judge(data: bytes, decoder: IsolatedDecoder) -> Outcome:
    """Read an input and check what must hold; anything else than pixels or a code is a failure."""
    start = time.monotonic()
    try:
        image = take_in(data, LIMITS, decoder, checks=_ALL)
    except MedfilipError as refused:
        kind = _refusal(refused)
    else:
        assert image.pixels.dtype in (np.uint8, np.uint16) and image.pixels.ndim == 2
        assert 0 < image.pixels.size <= LIMITS.max_pixels and image.pixels.nbytes <= LIMITS.max_inflated_bytes
        assert "CANARY" not in repr(image)
        kind = f"pixels {image.pixels.dtype} {image.transfer_syntax} {image.photometric} {image.view_position}"
    seconds = time.monotonic() - start
    # A worker that is started anew may take its time, but nobody waits longer than the limit says.
    assert seconds < 2 * LIMITS.decode_timeout_s + _SLACK_S, seconds
    return Outcome(kind, seconds)


def _refusal(error: MedfilipError) -> str:
    assert error.code in _IMAGE_CODES, error.code
    assert error.fix and "CANARY" not in str(error)
    return f"{error.code}: {re.sub('[0-9]+', '#', error.message)}"
