"""Decoding: what hospitals' systems write, and what is no text."""

from __future__ import annotations

import pytest

from medfilip.reports.encoding import clean_text, decode_text


@pytest.mark.parametrize(
    ("data", "text", "how"),
    [
        ("5 µm – clear".encode(), "5 µm – clear", "utf-8"),
        (b"\xef\xbb\xbfClear.", "Clear.", "utf-8-bom"),
        ("Clear.".encode("utf-16"), "Clear.", "utf-16-bom"),
        ("Clear lungs.".encode("utf-16-le"), "Clear lungs.", "utf-16"),
        ("Clear lungs.".encode("utf-16-be"), "Clear lungs.", "utf-16"),
        (b"38\xb0C \x96 \x93clear\x94", "38°C – “clear”", "cp1252"),
        ("It’s 38°C".encode().decode("cp1252").encode(), "It’s 38°C", "utf-8+mojibake"),
        (b"Clear\x00lungs today.", "Clear lungs today.", "utf-8+nul"),
        (b"a\r\nb\rc", "a \nb\nc", "utf-8"),
        (b"", "", "utf-8"),
    ],
)
def test_text_is_read_and_how_is_told(data: bytes, text: str, how: str) -> None:
    decoded = decode_text(data)
    assert decoded is not None and (decoded.text, decoded.how) == (text, how)


def test_one_bad_byte_spoils_nothing_else() -> None:
    decoded = decode_text("Größe ".encode() + b"\xe9 normal")
    assert decoded is not None and decoded.text == "Größe é normal"


def test_offsets_stay_those_of_the_source() -> None:
    source = "The heart\r\nis\x00normal\rtoday"
    decoded = clean_text(source)
    assert decoded is not None and len(decoded.text) == len(source) and decoded.text.index("normal") == 14


def test_what_is_no_text_is_told() -> None:
    assert decode_text(b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(range(32)) * 4) is None
    assert decode_text(bytes(range(256))) is None
