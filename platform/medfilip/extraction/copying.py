"""The grammar under which a model can only quote: mentions and positions are word spans of the sentence.

`reply_format.reply_grammar` lets a model write any words, and `medfilip.extraction.reply` takes out what the sentence
does not carry. A small model spells badly, and what it misspells is lost; here it copies. What else a reply holds comes
from closed lists: codes that a word of the sentence carries, the ontology's categories behind ``=``, its sites, ranks
and patterns, and numbers that the sentence has in letters.

The grammar is Lark for llguidance, which compiles one in some 2 ms whatever the vocabulary; xgrammar, which prepares
masks for all tokens ahead, takes 10 ms with 4 thousand tokens and grows with their number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.grounding import CUES, NUMBER_WORDS
from medfilip.extraction.names import Names
from medfilip.extraction.reply_format import (
    CATEGORY_MARK,
    CHANGES,
    CHRONICITIES,
    HEDGES,
    MAX_FINDINGS,
    MAX_MENTION,
    MAX_QUALIFIER,
    MAX_STRINGS,
    POSITION_MARK,
    SIDES,
    CertaintyCode,
)
from medfilip.findings.finding import Laterality
from medfilip.findings.ontology import Ontology

COPYING_VERSION = "1"
MOST_PIECES = 14
"""Words, numbers and marks of a quoted span at most."""

_PIECE = re.compile(r"[^\W_]+|_+|[^\w\s]")
_UNQUOTABLE = re.compile(r'["\\\x00-\x1f]')
_CODES: dict[str, str] = {
    code: str(value) for codes in (HEDGES, SIDES, CHANGES, CHRONICITIES) for code, value in codes.items()
}
_EMPTY = r'start: "{\"f\":[]}"'


class Copying:
    """Writes the grammar of a sentence's replies.

    The mention of every finding that it lets through stands in the sentence, and begins and ends with whole words; one
    that is no name of a category has a category of the ontology beside it.
    """

    def __init__(self, ontology: Ontology) -> None:
        sites = [name.replace("_", " ") for name in ontology.sites]
        ranks = [*ontology.severities, *ontology.sizes, *ontology.patterns]
        self._labels = [ontology.label(name).lower()[:MAX_QUALIFIER] for name in ontology.categories]
        self._names = Names(ontology)
        self._known = dict.fromkeys([*sites, *map(str, ranks)])
        """Words that need not stand in the sentence as they are written."""
        self._ontology = ontology

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that decides the grammar of a sentence."""
        cues = [(code, CUES[value].pattern) for code, value in _CODES.items()]
        limits = [MOST_PIECES, MAX_MENTION, MAX_QUALIFIER, MAX_FINDINGS, MAX_STRINGS]
        return fingerprint(["copying", COPYING_VERSION, limits, self._ontology.fingerprint, cues])

    def grammar(self, sentence: str) -> str:
        """Return the grammar of the replies about one sentence; one without words admits the empty reply alone."""
        mentions = quotable(sentence, MAX_MENTION)
        if not mentions:
            return _EMPTY
        codes = [code for code, value in _CODES.items() if _carries(sentence, value)]
        words = set(sentence.split())
        numbers = [str(number) for number, word in enumerate(NUMBER_WORDS, start=1) if word in words]
        spans = quotable(sentence, MAX_QUALIFIER) or mentions[:1]
        names = [text for text in mentions if self._names.category(text)]
        named = "NAME certainty category? | " if names else ""
        qualifiers = rf'(",\"" (SPAN | KNOWN) "\""){{0,{MAX_STRINGS - 4}}}'
        return "\n".join(
            (
                rf'start: "{{\"f\":[" (finding ("," finding){{0,{MAX_FINDINGS - 1}}})? "]}}"',
                rf'finding: "[\"" ({named}MENTION certainty category) position? {qualifiers} "]"',
                r'certainty: "\",\"" CERTAINTY "\""',
                rf'category: ",\"{CATEGORY_MARK}" CATEGORY "\""',
                rf'position: ",\"{POSITION_MARK}" SPAN "\""',
                f"CERTAINTY: {_choice(CertaintyCode)}",
                f"CATEGORY: {_choice(self._labels)}",
                f"NAME: {_choice(names)}" if names else "",
                f"MENTION: {_choice(mentions)}",
                f"SPAN: {_choice(spans)}",
                f"KNOWN: {_choice([*self._known, *codes, *numbers])}",
            )
        )


def quotable(sentence: str, most: int) -> list[str]:
    """Return the spans of a sentence that can be quoted: of whole words, and of at most ``most`` characters.

    >>> quotable("no effusion.", 80)
    ['no', 'no effusion', 'effusion']
    """
    pieces = [(match.start(), match.end()) for match in _PIECE.finditer(sentence)]
    found: dict[str, None] = {}
    for first, (start, stop) in enumerate(pieces):
        if not sentence[start:stop].isalnum():
            continue
        for begin, end in pieces[first : first + MOST_PIECES]:
            text = sentence[start:end]
            if len(text) > most or _UNQUOTABLE.search(text):
                break
            if sentence[begin:end].isalnum():
                found[text] = None
    return list(found)


def _carries(sentence: str, value: str) -> bool:
    """Whether the sentence has a word for the value of a closed slot, as the reader of replies will ask."""
    if CUES[value].search(sentence):
        return True
    both = (Laterality.LEFT, Laterality.RIGHT) if value == Laterality.BILATERAL else ()
    return bool(both) and all(CUES[str(side)].search(sentence) for side in both)


def _choice(texts: Iterable[str]) -> str:
    return " | ".join(json.dumps(str(text), ensure_ascii=False) for text in texts)
