"""The local endpoint before it starts: its key, its port, and what it says when it cannot start."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.keys import hash_key, new_key
from serve.local import Endpoint, _announce, _free_port, _key_to_make, _why_not_started, serve_until_interrupted
from serve.settings import ServeSettings


def test_a_key_is_made_only_where_none_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ServeSettings(checkpoint="x")
    assert _key_to_make(settings)
    assert _key_to_make(settings.model_copy(update={"allow_anonymous": True})) is None
    assert _key_to_make(settings.model_copy(update={"api_key_hashes": (hash_key(new_key()),)})) is None
    monkeypatch.setenv("MEDFILIP_API_KEYS", new_key())
    assert _key_to_make(settings) is None


def test_the_start_shows_a_made_key_once_and_a_configured_one_never(capsys: pytest.CaptureFixture[str]) -> None:
    settings, key = ServeSettings(checkpoint="x"), new_key()
    assert key not in repr(Endpoint("http://127.0.0.1:1", key))
    _announce(Endpoint("http://127.0.0.1:1", key), settings)
    text = capsys.readouterr().out
    assert f"Bearer {key}" in text and "http://127.0.0.1:1/v1/diagnose" in text and "research use only" in text
    _announce(Endpoint("http://127.0.0.1:1"), settings)
    assert "YOUR_KEY" in capsys.readouterr().out


def test_a_port_is_found_and_a_wrong_address_refused() -> None:
    assert _free_port("127.0.0.1", 0) > 1023
    with pytest.raises(MedfilipError) as caught:
        _free_port("192.0.2.1", 8000)  # an address for documentation, which no machine has
    assert caught.value.code == ErrorCode.PORT_TAKEN


def test_a_damaged_checkpoint_is_named_as_the_reason(tiny_checkpoint: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(tiny_checkpoint, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"changed")
    assert (
        "model.safetensors does not match its hash" in _why_not_started(ServeSettings(checkpoint=str(damaged))).message
    )
    sound = _why_not_started(ServeSettings(checkpoint=str(tiny_checkpoint)))
    assert sound.code == ErrorCode.CLUSTER_UNREACHABLE


def test_settings_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    serve_until_interrupted("a folder: with a colon", ["port=0"], print_config=True)
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["checkpoint"], printed["port"]) == ("a folder: with a colon", 0)
    assert ServeSettings.model_validate(printed).limits == ServeSettings(checkpoint="x").limits
