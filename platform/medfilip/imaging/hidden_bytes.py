"""Bytes of Pixel Data that are no pixels: what stands behind them, above their bits, or in comments of a codestream.

None of it is seen when the image is shown, and all of it can say whose image it is: old systems keep overlays in the
high bits (PS3.5, section 8.1.2), and JPEG encoders copy a camera's or a scanner's remarks.
"""

from __future__ import annotations

import numpy as np
from pydicom.encaps import encapsulate, generate_frames

from medfilip.imaging.dicom_pixels import PixelClaim
from medfilip.imaging.limits import EXPLICIT_BIG, NATIVE_SYNTAXES

_JPEG, _JPEG_2000 = b"\xff\xd8", b"\xff\x4f"
_REMARKS = {_JPEG: frozenset({0xFE, 0xE1, 0xED}), _JPEG_2000: frozenset({0x64})}
"""Markers of comments, Exif or XMP, and Photoshop's block (ITU-T T.81, annex B), and of JPEG 2000's comment (T.800)."""
_FIRST_DATA = {_JPEG: 0xDA, _JPEG_2000: 0x90}
_END = b"\xff\xd9"


def without_hidden_bytes(value: bytes, claim: PixelClaim) -> bytes:
    """Return the value of Pixel Data without what is no pixel; the stored values stay the same.

    Parameters
    ----------
    value
        Pixel Data as they stand in the file.
    claim
        What the header says of them.
    """
    if claim.transfer_syntax in NATIVE_SYNTAXES:
        return _native(value, claim)
    frames = list(generate_frames(value, number_of_frames=claim.frames))
    plain = [without_remarks(frame) for frame in frames]
    if plain == frames:
        return value
    return encapsulate(plain)


def _native(value: bytes, claim: PixelClaim) -> bytes:
    if claim.photometric != "YBR_FULL_422":  # it has fewer bytes than its samples say
        value = value[: claim.decoded_bytes + claim.decoded_bytes % 2]
    used = claim.bits_stored + claim.unused_low_bits
    if claim.bits_allocated != 16 or used >= 16 or len(value) % 2:
        return value
    words = np.frombuffer(value, ">u2" if claim.transfer_syntax == EXPLICIT_BIG else "<u2")
    shift = 16 - used
    # Signed values fill the bits above with their sign, or leave them empty.
    signed = np.right_shift(np.left_shift(words, shift).astype(np.uint16).view(np.int16), shift).view(np.uint16)
    empty = np.bitwise_and(words, (1 << used) - 1).astype(np.uint16)
    low = np.uint16(0xFFFF & ~((1 << claim.unused_low_bits) - 1))
    ways = [np.bitwise_and(way, low) for way in ((signed, empty) if claim.pixel_representation else (empty,))]
    if any(np.array_equal(words, way) for way in ways):
        return value
    filled: bytes = ways[0].astype(words.dtype).tobytes()
    return filled


def without_remarks(frame: bytes) -> bytes:
    """Return a JPEG, JPEG-LS or JPEG 2000 codestream without its remarks and what stands behind it; others as it is."""
    kind = frame[:2]
    if kind not in _REMARKS:
        return frame
    kept, at = [kind], 2
    while at + 4 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != _FIRST_DATA[kind]:
        length = 2 + int.from_bytes(frame[at + 2 : at + 4], "big") if frame[at + 1] != 0xFF else 1  # 1: a fill byte
        if frame[at + 1] not in _REMARKS[kind]:
            kept.append(frame[at : at + length])
        at += length
    end = frame.rfind(_END, at)
    data = frame[at:] if end < 0 else frame[at : end + 2]
    return b"".join(kept) + data
