"""API keys: hashes only, long ones only, and never none by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.keys import KeyRing, accepted_hashes, configured_hashes, hash_key, new_key

KEY = new_key()


def test_both_headers_carry_a_key() -> None:
    ring = KeyRing([hash_key("another-key-of-enough-length"), hash_key(KEY)])
    ring.check(f"Bearer {KEY}", None)
    ring.check(f"bearer  {KEY}", None)
    ring.check(None, KEY)


@pytest.mark.parametrize(
    ("authorization", "header", "code"),
    [
        (None, None, ErrorCode.UNAUTHENTICATED),
        ("", "", ErrorCode.UNAUTHENTICATED),
        (f"Basic {KEY}", None, ErrorCode.UNAUTHENTICATED),
        ("Bearer", None, ErrorCode.UNAUTHENTICATED),
        (f"Bearer {KEY}x", None, ErrorCode.FORBIDDEN),
        (f"Bearer {hash_key(KEY)}", None, ErrorCode.FORBIDDEN),
        (None, "ключ", ErrorCode.FORBIDDEN),
    ],
    ids=["nothing", "empty", "another-scheme", "no-key", "a-letter-too-many", "the-hash", "not-ascii"],
)
def test_everything_else_is_refused(authorization: str | None, header: str | None, code: ErrorCode) -> None:
    with pytest.raises(MedfilipError) as caught:
        KeyRing([hash_key(KEY)]).check(authorization, header)
    assert caught.value.code == code
    assert KEY not in str(caught.value)


def test_keys_come_from_the_environment_or_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, second = new_key(), new_key()
    assert first != second
    monkeypatch.setenv("MEDFILIP_API_KEYS", f"{first}, {second}\n")
    assert configured_hashes() == (hash_key(first), hash_key(second))
    monkeypatch.delenv("MEDFILIP_API_KEYS")
    (tmp_path / "keys").write_text(f"{second}\n")
    monkeypatch.setenv("MEDFILIP_API_KEYS_FILE", str(tmp_path / "keys"))
    assert accepted_hashes([hash_key(first)], allow_anonymous=False) == (hash_key(first), hash_key(second))
    assert accepted_hashes([hash_key(first)], allow_anonymous=True) == ()


def test_short_keys_and_no_keys_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MedfilipError, match="MEDFILIP_API_KEYS"):
        accepted_hashes([], allow_anonymous=False)
    with pytest.raises(MedfilipError, match="SHA-256"):
        accepted_hashes(["clear-text-key"], allow_anonymous=False)
    monkeypatch.setenv("MEDFILIP_API_KEYS", "secret123")
    with pytest.raises(MedfilipError, match="fewer than 20") as caught:
        configured_hashes()
    assert "secret123" not in str(caught.value)
