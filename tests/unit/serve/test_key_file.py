"""The file of keys: hashes only, one active key a name, and running rings follow it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from serve import keys
from serve.key_file import add_key, read_key_file, revoke_key
from serve.keys import ANONYMOUS, Caller, KeyRing, accepted_hashes, hash_key


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "keys.json"


def test_a_key_is_shown_once_and_kept_as_a_hash(file: Path) -> None:
    key = add_key(file, "ward-3", requests_per_minute=7)
    [entry] = read_key_file(file).keys
    assert entry.sha256 == hash_key(key) and entry.name == "ward-3" and entry.requests_per_minute == 7
    assert key not in file.read_text() and file.stat().st_mode & 0o077 == 0


def test_names_are_distinct_among_active_keys(file: Path) -> None:
    add_key(file, "a")
    for name in ("a", "", "a b", "x" * 65, "-a"):
        with pytest.raises(MedfilipError) as caught:
            add_key(file, name)
        assert caught.value.code == ErrorCode.CONFIG_INVALID
    revoke_key(file, "a")
    add_key(file, "a")
    assert [entry.revoked is None for entry in read_key_file(file).keys] == [False, True]
    with pytest.raises(MedfilipError, match="'b'"):
        revoke_key(file, "b")
    with pytest.raises(MedfilipError) as caught:
        revoke_key(file.with_name("nowhere"), "a")
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND and not file.with_name("nowhere").exists()


def test_keys_added_at_once_are_all_kept(file: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda number: add_key(file, f"key-{number}"), range(24)))
    assert {entry.sha256 for entry in read_key_file(file).active} == {hash_key(key) for key in made}


def test_a_ring_follows_its_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "RELOAD_S", 0.0)
    given, first = "a-key-that-was-given-elsewhere", add_key(file, "first", concurrent_requests=2)
    ring = KeyRing([hash_key(given)], file)
    assert ring.check(None, first) == Caller("first", None, 2)
    assert ring.check(None, given).name == f"key-{hash_key(given)[:8]}"
    second = add_key(file, "second")
    assert ring.check(f"Bearer {second}", None).name == "second"
    revoke_key(file, "first")
    with pytest.raises(MedfilipError) as caught:
        ring.check(None, first)
    assert caught.value.code == ErrorCode.FORBIDDEN
    file.write_text("{ broken")
    assert ring.check(None, second).name == "second", "what was accepted stays so while the file cannot be read"
    file.unlink()
    assert ring.check(None, second).name == "second"
    monkeypatch.setattr(ring, "_known_until", 0.0)
    with pytest.raises(MedfilipError) as caught:
        ring.check(None, second)
    assert caught.value.code == ErrorCode.FORBIDDEN, "but not for ever: it may have been revoked"


def test_who_may_read_the_file_may_go_on_to(file: Path) -> None:
    add_key(file, "a")
    file.chmod(0o640)
    revoke_key(file, "a")
    assert file.stat().st_mode & 0o777 == 0o640


def test_a_file_is_enough_and_must_be_readable(file: Path) -> None:
    with pytest.raises(MedfilipError, match="medfilip keys add") as caught:
        accepted_hashes([], allow_anonymous=False, file=file)
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND
    add_key(file, "a")
    assert accepted_hashes([], allow_anonymous=False, file=file) == ()
    file.write_text('{"keys": [{"name": "a", "sha256": "clear text"}]}')
    with pytest.raises(MedfilipError) as caught:
        read_key_file(file)
    assert caught.value.code == ErrorCode.CONFIG_INVALID and "clear text" not in str(caught.value)


def test_without_any_key_everybody_is_anonymous() -> None:
    assert KeyRing([]).check(None, None) is ANONYMOUS
