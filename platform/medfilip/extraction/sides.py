"""A finding whose two sides are told apart: "bilateral effusions, moderate on the right and small on the left"."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

from medfilip.extraction.mention import Mention, Place
from medfilip.extraction.parsing import CHANGE, NEGATION, NEGATION_AFTER, SEVERITY, SIDE, SIZE, Item, Sentence, bits
from medfilip.findings.finding import Laterality

_SLOTS = {SEVERITY: "severity", SIZE: "size", CHANGE: "change"}
_TOLD = bits(*_SLOTS)
_SIDES = frozenset((Laterality.LEFT, Laterality.RIGHT))
_GAP = 3
"""Words between a side and its word: "moderate on the right", "right is moderate"."""
Pair = tuple[Item, Item]
"""A side, and what is said of it."""


def tell_sides_apart(sentence: Sentence, mentions: list[Mention]) -> list[Mention]:
    """Return the findings of a sentence, its only one as two where each side has a word of its own."""
    if len(mentions) != 1 or not (sentence.kinds >> SIDE & 1 and sentence.kinds & _TOLD):
        return mentions
    pairs = _pairs(sentence, mentions[0])
    return [_of_side(mentions[0], side, said) for side, said in pairs] if pairs else mentions


def _pairs(sentence: Sentence, mention: Mention) -> Sequence[Pair]:
    """Return two sides with their words, given as "word side, word side" or as "side word, side word"."""
    items = [i for i in sentence.items if i[0] in _SLOTS or (i[0] == SIDE and i[1] in _SIDES)]
    behind = [i for i in items if i[2] >= mention.end]
    if any(i[0] in (NEGATION, NEGATION_AFTER) for i in sentence.items):
        return ()
    for told in (behind, items):
        sides, words = told[::2], told[1::2]
        if told and told[0][0] != SIDE:
            sides, words = words, sides
        if len(told) != 4 or {i[1] for i in sides} != _SIDES or any(i[0] == SIDE for i in words):
            continue
        pairs = list(zip(sides, words, strict=True))
        if words[0][2] >= mention.end and _beside(*pairs[1], mention.end):
            return pairs
    return ()


def _beside(side: Item, said: Item, begin: int) -> bool:
    """Whether a side and its word stand together, behind a token."""
    first, last = sorted((side, said), key=lambda item: item[2])
    return first[2] >= begin and last[2] - first[3] <= _GAP


def _of_side(mention: Mention, side: Item, said: Item) -> Mention:
    """Return a finding as it is said of one side."""
    one, slot = copy(mention), _SLOTS[said[0]]
    place = Place(side[2], side[3])
    place.sides, place.sites = [side[1]], [site for other in mention.places for site in other.sites]
    one.places, one.degrees, one.patterns = [place], [], list(mention.patterns)
    replaced = {"laterality", "severity", "size", slot}
    one.evidence = [span for span in mention.evidence if span[0] not in replaced]
    one.evidence += [("laterality", side[2], side[3]), (slot, said[2], said[3])]
    one.severity = one.size = None
    setattr(one, slot, said[1])
    return one
