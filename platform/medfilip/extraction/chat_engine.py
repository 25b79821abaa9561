"""The ``openai`` engine: texts → a chat endpoint → what its replies are read as, many at a time.

It asks about sentences, whose replies become grounded findings, and about whatever else has a template and a reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.chat_client import ChatClient, ChatEndpoint

ENGINE_VERSION = "1"

ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


class Template(Protocol):
    """Writes requests."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that it decides."""
        ...

    def fits(self, text: str, /) -> bool:
        """Whether a text is short enough to be asked about."""
        ...

    def messages(self, text: str, context: str | None, /) -> list[dict[str, str]]:
        """Return the chat messages about a text."""
        ...

    def reply_form(self, text: str, /) -> str:
        """Return the JSON schema of the reply as text."""
        ...


class Reader(Protocol[ResultT_co]):
    """Reads replies."""

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that decides what a reply becomes."""
        ...

    def read(
        self,
        raw: str,
        text: str,
        /,
        *,
        truncated: bool,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> ResultT_co:
        """Read a reply about a text."""
        ...

    def failed(
        self,
        status: ErrorCode,
        raw_reply: str | None = None,
        /,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> ResultT_co:
        """Return what a text without a usable reply becomes."""
        ...


def chat_fingerprint(endpoint: ChatEndpoint, template: Template, reader: Reader[Any], max_tokens: int) -> str:
    """Return the fingerprint of all we know of what decides a reply; the weights behind a name are the server's."""
    decided = [endpoint.base_url, endpoint.model, template.fingerprint, reader.fingerprint, max_tokens]
    return fingerprint(["openai", ENGINE_VERSION, *decided])


class ChatEngine(Generic[ResultT]):
    """Asks an endpoint about texts.

    Parameters
    ----------
    concurrency
        Requests under way at once.
    max_tokens
        Budget of one reply.
    """

    name = "openai"

    def __init__(
        self,
        endpoint: ChatEndpoint,
        template: Template,
        reader: Reader[ResultT],
        *,
        api_key: str | None,
        concurrency: int,
        max_tokens: int,
    ) -> None:
        self._endpoint = endpoint
        self._template = template
        self._reader = reader
        self._api_key = api_key
        self._concurrency = concurrency
        self._max_tokens = max_tokens

    def extract_many(self, texts: Sequence[str], contexts: Sequence[str | None]) -> list[ResultT]:
        """Return the results of several texts; see `ChatClient.ask` for what is raised."""
        return asyncio.run(self._extract(texts, contexts))

    async def _extract(self, texts: Sequence[str], contexts: Sequence[str | None]) -> list[ResultT]:
        async with ChatClient(self._endpoint, self._api_key, concurrency=self._concurrency) as client:
            tasks = [
                asyncio.ensure_future(self._one(client, text, context))
                for text, context in zip(texts, contexts, strict=True)
            ]
            try:
                return await asyncio.gather(*tasks)
            except MedfilipError:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise

    async def _one(self, client: ChatClient, text: str, context: str | None) -> ResultT:
        if not self._template.fits(text):
            return self._reader.failed(ErrorCode.SENTENCE_TOO_LONG)
        messages, schema = self._template.messages(text, context), self._template.reply_form(text)
        reply = await client.ask(messages, max_tokens=self._max_tokens, schema=schema)
        counted: dict[str, Any] = {
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "cached_tokens": reply.cached_tokens,
        }
        if reply.failure is not None:
            return self._reader.failed(reply.failure, reply.text or None, **counted)
        return self._reader.read(reply.text, text, truncated=reply.truncated, **counted)
