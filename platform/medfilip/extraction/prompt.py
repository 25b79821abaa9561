"""The prompt of the language model engines: a versioned template, with what is the same for all sentences first.

The fixed part leads so that the engine's prefix cache computes it once for a whole corpus. A sentence is untrusted
text: it is bounded, it stands between marks that it cannot contain, and the instructions say what it is.

A student that was trained on one prompt needs no instructions (``student-v1``); its model folder names the version.
"""

from __future__ import annotations

import json
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.reply_format import (
    FORMAT_VERSION,
    Reply,
    ReplyFinding,
    reply_grammar,
    reply_schema,
    write_reply,
)

PROMPT_VERSION = "findings-v2"
STUDENT_PROMPT = "student-v1"
PROMPT_KEY = "medfilip_prompt"
"""Key of a model folder's ``config.json``: the prompt version that the model was trained on."""

_LOOKALIKES = str.maketrans({"<": "‹", ">": "›"})


class Example(BaseModel):
    """A sentence with the reply that is wanted for it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sentence: str
    context: str | None = None
    findings: tuple[ReplyFinding, ...]

    @property
    def reply(self) -> str:
        """The reply in the form the model should write."""
        return write_reply(Reply(f=self.findings))


class PromptTemplate(BaseModel):
    """A prompt file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    max_sentence_characters: int = Field(ge=1)
    max_context_characters: int = Field(ge=1)
    copying: bool = False
    """Whether replies are decoded under grammars that can only quote (`medfilip.extraction.copying`)."""
    instructions: str
    examples: tuple[Example, ...]

    @cached_property
    def system(self) -> str:
        """Instructions and examples: the part that all sentences share; empty for a student."""
        if not self.instructions.strip() and not self.examples:
            return ""
        shown = (f"{_frame(item.sentence, item.context)}\n{item.reply}" for item in self.examples)
        return "\n".join((self.instructions.strip(), "", *shown))

    def fits(self, sentence: str) -> bool:
        """Whether a sentence is short enough to be shown whole; a longer one is not asked about."""
        return len(sentence) <= self.max_sentence_characters

    def messages(self, sentence: str, context: str | None) -> list[dict[str, str]]:
        """Return the chat messages for one sentence; of a long context its end is shown, next to the sentence."""
        shown = context[-self.max_context_characters :] if context else None
        asked = {"role": "user", "content": _frame(sentence[: self.max_sentence_characters], shown)}
        return [{"role": "system", "content": self.system}, asked] if self.system else [asked]

    def reply_form(self, sentence: str) -> str:
        """Return the JSON schema of the reply as text, the same for every sentence."""
        del sentence
        return reply_schema()

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that the prompt decides: its text and the form of the reply."""
        limits = [self.max_sentence_characters, self.max_context_characters]
        return fingerprint([self.version, self.system, limits, FORMAT_VERSION, reply_grammar(), reply_schema()])


def _frame(sentence: str, context: str | None) -> str:
    lead = f"Before it: {_plain(context)}\n" if context else ""
    return f"{lead}<sentence>{_plain(sentence)}</sentence>"


def _plain(text: str) -> str:
    """Take away what could close the frame or look like a chat template's own marks."""
    return text.translate(_LOOKALIKES)


@lru_cache(maxsize=4)
def load_prompt(version: str = PROMPT_VERSION) -> PromptTemplate:
    """Load a prompt version that ships with the package.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` for a version that does not.
    """
    folder = files("medfilip.extraction") / "prompts"
    known = sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))
    if version not in known:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no prompt version '{version[:40]}'.",
            fix=f"Known are {', '.join(known)}; a newer model may need a newer medfilip.",
        )
    text = (folder / f"{version}.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return PromptTemplate.model_validate(content)


def prompt_version(model: str) -> str:
    """Return the prompt version that a model folder names; that of general models if it names none or is no folder."""
    config = Path(model) / "config.json"
    if not model or not config.is_file():
        return PROMPT_VERSION
    return str(json.loads(config.read_text(encoding="utf-8")).get(PROMPT_KEY, PROMPT_VERSION))


def system_prompt(version: str = PROMPT_VERSION) -> str:
    """Return the instructions and examples of a prompt version."""
    return load_prompt(version).system


def messages(sentence: str, context: str | None) -> list[dict[str, str]]:
    """Return the chat messages of the current prompt for one sentence."""
    return load_prompt().messages(sentence, context)
