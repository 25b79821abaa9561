"""Ties qualifiers (severity, size, side, site, pattern, change, age, number) to the finding they qualify.

An adjective belongs to the noun of its phrase ("small left effusion"), a phrase behind a preposition to what stands
before it together with everything coordinated with that ("opacity and atelectasis in the right lower lobe"), and what
is said behind a verb to the subject ("the effusion is small"). A side and the sites beside it are one place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from medfilip.extraction.composing import Mention, Place
from medfilip.extraction.lexicon_data import Kind
from medfilip.extraction.parsing import (
    AND,
    BEARER,
    CATEGORY,
    CHANGE,
    CHRONICITY,
    COMMA,
    CONJUNCTIONS,
    DETERMINER,
    EXPLANATION,
    FILLER,
    HEDGE,
    NEGATION,
    OR,
    PATTERN,
    PREPOSITION,
    QUALIFIERS,
    SEVERITY,
    SIDE,
    SITE,
    SIZE,
    STATE,
    TERMINATOR,
    VERB,
    Clauses,
    Item,
)
from medfilip.extraction.words import is_plural

COUNT, POSITION = int(Kind.COUNT), int(Kind.POSITION)
_SLOTS = {SEVERITY: "severity", SIZE: "size", CHANGE: "change", CHRONICITY: "chronicity", COUNT: "count"}
_PREMODIFIER_REACH = 8
_BACKWARD_REACH = 14
_PLACE_GAP = 3
_MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimeters": 1.0,
    "millimetre": 1.0,
    "millimetres": 1.0,
} | dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0)
_MEASURE_WORDS = frozenset(("x", "by", "×", "to", "mm", "cm"))
_DISTANCE_WORDS = frozenset(("above", "below", "from", "proximal", "distal", "superior", "inferior", "beyond"))
_PLAIN_CONJUNCTIONS = frozenset(("and", "&", ",", "/", "or", "and/or"))
_WITHIN_PLACE = frozenset((FILLER, DETERMINER, PREPOSITION, BEARER, AND, OR, COMMA))
_PLACEHOLDER = re.compile(r"x{3,}|_+")
_INSIDE_PHRASE = frozenset((SIDE, SITE, SEVERITY, SIZE, PATTERN, CHANGE, CHRONICITY, COUNT, FILLER, DETERMINER))


@dataclass(frozen=True, slots=True)
class Frame:
    """What attachment looks at: the words and items of a sentence, its clauses and the findings it states."""

    words: Sequence[str]
    items: Sequence[Item]
    clauses: Clauses
    mentions: Sequence[Mention]


@dataclass(frozen=True, slots=True)
class PlaceRules:
    """Which findings are devices, which sites come in pairs or are landmarks, and which findings take over no place."""

    devices: frozenset[str]
    landmarks: frozenset[str]
    paired_sites: frozenset[str]
    unplaced: frozenset[str]


def attach_qualifiers(frame: Frame, rules: PlaceRules) -> None:
    """Attach every qualifier of a sentence to the findings it qualifies, in place."""
    if not frame.mentions:
        return
    for item in frame.items:
        kind = item.kind
        if kind in _SLOTS:
            slot = _SLOTS[kind]
            if kind == SEVERITY and _is_degree_of_change(item, frame.items):
                continue
            for mention in _targets(item.start, item.end, frame, place=False, strict=kind == COUNT):
                if getattr(mention, slot) is None:
                    setattr(mention, slot, item.value)
                    mention.evidence.append((slot, item.start, item.end))
        elif kind == PATTERN:
            for mention in _targets(item.start, item.end, frame, place=False):
                if item.value not in mention.patterns:
                    mention.patterns.append(item.value)
                    mention.evidence.append(("pattern", item.start, item.end))
        elif kind == POSITION:
            near = [m for m in frame.mentions if m.category in rules.devices and m.start <= item.start]
            if near and near[-1].position is None:
                near[-1].position = item.value
                near[-1].evidence.append(("position", item.start, item.end))
    _attach_measures(frame)
    for place in find_places(frame, rules.paired_sites):
        targets = _targets(place.start, place.end, frame, place=True)
        closest = min(targets, key=lambda m: abs(m.start - place.start), default=None)
        for mention in targets:
            if mention is not closest and mention.category in rules.unplaced:
                continue
            if mention.places and place.sites and rules.landmarks.issuperset(place.sites):
                continue
            _give_place(mention, place)
    _inherit_places(frame, rules.unplaced)


def _attach_measures(frame: Frame) -> None:
    """Attach "8 mm", "3 x 4 cm" and "3-4 mm": the largest number counts, in millimetres."""
    words = frame.words
    for at, word in enumerate(words):
        unit = _MILLIMETRES.get(word)
        if unit is None or not at or not words[at - 1][0].isdigit():
            continue
        if at + 1 < len(words) and words[at + 1] in _DISTANCE_WORDS:
            continue  # "tip 4 cm above the carina" is no size
        start = at - 1
        while start and (words[start - 1][0].isdigit() or words[start - 1] in _MEASURE_WORDS):
            start -= 1
        size = max(float(w) for w in words[start:at] if w[0].isdigit()) * unit
        for mention in _targets(start, at + 1, frame, place=False)[:1]:
            if mention.size_mm is None:
                mention.size_mm = size
                mention.evidence.append(("size_mm", start, at + 1))


def _is_degree_of_change(severity: Item, items: Sequence[Item]) -> bool:
    """Whether a degree is one of change over time: "slightly increased", "mild interval worsening"."""
    return any(i.kind == CHANGE and i.value != "unchanged" and 0 <= i.start - severity.end <= 1 for i in items)


def _give_place(mention: Mention, place: Place) -> None:
    mention.places.append(place)
    mention.evidence += place.spans
    mention.sides += [side for side in place.sides if side not in mention.sides]
    mention.sites += [site for site in place.sites if site not in mention.sites]


def find_places(frame: Frame, paired_sites: frozenset[str]) -> list[Place]:
    """Join sides and sites that stand together into places; the plural of a paired site means both sides."""
    places: list[Place] = []
    current: Place | None = None
    for item in frame.items:
        kind = item.kind
        if kind in (SIDE, SITE):
            span = ("laterality" if kind == SIDE else "site", item.start, item.end)
            if current is None or not _continues(current, item, frame):
                joined = current is not None and item.start - current.end <= _PLACE_GAP
                current = Place(item.start, item.end, joined=joined)
                places.append(current)
            (current.sides if kind == SIDE else current.sites).append(item.value)
            current.end = max(current.end, item.end)
            current.spans.append(span)
            if kind == SITE and item.value in paired_sites and is_plural(frame.words[item.end - 1]):
                current.plural = True
        elif current is not None and item.start >= current.end and (kind == COMMA or kind not in _WITHIN_PLACE):
            current = None
    for place in places:
        if place.plural and not place.sides:
            place.sides.append("bilateral")
    return places


def _continues(place: Place, item: Item, frame: Frame) -> bool:
    """Whether a side or site belongs to the place before it: a second side begins a place of its own."""
    if item.start < place.end:
        return True
    if item.start - place.end > _PLACE_GAP or (item.kind == SIDE and place.sides):
        return False
    # What stands inside a finding's own words is not of one place with what stands outside.
    holders = [m for m in frame.mentions if m.start <= place.end - 1 < m.end or m.start <= item.start < m.end]
    return all(m.start <= place.end - 1 < m.end and m.start <= item.start < m.end for m in holders)


def _targets(start: int, end: int, frame: Frame, *, place: bool, strict: bool = False) -> list[Mention]:
    mentions = frame.mentions
    begin, stop = frame.clauses.span(start)
    for mention in mentions:
        if start < mention.end and mention.start < end:
            return [mention]
    after = [m for m in mentions if end <= m.start < stop]
    if after and _is_premodifier(end, after[0], frame.items):
        return _coordinated_after(after, frame) if place else _alternatives(after, frame)
    if strict:
        return []
    before = [m for m in mentions if begin <= m.start and m.end <= start]
    if before:
        nearest = before[-1]
        says = _is_located if place else _is_predicate
        if start - nearest.end <= _BACKWARD_REACH and says(nearest.end, start, end, frame.items):
            return _coordinated_before(before, frame) if place else _subjects(before, frame)
    if after and place and after[0].start - end <= _BACKWARD_REACH:
        return _coordinated_after(after, frame)
    return []


def _alternatives(after: list[Mention], frame: Frame) -> list[Mention]:
    """The next finding with what stands beside it as its other name: "minimal scarring/atelectasis"."""
    group = after[:1]
    for later in after[1:]:
        gap = [item for item in frame.items if group[-1].end <= item.start and item.end <= later.start]
        if later.start - group[-1].end > 1 or not all(item.kind == OR for item in gap):
            break
        group.append(later)
    return group


def _is_premodifier(end: int, mention: Mention, items: Sequence[Item]) -> bool:
    """Whether nothing parts a qualifier that ends at ``end`` from the noun of a finding behind it."""
    if mention.start - end > _PREMODIFIER_REACH:
        return False
    parted = 0
    between = [item for item in items if end <= item.start and item.end <= mention.start]
    for number, item in enumerate(between):
        kind = item.kind
        if kind in (VERB, PREPOSITION, TERMINATOR, NEGATION, HEDGE, EXPLANATION):
            return False
        if kind in (AND, COMMA, OR):
            if item.value not in _PLAIN_CONJUNCTIONS:
                return False
            follower = next((i for i in between[number + 1 :] if i.start >= item.end), None)
            if kind == OR and follower is None:
                return False
            if follower is None or follower.kind not in QUALIFIERS:
                return False
            parted += 1
    return parted <= 2


def _is_located(end: int, start: int, stop: int, items: Sequence[Item]) -> bool:
    """Whether a place behind a finding is the finding's: a preposition leads to it, or nothing parts the two."""
    between = [item for item in items if end <= item.start and item.end <= start]
    for item in reversed(between):
        if item.kind == PREPOSITION:
            return True
        if item.kind in (COMMA, AND):
            # "…enlarged, stable mediastinal contours" goes on with something else; "consolidation, left base" does not.
            later = [i for i in items if i.start >= stop]
            sided = any(i.kind == SIDE and start <= i.start < stop for i in items)
            return sided and not any(i.kind in (BEARER, SITE, CATEGORY, STATE, VERB) for i in later[:3])
    return True


def _is_predicate(end: int, start: int, _stop: int, items: Sequence[Item]) -> bool:
    """Whether a qualifier stands right behind a finding, or behind a verb that says it of the finding."""
    if start - end <= 1:
        return True
    between = [item for item in items if end <= item.start and item.end <= start]
    return (
        any(item.kind == VERB for item in between)
        or start - end <= 2
        or bool(between and between[0].kind == COMMA and start - end <= 3)
    )


def _subjects(before: list[Mention], frame: Frame) -> list[Mention]:
    return _coordinated_before(before, frame)


def _joined(first: Mention, second: Mention, items: Sequence[Item]) -> bool:
    """Whether two findings are members of one list: only conjunctions, qualifiers or a hedge between them."""
    if second.start - first.end > _PREMODIFIER_REACH:
        return False
    joint = second.start <= first.end
    for item in items:
        if item.start < first.end or item.end > second.start:
            continue
        if item.kind in CONJUNCTIONS or item.kind == HEDGE:
            joint = True
        elif item.kind not in _INSIDE_PHRASE:
            return False
    return joint


def _coordinated_before(before: list[Mention], frame: Frame) -> list[Mention]:
    group = [before[-1]]
    for earlier in reversed(before[:-1]):
        if earlier.places or not _joined(earlier, group[0], frame.items):
            break
        group.insert(0, earlier)
    return group


def _coordinated_after(after: list[Mention], frame: Frame) -> list[Mention]:
    """The next finding, and those joined to it that have no place of their own before them."""
    group = [after[0]]
    for later in after[1:]:
        own = any(
            item.kind in (SIDE, SITE) and group[-1].end <= item.start and item.end <= later.end for item in frame.items
        )
        if own or not _joined(group[-1], later, frame.items):
            break
        group.append(later)
    return group


def _inherit_places(frame: Frame, unplaced: frozenset[str]) -> None:
    """Give a diagnosis the place of the observation it explains: "opacity in the left base, likely atelectasis"."""
    previous: Mention | None = None
    for mention in frame.mentions:
        if (
            previous is not None
            and not mention.places
            and previous.places
            and mention.category not in unplaced
            and _explains(previous, mention, frame)
        ):
            mention.places = list(previous.places)
            mention.sides = list(previous.sides)
            mention.sites = list(previous.sites)
            mention.evidence += [span for span in previous.evidence if span[0] in ("laterality", "site")]
        previous = mention


def _explains(observation: Mention, diagnosis: Mention, frame: Frame) -> bool:
    """Whether a hedge, an explaining word, or a word that was removed from the text, ties two findings."""
    between = [i for i in frame.items if observation.end <= i.start and i.end <= diagnosis.start]
    if any(item.kind in (TERMINATOR, NEGATION) for item in between):
        return False
    if any(item.kind in (HEDGE, EXPLANATION) or item.value in _EQUATIONS for item in between):
        return True
    removed = any(_PLACEHOLDER.fullmatch(word) for word in frame.words[observation.end : diagnosis.start])
    return removed and not any(item.kind == AND for item in between)


_EQUATIONS = frozenset(("represents", "represent", "reflects", "reflect", "suggests"))
