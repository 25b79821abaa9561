"""The rule engine: terms in one trie of words, states composed with their bearers, scopes of cues, and attachment.

It reads one sentence in normal form and needs no model. Rules are general statements about English reports; the words
they act on are data (the ontology and ``data/lexicon.yaml``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.attachment import Frame, PlaceRules, attach_qualifiers, find_places
from medfilip.extraction.composing import Mention, Place, find_mentions
from medfilip.extraction.engine import FindingRow, SentenceResult
from medfilip.extraction.lexicon_data import LexiconData, Trie, load_lexicon_data
from medfilip.extraction.parsing import CATEGORY, ELSEWHERE, STATE, Clauses, read_items
from medfilip.extraction.scope import judge
from medfilip.extraction.words import token_starts, tokens
from medfilip.findings.finding import Alignment
from medfilip.findings.ontology import Ontology, load_ontology

ENGINE_VERSION = "2"

_GENERIC_SITES = frozenset(("lung", "chest"))
_ZONES = frozenset(("upper_zone", "mid_zone", "lower_zone", "central"))


class LexiconEngine:
    """Rules over the ontology's terms; see the module's text."""

    name = "lexicon"

    def __init__(self, ontology: Ontology | None = None, data: LexiconData | None = None) -> None:
        self._ontology = ontology or load_ontology()
        self._data = data or load_lexicon_data()
        trie = Trie(self._data.vocabulary(self._ontology), self._data.not_typos)
        self._root, self._fold = trie.root, trie.folder
        self._compositions = {
            (bearer, state): rule
            for bearer, states in self._data.compositions.items()
            for state, rule in states.items()
        }
        self._refinements = self._data.refinements
        self._implied = {
            category.id: _GENERIC_SITES | set(category.implied_sites) for category in self._ontology.categories.values()
        }
        devices = frozenset(c.id for c in self._ontology.categories.values() if c.group == "device")
        self._places = PlaceRules(devices, self._data.landmarks, self._data.paired_sites, self._data.unplaced)

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of ontology, rule data and engine version."""
        return fingerprint([ENGINE_VERSION, self._ontology.fingerprint, self._data.fingerprint])

    def extract(self, text: str, context: str | None = None) -> SentenceResult:
        """Extract the findings of one sentence in normal form."""
        words = tokens(text)
        frame = self._read(words)
        if frame is None:
            return SentenceResult([])
        if context is not None:
            self._place_from_context(frame.mentions, context)
        return SentenceResult(self._rows(frame.mentions, text, words))

    def _read(self, words: Sequence[str]) -> Frame | None:
        fold = self._fold
        items = read_items([fold[word] for word in words], self._root)
        if not any(item.kind == CATEGORY or item.kind == STATE for item in items):
            return None
        clauses = Clauses(items, len(words))
        mentions = find_mentions(items, clauses, self._compositions)
        if not mentions:
            return None
        elsewhere = {clauses.of(item.start) for item in items if item.kind == ELSEWHERE}
        if elsewhere:
            mentions = [mention for mention in mentions if clauses.of(mention.start) not in elsewhere]
        stated = judge(mentions, items, clauses, self._data.hedges_that_state)
        frame = Frame(words, items, clauses, stated)
        attach_qualifiers(frame, self._places)
        return frame

    def _place_from_context(self, mentions: Sequence[Mention], context: str) -> None:
        """Give findings without a place that of the heading ("left lung:") or sentence they lean on."""
        words = tokens(context)
        if context.endswith(":"):
            items = read_items([self._fold[word] for word in words], self._root)
            found = find_places(Frame(words, items, Clauses(items, len(words)), ()), self._places.paired_sites)
        else:
            frame = self._read(words)
            found = next((m.places for m in reversed(frame.mentions) if m.places), []) if frame else []
        for mention in mentions:
            if not mention.places and found and mention.category not in self._places.unplaced:
                mention.places = [Place(0, 0, list(place.sides), list(place.sites)) for place in found]
                mention.alignment = Alignment.INFERRED

    def _rows(self, mentions: Sequence[Mention], text: str, words: Sequence[str]) -> list[FindingRow]:
        starts = token_starts(text, words)
        rows = []
        for mention in self._without_inferred(mentions):
            for sides, sites in _split_places(mention, self._ontology.region):
                row = self._row(mention, sides, sites, words, starts)
                rows.append(row)
                for pattern, other in self._data.splits.get(row["category"], {}).items():
                    if pattern in row["patterns"]:
                        rows.append({**row, "category": other, "patterns": [pattern]})
        return _merge(rows)

    def _without_inferred(self, mentions: Sequence[Mention]) -> list[Mention]:
        """Drop a device that was only inferred from its tip where the sentence names one."""
        named = any(m.category in self._places.devices and m.alignment is not Alignment.INFERRED for m in mentions)
        return [
            m
            for m in mentions
            if not (named and m.alignment is Alignment.INFERRED and m.category in self._places.devices)
        ]

    def _row(
        self,
        mention: Mention,
        sides: Collection[str],
        sites: Sequence[str],
        words: Sequence[str],
        starts: Sequence[int],
    ) -> FindingRow:
        category = self._refine(mention)
        hidden = self._implied.get(category, _GENERIC_SITES)
        side = "bilateral" if len(set(sides)) > 1 else next(iter(sides), None)
        spans = [("mention", mention.start, mention.end), *mention.evidence]
        return {
            "category": category,
            "certainty": mention.certainty,
            "hedge": mention.hedge,
            "severity": mention.severity,
            "size": mention.size,
            "size_mm": mention.size_mm,
            "count": mention.count,
            "laterality": side,
            "sites": [site for site in sites if site not in hidden],
            "patterns": mention.patterns,
            "change": mention.change,
            "chronicity": mention.chronicity,
            "position": mention.position,
            "alignment": mention.alignment,
            "evidence": [
                {"slot": slot, "start": starts[start], "end": starts[end - 1] + len(words[end - 1])}
                for slot, start, end in spans
            ],
            "confidence": None,
            "suggestion": None,
        }

    def _refine(self, mention: Mention) -> str:
        rules = self._refinements.get(mention.category)
        if rules:
            for key in (*mention.sites, *mention.patterns):
                if key in rules:
                    return rules[key]
        return mention.category


def _split_places(mention: Mention, region: Callable[[str], str]) -> list[tuple[list[str], list[str]]]:
    """One finding for each of several coordinated places: "in the left upper lobe and at the right base" are two."""
    groups: list[tuple[list[str], list[str]]] = []
    for place in mention.places:
        for sides, sites in _by_zone(place, region):
            apart = bool(groups) and bool(sites) and bool(groups[-1][1]) and (place.joined or sites is not place.sites)
            if groups and not apart:
                groups[-1][0].extend(sides)
                groups[-1][1].extend(site for site in sites if site not in groups[-1][1])
            else:
                # "Right middle and lower lobe": the side of the first place holds for the next one too.
                groups.append((list(sides or (groups[-1][0] if groups else ())), list(sites)))
    return groups or [([], [])]


def _by_zone(place: Place, region: Callable[[str], str]) -> list[tuple[list[str], list[str]]]:
    """Part a place that spans several zones of the lung: "upper and lower lobe"."""
    zones = list(dict.fromkeys(region(site) for site in place.sites if region(site) in _ZONES))
    if len(zones) < 2:
        return [(place.sides, place.sites)]
    rest = [site for site in place.sites if region(site) not in _ZONES]
    return [(place.sides, [s for s in place.sites if region(s) == zone] + rest) for zone in zones]


def _merge(rows: list[FindingRow]) -> list[FindingRow]:
    """Fold repeated statements of one finding within a sentence into one, with all the evidence."""
    merged: dict[tuple[Any, ...], FindingRow] = {}
    for row in rows:
        key = tuple(
            tuple(v) if isinstance(v, list) else v for k, v in row.items() if k not in ("evidence", "alignment")
        )
        if key in merged:
            merged[key]["evidence"] += row["evidence"]
        else:
            merged[key] = row
    return list(merged.values())
