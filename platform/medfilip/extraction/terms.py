"""Terms of all slots in one automaton: one pass over a sentence finds every whole-word term."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import ahocorasick


class Term(NamedTuple):
    """A term found in a text: half-open span, slot (category, severity, negation_before, …) and value."""

    start: int
    end: int
    slot: str
    value: str


class TermFinder:
    """Finds terms at word boundaries; within one slot the longest of overlapping terms wins."""

    def __init__(self, vocabulary: Iterable[tuple[str, str, str]]) -> None:
        entries: dict[str, list[tuple[str, str]]] = {}
        for term, slot, value in vocabulary:
            readings = entries.setdefault(term.lower(), [])
            if (slot, value) not in readings:
                readings.append((slot, value))
        self._automaton = ahocorasick.Automaton()
        for term, readings in entries.items():
            self._automaton.add_word(term, (len(term), tuple(readings)))
        self._automaton.make_automaton()

    def find(self, text: str) -> dict[str, list[Term]]:
        """Return the terms of a text by slot, each list in the order of the text."""
        candidates: dict[str, list[Term]] = {}
        length = len(text)
        for last, (size, readings) in self._automaton.iter(text):
            end = last + 1
            start = end - size
            if start and _in_word(text[start - 1]) and _in_word(text[start]):
                continue
            if end < length and _in_word(text[end]) and _in_word(text[last]):
                continue
            for slot, value in readings:
                candidates.setdefault(slot, []).append(Term(start, end, slot, value))
        return {slot: longest(terms) for slot, terms in candidates.items()}


def longest(terms: list[Term]) -> list[Term]:
    """Keep the longest of overlapping terms (the earlier of equally long ones), in the order of the text."""
    kept: list[Term] = []
    for term in sorted(terms, key=lambda t: (t.start - t.end, t.start)):
        if all(term.end <= other.start or term.start >= other.end for other in kept):
            kept.append(term)
    kept.sort()
    return kept


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"
