"""The rule engine's data: ``data/lexicon.yaml`` joined with the ontology's terms, compiled into one trie of words."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from functools import cached_property, lru_cache
from importlib.resources import files
from typing import Any, TypeAlias

import yaml
from pydantic import BaseModel, ConfigDict, model_validator

from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.words import WordFolder, fold, tokens
from medfilip.findings.finding import Alignment, Certainty, Hedge, Laterality
from medfilip.findings.ontology import Category, Ontology


class Kind(IntEnum):
    """What a term does in a sentence."""

    CATEGORY = 0
    BEARER = 1  # anatomy or a category that a state can be said of
    STATE = 2
    SITE = 3
    SIDE = 4
    SEVERITY = 5
    SIZE = 6
    PATTERN = 7
    CHANGE = 8
    CHRONICITY = 9
    COUNT = 10
    POSITION = 11
    NEGATION = 12
    NEGATION_AFTER = 13
    HEDGE = 14
    HEDGE_AFTER = 15
    CONDITION = 16
    TERMINATOR = 17
    EXPLANATION = 18
    PREPOSITION = 19
    VERB = 20
    AND = 21
    OR = 22
    COMMA = 23
    DETERMINER = 24
    FILLER = 25  # stands between words that belong together without parting them ("zone", "aspect")
    ABNORMAL = 26  # speaks of something abnormal without naming a category the lexicon knows
    ELSEWHERE = 28  # a part of the body that a chest radiograph does not show
    MASK = 27  # a longer term that only keeps its parts from being read


Reading: TypeAlias = tuple[Kind, Any]
Node: TypeAlias = list[Any]
"""``[readings, {next word: Node}, bit set of the readings' kinds]``."""


class Composed(BaseModel):
    """What a bearer in a state amounts to; ``also`` is a second finding stated by it (a nodule, too)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    category: str
    certainty: Certainty = Certainty.PRESENT
    severity: str | None = None
    alignment: Alignment = Alignment.NORMALISED
    also: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"category": value} if isinstance(value, str) else value


class PlaceTerm(BaseModel):
    """A side and sites that one term names."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    side: Laterality | None = None
    sites: tuple[str, ...] = ()


class LexiconData(BaseModel):
    """Content of ``data/lexicon.yaml``; see the comments there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int
    negation_before: tuple[str, ...]
    negation_after: tuple[str, ...]
    not_negation: tuple[str, ...]
    hedges_before: dict[Hedge, tuple[str, ...]]
    hedges_after: dict[Hedge, tuple[str, ...]]
    hedges_that_state: frozenset[Hedge]
    terminators: tuple[str, ...]
    explanations: tuple[str, ...]
    conditions: tuple[str, ...]
    laterality: dict[Laterality, tuple[str, ...]]
    places: dict[str, PlaceTerm]
    paired_sites: frozenset[str]
    sided_sites: dict[str, Laterality]
    midline_sites: frozenset[str]
    paired_findings: frozenset[str]
    landmarks: frozenset[str]
    unplaced: frozenset[str]
    changes: dict[str, tuple[str, ...]]
    chronicity: dict[str, tuple[str, ...]]
    positions: dict[str, tuple[str, ...]]
    counts: dict[int, tuple[str, ...]]
    bearers: dict[str, tuple[str, ...]]
    states: dict[str, tuple[str, ...]]
    compositions: dict[str, dict[str, Composed]]
    splits: dict[str, dict[str, str]]
    elsewhere: tuple[str, ...]
    not_typos: frozenset[str]
    refinements: dict[str, dict[str, str]]
    grammar: dict[str, tuple[str, ...]]
    abnormal: tuple[str, ...]
    masks: tuple[str, ...]

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of the whole content."""
        content = self.model_dump(mode="json")
        for name, value in self:
            if isinstance(value, frozenset):
                content[name] = sorted(content[name])
        return fingerprint(content)

    def vocabulary(self, ontology: Ontology) -> Iterator[tuple[str, Kind, Any]]:
        """Yield (term, kind, value) of every reading of every term."""
        for category in ontology.categories.values():
            yield from ((term, Kind.CATEGORY, category.id) for term in category.terms)
            yield from self._sites_within(category, ontology)
        for site in ontology.sites.values():
            yield from ((term, Kind.SITE, site.id) for term in site.synonyms)
        yield from self._own_terms()
        for kind, values in (
            (Kind.SEVERITY, ontology.severities),
            (Kind.SIZE, ontology.sizes),
            (Kind.PATTERN, ontology.patterns),
        ):
            yield from ((term, kind, value) for value, terms in values.items() for term in terms)

    def _sites_within(self, category: Category, ontology: Ontology) -> Iterator[tuple[str, Kind, Any]]:
        """Yield the sites that stand in a category's own terms: "coronary stent", "pleural scarring"."""
        site_of = {tuple(map(fold, tokens(t))): site.id for site in ontology.sites.values() for t in site.synonyms}
        hidden = {*category.implied_sites, "lung", "chest"}
        for term in category.terms:
            words = tuple(map(fold, tokens(term)))
            at = 0
            while at < len(words):
                ends = [end for end in range(len(words), at, -1) if words[at:end] in site_of and end - at < len(words)]
                if ends and site_of[words[at : ends[0]]] not in hidden:
                    yield term, Kind.SITE, site_of[words[at : ends[0]]]
                at = ends[0] if ends else at + 1

    def _own_terms(self) -> Iterator[tuple[str, Kind, Any]]:
        for kind, groups in (
            (Kind.BEARER, self.bearers),
            (Kind.STATE, self.states),
            (Kind.HEDGE, self.hedges_before),
            (Kind.HEDGE_AFTER, self.hedges_after),
            (Kind.SIDE, self.laterality),
            (Kind.CHANGE, self.changes),
            (Kind.CHRONICITY, self.chronicity),
            (Kind.POSITION, self.positions),
            (Kind.COUNT, self.counts),
        ):
            yield from ((term, kind, value) for value, terms in groups.items() for term in terms)
        for kind, terms in (
            (Kind.NEGATION, self.negation_before),
            (Kind.NEGATION_AFTER, self.negation_after),
            (Kind.MASK, self.not_negation),
            (Kind.MASK, self.masks),
            (Kind.TERMINATOR, self.terminators),
            (Kind.EXPLANATION, self.explanations),
            (Kind.CONDITION, self.conditions),
            (Kind.ABNORMAL, self.abnormal),
            (Kind.ELSEWHERE, self.elsewhere),
        ):
            yield from ((term, kind, term) for term in terms)
        for name, terms in self.grammar.items():
            yield from ((term, Kind[name.upper()], term) for term in terms)
        for term, place in self.places.items():
            if place.side is not None:
                yield term, Kind.SIDE, place.side
            yield from ((term, Kind.SITE, site) for site in place.sites)


class Trie:
    """All terms by word: the longest one that starts at a word is found in one walk."""

    def __init__(self, vocabulary: Iterator[tuple[str, Kind, Any]], not_typos: frozenset[str] = frozenset()) -> None:
        self.root: dict[str, Node] = {}
        words: set[str] = set()
        for term, kind, value in vocabulary:
            path = [fold(word) for word in tokens(term.lower())]
            words.update(path)
            children = self.root
            node: Node = [(), children, 0]
            for word in path:
                node = children.setdefault(word, [(), {}, 0])
                children = node[1]
            if (kind, value) not in node[0]:
                node[0] = (*node[0], (int(kind), value))
                node[2] |= 1 << kind
        self.folder = WordFolder(words, not_typos)


@lru_cache(maxsize=1)
def load_lexicon_data() -> LexiconData:
    """Load and check the rule data that ships with the package."""
    text = (files("medfilip.extraction") / "data" / "lexicon.yaml").read_text(encoding="utf-8")
    return LexiconData.model_validate(yaml.safe_load(text))
