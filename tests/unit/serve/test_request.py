"""Requests: labels, bodies and forms within their limits, and no error that quotes one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request

from medfilip.core.errors import ErrorCode, MedfilipError
from serve.request import clean_labels, read_body
from serve.settings import ServeSettings


def test_labels_get_single_blanks_and_count_once(settings: ServeSettings) -> None:
    labels, [warning] = clean_labels(["  left   pleural effusion", "mass", "left pleural effusion"], settings)
    assert labels == ("left pleural effusion", "mass")
    assert warning.code == "labels_repeated" and "mass" not in warning.message
    assert clean_labels([], settings) == (None, ())


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (["ok", " \t "], "Label 2 has 0 characters"),
        (["secret" * 40], "max_label_characters = 200"),
        (["secret\x00"], "Label 1 has characters that cannot be printed"),
        (["\u202esecret"], "cannot be printed"),
        ([f"secret {n}" for n in range(65)], "max_labels is 64"),
    ],
)
def test_unfit_labels_are_refused_without_being_quoted(labels: list[str], words: str, settings: ServeSettings) -> None:
    with pytest.raises(MedfilipError, match=words) as caught:
        clean_labels(labels, settings)
    assert caught.value.code == ErrorCode.REQUEST_INVALID
    assert "secret" not in str(caught.value)


def test_an_endless_body_is_read_up_to_its_limit() -> None:
    taken = 0

    async def receive() -> dict[str, object]:
        nonlocal taken
        taken += 1000
        return {"type": "http.request", "body": bytes(1000), "more_body": True}

    with pytest.raises(MedfilipError, match="max_body_bytes = 4500"):
        asyncio.run(read_body(Request({"type": "http", "headers": []}, receive), 4500))
    assert taken == 5000


def test_a_body_of_exactly_the_limit_is_read() -> None:
    parts = [b"ab", b"cd"]

    async def messages() -> AsyncIterator[dict[str, object]]:
        while parts:
            yield {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    source = messages()
    body = asyncio.run(read_body(Request({"type": "http", "headers": []}, lambda: anext(source)), 4))  # type: ignore[arg-type]
    assert body == b"abcd"
