"""The rule engine: terms in one automaton, scopes of negation and hedges, qualifiers tied to the right noun.

It reads one sentence in normal form and needs no model. Rules are general statements about English reports; the words
they act on are data (the ontology and ``data/lexicon.yaml``).
"""

from __future__ import annotations

import re
from functools import cached_property

from medfilip.core.fingerprint import fingerprint
from medfilip.extraction.attachment import Mention, ParsedSentence, attach_qualifiers
from medfilip.extraction.engine import FindingRow, SentenceResult
from medfilip.extraction.lexicon_data import LexiconData, load_lexicon_data
from medfilip.extraction.terms import Term, TermFinder, longest
from medfilip.findings.finding import Alignment, Certainty, Hedge
from medfilip.findings.ontology import Ontology, load_ontology

ENGINE_VERSION = "1"

_HEDGE_STRENGTH = (Hedge.CANNOT_EXCLUDE, Hedge.POSSIBLE, Hedge.VERSUS, Hedge.PROBABLE)
_COORDINATION = re.compile(r"^[\s,]*(?:and|or|nor|and/or|,|/|\w+[\s,]*(?:and|or|,))[\s\w]{0,40}$")


class LexiconEngine:
    """Rules over the ontology's terms; see the module's text."""

    name = "lexicon"

    def __init__(self, ontology: Ontology | None = None, data: LexiconData | None = None) -> None:
        self._ontology = ontology or load_ontology()
        self._data = data or load_lexicon_data()
        self._finder = TermFinder(self._data.vocabulary(self._ontology))

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of ontology, rule data and engine version."""
        return fingerprint([ENGINE_VERSION, self._ontology.fingerprint, self._data.fingerprint])

    def extract(self, text: str, context: str | None = None) -> SentenceResult:
        """Extract the findings of one sentence in normal form."""
        del context  # rules read the sentence alone; the language model is shown its context
        terms = self._finder.find(text)
        sentence = ParsedSentence(text, terms, self._mentions(text, terms))
        if not sentence.mentions:
            return SentenceResult([])
        masks = sentence.of("not_negation")
        terms["negation_before"] = [
            cue
            for cue in sentence.of("negation_before")
            if not any(mask.start <= cue.start and cue.end <= mask.end for mask in masks)
        ]
        stated = [mention for mention in sentence.mentions if self._judge(mention, sentence)]
        attach_qualifiers(sentence, self._ontology)
        return SentenceResult(_merge([mention.row() for mention in stated]))

    def _mentions(self, text: str, terms: dict[str, list[Term]]) -> list[Mention]:
        phrases = [
            (Term(match.start(), match.end(), "phrase", str(number)), phrase)
            for number, phrase in enumerate(self._data.phrases)
            for match in phrase.regex.finditer(text)
        ]
        kept = set(longest([term for term, _ in phrases]))
        mentions = [
            Mention(term.start, term.end, phrase.category, phrase.certainty, phrase.alignment)
            for term, phrase in phrases
            if term in kept
        ]
        for term in terms.get("category", []):
            if all(term.end <= other.start or term.start >= other.end for other in kept):
                mentions.append(Mention(term.start, term.end, term.value, None, Alignment.EXACT))
        return sorted(mentions, key=lambda mention: mention.start)

    def _judge(self, mention: Mention, sentence: ParsedSentence) -> bool:
        """Set certainty and hedge of a mention; ``False`` if the sentence does not state it at all."""
        begin, end = sentence.clause(mention.start)
        if any(begin <= cue.start and cue.end <= mention.start for cue in sentence.of("conditions")):
            return False
        if mention.certainty is None:
            mention.certainty = Certainty.PRESENT
            cues = [cue for cue in sentence.of("negation_before") if begin <= cue.start and cue.end <= mention.end]
            cues = cues[-1:] or [cue for cue in sentence.of("negation_after") if mention.end <= cue.start < end][:1]
            for negation in cues:
                mention.certainty = Certainty.ABSENT
                mention.add_evidence("certainty", negation)
        hedge = self._hedge(mention, sentence)
        if hedge is None:
            return True
        strength = Hedge(hedge.value)
        if mention.certainty is Certainty.ABSENT and strength is not Hedge.CANNOT_EXCLUDE:
            return True
        mention.hedge = strength
        mention.add_evidence("hedge", hedge)
        mention.certainty = Certainty.PRESENT if strength in self._data.hedges_that_state else Certainty.UNCERTAIN
        return True

    def _hedge(self, mention: Mention, sentence: ParsedSentence) -> Term | None:
        """Return the strongest hedge whose scope holds the mention."""
        begin, end = sentence.clause(mention.start)
        mentions = sentence.mentions
        following = min((other.start for other in mentions if other.start >= mention.end), default=end)
        found: list[Term] = []
        for cue in sentence.of("hedges_before"):
            if begin <= cue.start and cue.end <= mention.start:
                between = [other for other in mentions if cue.end <= other.start and other.end <= mention.start]
                if not between or _COORDINATION.match(sentence.text[between[-1].end : mention.start]):
                    found.append(cue)
            elif cue.value == Hedge.VERSUS and mention.end <= cue.start < following and cue.end < end:
                found.append(cue)
        found += [cue for cue in sentence.of("hedges_after") if mention.end <= cue.start < end]
        return min(found, key=lambda cue: _HEDGE_STRENGTH.index(Hedge(cue.value)), default=None)


def _merge(rows: list[FindingRow]) -> list[FindingRow]:
    """Fold repeated statements of one finding within a sentence into one, with all the evidence."""
    merged: dict[tuple[object, ...], FindingRow] = {}
    for row in rows:
        key = tuple(
            tuple(v) if isinstance(v, list) else v for k, v in row.items() if k not in ("evidence", "alignment")
        )
        if key in merged:
            merged[key]["evidence"] += row["evidence"]
        else:
            merged[key] = row
    return list(merged.values())
