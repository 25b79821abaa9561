"""Findings from what a sentence holds: named categories, and states said of a bearer ("the aorta is tortuous")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from medfilip.extraction.lexicon_data import Composed
from medfilip.extraction.parsing import (
    AND,
    BEARER,
    CATEGORY,
    CHANGE,
    COMMA,
    CONDITION,
    DETERMINER,
    FILLER,
    HEDGE,
    NEGATION,
    NEGATION_AFTER,
    OR,
    PATTERN,
    PREPOSITION,
    QUALIFIERS,
    SEVERITY,
    SIDE,
    SITE,
    STATE,
    TERMINATOR,
    VERB,
    Clauses,
    Item,
)
from medfilip.findings.finding import Alignment, Certainty, Hedge

_FORWARD_REACH = 7
_BACKWARD_REACH = 11
_SHARED_STATES = ("normal", "clear", "calcified")
_JOINABLE_STATES = ("normal", "clear")
_OF = frozenset(
    (
        "of",
        "in",
        "involving",
        "within",
        "at",
        "affecting",
        "along",
        "about",
        "on",
        "throughout",
        "to",
        "seen in",
        "noted in",
        "present in",
    )
)
_NOUNS = (BEARER, SITE, CATEGORY)
_JOINABLE = frozenset((STATE, SIDE, SITE, SEVERITY, PATTERN, FILLER))


@dataclass(slots=True)
class Place:
    """A side with the sites it stands beside: "right upper and lower lobes"; ``joined`` if "and" ties it to the last."""

    start: int
    end: int
    sides: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    spans: list[tuple[str, int, int]] = field(default_factory=list)
    plural: bool = False
    joined: bool = False


@dataclass(slots=True)
class Mention:
    """A finding being assembled from a sentence; ``start`` and ``end`` are token numbers."""

    start: int
    end: int
    category: str
    certainty: Certainty | None
    alignment: Alignment
    denial_end: int  # a denial may stand inside a composed mention ("heart is not enlarged") up to here
    hedge: Hedge | None = None
    severity: str | None = None
    size: str | None = None
    size_mm: float | None = None
    count: int | None = None
    sides: list[str] = field(default_factory=list)
    sites: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)
    change: str | None = None
    chronicity: str | None = None
    position: str | None = None
    bearers: tuple[str, ...] = ()
    evidence: list[tuple[str, int, int]] = field(default_factory=list)
    places: list[Place] = field(default_factory=list)


Compositions = Mapping[tuple[str, str], Composed]


def find_mentions(items: Sequence[Item], clauses: Clauses, compositions: Compositions) -> list[Mention]:
    """Return the findings a sentence mentions, in the order of the text, certainty not yet judged."""
    composed: list[Mention] = []
    taken: set[tuple[int, int, str]] = set()
    for number, item in enumerate(items):
        if item.kind != STATE:
            continue
        for bearer, rule in _bearers(items, number, clauses, compositions):
            start, end = min(item.start, bearer.start), max(item.end, bearer.end)
            key = (bearer.start, bearer.end, rule.category)
            if key in taken:
                continue
            taken.add(key)
            stated = None if rule.certainty is Certainty.PRESENT else rule.certainty
            mention = Mention(start, end, rule.category, stated, rule.alignment, item.start, severity=rule.severity)
            mention.bearers = (str(bearer.value),)
            if rule.severity:
                mention.evidence.append(("severity", item.start, item.end))
            composed.append(mention)
            if rule.also is not None:
                composed.append(Mention(start, end, rule.also, stated, rule.alignment, start))
                composed[-1].bearers = mention.bearers
    named = [item for item in items if item.kind == CATEGORY]
    if not composed:
        return [_named(item) for item in named]
    composed = _without_weaker(composed)
    mentions = composed + [_named(item) for item in named if not _covered(item, composed)]
    mentions.sort(key=lambda mention: (mention.start, mention.end))
    return mentions


def _named(item: Item) -> Mention:
    return Mention(item.start, item.end, item.value, None, Alignment.EXACT, item.start)


def _covered(item: Item, composed: Sequence[Mention]) -> bool:
    """Whether a named category is a part of a composed finding: "calcification" of "calcification of the aorta"."""
    for mention in composed:
        if mention.start == item.start or mention.end == item.end or item.value in mention.bearers:
            if mention.start <= item.start and item.end <= mention.end:
                return True
        elif mention.start <= item.start and item.end <= mention.end and item.value == mention.category:
            return True
    return False


def _without_weaker(composed: list[Mention]) -> list[Mention]:
    """Drop a composed finding that repeats another of the same category on overlapping words."""
    kept: list[Mention] = []
    for mention in sorted(composed, key=lambda m: (m.severity is None, m.end - m.start)):
        if not any(m.category == mention.category and m.start < mention.end and mention.start < m.end for m in kept):
            kept.append(mention)
    return kept


def _bearers(
    items: Sequence[Item], number: int, clauses: Clauses, compositions: Compositions
) -> list[tuple[Item, Composed]]:
    state = items[number]
    value = state.value
    begin, end = clauses.span(state.start)
    found = _following(items, number, end, compositions)
    if not found:
        found = _preceding(items, number, begin, compositions)
    if value == "normal" and not found:
        return []
    return found


def _following(items: Sequence[Item], number: int, end: int, compositions: Compositions) -> list[tuple[Item, Composed]]:
    """Bearers in the noun phrase behind a state: the last one that composes is its head."""
    state = items[number]
    states = _state_spans(items)
    best: tuple[Item, Composed] | None = None
    shared: list[tuple[Item, Composed]] = []
    last = state.end
    of_used = behind_verb = False
    for later in items[number + 1 :]:
        if later.start < state.end:
            continue
        kind = later.kind
        if later.start >= end or later.start - last > _FORWARD_REACH or kind in (TERMINATOR, HEDGE, CONDITION):
            break
        if kind == VERB:  # "prominence is noted to the pulmonary arteries"
            if best is not None:
                break
            behind_verb = True
            continue
        if behind_verb and not of_used and kind in _NOUNS:
            break
        if kind in _NOUNS:
            rule = compositions.get((later.value, state.value))
            if rule is not None:
                if best is not None and later.start > best[0].end + 1 and state.value in _SHARED_STATES:
                    shared.append(best)
                best = (later, rule)
                last = later.end
                continue
            if kind == CATEGORY and (later.start, later.end) not in states:
                best = None  # the head of the phrase is a finding: "prominent perihilar opacities"
                break
        if kind == PREPOSITION:
            if (
                best is not None
                or later.value not in _OF
                or of_used
                or (later.start > state.end + 1 and not behind_verb)
            ):
                break
            of_used = True
        elif kind in (AND, COMMA, OR):
            if best is None and not _alike_around(items, later):
                break
            if best is not None and state.value not in _SHARED_STATES and not _noun_follows(items, later):
                break
        elif (
            kind in (NEGATION, NEGATION_AFTER)
            or (kind == DETERMINER and best is not None and state.value not in _SHARED_STATES[:2])
            or (kind not in QUALIFIERS and kind not in (DETERMINER, FILLER, STATE, BEARER, CATEGORY))
        ):
            break
    if best is None:
        return []
    return [*shared, best]


def _alike_around(items: Sequence[Item], conjunction: Item) -> bool:
    """Whether a conjunction joins words of one kind: "tortuous and calcified aorta", "left and right hila"."""
    before = {item.kind for item in items if item.end == conjunction.start}
    start = conjunction.end
    for item in items:  # "calcified and mildly tortuous aorta"
        if item.start == start and item.kind in (SEVERITY, CHANGE):
            start = item.end
    after = {item.kind for item in items if item.start in (start, conjunction.end)}
    return bool(before & after & _JOINABLE)


def _state_spans(items: Sequence[Item]) -> set[tuple[int, int]]:
    return {(item.start, item.end) for item in items if item.kind == STATE}


def _noun_follows(items: Sequence[Item], conjunction: Item) -> bool:
    """Whether a further noun of the same phrase follows: "calcified hilar and mediastinal lymph nodes"."""
    after = next((i for i in items if i.start >= conjunction.end and i.kind not in (SIDE, FILLER)), None)
    return after is not None and after.kind in (SITE, BEARER)


def _preceding(
    items: Sequence[Item], number: int, begin: int, compositions: Compositions
) -> list[tuple[Item, Composed]]:
    """Bearers that a state is said of: the nearest before it, with those coordinated with it for "normal"."""
    state = items[number]
    states = _state_spans(items)
    found: list[tuple[Item, Composed]] = []
    edge = state.start
    for earlier in reversed(items[:number]):
        if earlier.end > state.start:
            continue
        kind = earlier.kind
        if earlier.start < begin or edge - earlier.end > _BACKWARD_REACH or kind == TERMINATOR:
            break
        if kind in _NOUNS:
            rule = compositions.get((earlier.value, state.value))
            if rule is not None:
                if any(bearer.start < earlier.end and earlier.start < bearer.end for bearer, _ in found):
                    continue
                found.append((earlier, rule))
                edge = earlier.start
                if state.value not in _JOINABLE_STATES:
                    break
                continue
            if kind == CATEGORY and not found and (earlier.start, earlier.end) not in states:
                break
        if found and kind in (VERB, NEGATION):
            break
        if kind in (NEGATION,) and earlier.value == "no":
            break
        if kind == COMMA and not found and state.value not in _JOINABLE_STATES:
            break
    return found
