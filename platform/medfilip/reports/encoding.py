"""Bytes of a report → text, whatever system wrote them, with a word on how.

Hospitals hand over UTF-8 with and without a byte order mark, UTF-16, Windows code pages, mixtures of them, and text
that was decoded wrongly once before. What surely is no text is refused rather than guessed.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_MAX_CONTROL_SHARE = 0.02
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\ufffd]")
_NULS = re.compile("\x00+")
_CONTINUATION = (
    "[\x80-\xbf" + re.escape("".join(bytes([code]).decode("cp1252", "ignore") for code in range(128, 160))) + "]"
)
_MOJIBAKE = re.compile(f"(?:[Â-ß]{_CONTINUATION}|[à-ï]{_CONTINUATION}{{2}})+")


@dataclass(frozen=True)
class Decoded:
    """A text and how it was read: an encoding, with ``+mojibake`` or ``+nul`` if something was mended."""

    text: str
    how: str


def decode_text(data: bytes) -> Decoded | None:
    r"""Decode the bytes of a report; ``None`` if they are no text.

    Bytes that are not UTF-8 are read as Windows-1252 one by one, so that a single bad byte spoils nothing else. The
    result has ``\n`` at the end of every line, and except for a byte order mark and mended mojibake as many
    characters as the source.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            text = data[len(mark) :].decode(name + _endian(mark), errors="replace")
            return clean_text(text, f"{name}-bom")
    wide = _utf16_without_mark(data)
    if wide is not None:
        return clean_text(data.decode(wide, errors="replace"), "utf-16")
    try:
        return clean_text(data.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        return clean_text(data.decode("utf-8", errors="medfilip.cp1252"), "cp1252")


def clean_text(text: str, how: str = "utf-8") -> Decoded | None:
    """Mend a decoded text: line ends, NUL characters, mojibake; ``None`` if it is no text."""
    if len(_CONTROLS.findall(_NULS.sub("\x00", text))) > max(_MAX_CONTROL_SHARE * len(text), 2):
        return None
    if text.startswith("\ufeff"):
        text, how = text[1:], f"{how}-bom".replace("-bom-bom", "-bom")
    if "\x00" in text:
        text, how = text.replace("\x00", " "), f"{how}+nul"
    if "\r" in text:
        # As many characters as before: offsets stay those of the source.
        text = text.replace("\r\n", " \n").replace("\r", "\n")
    mended = _MOJIBAKE.sub(_mend, text)
    if mended != text:
        text, how = mended, f"{how}+mojibake"
    if any("\ud800" <= character <= "\udfff" for character in _surrogates(text)):
        text = text.encode("utf-8", errors="replace").decode("utf-8")
    return Decoded(text, how)


def _surrogates(text: str) -> str:
    return "" if text.isascii() else text


def _endian(mark: bytes) -> str:
    if mark == codecs.BOM_UTF8:
        return ""
    return "-be" if mark in (codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE) else "-le"


def _utf16_without_mark(data: bytes) -> str | None:
    """Return the byte order of UTF-16 without a mark: plain letters in it leave every second byte zero."""
    if len(data) < 4 or len(data) % 2:
        return None
    sample = data[:4096]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    return "utf-16-be" if even > 0.7 * half and odd < 0.1 * half else None


def _mend(match: re.Match[str]) -> str:
    raw = match.group()
    try:
        return b"".join(_byte(character) for character in raw).decode("utf-8")
    except (UnicodeEncodeError, UnicodeDecodeError):
        return raw


def _byte(character: str) -> bytes:
    return bytes([ord(character)]) if "\x80" <= character <= "\x9f" else character.encode("cp1252")


def _as_cp1252(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    bad = error.object[error.start : error.end]
    return "".join(bytes([code]).decode("cp1252", errors="replace") for code in bad), error.end


codecs.register_error("medfilip.cp1252", _as_cp1252)
