"""Why the rules may be wrong about a sentence: what "cannot settle" means.

A sentence without a doubt is settled. Each reason is a sign, visible in the sentence itself, that goes with more
errors against annotated reports; the benchmark ``tests/benchmarks/doubts.py`` measures how many more.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import StrEnum

from medfilip.extraction.engine import FindingRow
from medfilip.extraction.parsing import ABNORMAL, BEARER, CONDITION, NEGATION, SITE, Sentence, bits
from medfilip.findings.finding import Hedge

_PLACEHOLDER = re.compile(r"x{3,}|_+")
_UNKNOWN_WORDS = 3
_MANY_FINDINGS = 4
_LETTERS = 4
_PLACES = bits(SITE, BEARER)
_UNSAID = bits(NEGATION, CONDITION)


class Doubt(StrEnum):
    """Stable codes of doubts."""

    PLACEHOLDER = "placeholder"  # a word was removed from the text beside a finding
    UNKNOWN_WORDS = "unknown_words"  # three or more words that the lexicon does not know
    LEANS_ON_CONTEXT = "leans_on_context"  # the sentence refers to the one before it
    ALTERNATIVES = "alternatives"  # "A versus B", "A or B"
    MANY_FINDINGS = "many_findings"  # four or more findings share their qualifiers
    ABNORMAL_WITHOUT_FINDING = "abnormal_without_finding"  # a word of abnormality, and no finding
    PLACE_WITHOUT_FINDING = "place_without_finding"  # anatomy and unknown words, and no finding


def find_doubts(sentence: Sentence, findings: Sequence[FindingRow], context: str | None) -> tuple[str, ...]:
    """Return the doubts about a sentence whose findings are given, in a fixed order."""
    doubts: list[str] = []
    unknown = sentence.folded.count("")
    if unknown:
        words = [word for word, folded in zip(sentence.words, sentence.folded, strict=True) if not folded]
        removed = any(word[0] in "x_" and _PLACEHOLDER.fullmatch(word) for word in words)
        unknown = sum(len(w) >= _LETTERS and w.isalpha() and not _PLACEHOLDER.fullmatch(w) for w in words)
        if removed and findings:
            doubts.append(Doubt.PLACEHOLDER)
        if unknown >= _UNKNOWN_WORDS and findings:
            doubts.append(Doubt.UNKNOWN_WORDS)
    if not findings:
        kinds = sentence.kinds
        if kinds >> ABNORMAL & 1 and not kinds & _UNSAID:
            doubts.append(Doubt.ABNORMAL_WITHOUT_FINDING)
        elif unknown and kinds & _PLACES and not kinds & _UNSAID:
            doubts.append(Doubt.PLACE_WITHOUT_FINDING)
        return tuple(doubts)
    if context is not None:
        doubts.append(Doubt.LEANS_ON_CONTEXT)
    if any(row["hedge"] == Hedge.VERSUS for row in findings):
        doubts.append(Doubt.ALTERNATIVES)
    if len(findings) >= _MANY_FINDINGS:
        doubts.append(Doubt.MANY_FINDINGS)
    return tuple(doubts)
