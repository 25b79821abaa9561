"""Knowledge drafted by a language model: what is asked, in which form it answers, and what of the answer is used.

Two kinds of requests: ``draft`` asks for the entry of a category that has none, ``describe`` for phrases about one
distinct finding (category, severity, side, sites, patterns). Nothing but names and slots goes to the model. The one
name that comes from reports is that of a category outside the ontology; it is cut to a few plain words
(`plain_name`). What comes back is checked phrase by phrase (`medfilip.knowledge.drafts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from medfilip.core.fingerprint import canonical_json, fingerprint
from medfilip.findings.finding import Certainty
from medfilip.findings.ontology import Ontology
from medfilip.knowledge.knowledge import MAX_PHRASE, MIN_DESCRIPTIONS, severity_rank
from medfilip.knowledge.reading import OTHER

Kind = Literal["draft", "describe"]

INSTRUCTIONS_VERSION = "knowledge-v1"
MAX_NAME_CHARACTERS, MAX_NAME_WORDS = 60, 6
MAX_REQUEST_CHARACTERS = 400
_MAX_DESCRIPTION = 160
_MARKUP = re.compile(r"[^a-z' -]+")

_Phrase = Annotated[str, Field(min_length=3, max_length=MAX_PHRASE)]
_Phrases = Annotated[tuple[_Phrase, ...], Field(max_length=3)]


class DraftReply(BaseModel):
    """Reply to a ``draft``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    density: _Phrases
    shape: _Phrases
    margin: _Phrases
    distribution: _Phrases
    site: _Phrases
    secondary_signs: _Phrases
    descriptions: Annotated[
        tuple[Annotated[str, Field(min_length=20, max_length=_MAX_DESCRIPTION)], ...],
        Field(min_length=MIN_DESCRIPTIONS, max_length=5),
    ]


class DescribeReply(BaseModel):
    """Reply to a ``describe``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    phrases: Annotated[tuple[_Phrase, ...], Field(min_length=2, max_length=6)]


REPLIES: dict[Kind, type[DraftReply] | type[DescribeReply]] = {"draft": DraftReply, "describe": DescribeReply}


def plain_name(category: str) -> str | None:
    """Return the name of a category outside the ontology as it may be shown to a model.

    It is a normalised name, yet its words come from reports: of at most 60 characters and six words of plain letters,
    without digits (a date, a number, a measure). ``None`` if too little is left, or too much was there.

    >>> plain_name("other:crazy-paving (3 cm)"), plain_name("other:x")
    ('crazy-paving cm', None)
    """
    name = " ".join(_MARKUP.sub(" ", category.removeprefix(OTHER).lower()).split()).strip("-' ")
    fits = len(name) <= MAX_NAME_CHARACTERS and len(name.split()) <= MAX_NAME_WORDS
    return name if fits and len(re.sub("[^a-z]", "", name)) >= 3 else None


def draft_request(category: str, ontology: Ontology) -> str | None:
    """Return the request for an entry, or ``None`` for a category whose name must not be shown."""
    name = ontology.label(category) if category in ontology.categories else plain_name(category)
    return canonical_json({"draft": name}) if name else None


def describe_request(finding: Mapping[str, object], ontology: Ontology) -> str | None:
    """Return the request about a finding: the same for all findings that would look the same.

    ``None`` for an absent finding, and for a category outside the ontology.
    """
    category = str(finding["category"])
    if finding["certainty"] == Certainty.ABSENT or category not in ontology.categories:
        return None
    slots: dict[str, object] = {"category": ontology.label(category)}
    if severity_rank(finding):
        slots["severity"] = severity_rank(finding)
    if finding.get("laterality"):
        slots["side"] = str(finding["laterality"])
    for name, known in (("sites", ontology.sites), ("patterns", ontology.patterns)):
        values = finding.get(name) or ()
        assert isinstance(values, list | tuple)
        # Ids only: a slot never carries the words of a report.
        named = sorted({str(value).replace("_", " ") for value in values if value in known})
        if named:
            slots[name] = named
    return canonical_json({"describe": slots})


def request_kind(request: str) -> Kind:
    """Return what a request asks for."""
    return "draft" if request.startswith('{"draft"') else "describe"


class Instructions(BaseModel):
    """A file of instructions: the template of all requests (`medfilip.extraction.chat_engine.Template`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    instructions: str
    examples: tuple[dict[str, Any], ...]
    banned: tuple[str, ...]

    @cached_property
    def system(self) -> str:
        """Instructions and examples: the part that all requests share."""
        shown = (
            f"{_frame(canonical_json(item['request']))}\n{json.dumps(item['reply'], separators=(',', ':'))}"
            for item in self.examples
        )
        return "\n".join((self.instructions.strip(), "", *shown))

    def fits(self, request: str) -> bool:
        """Whether a request is short enough to be made."""
        return len(request) <= MAX_REQUEST_CHARACTERS

    def messages(self, request: str, context: str | None = None) -> list[dict[str, str]]:
        """Return the chat messages of a request; it has no context."""
        del context
        return [{"role": "system", "content": self.system}, {"role": "user", "content": _frame(request)}]

    def reply_form(self, request: str) -> str:
        """Return the JSON schema of the reply as text: Arrow would fill the gaps of a dictionary with nulls."""
        return reply_schema(request_kind(request))

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that the instructions decide: their text and the forms of the replies."""
        return fingerprint([self.version, self.system, self.banned, reply_schema("draft"), reply_schema("describe")])


@lru_cache(maxsize=2)
def reply_schema(kind: Kind) -> str:
    """Return the JSON schema of a reply as text."""
    return json.dumps(REPLIES[kind].model_json_schema())


def _frame(request: str) -> str:
    return f"<request>{request}</request>"


@lru_cache(maxsize=1)
def load_instructions() -> Instructions:
    """Load the instructions that ship with the package."""
    folder = files("medfilip.knowledge") / "instructions"
    text = (folder / f"{INSTRUCTIONS_VERSION}.yaml").read_text(encoding="utf-8")
    return Instructions.model_validate(yaml.safe_load(text))
