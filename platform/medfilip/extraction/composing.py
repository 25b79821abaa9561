"""Findings from what a sentence holds: named categories, and states said of a bearer ("the aorta is tortuous")."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from medfilip.extraction.lexicon_data import Composed
from medfilip.extraction.mention import Mention
from medfilip.extraction.parsing import (
    BEARER,
    CATEGORY,
    CHANGE,
    COMMA,
    CONDITION,
    CONJUNCTIONS,
    DETERMINER,
    FILLER,
    HEDGE,
    HEDGE_AFTER,
    NEGATION,
    NEGATION_AFTER,
    NOUNS,
    PATTERN,
    PREPOSITION,
    QUALIFIERS,
    SEVERITY,
    SIDE,
    SITE,
    STATE,
    TERMINATOR,
    VERB,
    Item,
    Sentence,
)
from medfilip.findings.finding import Alignment, Certainty

Compositions = Mapping[tuple[str, str], Composed]
Found = list[tuple[Item, Composed]]

_FORWARD_REACH = 9
_BACKWARD_REACH = 11
_WELL = ("normal", "clear")  # said of every bearer of a list: "heart, mediastinum and hila are normal"
_SHARED = (*_WELL, "calcified")
_OF = frozenset(
    ("of", "in", "involving", "within", "at", "affecting", "along", "about", "on", "throughout", "to", "seen in",
     "noted in", "present in")
)  # fmt: skip
_ADVERSATIVES = frozenset(("but", "although", "though", "yet"))
_PREDICATE = frozenset((VERB, HEDGE, HEDGE_AFTER, FILLER, SEVERITY))
_JOINABLE = frozenset((STATE, SIDE, SITE, SEVERITY, PATTERN, FILLER))
_PHRASE_ENDS = frozenset((TERMINATOR, HEDGE, CONDITION, NEGATION, NEGATION_AFTER))
_PHRASE = QUALIFIERS | {DETERMINER, FILLER, STATE, BEARER, CATEGORY}


def find_mentions(sentence: Sentence, compositions: Compositions) -> list[Mention]:
    """Return the findings a sentence mentions, in the order of the text, certainty not yet judged."""
    items = sentence.items
    composed = _composed(sentence, compositions) if sentence.kinds >> STATE & 1 else []
    named = [item for item in items if item[0] == CATEGORY]
    if not composed:
        return [_named(item) for item in named]
    composed = _without_weaker(composed)
    mentions = composed + [_named(item) for item in named if not _covered(item, composed)]
    mentions.sort(key=_position)
    return mentions


def _position(mention: Mention) -> tuple[int, int]:
    return mention.start, mention.end


def _named(item: Item) -> Mention:
    return Mention(item[2], item[3], item[1], None, Alignment.EXACT, item[2])


def _composed(sentence: Sentence, compositions: Compositions) -> list[Mention]:
    items = sentence.items
    states = {(item[2], item[3]) for item in items if item[0] == STATE}
    composed: list[Mention] = []
    taken: set[tuple[int, int, str]] = set()
    for number, (kind, value, start, end) in enumerate(items):
        if kind != STATE:
            continue
        found = _following(sentence, number, states, compositions) or _preceding(sentence, number, states, compositions)
        for bearer, rule in found:
            key = (bearer[2], bearer[3], rule.category)
            if key in taken:
                continue
            taken.add(key)
            first, last = min(start, bearer[2]), max(end, bearer[3])
            if len(found) > 1 or (value in _WELL and _is_listed(items, bearer[3], start)):
                first, last = bearer[2], bearer[3]  # one state of a list: what stands between belongs to the others
            stated = None if rule.certainty is Certainty.PRESENT else rule.certainty
            mention = Mention(first, last, rule.category, stated, rule.alignment, start)
            mention.bearer = str(bearer[1])
            if rule.severity:
                mention.severity = rule.severity
                mention.evidence.append(("severity", start, end))
            if stated is Certainty.ABSENT:
                mention.evidence.append(("certainty", start, end))
            composed.append(mention)
            if rule.also is not None:
                composed.append(Mention(first, last, rule.also, stated, rule.alignment, first))
                composed[-1].bearer = mention.bearer
    return composed


def _is_listed(items: Sequence[Item], end: int, start: int) -> bool:
    """Whether others stand between a bearer and its state: "mediastinum, soft tissues and airways are normal"."""
    between = {item[0] for item in items if end <= item[2] and item[3] <= start}
    return not between.isdisjoint(CONJUNCTIONS)


def _covered(item: Item, composed: Sequence[Mention]) -> bool:
    """Whether a named category is a part of a composed finding: "calcification" of "calcification of the aorta"."""
    _, value, start, end = item
    for mention in composed:
        if mention.start <= start and end <= mention.end:
            at_edge = mention.start == start or mention.end == end
            if at_edge or value in (mention.bearer, mention.category):
                return True
    return False


def _without_weaker(composed: list[Mention]) -> list[Mention]:
    """Drop a composed finding that repeats another of the same category on overlapping words."""
    if len(composed) == 1:
        return composed
    kept: list[Mention] = []
    for mention in sorted(composed, key=lambda m: (m.severity is None, m.end - m.start)):
        if not any(m.category == mention.category and m.start < mention.end and mention.start < m.end for m in kept):
            kept.append(mention)
    return kept


def _following(  # noqa: PLR0912 - one pass over a phrase, a branch for each kind of term
    sentence: Sentence, number: int, states: set[tuple[int, int]], compositions: Compositions
) -> Found:
    """Bearers in the noun phrase behind a state: the last one that composes is its head."""
    items = sentence.items
    _, value, state_start, state_end = items[number]
    clause_end = sentence.span(state_start)[1]
    best: tuple[Item, Composed] | None = None
    shared: Found = []
    last = state_end
    of_used = behind_verb = False
    for at in range(number + 1, len(items)):
        later = items[at]
        kind, noun, start, end = later
        if start < state_end:
            continue
        if start >= clause_end or start - last > _FORWARD_REACH or kind in _PHRASE_ENDS:
            break
        if kind == VERB:  # "prominence is noted to the pulmonary arteries"
            if best is not None:
                break
            behind_verb = True
        elif kind in NOUNS:
            if behind_verb and not of_used:
                break
            rule = compositions.get((noun, value))
            if rule is not None:
                if best is not None and start > best[0][3] + 1 and value in _SHARED and _alike(best[0], later):
                    shared.append(best)
                best = (later, rule)
                last = end
            elif kind == CATEGORY and (start, end) not in states:
                best = None  # the head of the phrase is a finding: "prominent perihilar opacities"
                break
        elif kind == PREPOSITION:
            if best is not None or of_used or noun not in _OF or (start > state_end + 1 and not behind_verb):
                break
            of_used = True
        elif kind in CONJUNCTIONS:
            if not _goes_on(items, at, value, opened=best is not None):
                break
        elif (kind == DETERMINER and best is not None and value not in _WELL) or kind not in _PHRASE:
            break
    return [] if best is None else [*shared, best]


def _alike(first: Item, second: Item) -> bool:
    """Whether two nouns are both anatomy or both findings: the lung of "left lung and hilar granulomas" is a place."""
    return (first[0] == CATEGORY) == (second[0] == CATEGORY)


def _goes_on(items: Sequence[Item], at: int, state: str, *, opened: bool) -> bool:
    """Whether a noun phrase goes on behind a conjunction: before its noun or, once it is found, behind that."""
    if not opened:
        return _alike_around(items, items[at])
    return state in _SHARED or _noun_follows(items, items[at])


def _alike_around(items: Sequence[Item], conjunction: Item) -> bool:
    """Whether a conjunction joins words of one kind: "tortuous and calcified aorta", "left and right hila"."""
    _, _, first, last = conjunction
    before = {item[0] for item in items if item[3] == first}
    start = last
    for kind, _, begin, end in items:  # "calcified and mildly tortuous aorta"
        if begin == start and kind in (SEVERITY, CHANGE):
            start = end
    after = {item[0] for item in items if item[2] in (start, last)}
    return bool(before & after & _JOINABLE)


def _noun_follows(items: Sequence[Item], conjunction: Item) -> bool:
    """Whether a further noun of the same phrase follows: "calcified hilar and mediastinal lymph nodes"."""
    for kind, _, start, _ in items:
        if start >= conjunction[3] and kind not in (SIDE, FILLER):
            return kind in (SITE, BEARER)
    return False


def _preceding(sentence: Sentence, number: int, states: set[tuple[int, int]], compositions: Compositions) -> Found:
    """Bearers that a state is said of: the nearest before it, with those coordinated with it for "normal"."""
    items = sentence.items
    _, value, state_start, _ = items[number]
    if value not in _WELL and _premodifies(items, number):
        return []
    clause = sentence.span(state_start)[0]
    begin = _subject_begin(sentence, number, clause)
    found: Found = []
    edge = state_start
    for at in range(number - 1, -1, -1):
        earlier = items[at]
        kind, noun, start, end = earlier
        if end > state_start or (kind == COMMA and end == clause):
            continue
        if start < begin or edge - end > _BACKWARD_REACH or kind == CONDITION:
            break
        if kind == TERMINATOR and noun not in _ADVERSATIVES:
            break
        if kind in NOUNS:
            rule = compositions.get((noun, value))
            if rule is not None:
                if any(bearer[2] < end and start < bearer[3] for bearer, _ in found):
                    continue
                found.append((earlier, rule))
                edge = start
                if value not in _WELL:
                    break
                continue
            if kind == CATEGORY and not found and (start, end) not in states and value not in _WELL:
                break
        if _parts(kind, noun, value, found=bool(found)):
            break
    return found


def _premodifies(items: Sequence[Item], number: int) -> bool:
    """Whether a state is an adjective of the finding behind it: the "large" of "given the large left effusion"."""
    end = items[number][3]
    for kind, _, start, stop in items[number + 1 :]:
        if start < end:
            continue
        if start > end or kind not in QUALIFIERS:
            return kind == CATEGORY and start == end
        end = stop
    return False


def _subject_begin(sentence: Sentence, number: int, clause: int) -> int:
    """Return where the subject of a state may begin.

    It stands in the state's own clause, or in the one before "but" where that has no noun: "heart size is hard to
    judge but appears enlarged".
    """
    if not clause:
        return 0
    within = [item for item in sentence.items[:number] if item[2] >= clause]
    goes_on = bool(within) and within[0][1] in _ADVERSATIVES and all(item[0] in _PREDICATE for item in within[1:])
    return sentence.span(clause - 1)[0] if goes_on else clause


def _parts(kind: int, word: object, state: str, *, found: bool) -> bool:
    """Whether an item parts a state from what stands before it."""
    if kind == NEGATION:
        return found or word == "no"
    if kind == VERB:
        return found
    return kind == COMMA and not found and state not in _WELL
