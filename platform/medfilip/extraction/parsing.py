"""A sentence as the rules see it: items (what each known term does), clauses, and the findings they make up.

Positions are token numbers; spans are half open. An item may stand in several readings: "increased" is a state of
vessels and a change over time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple

from medfilip.extraction.lexicon_data import Kind, Node


class Item(NamedTuple):
    """A term of the lexicon in a sentence."""

    kind: int
    value: Any
    start: int
    end: int


# Plain integers: an IntEnum member costs a descriptor call in the innermost loops.
CATEGORY, BEARER, STATE, SITE, SIDE = (int(k) for k in (Kind.CATEGORY, Kind.BEARER, Kind.STATE, Kind.SITE, Kind.SIDE))
NEGATION, TERMINATOR, PREPOSITION, VERB = (
    int(k) for k in (Kind.NEGATION, Kind.TERMINATOR, Kind.PREPOSITION, Kind.VERB)
)
AND, OR, COMMA, DETERMINER, FILLER = (int(k) for k in (Kind.AND, Kind.OR, Kind.COMMA, Kind.DETERMINER, Kind.FILLER))
CHANGE, SEVERITY, SIZE, PATTERN, CHRONICITY = (
    int(k) for k in (Kind.CHANGE, Kind.SEVERITY, Kind.SIZE, Kind.PATTERN, Kind.CHRONICITY)
)
HEDGE = int(Kind.HEDGE)
EXPLANATION = int(Kind.EXPLANATION)
CONDITION = int(Kind.CONDITION)
NEGATION_AFTER = int(Kind.NEGATION_AFTER)
ELSEWHERE = int(Kind.ELSEWHERE)
HEDGE_AFTER = int(Kind.HEDGE_AFTER)
QUALIFIERS = frozenset((SIDE, SITE, SEVERITY, SIZE, PATTERN, CHANGE, CHRONICITY, int(Kind.COUNT)))
CONJUNCTIONS = frozenset((AND, OR, COMMA))
_THERE: frozenset[str] = frozenset(
    ("there is", "there are", "there has been", "there have been", "there remain", "there remains")
)
_PLACE_WORDS = frozenset((PREPOSITION, SIDE, SITE, BEARER, FILLER, DETERMINER, COMMA, SIZE, PATTERN, int(Kind.MASK)))


def read_items(words: Sequence[str], root: dict[str, Node]) -> list[Item]:
    """Find the longest term at each word, left to right; ``words`` are folded, ``""`` where unknown."""
    items: list[Item] = []
    at, count = 0, len(words)
    while at < count:
        node = root.get(words[at])
        if node is None:
            at += 1
            continue
        readings = node[0]
        after = ahead = at + 1
        while ahead < count:
            node = node[1].get(words[ahead])
            if node is None:
                break
            ahead += 1
            if node[0] is not None:
                readings, after = node[0], ahead
        if readings is None:
            at += 1
            continue
        for kind, value in readings:
            items.append(Item(int(kind), value, at, after))
        at = after
    return _headings(items)


def _headings(items: list[Item]) -> list[Item]:
    """Read the colon behind an anatomical heading as "is": "heart: normal in size"."""
    for number, item in enumerate(items):
        if item.kind == TERMINATOR:
            if item.value == ":" and number and all(earlier.kind in _PLACE_WORDS for earlier in items[:number]):
                items[number] = Item(VERB, ":", item.start, item.end)
            break
    return items


class Clauses:
    """Where a sentence falls into parts that a cue or a qualifier does not reach across."""

    def __init__(self, items: Sequence[Item], length: int) -> None:
        self.starts = [0]
        for number, item in enumerate(items):
            if item.kind == TERMINATOR:
                if not (item.value in _THERE and _is_fronted(items, number)):
                    self.starts.append(item.start)
            elif (item.kind in (AND, COMMA) and _begins_statement(items, number)) or (
                item.kind == DETERMINER and _runs_on(items, number)
            ):
                self.starts.append(item.start)
        self.starts.sort()
        self.length = length

    def of(self, token: int) -> int:
        """Return the number of the clause a token stands in."""
        return bisect_right(self.starts, token) - 1

    def span(self, token: int) -> tuple[int, int]:
        """Return the half-open span of the clause a token stands in."""
        number = bisect_right(self.starts, token) - 1
        end = self.starts[number + 1] if number + 1 < len(self.starts) else self.length
        return self.starts[number], end


def _is_fronted(items: Sequence[Item], number: int) -> bool:
    """Whether only a place stands before "there is": "in the left upper lobe, there is a nodule"."""
    earlier = [item for item in items[:number] if item.end <= items[number].start]
    return bool(earlier) and all(item.kind in _PLACE_WORDS for item in earlier)


def _begins_statement(items: Sequence[Item], number: int) -> bool:
    """Whether a comma or "and" is followed by a statement of its own: a noun and its verb, or a new denial.

    "…is normal, and the lungs are clear" begins one; "heart, mediastinum and hila are normal" does not.
    """
    conjunction = items[number]
    follower = items[number + 1] if number + 1 < len(items) else None
    if follower is None or not any(item.kind in (CATEGORY, BEARER, SITE, STATE) for item in items[:number]):
        return False
    if follower.kind == NEGATION and follower.value not in ("nor", "neither"):
        return True
    verb = False
    nouns = 0
    for later in items[number + 1 :]:
        kind = later.kind
        if kind == VERB or (kind == STATE and later.value in ("normal", "clear") and nouns):
            verb = True
            break
        if kind in (OR, TERMINATOR) or (kind in (AND, COMMA) and later.start > conjunction.end):
            break
        if kind == PREPOSITION and not nouns:
            break
        nouns += kind in (CATEGORY, BEARER, SITE)
    if not verb or not nouns:
        return False
    for earlier in reversed(items[:number]):
        if earlier.kind in (VERB, NEGATION) or (earlier.kind == STATE and earlier.value in ("normal", "clear")):
            return True
        if earlier.kind == TERMINATOR:
            break
    return False


def _runs_on(items: Sequence[Item], number: int) -> bool:
    """Whether a new sentence begins at an article although no mark ends the one before: "…effusion the lungs are…"."""
    article = items[number]
    if article.value != "the" or not number or items[number - 1].end != article.start:
        return False
    if items[number - 1].kind not in (CATEGORY, SITE) or not any(
        item.kind in (VERB, NEGATION) for item in items[:number]
    ):
        return False
    after = items[number + 1 : number + 5]
    return bool(after) and after[0].kind in (BEARER, SITE) and any(item.kind == VERB for item in after)
