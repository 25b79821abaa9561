"""The prompt of the language model engines: a versioned template, with what is the same for all sentences first.

The fixed part leads so that the engine's prefix cache computes it once for a whole corpus.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

PROMPT_VERSION = "findings-v1"
MAX_SENTENCE_CHARACTERS = 600


@lru_cache(maxsize=4)
def system_prompt(version: str = PROMPT_VERSION) -> str:
    """Return the instructions and examples of a prompt version."""
    return (files("medfilip.extraction") / "prompts" / f"{version}.txt").read_text(encoding="utf-8").strip()


def messages(sentence: str, context: str | None) -> list[dict[str, str]]:
    """Return the chat messages for one sentence; reports are untrusted text and stay inside the user turn."""
    lead = f"Previous sentence: {context}\n" if context else ""
    return [
        {"role": "system", "content": system_prompt()},
        {"role": "user", "content": f"{lead}Sentence: {sentence}"},
    ]
