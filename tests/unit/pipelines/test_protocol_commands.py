"""``medfilip evaluate protocol``: its table, its names, and its errors."""

from __future__ import annotations

import pytest

from medfilip.evaluation.protocols.protocol import load_protocol, protocol_names
from pipelines.protocol_commands import named_protocol, quoted
from tests.support.command import medfilip_here as medfilip


@pytest.mark.parametrize("arguments", [(), ("--list",), ("rsna", "--list")])
def test_the_table_says_what_there_is_and_where_to_get_it(arguments: tuple[str, ...]) -> None:
    text = medfilip("evaluate", "protocol", *arguments).stdout
    for name in protocol_names():
        assert name in text and load_protocol(name).url in text
    assert "112,120" in text and "multi-label" in text and "licence" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_help_lists_the_settings_of_protocols() -> None:
    text = medfilip("evaluate", "--help").stdout
    assert "expected_split" in text and "MEDFILIP_EVALUATE_PROTOCOL__KEY" in text and "phantom_truth" in text
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("evaluate", "protocol", "rsna"), "config_invalid", "data=VALUE"),
        (("evaluate", "protocol", "mimic", "--data", "/x", "--checkpoint", "/y"), "config_invalid", "chestxray14"),
        (("evaluate", "protocol", "rsna", "dat=/x"), "config_unknown_key", "Did you mean 'data'?"),
        (("evaluate", "protocol", "protocol=rsna", "data=/x", "checkpoint=/y"), "input_not_found", "/y"),
        (("evaluate", "--data", "/x"), "config_unknown_key", "'data'"),
        (("phantom", "layout=mimic", "count=1"), "config_invalid", "siim_acr"),
    ],
)
def test_mistakes_get_one_sentence_and_a_code(arguments: tuple[str, ...], code: str, words: str) -> None:
    result = medfilip(*arguments)
    message = " ".join(result.stderr.split())
    assert result.returncode in (1, 2) and f"[{code}]" in message and words in message
    assert "Traceback" not in result.stderr


def test_a_name_becomes_a_setting_and_places_stay_text() -> None:
    assert named_protocol(["rsna", "data=/x"]) == ['protocol="rsna"', "data=/x"]
    assert named_protocol(["protocol=rsna"]) == ["protocol=rsna"]
    assert quoted("2024") == '"2024"'
