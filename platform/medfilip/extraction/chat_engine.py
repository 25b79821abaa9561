"""The ``openai`` engine: sentences → a chat endpoint → grounded findings, many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.chat_client import ChatClient, ChatEndpoint
from medfilip.extraction.engine import SentenceResult
from medfilip.extraction.prompt import PromptTemplate
from medfilip.extraction.reply import ReplyReader

ENGINE_VERSION = "1"


def chat_fingerprint(endpoint: ChatEndpoint, template: PromptTemplate, reader: ReplyReader, max_tokens: int) -> str:
    """Return the fingerprint of all we know of what decides a reply; the weights behind a name are the server's."""
    decided = [endpoint.base_url, endpoint.model, template.fingerprint, reader.fingerprint, max_tokens]
    return fingerprint(["openai", ENGINE_VERSION, *decided])


class ChatEngine:
    """Asks an endpoint about sentences.

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
        template: PromptTemplate,
        reader: ReplyReader,
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

    def extract_many(self, texts: Sequence[str], contexts: Sequence[str | None]) -> list[SentenceResult]:
        """Extract the findings of several sentences; see `ChatClient.ask` for what is raised."""
        return asyncio.run(self._extract(texts, contexts))

    async def _extract(self, texts: Sequence[str], contexts: Sequence[str | None]) -> list[SentenceResult]:
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

    async def _one(self, client: ChatClient, text: str, context: str | None) -> SentenceResult:
        if not self._template.fits(text):
            return SentenceResult([], status=ErrorCode.SENTENCE_TOO_LONG)
        reply = await client.ask(self._template.messages(text, context), max_tokens=self._max_tokens)
        counted: dict[str, Any] = {
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
            "cached_tokens": reply.cached_tokens,
        }
        if reply.failure is not None:
            return SentenceResult([], status=reply.failure, raw_reply=reply.text or None, **counted)
        return self._reader.read(reply.text, text, truncated=reply.truncated, **counted)
