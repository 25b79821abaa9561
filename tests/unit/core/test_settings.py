"""Settings: layers, errors that name the key and the fix, fingerprints of what decides a result."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.settings import Settings, known_keys, load_settings, operational, to_yaml


class Inner(Settings):
    depth: int = Field(2, ge=1, description="how deep")


class Example(Settings):
    name: str = Field(description="what it is called")
    rate: float = Field(0.5, le=1, description="how fast")
    inner: Inner = Field(Inner(), description="nested")
    workers: int = operational(4, description="how many")


def load(**kwargs: object) -> Example:
    return load_settings(Example, "example", **{"environment": {}, **kwargs})  # type: ignore[arg-type]


def failure(**kwargs: object) -> MedfilipError:
    with pytest.raises(MedfilipError) as caught:
        load(**kwargs)
    return caught.value


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("name: file\nrate: 0.1\ninner: {depth: 3}\n")
    environment = {"MEDFILIP_EXAMPLE__RATE": "0.2", "MEDFILIP_EXAMPLE__INNER__DEPTH": "4", "MEDFILIP_OTHER__X": "1"}
    settings = load(file=file, environment=environment, overrides=["inner.depth=5"])
    assert (settings.name, settings.rate, settings.inner.depth, settings.workers) == ("file", 0.2, 5, 4)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"overrides": ["name=a", "rat=1"]}, ["rat", "'rate'"]),
        ({"overrides": ["name=a", "inner.dept=1"]}, ["inner.dept", "'inner.depth'"]),
        ({"overrides": ["name=a"], "environment": {"MEDFILIP_EXAMPLE__WORKRES": "1"}}, ["workres", "'workers'"]),
    ],
)
def test_unknown_keys_suggest_the_right_one(kwargs: dict[str, object], words: list[str]) -> None:
    error = failure(**kwargs)
    assert error.code is ErrorCode.CONFIG_UNKNOWN_KEY
    assert all(word in str(error) for word in words)


def test_invalid_values_name_key_and_limit_but_not_the_value() -> None:
    error = failure(overrides=["name=a", "rate=7777"])
    assert error.code is ErrorCode.CONFIG_INVALID
    assert "'rate'" in str(error) and "less than or equal to 1" in str(error)
    assert "7777" not in str(error)


def test_missing_key_shows_how_to_give_it() -> None:
    assert "name=VALUE" in str(failure())


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [", None])
def test_unreadable_files_are_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "c.yaml"
    if content is not None:
        file.write_text(content)
    assert failure(file=file).code is ErrorCode.CONFIG_FILE_UNREADABLE


def test_operational_settings_do_not_decide_the_result() -> None:
    a, b = load(overrides=["name=x", "workers=1"]), load(overrides=["name=x", "workers=9"])
    assert a.semantic() == b.semantic() == {"name": "x", "rate": 0.5, "inner": {"depth": 2}}


def test_printed_settings_can_be_given_back(tmp_path: Path) -> None:
    settings = load(overrides=["name=x", "inner.depth=9"])
    file = tmp_path / "c.yaml"
    file.write_text(to_yaml(settings))
    assert load(file=file) == settings
    assert yaml.safe_load(to_yaml(settings))["inner"] == {"depth": 9}


def test_known_keys_are_dotted() -> None:
    assert [key for key, _, _ in known_keys(Example)] == ["name", "rate", "inner.depth", "workers"]
