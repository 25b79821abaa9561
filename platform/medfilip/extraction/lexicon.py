"""The rule engine: terms in one trie of words, states composed with their bearers, scopes of cues, and attachment.

It reads one sentence in normal form and needs no model. Rules are general statements about English reports; the words
they act on are data (the ontology and ``data/lexicon.yaml``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.attachment import INSIDE_PHRASE, PREMODIFIER_REACH, attach_qualifiers
from medfilip.extraction.composing import find_mentions
from medfilip.extraction.confidence import Confidence, load_confidence
from medfilip.extraction.doubt import find_doubts
from medfilip.extraction.engine import SentenceResult
from medfilip.extraction.lexicon_data import LexiconData, Trie, load_lexicon_data
from medfilip.extraction.mention import Mention, Place
from medfilip.extraction.parsing import BEARER, CATEGORY, ELSEWHERE, SITE, STATE, Sentence, bits
from medfilip.extraction.placing import PlaceRules, attach_places, find_places
from medfilip.extraction.rows import RowWriter
from medfilip.extraction.scope import judge
from medfilip.extraction.sides import tell_sides_apart
from medfilip.extraction.words import tokens
from medfilip.findings.finding import Alignment
from medfilip.findings.ontology import Ontology, load_ontology

ENGINE_VERSION = "3"

_OF_EVERY_PART = frozenset(("chest_wall", "soft_tissue", "bone"))
_SPEAKING = bits(CATEGORY, STATE)


class LexiconEngine:
    """Rules over the ontology's terms; see the module's text."""

    name = "lexicon"

    def __init__(self, ontology: Ontology | None = None, data: LexiconData | None = None) -> None:
        self._ontology = ontology or load_ontology()
        self._data = data or load_lexicon_data()
        trie = Trie(self._data.vocabulary(self._ontology), self._data.not_typos)
        self._root, self._fold = trie.root, trie.folder.__getitem__
        self._compositions = {
            (bearer, state): rule
            for bearer, states in self._data.compositions.items()
            for state, rule in states.items()
        }
        categories = self._ontology.categories.values()
        self._devices = frozenset(c.id for c in categories if c.group == "device")
        self._hardware = self._devices | {c.id for c in categories if c.group == "postoperative"}
        self._fractures = frozenset(("fracture", *(self._data.refinements["fracture"].values())))
        self._confidence = Confidence(load_confidence(), self._ontology)
        self._places = PlaceRules(
            self._data.landmarks,
            self._data.paired_sites,
            self._data.midline_sites,
            self._data.sided_sites,
            self._data.unplaced,
        )
        self._rows = RowWriter(
            self._ontology,
            self._data.refinements,
            self._data.splits,
            self._data.sided_sites,
            self._data.paired_findings,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of ontology, rule data, confidence model and engine version."""
        return fingerprint(
            [
                ENGINE_VERSION,
                self._ontology.fingerprint,
                self._data.fingerprint,
                load_confidence().model_dump(mode="json"),
            ]
        )

    def extract(self, text: str, context: str | None = None) -> SentenceResult:
        """Extract the findings of one sentence in normal form."""
        sentence = self._parse(text)
        mentions = self._read(sentence)
        if context is not None and mentions:
            self._place_from_context(mentions, context)
        rows = self._rows.write(mentions, text, sentence.words) if mentions else []
        doubts = find_doubts(sentence, rows, context)
        for row in rows:
            row["confidence"] = self._confidence.of(row, doubts)
        return SentenceResult(rows, doubts=doubts)

    def _parse(self, text: str) -> Sentence:
        words = tokens(text)
        return Sentence(words, list(map(self._fold, words)), self._root)

    def _read(self, sentence: Sentence) -> list[Mention]:
        if not sentence.kinds & _SPEAKING:
            return []
        mentions = find_mentions(sentence, self._compositions)
        if sentence.kinds >> ELSEWHERE & 1:
            mentions = _of_the_chest(mentions, sentence)
        if not mentions:
            return []
        if len(mentions) > 1:
            mentions = self._without_broken(self._without_inferred(mentions), sentence)
        stated = judge(mentions, sentence, self._data.hedges_that_state)
        if stated:
            attach_qualifiers(sentence, stated, self._devices)
            attach_places(sentence, stated, self._places)
            stated = tell_sides_apart(sentence, stated)
        return stated

    def _without_inferred(self, mentions: list[Mention]) -> list[Mention]:
        """Drop a device that was only inferred from its tip where the sentence names one."""
        devices = [m for m in mentions if m.category in self._devices]
        inferred = [m for m in devices if m.alignment is Alignment.INFERRED]
        if not inferred or len(inferred) == len(devices):
            return mentions
        return [m for m in mentions if m not in inferred]

    def _without_broken(self, mentions: list[Mention], sentence: Sentence) -> list[Mention]:
        """Drop a fracture that is a device's: "catheter fracture", "fractured sternotomy wires"."""
        fractures = [m for m in mentions if m.category in self._fractures]
        if not fractures:
            return mentions
        hardware = [m for m in mentions if m.category in self._hardware]
        broken = [m for m in fractures if any(_breaks(m, thing, sentence) for thing in hardware)]
        return [m for m in mentions if m not in broken]

    def _place_from_context(self, mentions: Sequence[Mention], context: str) -> None:
        """Give findings without a place that of the heading ("left lung:") or sentence they lean on."""
        lean = [m for m in mentions if not m.places and m.category not in self._places.unplaced]
        if not lean:
            return
        sentence = self._parse(context)
        if context.endswith(":"):
            found = find_places(sentence, (), self._places)
        else:
            found = next((m.places for m in reversed(self._read(sentence)) if m.places), [])
        for mention in lean if found else ():
            for place in found:
                copy = Place(0, 0, joined=place.joined)
                copy.sides, copy.sites = list(place.sides), list(place.sites)
                mention.places.append(copy)
            mention.alignment = Alignment.INFERRED


def _breaks(fracture: Mention, thing: Mention, sentence: Sentence) -> bool:
    """Whether a fracture stands right behind a device, or before it with no more than qualifiers between."""
    first, last = sorted((fracture, thing), key=lambda m: m.start)
    between = [i for i in sentence.items if first.end <= i[2] and i[3] <= last.start]
    if fracture is last:
        return last.start == first.end
    return last.start - first.end <= PREMODIFIER_REACH and all(i[0] in INSIDE_PHRASE or i[1] == "of" for i in between)


def _of_the_chest(mentions: list[Mention], sentence: Sentence) -> list[Mention]:
    """Drop what is said of another part of the body, where the clause names none of the chest."""
    elsewhere = {sentence.clause(item[2]) for item in sentence.items if item[0] == ELSEWHERE}
    chest = {
        sentence.clause(item[2])
        for item in sentence.items
        if item[0] in (SITE, BEARER) and item[1] not in _OF_EVERY_PART
    }
    return [mention for mention in mentions if sentence.clause(mention.start) not in elsewhere - chest]
