"""Ties qualifiers (severity, size, side, site, pattern, change, age) to the finding they qualify.

An adjective belongs to the noun that follows it ("small left effusion"), a prepositional phrase to what stands before
it ("opacity in the right lower lobe") together with everything coordinated with that.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass, field
from functools import cached_property

from medfilip.extraction.engine import FindingRow
from medfilip.extraction.terms import Term
from medfilip.findings.finding import Alignment, Certainty, Hedge
from medfilip.findings.ontology import Ontology

_PREPOSITION = re.compile(r"\b(?:in|of|at|within|on|over|overlying|along|involving|near|to|throughout)(?: \w+){0,3} ?$")
_COORDINATED = re.compile(r"^(?:,? (?:and|or|and/or|with|versus|vs)|,)[\w -]{0,40}$")
_SIZE_MM = re.compile(r"\b(\d+(?:\.\d+)?) ?(mm|cm|millimeters?|centimeters?)\b")
_SLOTS = {
    "severity": "severity",
    "size": "size",
    "laterality": "laterality",
    "site": "site",
    "pattern": "pattern",
    "changes": "change",
    "chronicity": "chronicity",
}
_LOCATIONS = frozenset({"laterality", "site"})
_MAX_FORWARD_WORDS = 5
_MAX_BACKWARD_WORDS = 9


@dataclass
class Mention:
    """A finding being assembled from a sentence; spans are relative to the sentence."""

    start: int
    end: int
    category: str
    certainty: Certainty | None
    alignment: Alignment
    hedge: Hedge | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    sides: set[str] = field(default_factory=set)
    sites: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    change: str | None = None
    chronicity: str | None = None
    evidence: list[dict[str, object]] = field(default_factory=list)

    def add_evidence(self, slot: str, term: Term) -> None:
        """Note where a slot stands."""
        self.evidence.append({"slot": slot, "start": term.start, "end": term.end})

    def take(self, slot: str, term: Term) -> None:
        """Fill a slot from a term; the first severity, size, change or age is kept, sides and sites add up."""
        if slot == "laterality":
            self.sides.add(term.value)
        elif slot == "site":
            if term.value in self.sites:
                return
            self.sites.append(term.value)
        elif slot == "pattern":
            if term.value in self.patterns:
                return
            self.patterns.append(term.value)
        elif getattr(self, slot) is None:
            setattr(self, slot, term.value)
        else:
            return
        self.add_evidence(slot, term)

    def row(self) -> FindingRow:
        """Return the finding as a row."""
        side = "bilateral" if len(self.sides) > 1 else next(iter(self.sides), None)
        return {
            "category": self.category,
            "certainty": self.certainty,
            "hedge": self.hedge,
            "severity": self.severity,
            "size": self.size,
            "size_mm": self.size_mm,
            "count": None,
            "laterality": side,
            "sites": self.sites,
            "patterns": self.patterns,
            "change": self.change,
            "chronicity": self.chronicity,
            "position": None,
            "alignment": self.alignment,
            "evidence": [{"slot": "mention", "start": self.start, "end": self.end}, *self.evidence],
            "confidence": None,
            "suggestion": None,
        }


@dataclass(frozen=True)
class ParsedSentence:
    """A sentence with its terms by slot and the findings it mentions, in the order of the text."""

    text: str
    terms: dict[str, list[Term]]
    mentions: list[Mention]

    def of(self, slot: str) -> list[Term]:
        """Terms of one slot."""
        return self.terms.get(slot, [])

    @cached_property
    def clauses(self) -> list[tuple[int, int]]:
        """Half-open spans between terminators: how far a cue reaches."""
        bounds = [0, *(term.start for term in self.of("terminators")), len(self.text)]
        return [(begin, end) for begin, end in itertools.pairwise(bounds) if end > begin]

    def clause(self, position: int) -> tuple[int, int]:
        """Return the clause that holds a position."""
        return next(clause for clause in self.clauses if clause[0] <= position < clause[1])


def attach_qualifiers(sentence: ParsedSentence, ontology: Ontology) -> None:
    """Attach every qualifier of the sentence to the mentions it qualifies, in place."""
    for source, slot in _SLOTS.items():
        for term in sentence.of(source):
            for mention in _targets(term, slot, sentence):
                if not _says_nothing_new(term, slot, mention, ontology):
                    mention.take(slot, term)
    for match in _SIZE_MM.finditer(sentence.text):
        term = Term(match.start(), match.end(), "size_mm", "")
        for mention in _targets(term, "size_mm", sentence):
            if mention.size_mm is None:
                mention.size_mm = float(match[1]) * (1.0 if match[2].startswith("m") else 10.0)
                mention.add_evidence("size_mm", term)


def _says_nothing_new(term: Term, slot: str, mention: Mention, ontology: Ontology) -> bool:
    """Whether a site is generic, part of the finding's own name, or implied by the category."""
    if slot != "site":
        # "borderline heart size" names the finding and its severity at once; "pleural effusion" only the finding.
        return False
    inside = mention.start <= term.start and term.end <= mention.end
    category = ontology.categories.get(mention.category)
    implied = category.implied_sites if category else ()
    return term.value in ("lung", "chest") or inside or term.value in implied


def _targets(term: Term, slot: str, sentence: ParsedSentence) -> list[Mention]:
    text, mentions = sentence.text, sentence.mentions
    begin, end = sentence.clause(term.start)
    inside = [mention for mention in mentions if mention.start <= term.start and term.end <= mention.end]
    if inside:
        return inside
    before = [mention for mention in mentions if begin <= mention.start and mention.end <= term.start]
    after = [mention for mention in mentions if term.end <= mention.start < end]
    forward = [after[0]] if after and _words(text[term.end : after[0].start]) <= _MAX_FORWARD_WORDS else []
    backward = _coordinated(before, text) if before else []
    if backward and _words(text[backward[-1].end : term.start]) > _MAX_BACKWARD_WORDS:
        backward = []
    if slot in _LOCATIONS and _PREPOSITION.search(text[begin : term.start]) and backward:
        return backward
    if forward and not _crosses_break(text[term.end : forward[0].start]):
        return _coordinated_after(after, text) if slot in _LOCATIONS else forward
    return backward or forward


def _words(gap: str) -> int:
    return len(gap.split())


def _crosses_break(gap: str) -> bool:
    return "," in gap or " and " in gap or " with " in gap


def _coordinated(before: list[Mention], text: str) -> list[Mention]:
    """Return the last mention and those joined to it by "and", "or" or a comma."""
    group = [before[-1]]
    for earlier in reversed(before[:-1]):
        if not _COORDINATED.match(text[earlier.end : group[0].start]):
            break
        group.insert(0, earlier)
    return group


def _coordinated_after(after: list[Mention], text: str) -> list[Mention]:
    """Return the next mention and those joined to it directly ("bibasilar atelectasis and effusions")."""
    group = [after[0]]
    for later in after[1:]:
        if not re.match(r"^ (?:and|or|and/or|versus|vs) $", text[group[-1].end : later.start]):
            break
        group.append(later)
    return group
