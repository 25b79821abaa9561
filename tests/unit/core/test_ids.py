"""Ids are stable over machines and versions: their values are frozen here."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json, fingerprint
from medfilip.core.ids import hash64, hash64_each, keyed_fraction, new_run_id, pseudonym
from medfilip.core.secrets import project_key, read_secret


def test_hash64_is_frozen_and_keeps_parts_apart() -> None:
    assert hash64("no pneumothorax") == -5592002656591141700
    assert hash64("ab", "c") != hash64("a", "bc")
    assert -(1 << 63) <= hash64("x") < 1 << 63


def test_rows_of_columns_are_hashed_as_their_parts() -> None:
    names, numbers = ["ä", "b", ""], ["1", "", "\x1f"]
    expected = [hash64(name, number) for name, number in zip(names, numbers, strict=True)]
    assert hash64_each(names, map(str, numbers)).tolist() == expected
    assert hash64_each([], []).tolist() == []


def test_pseudonyms_depend_on_key_and_kind() -> None:
    assert pseudonym(b"k", "patient", "7") == pseudonym(b"k", "patient", "7")
    assert len({pseudonym(b"k", "patient", "7"), pseudonym(b"l", "patient", "7"), pseudonym(b"k", "study", "7")}) == 3


def test_keyed_fraction_is_uniform() -> None:
    draws = [keyed_fraction(b"k", str(number)) for number in range(5000)]
    assert min(draws) >= 0 and max(draws) < 1
    assert abs(sum(draws) / 5000 - 0.5) < 0.02


def test_run_ids_sort_by_time() -> None:
    early, late = (new_run_id(datetime(2026, 1, day, tzinfo=UTC)) for day in (1, 2))
    assert early < late and early.startswith("20260101T000000-")


def test_fingerprint_ignores_key_order() -> None:
    assert fingerprint({"a": 1, "b": [2]}) == fingerprint({"b": [2], "a": 1}) != fingerprint({"a": 1, "b": [3]})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'


def test_errors_survive_pickling_with_their_fix() -> None:
    error = pickle.loads(pickle.dumps(MedfilipError(ErrorCode.INPUT_EMPTY, "Nothing.", fix="Give something.")))
    assert (error.code, str(error)) == (ErrorCode.INPUT_EMPTY, "Nothing. Give something.")


def test_secrets_come_from_environment_or_file(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    (tmp_path / "k").write_text("from-file\n")
    monkeypatch.setenv("MEDFILIP_TOKEN_FILE", str(tmp_path / "k"))
    assert read_secret("TOKEN") == "from-file"
    monkeypatch.setenv("MEDFILIP_TOKEN", "from-environment")
    assert read_secret("TOKEN") == "from-environment"
    monkeypatch.setenv("MEDFILIP_OTHER_FILE", str(tmp_path / "missing"))
    with pytest.raises(MedfilipError, match="MEDFILIP_OTHER_FILE"):
        read_secret("OTHER")
    monkeypatch.setenv("MEDFILIP_OTHER_FILE", "/dev/null")
    with pytest.raises(MedfilipError, match="empty"):
        read_secret("OTHER")
    monkeypatch.setenv("MEDFILIP_PROJECT_KEY", "short")
    with pytest.raises(MedfilipError, match="at least 16"):
        project_key()


def test_a_project_key_is_made_once_and_private(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.delenv("MEDFILIP_PROJECT_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    key = project_key()
    assert len(key) == 64 and project_key() == key
    assert (tmp_path / ".config/medfilip/project.key").stat().st_mode & 0o777 == 0o600
