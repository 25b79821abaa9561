"""Replies of models: read whole or refused with a code."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from medfilip.core.errors import ErrorCode
from medfilip.core.replies import MAX_REPLY_CHARACTERS, parse_reply


class Reply(BaseModel):
    a: int


@pytest.mark.parametrize("raw", ['{"a":1}', ' {"a": 1}\n', '```json\n{"a":1}\n```', '```\n{"a":1}```'])
def test_json_is_read_fenced_or_not(raw: str) -> None:
    assert parse_reply(raw, Reply, truncated=False) == Reply(a=1)


@pytest.mark.parametrize(
    ("raw", "truncated", "code"),
    [
        ("  ", False, ErrorCode.REPLY_EMPTY),
        ("", True, ErrorCode.REPLY_TRUNCATED),
        ('{"a":', True, ErrorCode.REPLY_TRUNCATED),
        ('{"a":', False, ErrorCode.REPLY_INVALID),
        ('{"b":1}', False, ErrorCode.REPLY_INVALID),
        ("I'm sorry, I can't help.", False, ErrorCode.REPLY_REFUSED),
        ('{"a":1}' + " " * MAX_REPLY_CHARACTERS, False, ErrorCode.REPLY_INVALID),
    ],
)
def test_others_have_a_code(raw: str, truncated: bool, code: ErrorCode) -> None:
    assert parse_reply(raw, Reply, truncated=truncated) is code
