"""Sentences of a report, and the normal form under which equal sentences are one.

Radiology text repeats itself: extraction is computed once per distinct normal form and carried back to every report
by an offset map, so that evidence always points at the report's own characters.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from medfilip.core.ids import hash64
from medfilip.reports.sections import BODY_SECTIONS, Section

SPLITTER_VERSION = "2"
BODY_GROUP = "body"

# One cheap pattern finds where a sentence may end; `_is_boundary` looks at both sides of the few places it finds.
_CANDIDATE = re.compile(r"[.!?](?=\s|[A-Z][a-z])|\n|\s(?=\d{1,2}[.)]\s+[A-Z][a-z])")
_LIST_ITEM = re.compile(r"\s*(?:\d+[.)]|[-*•])\s")
_HEADING_LINE = re.compile(r"[A-Z][A-Za-z /&,]{2,40}:")
_BLANK = re.compile(r"\s*")
_ABBREVIATION = re.compile(
    r"(?:\b(?:dr|mr|mrs|ms|vs|approx|st|no|fig|e\.g|i\.e|a\.m|p\.m|cm|mm|resp|prob|poss|incl|temp)|\s[A-Z])\.$",
    re.IGNORECASE,
)
_ENUMERATION = re.compile(r"^(?:\(?\d{1,2}[.)](?=\s|[A-Za-z])|[-*•](?=\s))\s*")
_BARE_NUMBER = re.compile(r"^\s*\(?\d{1,2}[.)]$")
_CONTEXT_BOUND = re.compile(r"^(?:this|these|it|they|those|the (?:above|latter|former)|which)\b")
_SIDED_HEADING = re.compile(r"^[a-z /&-]{0,20}\b(?:left|right)\b[a-z /&-]{0,30}:")
_ENDS = " .,;:!"


@dataclass(slots=True)
class Sentence:
    """A sentence of a report.

    Attributes
    ----------
    sentence_id
        64-bit hash of normal form, context, section group and splitter version.
    text
        Normal form: lower case, single spaces, without enumeration and final punctuation.
    context
        Normal form of the preceding sentence if this one leans on it ("This may represent…"), the heading it stands
        under if that names a side ("left lung:"), else ``None``.
    section
        Name of the section.
    start, end
        Half-open span in the report text.
    position
        Number of the sentence within the report, from 0.
    """

    sentence_id: int
    text: str
    context: str | None
    section: str
    start: int
    end: int
    position: int


def split_sentences(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Split ``text[start:end]`` into sentence spans without outer white space."""
    spans: list[tuple[int, int]] = []
    begin = start
    for match in _CANDIDATE.finditer(text, start, end):
        stop = match.end() if text[match.start()] in ".!?" else match.start()
        if stop <= begin or not _is_boundary(text, match.start(), begin, end):
            continue
        begin = _add_span(spans, text, begin, stop)
    _add_span(spans, text, begin, end)
    return spans


def _add_span(spans: list[tuple[int, int]], text: str, begin: int, stop: int) -> int:
    """Add a span without its outer white space, if it holds more than marks; return where the next one begins."""
    piece = text[begin:stop]
    stripped = piece.strip()
    if stripped and (stripped[0].isalnum() or any(map(str.isalnum, stripped))):
        offset = begin + piece.index(stripped)
        spans.append((offset, offset + len(stripped)))
    return stop


def _is_boundary(text: str, at: int, begin: int, end: int) -> bool:
    """Whether a sentence that began at ``begin`` ends at the mark, line break or blank at ``at``."""
    character = text[at]
    if character == "\n":
        blank = _BLANK.match(text, at, end)
        assert blank is not None
        if "\n" in text[at + 1 : blank.end()] or _LIST_ITEM.match(text, at + 1, end):
            return True
        return _HEADING_LINE.match(text, at + 1, end) is not None or (
            text[at - 1] in ".!?" and _starts_sentence(text, at, begin, blank.end(), end)
        )
    if character not in ".!?":
        return True  # a list written in one line: "1. Effusion 2. Edema"
    following = text[at + 1]
    if not following.isspace():  # a missing space: "…is clear.The heart…"
        return text[at - 1].islower() or text[at - 1] == ")"
    blank = _BLANK.match(text, at + 1, end)
    assert blank is not None
    return _starts_sentence(text, at + 1, begin, blank.end(), end)


def _starts_sentence(text: str, stop: int, begin: int, after: int, end: int) -> bool:
    """Whether what stands at ``after``, behind a mark that ends before ``stop``, begins another sentence."""
    if after >= end:
        return False
    first = text[after]
    if first.islower():  # a capital forgotten: "…pneumothorax. heart size…"
        word = text[max(begin, stop - 5) : stop - 1]
        if len(word) < 4 or not word.isalpha() or not word.islower():
            return False
    elif not (first.isupper() or first.isdigit() or first in "(_"):
        return False
    piece = text[begin:stop]
    return not (_ABBREVIATION.search(piece[-12:]) or _BARE_NUMBER.match(piece))


def normal_text(raw: str) -> str:
    """Return the normal form of a sentence: lower case, single blanks, no enumeration, no final punctuation."""
    if not raw.isascii():
        return normal_form(raw)[0]
    first = raw[:1]
    if first.isdigit() or first in "(-*":
        enumeration = _ENUMERATION.match(raw)
        raw = raw[enumeration.end() :] if enumeration else raw
    return " ".join(raw.split()).lower().rstrip(_ENDS)


def normal_form(raw: str) -> tuple[str, list[int]]:
    """Return the normal form of a sentence and, for each of its characters, the offset it came from in ``raw``."""
    enumeration = _ENUMERATION.match(raw)
    first = enumeration.end() if enumeration else 0
    characters: list[str] = []
    offsets: list[int] = []
    for offset in range(first, len(raw)):
        character = raw[offset]
        if character.isspace():
            if not characters or characters[-1] == " ":
                continue
            character = " "
        lowered = character.lower()
        characters.append(lowered if len(lowered) == 1 else character)
        offsets.append(offset)
    while characters and characters[-1] in _ENDS:
        characters.pop()
        offsets.pop()
    return "".join(characters), offsets


def sentence_id(text: str, context: str | None, group: str = BODY_GROUP) -> int:
    """Return the id of a normal form in its context."""
    return hash64(text, context or "", group, SPLITTER_VERSION)


def report_sentences(text: str, sections: list[Section]) -> list[Sentence]:
    """Return the sentences of the sections that speak of this examination, in the order of the text."""
    sentences: list[Sentence] = []
    for section in sections:
        if section.name not in BODY_SECTIONS:
            continue
        previous: str | None = None
        heading: str | None = None
        for start, end in split_sentences(text, section.start, section.end):
            normal = normal_text(text[start:end])
            if not normal:
                continue
            context = previous if previous and _CONTEXT_BOUND.match(normal) else heading
            if ":" in normal:
                # "LEFT LUNG: …" holds for the sentences behind it too, up to the next heading.
                sided = _SIDED_HEADING.match(normal)
                heading = sided.group() if sided else None
                context = None
            sentences.append(
                Sentence(sentence_id(normal, context), normal, context, section.name, start, end, len(sentences))
            )
            previous = normal
    return sentences
