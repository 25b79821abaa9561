"""A client of any OpenAI-compatible chat endpoint: bounded in time, size and tries, and silent about what it sends.

A text costs one request. What fails for one text is told as a code for that text; what would fail for all
of them (a refused key, no such model, nobody there) is raised, so that a job stops instead of failing a million times.
No redirect is followed, no proxy or netrc of the machine is used, and neither key nor text is in any message.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from medfilip.core.errors import ErrorCode, MedfilipError

API_KEY_SECRET = "OPENAI_API_KEY"  # noqa: S105 - the secret's name
MAX_RESPONSE_BYTES = 1 << 20
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_UNREACHABLE_AFTER = 20
"""Sentences in a row that nobody answered, after which the endpoint counts as gone."""


@dataclass(frozen=True)
class ChatEndpoint:
    """Where requests go and what they ask for.

    Attributes
    ----------
    base_url
        Up to and with the version, such as ``https://host/v1``; without user, password or query.
    model
        Name of the model there.
    timeout_s
        Longest wait for one answer.
    max_tries
        Requests for one sentence, the first included.
    """

    base_url: str
    model: str
    timeout_s: float = 60.0
    max_tries: int = 5

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        plain = not (parts.username or parts.password or parts.query or parts.fragment)
        if parts.scheme not in ("http", "https") or not parts.hostname or not plain:
            raise MedfilipError(
                ErrorCode.CONFIG_INVALID,
                "The setting 'openai.base_url' is no plain http:// or https:// address.",
                fix="Write it as https://HOST/v1; the key comes from MEDFILIP_OPENAI_API_KEY.",
            )


@dataclass(frozen=True)
class ChatReply:
    """An answer, or the code of why there is none (``failure``)."""

    text: str = ""
    truncated: bool = False
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    failure: ErrorCode | None = None


@dataclass(frozen=True)
class _Dialect:
    """What a server takes: older ones no schema, newer ones another name for the budget."""

    schema: bool
    budget_key: str


_DIALECTS = tuple(_Dialect(schema, key) for schema in (True, False) for key in ("max_tokens", "max_completion_tokens"))


class ChatClient:
    """Asks a chat endpoint; use as ``async with ChatClient(...) as client``."""

    def __init__(self, endpoint: ChatEndpoint, api_key: str | None = None, *, concurrency: int = 16) -> None:
        self._endpoint = endpoint
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx.AsyncClient(
            base_url=f"{endpoint.base_url.rstrip('/')}/",
            headers=headers,
            timeout=endpoint.timeout_s,
            limits=httpx.Limits(max_connections=concurrency),
            follow_redirects=False,
            trust_env=False,
        )
        self._slots = asyncio.Semaphore(concurrency)
        self._dialect: _Dialect | None = None
        self._unanswered = 0

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, messages: list[dict[str, str]], *, max_tokens: int, schema: str) -> ChatReply:
        """Return the model's answer to one conversation, in JSON that follows ``schema`` where the server takes one.

        Raises
        ------
        MedfilipError
            ``unauthenticated``, ``not_found`` or ``endpoint_unreachable``: no other sentence would fare better.
        """
        async with self._slots:
            for dialect in (self._dialect,) if self._dialect else _DIALECTS:
                status, content = await self._post(self._body(messages, max_tokens, schema, dialect))
                if status in (400, 422) and self._dialect is None:
                    continue
                if status == 200:
                    self._dialect = dialect
                return self._judge(status, content)
        return ChatReply(failure=ErrorCode.ENGINE_FAILED)

    def _body(self, messages: list[dict[str, str]], max_tokens: int, schema: str, dialect: _Dialect) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "messages": messages,
            "temperature": 0,
            dialect.budget_key: max_tokens,
        }
        if dialect.schema:
            form = {"name": "reply", "strict": False, "schema": json.loads(schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    async def _post(self, body: dict[str, Any]) -> tuple[int, bytes]:
        """Return status and body of the last try; status 0 if nobody answered at all."""
        wait = _FIRST_WAIT_S
        status, content = 0, b""
        for attempt in range(self._endpoint.max_tries):
            asked: float | None = None
            try:
                async with self._http.stream("POST", "chat/completions", json=body) as response:
                    status, content = response.status_code, await _read_bounded(response)
                    asked = retry_after_s(response.headers.get("retry-after"))
            except httpx.TransportError:
                status, content = 0, b""
            if status and status not in _RETRIED:
                break
            if attempt + 1 < self._endpoint.max_tries:
                await asyncio.sleep(min(_LONGEST_WAIT_S, max(wait, asked or 0.0)))
                wait *= 2
        return status, content

    def _judge(self, status: int, content: bytes) -> ChatReply:
        self._unanswered = 0 if status else self._unanswered + 1
        if self._unanswered >= _UNREACHABLE_AFTER:
            raise MedfilipError(
                ErrorCode.ENDPOINT_UNREACHABLE,
                f"The chat endpoint left {self._unanswered} sentences in a row unanswered.",
                fix="Check openai.base_url and that the server is up, then start the job again: it resumes.",
            )
        if status == 401:
            raise MedfilipError(
                ErrorCode.UNAUTHENTICATED,
                "The chat endpoint refused the key.",
                fix="Set MEDFILIP_OPENAI_API_KEY or MEDFILIP_OPENAI_API_KEY_FILE on every node.",
            )
        if status == 404:
            raise MedfilipError(
                ErrorCode.NOT_FOUND,
                "The chat endpoint has no such model or path.",
                fix="Check openai.model, and that openai.base_url ends in its version, such as /v1.",
            )
        return read_completion(content) if status == 200 else ChatReply(failure=ErrorCode.ENGINE_FAILED)


def read_completion(content: bytes) -> ChatReply:
    """Read the body of a chat completion; one that is no completion is `ErrorCode.ENGINE_FAILED`."""
    try:
        body = json.loads(content)
        choice = body["choices"][0]
        message = choice["message"]
        text = message.get("content") or ""
        usage = body.get("usage") or {}
        counted = {
            "input_tokens": _count(usage.get("prompt_tokens")),
            "output_tokens": _count(usage.get("completion_tokens")),
            "cached_tokens": _count((usage.get("prompt_tokens_details") or {}).get("cached_tokens")),
        }
        reason = choice.get("finish_reason")
        refused = bool(message.get("refusal")) or reason == "content_filter"
    except (ValueError, LookupError, TypeError, AttributeError):
        return ChatReply(failure=ErrorCode.ENGINE_FAILED)
    if not isinstance(text, str):
        return ChatReply(failure=ErrorCode.ENGINE_FAILED)
    failure = ErrorCode.REPLY_REFUSED if refused else None
    return ChatReply(text, truncated=reason == "length", failure=failure, **counted)


def retry_after_s(value: str | None) -> float | None:
    """Return the seconds a ``Retry-After`` header asks for, given as a number or as a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31 else None


async def _read_bounded(response: httpx.Response) -> bytes:
    """Read a body, up to a limit; what is longer is no reply of ours and reads as empty."""
    content = b""
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > MAX_RESPONSE_BYTES:
            return b""
    return content
