"""The openai engine against a real HTTP server: retries, failures of one sentence, failures of all, and silence."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable
from typing import Any

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction import chat_client
from medfilip.extraction.chat_client import ChatEndpoint, read_completion, retry_after_s
from medfilip.extraction.chat_engine import ChatEngine
from medfilip.extraction.engine import OK, SentenceResult
from medfilip.extraction.prompt import load_prompt
from medfilip.extraction.reply import ReplyReader
from medfilip.findings.ontology import load_ontology
from tests.support.chat_server import Answer, ChatServer, chat_server

KEY = "key-of-the-tests"
GOOD = '{"f":[["effusion","yes","left"]]}'


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_client, "_FIRST_WAIT_S", 0.01)


def ask(server: ChatServer | str, *texts: str, concurrency: int = 4, tries: int = 3) -> list[SentenceResult]:
    url = server if isinstance(server, str) else server.url
    engine = ChatEngine(
        ChatEndpoint(url, "some-model", timeout_s=5, max_tries=tries),
        load_prompt(),
        ReplyReader(load_ontology()),
        api_key=KEY,
        concurrency=concurrency,
        max_tokens=64,
    )
    return engine.extract_many(texts, [None] * len(texts))


def in_turn(*answers: Answer) -> Callable[[str, dict[str, Any]], Answer]:
    queue = list(answers)
    return lambda _sentence, _body: queue.pop(0) if len(queue) > 1 else queue[0]


def test_an_answer_is_grounded_and_its_tokens_are_counted_apart() -> None:
    with chat_server(in_turn(Answer(GOOD, cached=640))) as server:
        (result,) = ask(server, "left effusion")
    assert (result.status, result.findings[0]["laterality"]) == (OK, "left")
    assert (result.input_tokens, result.output_tokens, result.cached_tokens) == (700, len(GOOD) // 3, 640)
    (body,) = server.asked
    assert body["response_format"]["type"] == "json_schema" and body["temperature"] == 0
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with chat_server(in_turn(Answer(status=status), Answer(status=status), Answer(GOOD))) as server:
        (result,) = ask(server, "left effusion")
    assert (result.status, len(server.asked)) == (OK, 3)


def test_a_server_that_asks_to_wait_is_given_time(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(chat_client.asyncio, "sleep", note)
    with chat_server(in_turn(Answer(status=429, headers={"Retry-After": "7"}), Answer(GOOD))) as server:
        ask(server, "left effusion")
    assert 7.0 in waited


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("2.5") == 2.5
    in_a_minute = retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert in_a_minute is not None and 50 < in_a_minute <= 60
    assert retry_after_s("soon") is None and retry_after_s(None) is None


def test_one_bad_sentence_costs_one_row() -> None:
    def answer(sentence: str, _: dict[str, Any]) -> Answer:
        answers = {
            "broken": Answer(status=500),
            "moved": Answer(status=302, headers={"Location": "http://127.0.0.1:9/"}),
            "refused": Answer("", refusal="no"),
            "filtered": Answer("", finish_reason="content_filter"),
            "cut": Answer('{"f":[["eff', finish_reason="length"),
            "noise": Answer(body=b"<html>"),
            "endless": Answer(body=b" " * (chat_client.MAX_RESPONSE_BYTES + 10)),
        }
        return answers.get(sentence, Answer(GOOD))

    texts = ["left effusion", "broken", "moved", "refused", "filtered", "cut", "noise", "endless", "a" * 601]
    with chat_server(answer) as server:
        results = ask(server, *texts)
    assert [result.status for result in results] == [
        OK,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.REPLY_REFUSED,
        ErrorCode.REPLY_REFUSED,
        ErrorCode.REPLY_TRUNCATED,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.ENGINE_FAILED,
        ErrorCode.SENTENCE_TOO_LONG,
    ]
    assert "a" * 601 not in server.sentences(), "too long to be sent at all"


def test_a_server_without_schemas_is_asked_without_one() -> None:
    def answer(_: str, body: dict[str, Any]) -> Answer:
        return Answer(status=400) if "response_format" in body or "max_tokens" in body else Answer(GOOD)

    with chat_server(answer) as server:
        results = ask(server, "left effusion", "left effusion", concurrency=1)
    assert [result.status for result in results] == [OK, OK]
    assert len(server.asked) == 5, "what it takes is found out once"


def test_a_sentence_no_dialect_helps_is_one_failure() -> None:
    with chat_server(in_turn(Answer(status=400))) as server:
        assert ask(server, "left effusion")[0].status is ErrorCode.ENGINE_FAILED


@pytest.mark.parametrize(("status", "code"), [(401, ErrorCode.UNAUTHENTICATED), (404, ErrorCode.NOT_FOUND)])
def test_what_fails_for_all_stops_at_once(status: int, code: ErrorCode) -> None:
    with chat_server(in_turn(Answer(status=status))) as server, pytest.raises(MedfilipError) as caught:
        ask(server, *["left effusion"] * 50, concurrency=2)
    assert caught.value.code is code and len(server.asked) < 10
    assert KEY not in str(caught.value) and "effusion" not in str(caught.value)


def test_a_server_that_is_gone_is_said_to_be_gone() -> None:
    with chat_server(in_turn(Answer())) as server:
        pass
    with pytest.raises(MedfilipError) as caught:
        ask(server, *["left effusion"] * 40, tries=1)
    assert caught.value.code is ErrorCode.ENDPOINT_UNREACHABLE
    assert [result.status for result in ask(server, "a", tries=1)] == [ErrorCode.ENGINE_FAILED]


def test_requests_under_way_are_bounded() -> None:
    running, most = 0, 0

    def answer(_: str, __: dict[str, Any]) -> Answer:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1
        return Answer(GOOD)

    with chat_server(answer) as server:
        ask(server, *["left effusion"] * 12, concurrency=3)
    assert 1 < most <= 3


@pytest.mark.parametrize("url", ["ftp://x/v1", "https://user:secret@x/v1", "https://x/v1?key=1", "x/v1"])
def test_an_address_that_is_none_or_holds_a_secret_is_refused(url: str) -> None:
    with pytest.raises(MedfilipError) as caught:
        ChatEndpoint(url, "m")
    assert caught.value.code is ErrorCode.CONFIG_INVALID and "secret" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"choices":[]}', b'{"choices":[{"message":{"content":[1]}}]}', b"\xff"])
def test_a_body_that_is_no_completion_is_a_failure(body: bytes) -> None:
    assert read_completion(body).failure is ErrorCode.ENGINE_FAILED
