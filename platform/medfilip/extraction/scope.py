"""How certain a sentence is of each finding: the reach of denials, hedges, conditions and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from medfilip.extraction.composing import Mention
from medfilip.extraction.parsing import (
    AND,
    CHANGE,
    COMMA,
    CONDITION,
    CONJUNCTIONS,
    DETERMINER,
    EXPLANATION,
    HEDGE,
    HEDGE_AFTER,
    NEGATION,
    NEGATION_AFTER,
    OR,
    SEVERITY,
    VERB,
    Clauses,
    Item,
)
from medfilip.findings.finding import Certainty, Hedge

_STRENGTH = {Hedge.CANNOT_EXCLUDE: 0, Hedge.POSSIBLE: 1, Hedge.VERSUS: 2, Hedge.PROBABLE: 3}
_NARROW_DENIAL = frozenset(("not", "resolved", "excluded", "never"))
_NARROW_REACH = 4
_BREAKING_CHANGES = frozenset(("unchanged", "new", "increased", "decreased"))


def judge(
    mentions: Sequence[Mention], items: Sequence[Item], clauses: Clauses, stating: frozenset[Hedge]
) -> list[Mention]:
    """Set certainty and hedge of each mention, in place; return those that the sentence states at all.

    ``stating`` are the hedges that state a finding although they hedge.
    """
    cues = [item for item in items if item.kind in _CUES]
    if not cues:
        for mention in mentions:
            mention.certainty = mention.certainty or Certainty.PRESENT
        return list(mentions)
    barriers = _barriers(items)
    return [mention for mention in mentions if _judge(mention, mentions, items, cues, clauses, barriers, stating)]


_CUES = frozenset((NEGATION, NEGATION_AFTER, HEDGE, HEDGE_AFTER, CONDITION, OR))


def _judge(
    mention: Mention,
    mentions: Sequence[Mention],
    items: Sequence[Item],
    cues: Sequence[Item],
    clauses: Clauses,
    barriers: Sequence[int],
    stating: frozenset[Hedge],
) -> bool:
    begin, end = clauses.span(mention.start)
    if any(cue.kind == CONDITION and begin <= cue.start and cue.end <= mention.start for cue in cues):
        return False
    denial = _denial(mention, items, cues, begin, end, barriers)
    hedge = _hedge(mention, mentions, cues, begin, end, barriers)
    if mention.certainty is Certainty.ABSENT:  # "heart size is normal"
        if denial is not None and denial.kind == NEGATION and denial.value == "not":
            mention.certainty = Certainty.PRESENT
            mention.evidence.append(("certainty", denial.start, denial.end))
        return hedge is None or hedge.value is not Hedge.CANNOT_EXCLUDE
    mention.certainty = Certainty.PRESENT
    if denial is not None and (hedge is None or hedge.value != Hedge.CANNOT_EXCLUDE):
        mention.certainty = Certainty.ABSENT
        mention.evidence.append(("certainty", denial.start, denial.end))
        return True
    if hedge is not None:
        mention.hedge = Hedge(hedge.value)
        mention.evidence.append(("hedge", hedge.start, hedge.end))
        if mention.hedge not in stating:
            mention.certainty = Certainty.UNCERTAIN
    return True


def _denial(
    mention: Mention, items: Sequence[Item], cues: Sequence[Item], begin: int, end: int, barriers: Sequence[int]
) -> Item | None:
    last = max(mention.start, mention.denial_end)
    for cue in reversed(cues):
        if cue.kind != NEGATION or cue.start < begin or cue.end > last:
            continue
        if cue.value in _NARROW_DENIAL and last - cue.end > _NARROW_REACH:
            continue
        if any(cue.end <= barrier <= mention.start for barrier in barriers):
            continue
        if any(i.kind == EXPLANATION and cue.end <= i.start and i.end <= mention.start for i in items):
            continue
        return cue
    for cue in cues:
        if cue.kind == NEGATION_AFTER and mention.end <= cue.start < end:
            if any(mention.end <= barrier <= cue.start for barrier in barriers):
                return None
            return cue
    return None


def _hedge(
    mention: Mention, mentions: Sequence[Mention], cues: Sequence[Item], begin: int, end: int, barriers: Sequence[int]
) -> Item | None:
    """Return the strongest hedge whose reach holds the mention."""
    found: list[Item] = []
    last = max(mention.start, mention.denial_end)
    following = min((other.start for other in mentions if other.start >= mention.end), default=end)
    for cue in cues:
        if cue.kind == HEDGE and cue.value != Hedge.VERSUS:
            if begin <= cue.start and cue.end <= last:
                if not any(cue.end <= barrier <= mention.start for barrier in barriers):
                    found.append(cue)
        elif cue.kind == HEDGE_AFTER and mention.end <= cue.start < end:
            found.append(cue)
        elif cue.kind == HEDGE:  # versus, or
            joins_next = mention.end <= cue.start < following < end
            joins_previous = (
                cue.end <= mention.start
                and any(begin <= other.start and other.end <= cue.start for other in mentions)
                and not any(cue.end <= other.start and other.end <= mention.start for other in mentions)
            )
            if joins_next or (joins_previous and begin <= cue.start):
                found.append(cue)
    return min(found, key=lambda cue: _STRENGTH[Hedge(cue.value)], default=None)


def _barriers(items: Sequence[Item]) -> list[int]:
    """Tokens at which a list that a cue covers ends: "no effusion, stable cardiomegaly"."""
    found: list[int] = []
    alternatives = [item.start for item in items if item.kind == OR]
    for number, item in enumerate(items):
        if item.kind not in (AND, COMMA):
            continue
        for later in items[number + 1 :]:
            if later.start < item.end:
                continue
            if (later.kind == CHANGE and later.value in _BREAKING_CHANGES) or (
                later.kind == SEVERITY and not any(at > item.start for at in alternatives)
            ):
                found.append(item.start)
            if later.kind not in (DETERMINER,):
                break
    return found


__all__ = ["CONJUNCTIONS", "VERB", "judge"]
