"""The compact form in which a language model writes findings: one short list of strings for each.

``["calcified nodules", "yes", "=calcified granuloma", "6 mm", "two", "left", "upper lobe", "same"]`` says: the words
that name the finding, whether it is there, then in any order whatever else the sentence says. What a string stands for
needs no key, since the vocabularies are disjoint: codes for hedge, side, change and age, a measure, a number, and words
for severity, size, site or appearance, which the ontology tells apart. Two strings carry a mark: ``=`` for a category
that the quoted words are no name of, and ``@`` for where the tip of a device is.

Output tokens are what a model's time goes into: ``tests/benchmarks/reply_tokens.py`` measures this form beside others.
"""

from __future__ import annotations

import json
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from medfilip.findings.finding import Certainty, Change, Chronicity, Hedge, Laterality

FORMAT_VERSION = "2"
MAX_FINDINGS = 12
MAX_MENTION = 80
MAX_QUALIFIER = 40
MAX_STRINGS = 14
"""Strings of one finding."""
CATEGORY_MARK = "="
POSITION_MARK = "@"


class CertaintyCode(StrEnum):
    """What a reply writes for a certainty: words that are one token everywhere."""

    YES = "yes"
    NO = "no"
    MAYBE = "maybe"


CERTAINTIES: dict[CertaintyCode, Certainty] = {
    CertaintyCode.YES: Certainty.PRESENT,
    CertaintyCode.NO: Certainty.ABSENT,
    CertaintyCode.MAYBE: Certainty.UNCERTAIN,
}
HEDGES: dict[str, Hedge] = {
    "probable": Hedge.PROBABLE,
    "possible": Hedge.POSSIBLE,
    "versus": Hedge.VERSUS,
    "exclude": Hedge.CANNOT_EXCLUDE,
}
SIDES: dict[str, Laterality] = {"left": Laterality.LEFT, "right": Laterality.RIGHT, "both": Laterality.BILATERAL}
CHANGES: dict[str, Change] = {
    "new": Change.NEW,
    "up": Change.INCREASED,
    "down": Change.DECREASED,
    "same": Change.UNCHANGED,
    "gone": Change.RESOLVED,
}
CHRONICITIES: dict[str, Chronicity] = {code.value: code for code in Chronicity}

_Words = Annotated[str, Field(max_length=MAX_QUALIFIER)]


class ReplyFinding(BaseModel):
    """One finding as the model writes it: in JSON a list of strings, see the module's text."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mention: str = Field(max_length=MAX_MENTION, description="words copied from the sentence that name it")
    certainty: CertaintyCode
    category: _Words | None = Field(None, description="a standard name, where the mention is none")
    position: _Words | None = Field(None, description="words copied from the sentence for where a device's tip is")
    qualifiers: tuple[_Words, ...] = Field((), max_length=MAX_STRINGS, description="codes, and copied words")

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if not 2 <= len(value) <= MAX_STRINGS or not all(isinstance(text, str) for text in value):
            raise ValueError(f"a finding is a list of 2 to {MAX_STRINGS} strings")
        mention, certainty, *rest = value
        marked = {text[0]: text[1:].strip() for text in reversed(rest) if text[:1] in (CATEGORY_MARK, POSITION_MARK)}
        return {
            "mention": mention,
            "certainty": certainty,
            "category": marked.get(CATEGORY_MARK),
            "position": marked.get(POSITION_MARK),
            "qualifiers": tuple(text for text in rest if text[:1] not in (CATEGORY_MARK, POSITION_MARK)),
        }

    @model_serializer
    def _to_list(self) -> list[str]:
        marked = [f"{CATEGORY_MARK}{self.category}"] if self.category else []
        marked += [f"{POSITION_MARK}{self.position}"] if self.position else []
        return [self.mention, self.certainty.value, *marked, *self.qualifiers]

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Return the schema of the list, with its bounds taken from the fields."""
        return {
            "type": "array",
            "prefixItems": [
                {"type": "string", "maxLength": MAX_MENTION},
                {"type": "string", "enum": [code.value for code in CertaintyCode]},
            ],
            "items": {"type": "string", "maxLength": MAX_QUALIFIER + 1},
            "minItems": 2,
            "maxItems": MAX_STRINGS,
        }


class Reply(BaseModel):
    """A whole reply."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    f: tuple[ReplyFinding, ...] = Field(max_length=MAX_FINDINGS, description="the findings")


def write_reply(findings: Reply) -> str:
    """Return a reply as a model should write it, without white space.

    >>> write_reply(Reply(f=(ReplyFinding(mention="effusion", certainty="no"),)))
    '{"f":[["effusion","no"]]}'
    """
    return json.dumps(findings.model_dump(mode="json"), separators=(",", ":"), ensure_ascii=False)


@lru_cache(maxsize=1)
def reply_schema() -> str:
    """Return the JSON schema of a reply as text: Arrow would fill the gaps of a dictionary with nulls."""
    schema = Reply.model_json_schema()
    item = schema.pop("$defs")["ReplyFinding"]
    findings = {"type": "array", "items": item, "maxItems": MAX_FINDINGS}
    return json.dumps(
        {"type": "object", "properties": {"f": findings}, "required": ["f"], "additionalProperties": False}
    )


@lru_cache(maxsize=1)
def reply_grammar() -> str:
    """Return the grammar (GBNF) of a reply without white space, for engines that decode under one.

    An engine that follows the JSON schema writes a blank after each comma, a fifth of a reply's tokens.
    """
    codes = " | ".join(f'"\\"{code}\\""' for code in CertaintyCode)
    return "\n".join(
        (
            rf'root ::= "{{\"f\":[" (finding ("," finding){{0,{MAX_FINDINGS - 1}}})? "]}}"',
            rf'finding ::= "[" mention "," certainty ("," qualifier){{0,{MAX_STRINGS - 2}}} "]"',
            rf'mention ::= "\"" character{{1,{MAX_MENTION}}} "\""',
            f"certainty ::= {codes}",
            rf'qualifier ::= "\"" character{{1,{MAX_QUALIFIER + 1}}} "\""',
            r'character ::= [^"\\\x00-\x1f]',
        )
    )
