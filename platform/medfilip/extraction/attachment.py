"""Ties qualifiers (severity, size, pattern, change, age, number, device position) to the finding they qualify.

An adjective belongs to the noun of its phrase ("small left effusion"), and what is said behind a verb to the subject
("the effusion is small"). Sides and sites go the same ways as whole places (`medfilip.extraction.placing`).
"""

from __future__ import annotations

from collections.abc import Sequence

from medfilip.extraction.mention import Mention
from medfilip.extraction.parsing import (
    ABNORMAL,
    AND,
    BEARER,
    CHANGE,
    CHRONICITY,
    COMMA,
    CONJUNCTIONS,
    COUNT,
    DETERMINER,
    EXPLANATION,
    FILLER,
    HEDGE,
    NEGATION,
    OR,
    PATTERN,
    POSITION,
    PREPOSITION,
    QUALIFIERS,
    RELATIVE,
    SEVERITY,
    SIDE,
    SITE,
    SIZE,
    TERMINATOR,
    VERB,
    Item,
    Sentence,
    bits,
)
from medfilip.extraction.words import PLACEHOLDER
from medfilip.findings.finding import Certainty

PREMODIFIER_REACH = 8
BACKWARD_REACH = 14

_SLOTS = {SEVERITY: "severity", SIZE: "size", CHANGE: "change", CHRONICITY: "chronicity", COUNT: "count"}
_ATTACHED = bits(*_SLOTS, PATTERN, POSITION)
INSIDE_PHRASE = frozenset((SIDE, SITE, SEVERITY, SIZE, PATTERN, CHANGE, CHRONICITY, COUNT, FILLER, DETERMINER))
_BESIDE_PLACE = frozenset((COMMA, PREPOSITION, SIDE, SITE, BEARER, FILLER, DETERMINER, PATTERN, SIZE, SEVERITY))
_PARTING = frozenset((VERB, PREPOSITION, TERMINATOR, NEGATION, HEDGE, EXPLANATION))
_PLAIN_CONJUNCTIONS = frozenset(("and", "&", ",", "/", "or", "and/or"))
_MILLIMETRES = {
    **dict.fromkeys(("mm", "millimeter", "millimeters", "millimetre", "millimetres"), 1.0),
    **dict.fromkeys(("cm", "centimeter", "centimeters", "centimetre", "centimetres"), 10.0),
}
_MEASURE_WORDS = frozenset(("x", "by", "×", "to", "mm", "cm"))
_DISTANCE_WORDS = frozenset(("above", "below", "from", "proximal", "distal", "superior", "inferior", "beyond"))


def attach_qualifiers(sentence: Sentence, mentions: Sequence[Mention], devices: frozenset[str]) -> None:
    """Attach every qualifier of a sentence but its places to the findings it qualifies, in place."""
    if sentence.kinds & _ATTACHED:
        for item in sentence.items:
            kind = item[0]
            if kind in _SLOTS:
                _attach_slot(item, sentence, mentions)
            elif kind == PATTERN:
                _attach_pattern(item, sentence, mentions)
            elif kind == POSITION:
                _attach_position(item, mentions, devices)
    if not _MILLIMETRES.keys().isdisjoint(sentence.words):
        _attach_measures(sentence, mentions)


def _attach_slot(item: Item, sentence: Sentence, mentions: Sequence[Mention]) -> None:
    kind, value, start, end = item
    if kind == SEVERITY and _is_degree_of_change(end, sentence.items):
        return
    if kind == CHRONICITY and any(i[0] == ABNORMAL and 0 <= i[2] - end <= 1 for i in sentence.items):
        return  # "without acute abnormality"
    slot = _SLOTS[kind]
    for mention in _targets(start, end, sentence, mentions, strict=kind == COUNT):
        if value == "borderline" and mention.certainty is Certainty.ABSENT:
            continue  # "at the upper limits of normal"
        if kind in (SEVERITY, SIZE):
            mention.degrees.append((slot, value, start, end))
        if getattr(mention, slot) is None:
            setattr(mention, slot, value)
            mention.evidence.append((slot, start, end))


def _attach_pattern(item: Item, sentence: Sentence, mentions: Sequence[Mention]) -> None:
    _, value, start, end = item
    for mention in _targets(start, end, sentence, mentions) or _with_own_adjective(end, sentence, mentions):
        if value not in mention.patterns:
            mention.patterns.append(value)
            mention.evidence.append(("pattern", start, end))


def _with_own_adjective(end: int, sentence: Sentence, mentions: Sequence[Mention]) -> Sequence[Mention]:
    """Return the finding whose own adjective is joined to a pattern: "alveolar and interstitial opacities"."""
    joint = next((i for i in sentence.items if i[0] == AND and i[2] == end), None)
    return [m for m in mentions if joint is not None and m.start == joint[3] and m.end - m.start > 1]


def _attach_position(item: Item, mentions: Sequence[Mention], devices: frozenset[str]) -> None:
    _, value, start, end = item
    for mention in reversed(mentions):
        if mention.category in devices and mention.start <= start:
            if mention.position is None:
                mention.position = value
                mention.evidence.append(("position", start, end))
            return


def _attach_measures(sentence: Sentence, mentions: Sequence[Mention]) -> None:
    """Attach "8 mm", "3 x 4 cm" and "3-4 mm": the largest number counts, in millimetres."""
    words = sentence.words
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
        for mention in _targets(start, at + 1, sentence, mentions)[:1]:
            if mention.size_mm is None:
                mention.size_mm = size
                mention.evidence.append(("size_mm", start, at + 1))


def _is_degree_of_change(end: int, items: Sequence[Item]) -> bool:
    """Whether a degree that ends at a token is one of change: "slightly increased", "mild interval worsening"."""
    if any(i[0] in CONJUNCTIONS and i[2] == end for i in items):
        return False  # "moderate and increased"
    return any(i[0] == CHANGE and i[1] != "unchanged" and 0 <= i[2] - end <= 1 for i in items)


def _targets(
    start: int, end: int, sentence: Sentence, mentions: Sequence[Mention], *, strict: bool = False
) -> Sequence[Mention]:
    """Return the findings that a qualifier at ``start`` to ``end`` belongs to; ``strict``: only as an adjective."""
    around = holding(start, end, mentions)
    if around:
        return around
    begin, stop = sentence.span(start)
    after = [m for m in mentions if end <= m.start < stop]
    if after and is_premodifier(end, after[0], sentence.items) and not _is_set_behind(start, end, sentence, mentions):
        return _alternatives(after, sentence)
    if strict:
        return ()
    if begin and not after and any(i[2] == begin and i[1] in RELATIVE for i in sentence.items):
        begin = sentence.span(begin - 1)[0]
    before = [m for m in mentions if begin <= m.start and m.end <= start]
    if before:
        nearest = before[-1]
        if start - nearest.end <= BACKWARD_REACH and _is_predicate(nearest.end, start, sentence.items):
            return coordinated_before(before, sentence.items)
    return ()


def _is_set_behind(start: int, end: int, sentence: Sentence, mentions: Sequence[Mention]) -> bool:
    """Whether a qualifier stands between a finding and a comma: "chest tube unchanged, decreased effusion"."""
    return any(m.end == start for m in mentions) and any(i[0] == COMMA and i[2] == end for i in sentence.items)


def holding(start: int, end: int, mentions: Sequence[Mention]) -> Sequence[Mention]:
    """Return the findings whose own words a qualifier stands among: several where words state two at once."""
    for mention in mentions:
        if start < mention.end and mention.start < end:
            return [m for m in mentions if (m.start, m.end) == (mention.start, mention.end)]
    return ()


def _alternatives(after: list[Mention], sentence: Sentence) -> list[Mention]:
    """Return the next finding with what stands beside it as its other name: "minimal scarring/atelectasis"."""
    group = after[:1]
    for later in after[1:]:
        last = group[-1].end
        between = {i[0] for i in sentence.items if last <= i[2] and i[3] <= later.start}
        told = later.start > last and not between and not PLACEHOLDER.fullmatch(sentence.words[last])
        if later.start - last > 1 or between - {OR} or told:
            break
        group.append(later)
    return group


def is_premodifier(end: int, mention: Mention, items: Sequence[Item]) -> bool:
    """Whether nothing parts a qualifier that ends at ``end`` from the noun of a finding behind it."""
    stop = mention.start
    if stop - end > PREMODIFIER_REACH:
        return False
    parted = 0
    for number, (kind, value, start, last) in enumerate(items):
        if start < end:
            continue
        if last > stop:
            break
        if kind in _PARTING:
            return False
        if kind in CONJUNCTIONS:
            if value not in _PLAIN_CONJUNCTIONS or not _qualifier_follows(items, number, stop):
                return False
            parted += 1
    return parted <= 2


def _qualifier_follows(items: Sequence[Item], number: int, stop: int) -> bool:
    """Whether the term behind a conjunction, before ``stop``, is a qualifier again: "patchy and streaky"."""
    end = items[number][3]
    first = next((item[2] for item in items[number + 1 :] if item[2] >= end), stop)
    return any(i[2] == first and i[3] <= stop and i[0] in QUALIFIERS for i in items[number + 1 :])


def _is_predicate(end: int, start: int, items: Sequence[Item]) -> bool:
    """Whether a qualifier stands right behind a finding, or behind a verb that says it of the finding."""
    between = [item for item in items if end <= item[2] and item[3] <= start]
    if between and between[-1][0] == DETERMINER and between[-1][3] == start:
        return False  # "nodules, the larger": a word for one of them
    if start - end <= 2:
        return True
    kinds = [item[0] for item in between]
    if VERB in kinds or (kinds and kinds[0] == COMMA and start - end <= 3):
        return True
    # "Scarring at the right base, unchanged": only a place stands between.
    return bool(kinds) and kinds[-1] == COMMA and _BESIDE_PLACE.issuperset(kinds)


def joined(first: Mention, second: Mention, items: Sequence[Item]) -> bool:
    """Whether two findings are members of one list: only conjunctions, qualifiers or a hedge between them."""
    if second.start - first.end > PREMODIFIER_REACH:
        return False
    joint = second.start <= first.end
    for kind, value, start, end in items:
        if start < first.end or end > second.start:
            continue
        if kind == HEDGE or (kind in CONJUNCTIONS and value in _PLAIN_CONJUNCTIONS):
            joint = True
        elif kind not in INSIDE_PHRASE:
            return False
    return joint


def coordinated_before(before: Sequence[Mention], items: Sequence[Item]) -> list[Mention]:
    """Return the last finding and those joined to it that have no place yet."""
    group = [before[-1]]
    for earlier in reversed(before[:-1]):
        if earlier.places or not joined(earlier, group[0], items):
            break
        group.insert(0, earlier)
    return group


def coordinated_after(after: Sequence[Mention], items: Sequence[Item]) -> list[Mention]:
    """Return the next finding and those joined to it that have no place of their own."""
    group = [after[0]]
    for later in after[1:]:
        last = group[-1].end
        own = any(i[0] in (SIDE, SITE) and last <= i[2] and i[3] <= later.end for i in items)
        if own or _is_placed_behind(later.end, items) or not joined(group[-1], later, items):
            break
        group.append(later)
    return group


def _is_placed_behind(end: int, items: Sequence[Item]) -> bool:
    """Whether a preposition right behind a finding leads to a place: "…and a nodule in the right apex"."""
    behind = [item for item in items if item[2] >= end]
    if not behind or behind[0][0] != PREPOSITION or behind[0][2] != end:
        return False
    return next((i[0] in (SIDE, SITE) for i in behind[1:] if i[0] not in (DETERMINER, FILLER)), False)
