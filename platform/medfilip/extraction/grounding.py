"""Grounding: what a model says is a finding only as far as the sentence's own words carry it.

A mention is aligned exactly or in normalised form (case, white space, punctuation, hyphen, plural), never fuzzily.
Every slot needs words of its own in the sentence; the ones nearest to the mention become its evidence. A slot without
any is taken out of the finding and told, an item without a mention is no finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from medfilip.extraction.names import tokens
from medfilip.findings.finding import Alignment

NUMBER_WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_MEASURE = re.compile(
    r"(\d+(?:\.\d+)?)(?:\s*(?:x|by)\s*\d+(?:\.\d+)?)*\s*-?(mm|cm|millimet\w+|centimet\w+)\b", re.IGNORECASE
)
_ANY_NUMBER = re.compile(r"\d+(?:\.\d+)?")

CUES: dict[str, re.Pattern[str]] = {
    name: re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)
    for name, pattern in {
        "left": r"left(?:ward|-sided)?|lt|lul|lll|lingula(?:r)?",
        "right": r"right(?:ward|-sided)?|rt|rul|rml|rll|middle lobe",
        "bilateral": r"bilateral(?:ly)?|both|bi(?:apical|basilar|basal|hilar)(?:ly)?|left and right|right and left"
        r"|right or left|left or right",
        "absent": r"no|not|without|den(?:y|ies)|negative|free|clear(?:ed)?|normal|unremarkable|absent|absence|nor"
        r"|neither|never|lack|resolved?|resolution|exclude[sd]?|ruled? out|intact|within normal|removed|none",
        "uncertain": r"may|might|could|can|possib(?:le|ly)|probab(?:le|ly)|likely|versus|vs|or|suspect(?:ed)?"
        r"|suspicio\w+|question(?:able|ed)?|suggest\w*|concern\w*|worrisome|consider(?:ed)?|exclude[d]?|equivocal|presum\w+"
        r"|perhaps|favou?r(?:ed|s)?|consistent|compatible|represent\w*|reflect\w*|appear\w*|borderline|rule out"
        r"|potential\w*",
        "probable": r"probab(?:le|ly)|likely|presum\w+|favou?r(?:ed|s)?|consistent|compatible|suggest\w*|represent\w*",
        "possible": r"may|might|could|possib(?:le|ly)|suspect(?:ed)?|suspicio\w+|question(?:able|ed)?|suggest\w*"
        r"|concern\w*|worrisome|consider(?:ed)?|perhaps|equivocal|potential\w*|can",
        "versus": r"versus|vs|or|and/or",
        "cannot_exclude": r"exclude[d]?|rule[d]? out|ruling out",
        "new": r"new(?:ly)?|interval (?:development|appearance)|develop(?:ed|ing|ment)",
        "increased": r"increas\w+|worsen\w*|worse|progress\w+|enlarg\w+|larger|greater|more|grow\w*",
        "decreased": r"decreas\w+|improv\w+|smaller|less(?:ened|er)?|resolving|diminish\w*|reduc\w+|regress\w+"
        r"|clearing",
        "unchanged": r"unchanged|stable|persist\w*|remain\w*|similar|again|constant|chang(?:e|ed)|re-?demonstrat\w+",
        "resolved": r"resolv\w+|resolution|cleared|clearing|no longer|disappear\w*|gone|remov\w+",
        "acute": r"acute(?:ly)?|recent",
        "chronic": r"chronic(?:ally)?|old|remote|long-?\s?standing|prior|previous",
        "healed": r"heal(?:ed|ing)",
        "malpositioned": r"malposition\w*|coil\w*|kink\w*|too (?:high|low|deep)"
        r"|should be (?:advanced|retracted|withdrawn)",
    }.items()
}
"""Words that can carry a value of a closed slot; deliberately wide, since they only veto what nothing carries."""


class Span(NamedTuple):
    """A half-open span of a sentence and how it was found."""

    start: int
    end: int
    alignment: Alignment = Alignment.EXACT

    def evidence(self, slot: str) -> dict[str, object]:
        """Return the span as a row of `medfilip.storage.schemas.EVIDENCE`."""
        return {"slot": slot, "start": self.start, "end": self.end}


def occurrences(words: str, sentence: str) -> list[Span]:
    """Return every place where the words stand in the sentence; exact ones if there are any, else normalised ones."""
    quoted = words.strip()
    if not quoted:
        return []
    exact = [
        Span(match.start(), match.end())
        for match in re.finditer(re.escape(quoted), sentence)
        if _at_boundaries(sentence, match.start(), match.end())
    ]
    return exact or _normalised(quoted, sentence)


def _at_boundaries(text: str, start: int, end: int) -> bool:
    before = start == 0 or not (text[start - 1].isalnum() and text[start].isalnum())
    after = end == len(text) or not (text[end - 1].isalnum() and text[end].isalnum())
    return before and after


def _normalised(words: str, sentence: str) -> list[Span]:
    """Match folded tokens run together, so that "mid lung", "mid-lung" and "midlungs" are one."""
    wanted = "".join(token for token, _, _ in tokens(words))
    stated = tokens(sentence)
    found: list[Span] = []
    for first, (_, start, _) in enumerate(stated):
        joined = ""
        for token, _, end in stated[first:]:
            joined += token
            if len(joined) >= len(wanted):
                if joined == wanted and wanted:
                    found.append(Span(start, end, Alignment.NORMALISED))
                break
    return found


def nearest(spans: Iterable[Span], mention: Span) -> Span | None:
    """Return the span nearest to a mention, the earlier of two equally near."""
    return min(spans, key=lambda span: (_distance(span, mention), span.start), default=None)


def _distance(one: Span, other: Span) -> int:
    return max(0, one.start - other.end, other.start - one.end)


def find_words(sentence: str, mention: Span, candidates: Iterable[str]) -> Span | None:
    """Return where the first candidate that stands in the sentence stands nearest to the mention."""
    for words in candidates:
        span = nearest(occurrences(words, sentence), mention)
        if span is not None:
            return span
    return None


def find_cue(sentence: str, mention: Span, value: str) -> Span | None:
    """Return the cue for a value of a closed slot that stands nearest to the mention."""
    return nearest((Span(match.start(), match.end()) for match in CUES[value].finditer(sentence)), mention)


def measure_mm(words: str) -> float | None:
    """Return the millimetres that words such as "1.5 cm" or "8 x 6 mm" measure (the largest number of several)."""
    match = _MEASURE.fullmatch(words)
    return None if match is None else max(_millimetres(match))


def _millimetres(match: re.Match[str]) -> list[float]:
    scale = 10.0 if match.group(2)[0] in "cC" else 1.0
    return [float(number) * scale for number in _ANY_NUMBER.findall(match.group())]


def number(words: str) -> int | None:
    """Return the number that words name, from one to ninety-nine in digits, to twelve in letters."""
    text = words.lower()
    if text in NUMBER_WORDS:
        return NUMBER_WORDS.index(text) + 1
    return int(text) if text.isascii() and text.isdigit() and 1 <= int(text[:3]) <= 99 else None


def find_measure(sentence: str, mention: Span, size_mm: float) -> Span | None:
    """Return where a measured size stands: its number with a unit, in millimetres or centimetres."""
    spans = [
        Span(match.start(), match.end())
        for match in _MEASURE.finditer(sentence)
        if any(abs(found - size_mm) < 0.05 for found in _millimetres(match))
    ]
    return nearest(spans, mention)


def find_count(sentence: str, mention: Span, count: int) -> Span | None:
    """Return where a number of things stands, in digits or in words."""
    words = [str(count), *NUMBER_WORDS[count - 1 : count]]
    pattern = re.compile(rf"(?<![\w.-])(?:{'|'.join(words)})(?![\w.])(?!\s*(?:mm|cm)\b)", re.IGNORECASE)
    return nearest((Span(match.start(), match.end()) for match in pattern.finditer(sentence)), mention)
