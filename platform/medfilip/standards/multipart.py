"""``multipart/related`` as DICOMweb uses it (PS3.18, section 8.6.1.2): files in one body, between boundary lines."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Sequence

from medfilip.core.errors import ErrorCode, MedfilipError

DICOM = "application/dicom"
_BOUNDARY = re.compile(r'boundary="?([\w\'()+,\-./:=? ]{1,70})"?', re.IGNORECASE)  # RFC 2046, section 5.1.1
_MAX_HEADER_BYTES = 8192


def encode(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Return the content type and the body for some DICOM files."""
    boundary = secrets.token_hex(16)
    head = f"--{boundary}\r\nContent-Type: {DICOM}\r\n\r\n".encode()
    body = b"".join(part for file in files for part in (head, file, b"\r\n"))
    return f'multipart/related; type="{DICOM}"; boundary={boundary}', body + f"--{boundary}--\r\n".encode()


def decode(content_type: str, body: bytes) -> list[bytes]:
    """Return the parts of a body; one that is a single DICOM file is its only part.

    Raises
    ------
    MedfilipError
        ``REPLY_INVALID`` for any other content type, or a body that is not built as it says.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == DICOM:
        return [body]
    boundary = _BOUNDARY.search(content_type)
    if kind != "multipart/related" or boundary is None:
        raise _invalid("its content type is neither multipart/related nor application/dicom")
    return list(_parts(body, b"--" + boundary.group(1).strip().encode()))


def _parts(body: bytes, delimiter: bytes) -> Iterator[bytes]:
    begin = body.find(delimiter)
    if begin < 0:
        raise _invalid("it lacks its boundary")
    begin += len(delimiter)
    while body[begin : begin + 2] != b"--":
        end = body.find(b"\r\n" + delimiter, begin)
        head = body.find(b"\r\n\r\n", begin, begin + _MAX_HEADER_BYTES)
        if end < 0 or head < 0 or head > end:
            raise _invalid("a part is not ended or has no header")
        yield body[head + 4 : end]
        begin = end + 2 + len(delimiter)


def _invalid(what: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.REPLY_INVALID, f"The archive's answer cannot be read: {what}.", fix="Check that it speaks DICOMweb."
    )
