"""Small files that unpack to gigabytes, and other lies about size; nothing here takes long to make."""

from __future__ import annotations

import gzip
import struct
import zlib

from tests.support.dicoms import make_dicom

_BLOCK = 16 * 2**20


def deflated_zeros(count: int, *, window_bits: int) -> bytes:
    """Return a stream of at least ``count`` zero bytes, some thousandth of that long.

    A block after a full flush knows nothing of those before it, so one of them is repeated.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, window_bits)
    head = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    # Without the checksum at the end: nobody gets that far.
    return head + block * (count // _BLOCK)


def deflated_dicom(count: int) -> bytes:
    """Return a DICOM file of the deflated transfer syntax whose data set inflates to ``count`` bytes."""
    import numpy as np

    plain = make_dicom(np.zeros((8, 8), np.uint16))
    (group_length,) = struct.unpack_from("<I", plain, 140)
    meta = plain[: 144 + group_length].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    grown = struct.pack("<I", group_length + 2)
    meta = meta[:140] + grown + meta[144:]
    at = meta.index(b"1.2.840.10008.1.2.1.99")
    meta = meta[: at - 2] + struct.pack("<H", 22) + meta[at:]
    data_set = plain[144 + group_length :]
    # Raw deflate blocks follow each other: those of the header end with a full flush.
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    opening = packer.compress(data_set) + packer.flush(zlib.Z_FULL_FLUSH)
    return meta + opening + deflated_zeros(count, window_bits=-zlib.MAX_WBITS)


def png(width: int, height: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a grey PNG of 8 bits whose image data is the zlib stream ``data``; it need not fit the size."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = [(b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*one) for one in body)


def gzipped_zeros(count: int) -> bytes:
    """Return a gzip stream of at least ``count`` zeros."""
    assert gzip.decompress(gzip.compress(b"")) == b""
    return deflated_zeros(count, window_bits=zlib.MAX_WBITS | 16)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
