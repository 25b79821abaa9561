"""Masks as PNG files, written with the standard library alone so that the same mask is the same bytes everywhere."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def mask_png(mask: NDArray[np.bool_]) -> bytes:
    """Encode a mask ``[H, W]`` as an 8-bit grey PNG, 255 where it is true."""
    rows, columns = mask.shape
    lines = np.zeros((rows, columns + 1), np.uint8)  # every line begins with its filter: none
    lines[:, 1:] = mask * np.uint8(255)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
