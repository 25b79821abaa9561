"""A language model's reply: its JSON schema, parsing, grounding in the sentence, and normalisation.

Schema-constrained decoding makes most replies valid; truncation still breaks some, so every reply is validated. A
finding whose words do not stand in the sentence is not a finding: it is counted as ungrounded and left out.
"""

from __future__ import annotations

import difflib
import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfilip.core.errors import ErrorCode
from medfilip.extraction.engine import FindingRow, SentenceResult
from medfilip.extraction.terms import TermFinder
from medfilip.findings.finding import Alignment, Certainty, Laterality
from medfilip.findings.ontology import Ontology

MAX_FINDINGS = 12
MAX_WORDS = 80  # characters of one quoted mention


class ReplyFinding(BaseModel):
    """One finding as the model writes it; ``mention`` and ``severity`` are words copied from the sentence."""

    model_config = ConfigDict(extra="forbid")

    mention: str = Field(max_length=MAX_WORDS)
    category: str = Field(max_length=40)
    certainty: Certainty
    severity: str | None = Field(None, max_length=20)
    laterality: Laterality | None = None
    sites: list[str] = Field(default_factory=list, max_length=4)


class Reply(BaseModel):
    """A whole reply."""

    model_config = ConfigDict(extra="forbid")

    findings: list[ReplyFinding] = Field(max_length=MAX_FINDINGS)


def reply_schema() -> str:
    """Return the JSON schema of a reply as text: Arrow would fill the gaps of a dictionary with nulls."""
    return json.dumps(Reply.model_json_schema(), sort_keys=True)


class ReplyReader:
    """Turns replies into findings of the ontology."""

    def __init__(self, ontology: Ontology) -> None:
        self._ontology = ontology
        self._category_of = {term: category.id for category in ontology.categories.values() for term in category.terms}
        self._category_of |= {category: category for category in ontology.categories}
        self._site_of = {term: site.id for site in ontology.sites.values() for term in site.synonyms}
        self._site_of |= {site: site for site in ontology.sites}
        ranks = [("severity", ontology.severities), ("size", ontology.sizes)]
        self._ranks = TermFinder(
            (term, slot, value) for slot, values in ranks for value, terms in values.items() for term in terms
        )

    def read(
        self, raw: str, sentence: str, *, input_tokens: int, output_tokens: int, truncated: bool
    ) -> SentenceResult:
        """Parse, ground and normalise one reply; a reply that cannot be used is kept raw with a reason code."""
        tokens: dict[str, Any] = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        try:
            reply = Reply.model_validate_json(raw)
        except ValidationError:
            code = ErrorCode.REPLY_TRUNCATED if truncated else ErrorCode.REPLY_INVALID
            return SentenceResult([], status=code, raw_reply=raw, **tokens)
        findings: list[FindingRow] = []
        ungrounded: list[dict[str, str]] = []
        for item in reply.findings:
            finding = self._ground(item, sentence)
            if finding is not None:
                findings.append(finding)
            else:
                ungrounded.append({"mention": item.mention, "category": item.category, "reason": "not_in_sentence"})
        return SentenceResult(findings, ungrounded=tuple(ungrounded), **tokens)

    def _ground(self, finding: ReplyFinding, sentence: str) -> FindingRow | None:
        quoted = finding.mention.strip()
        alignment = Alignment.EXACT
        start = sentence.find(quoted) if quoted else -1
        if start < 0:
            quoted = " ".join(quoted.lower().split()).strip(" .,;:")
            alignment = Alignment.NORMALISED
            start = sentence.find(quoted) if quoted else -1
        if start < 0:
            return None
        ranks = self._ranks.find((finding.severity or "").lower())
        return {
            "category": self._category(finding.category),
            "certainty": finding.certainty,
            "hedge": None,
            "severity": next((term.value for term in ranks.get("severity", [])), None),
            "size": next((term.value for term in ranks.get("size", [])), None),
            "size_mm": None,
            "count": None,
            "laterality": finding.laterality,
            "sites": [self._site_of[site] for site in map(str.lower, finding.sites) if site in self._site_of],
            "patterns": [],
            "change": None,
            "chronicity": None,
            "position": None,
            "alignment": alignment,
            "evidence": [{"slot": "mention", "start": start, "end": start + len(quoted)}],
            "confidence": None,
            "suggestion": None,
        }

    def _category(self, written: str) -> str:
        name = " ".join(written.lower().replace("_", " ").split())
        known = self._category_of.get(name) or self._category_of.get(name.replace(" ", "_"))
        if known:
            return known
        near = difflib.get_close_matches(name, self._category_of, n=1, cutoff=0.9)
        return self._category_of[near[0]] if near else f"other:{name}"
