"""How certain a sentence is of each finding: the reach of denials, hedges, conditions and explanations."""

from __future__ import annotations

from collections.abc import Sequence

from medfilip.extraction.mention import Mention
from medfilip.extraction.parsing import (
    AND,
    BEARER,
    CHANGE,
    CHRONICITY,
    COMMA,
    CONDITION,
    DETERMINER,
    EXPLANATION,
    HEDGE,
    HEDGE_AFTER,
    NEGATION,
    NEGATION_AFTER,
    OR,
    RELATIVE,
    SEVERITY,
    VERB,
    Item,
    Sentence,
    bits,
)
from medfilip.findings.finding import Certainty, Hedge

_STRENGTH = {Hedge.CANNOT_EXCLUDE: 0, Hedge.POSSIBLE: 1, Hedge.VERSUS: 2, Hedge.PROBABLE: 3}
_NARROW_DENIAL = frozenset(("not", "resolved", "excluded", "never"))
_NARROW_REACH = 4
_ADJECTIVES = frozenset(("resolved", "removed", "excluded", "absent", "unlikely", "nil"))
_BREAKING_CHANGES = frozenset(("unchanged", "new", "increased", "decreased"))
_CUES = bits(NEGATION, NEGATION_AFTER, HEDGE, HEDGE_AFTER, CONDITION, OR)
_DENIALS = bits(NEGATION, NEGATION_AFTER)
_HEDGES = bits(HEDGE, HEDGE_AFTER)


def judge(mentions: list[Mention], sentence: Sentence, stating: frozenset[Hedge]) -> list[Mention]:
    """Set certainty and hedge of each mention, in place; return those that the sentence states at all.

    ``stating`` are the hedges that state a finding although they hedge.
    """
    if not sentence.kinds & _CUES:
        for mention in mentions:
            if mention.certainty is None:
                mention.certainty = Certainty.PRESENT
        return mentions
    return _Scopes(mentions, sentence).judge(stating)


class _Scopes:
    """The cues of a sentence and where their reach ends."""

    def __init__(self, mentions: list[Mention], sentence: Sentence) -> None:
        self.mentions = mentions
        self.sentence = sentence
        items, kinds = sentence.items, sentence.kinds
        self.denials = [i for i in items if i[0] in (NEGATION, NEGATION_AFTER)] if kinds & _DENIALS else []
        self.hedges = [i for i in items if i[0] in (HEDGE, HEDGE_AFTER)] if kinds & _HEDGES else []
        self.conditions = [i for i in items if i[0] == CONDITION] if kinds >> CONDITION & 1 else []
        self.explanations = [i for i in items if i[0] == EXPLANATION] if kinds >> EXPLANATION & 1 else []
        self.barriers = _barriers(items) if kinds & bits(AND, COMMA) else []

    def judge(self, stating: frozenset[Hedge]) -> list[Mention]:
        return [mention for mention in self.mentions if self._judge(mention, stating)]

    def _judge(self, mention: Mention, stating: frozenset[Hedge]) -> bool:
        begin, end = self.sentence.span(mention.start)
        for cue in self.conditions:
            if begin <= cue[2] and cue[3] <= mention.start:
                return False
        denial = self._denial(mention, begin, end) if self.denials else None
        hedge = self._hedge(mention, begin, end) if self.hedges else None
        if mention.certainty is Certainty.ABSENT:  # "heart size is normal"
            if denial is not None and denial[0] == NEGATION and denial[1] == "not":
                mention.certainty = Certainty.PRESENT
                mention.evidence.append(("certainty", denial[2], denial[3]))
            return hedge is None or hedge[1] is not Hedge.CANNOT_EXCLUDE
        if denial is not None and (hedge is None or hedge[1] != Hedge.CANNOT_EXCLUDE):
            mention.certainty = Certainty.ABSENT
            mention.evidence.append(("certainty", denial[2], denial[3]))
            return True
        mention.certainty = Certainty.PRESENT
        if hedge is not None:
            mention.hedge = hedge[1]
            mention.evidence.append(("hedge", hedge[2], hedge[3]))
            if hedge[1] not in stating:
                mention.certainty = Certainty.UNCERTAIN
        return True

    def _barred(self, start: int, stop: int) -> bool:
        """Whether a list that a cue covers ends between two tokens."""
        return any(start <= barrier <= stop for barrier in self.barriers)

    def _reaches_back(self, mention: Mention, cue: Item, end: int) -> bool:
        """Whether a hedge behind a finding is its own: "edema is possible", not "edema with possible effusion".

        Of a list it is all that "and" or "or" joins: "cardiomegaly, effusion and edema are possible"; behind "with" or
        a mere comma it is the last alone.
        """
        _, _, start, stop = cue
        if self._explained(mention.end, start):
            return False
        if stop - start == 1 and any(stop <= other.start < end for other in self.mentions):
            return False
        later = [other for other in self.mentions if mention.end <= other.start and other.end <= start]
        if not later:
            return True
        joints = [i for i in self.sentence.items if i[0] in (AND, OR, COMMA) and mention.end <= i[2] < later[-1].start]
        return bool(joints) and joints[-1][0] != COMMA and not any(str(i[1]).startswith("with") for i in joints)

    def _explained(self, start: int, stop: int) -> bool:
        """Whether something is explained between two tokens: "opacity due to edema, which is likely"."""
        return any(start <= item[2] and item[3] <= stop for item in self.explanations)

    def _denial(self, mention: Mention, begin: int, end: int) -> Item | None:
        last = max(mention.start, mention.denial_end)
        for cue in reversed(self.denials):
            kind, value, start, stop = cue
            if kind != NEGATION or start < begin or stop > last:
                continue
            if value in _NARROW_DENIAL and last - stop > _NARROW_REACH:
                continue
            if self._barred(stop, mention.start):
                continue
            if self._explained(stop, mention.start):
                continue
            return cue
        for cue in self.denials:
            if cue[0] == NEGATION_AFTER and (mention.end <= cue[2] < end or self._takes_up(mention, cue, end)):
                if cue[1] in _ADJECTIVES and not self._is_said(cue, end):
                    continue
                if any(other.denial_end == cue[2] and other.start >= mention.end for other in self.mentions):
                    continue  # "an effusion, heart size within normal limits": said of an organ after the finding
                if self._says_tip(mention, cue[2]) or (cue[1] == "removal" and cue[2] != mention.end):
                    continue
                return None if self._barred(mention.end, cue[2]) else cue
        return None

    def _takes_up(self, mention: Mention, cue: Item, end: int) -> bool:
        """Whether a denial opens a clause about the last finding before it: "an effusion, which has resolved"."""
        if not 0 < cue[2] - end <= _NARROW_REACH or any(mention.end <= m.start < cue[2] for m in self.mentions):
            return False
        return any(i[2] == end and i[1] in RELATIVE for i in self.sentence.items)

    def _says_tip(self, mention: Mention, start: int) -> bool:
        """Whether a denial is of a tip: "enteric tube tip not seen", "the tip of the line is not seen"."""
        tips = [i for i in self.sentence.items if i[0] == BEARER and i[1] == "catheter_tip"]
        between = any(mention.start <= tip[2] and tip[3] <= start for tip in tips)
        return between or any(0 <= mention.start - tip[3] <= _NARROW_REACH for tip in tips)

    def _is_said(self, cue: Item, end: int) -> bool:
        """Whether a word such as "resolved" is said of the subject and does not stand before a noun of its own."""
        if cue[3] >= end:
            return True
        return any(item[0] == VERB and 0 <= cue[2] - item[3] <= 2 for item in self.sentence.items)

    def _hedge(self, mention: Mention, begin: int, end: int) -> Item | None:
        """Return the strongest hedge whose reach holds the mention."""
        last = max(mention.start, mention.denial_end)
        best: Item | None = None
        for cue in self.hedges:
            kind, value, start, stop = cue
            if kind == HEDGE_AFTER:
                reaches = mention.end <= start < end and self._reaches_back(mention, cue, end)
            elif value == Hedge.VERSUS:
                reaches = begin <= start and self._joins(mention, start, stop, end)
            else:
                reaches = begin <= start and stop <= last and not self._barred(stop, mention.start)
            if reaches and (best is None or _STRENGTH[value] < _STRENGTH[best[1]]):
                best = cue
        return best

    def _joins(self, mention: Mention, start: int, stop: int, end: int) -> bool:
        """Whether "versus" or "or" stands between a mention and its neighbour."""
        begin = self.sentence.span(mention.start)[0]
        if mention.end <= start:
            following = [other.start for other in self.mentions if other.start >= mention.end]
            return bool(following) and start < min(following) < end
        if stop > mention.start:
            return False
        left = any(begin <= other.start and other.end <= start for other in self.mentions)
        between = any(stop <= other.start and other.end <= mention.start for other in self.mentions)
        return left and not between


def _barriers(items: Sequence[Item]) -> list[int]:
    """Tokens at which a list that a cue covers ends: "no effusion, stable cardiomegaly"."""
    found: list[int] = []
    alternatives = [item[2] for item in items if item[0] == OR]
    for number, (kind, joint, conjunction, end) in enumerate(items):
        if kind not in (AND, COMMA):
            continue
        for later, value, start, _ in items[number + 1 :]:
            if start < end:
                continue
            if (
                (later == CHANGE and value in _BREAKING_CHANGES)
                or (later == SEVERITY and not any(at > conjunction for at in alternatives))
                or (later == CHRONICITY and value != "acute" and str(joint).startswith("with"))
            ):
                found.append(conjunction)
            if later != DETERMINER:
                break
    return found
