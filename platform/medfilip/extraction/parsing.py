"""A sentence as the rules see it: items (what each known term does) and clauses.

Positions are token numbers; spans are half open. A term may stand in several readings: "increased" is a state of
vessels and a change over time. Items are plain tuples and kinds plain integers, since every sentence of a corpus
passes here: an attribute or an enumeration costs more than the rule that looks at it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, TypeAlias

from medfilip.extraction.lexicon_data import Kind, Node
from medfilip.extraction.words import NUMBER

Item: TypeAlias = tuple[int, Any, int, int]
"""(kind, value, start, end)."""

CATEGORY = int(Kind.CATEGORY)
BEARER = int(Kind.BEARER)
STATE = int(Kind.STATE)
SITE = int(Kind.SITE)
SIDE = int(Kind.SIDE)
SEVERITY = int(Kind.SEVERITY)
SIZE = int(Kind.SIZE)
PATTERN = int(Kind.PATTERN)
CHANGE = int(Kind.CHANGE)
CHRONICITY = int(Kind.CHRONICITY)
COUNT = int(Kind.COUNT)
POSITION = int(Kind.POSITION)
NEGATION = int(Kind.NEGATION)
NEGATION_AFTER = int(Kind.NEGATION_AFTER)
HEDGE = int(Kind.HEDGE)
HEDGE_AFTER = int(Kind.HEDGE_AFTER)
CONDITION = int(Kind.CONDITION)
TERMINATOR = int(Kind.TERMINATOR)
EXPLANATION = int(Kind.EXPLANATION)
PREPOSITION = int(Kind.PREPOSITION)
VERB = int(Kind.VERB)
AND = int(Kind.AND)
OR = int(Kind.OR)
COMMA = int(Kind.COMMA)
DETERMINER = int(Kind.DETERMINER)
FILLER = int(Kind.FILLER)
ABNORMAL = int(Kind.ABNORMAL)
MASK = int(Kind.MASK)
ELSEWHERE = int(Kind.ELSEWHERE)

QUALIFIERS = frozenset((SIDE, SITE, SEVERITY, SIZE, PATTERN, CHANGE, CHRONICITY, COUNT))
CONJUNCTIONS = frozenset((AND, OR, COMMA))
NOUNS = frozenset((CATEGORY, BEARER, SITE))

_MATTER = frozenset((CATEGORY, BEARER, SITE, STATE))
_PLACE_WORDS = frozenset((PREPOSITION, SIDE, SITE, BEARER, FILLER, DETERMINER, COMMA, SIZE, PATTERN, MASK, ELSEWHERE))
_HEADING = _PLACE_WORDS | {CATEGORY, STATE, AND, OR}
_OF_HEADING = frozenset((":", "-", "–", "—"))
_LEADING = frozenset((NEGATION, HEDGE, CONDITION, EXPLANATION, VERB, PREPOSITION))
_SUBJECTS = frozenset((VERB, BEARER, SITE, FILLER, TERMINATOR))
_NONE = frozenset(("none", "no", "nil", "absent", "negative", "neg", "unremarkable"))
_THERE = frozenset(("there is", "there are", "there has been", "there have been", "there remain", "there remains"))
_WELL = frozenset(("normal", "clear"))
RELATIVE = frozenset(("which", "that"))
NUMERALS = frozenset((NUMBER, "st", "nd", "rd", "th"))


def bits(*kinds: int) -> int:
    """Return a bit set of kinds, to be tested against `Sentence.kinds`."""
    return sum(1 << kind for kind in kinds)


_JOINING = bits(AND, COMMA)
_PARTING = bits(TERMINATOR, AND, COMMA, DETERMINER)


class Sentence:
    """Words, items and clauses of a sentence.

    Attributes
    ----------
    words
        Its tokens in normal form.
    folded
        Its tokens as the lexicon knows them, ``""`` where it does not.
    items
        Its terms in the order of the text.
    kinds
        Bit set of the kinds that occur.
    starts
        First token of each clause: the parts that a cue or a qualifier does not reach across.
    """

    __slots__ = ("folded", "items", "kinds", "starts", "words")

    def __init__(self, words: Sequence[str], folded: Sequence[str], root: dict[str, Node]) -> None:
        self.words = words
        self.folded = folded
        self.items, self.kinds = read_items(folded, root)
        if NUMBER in folded and self.kinds & _JOINING:
            _join_numbers(self.items, folded)
        self.starts = [0]
        if self.kinds & _PARTING:
            if self.kinds >> TERMINATOR & 1:
                _read_marks(self.items)
                self.items = _read_heading(self.items, words)
                self.kinds |= 1 << NEGATION_AFTER if any(i[0] == NEGATION_AFTER for i in self.items) else 0
            self._part()

    def _part(self) -> None:
        items, starts = self.items, self.starts
        since = 0
        for number, item in enumerate(items):
            kind = item[0]
            if (
                (kind == TERMINATOR and not (item[1] in _THERE and _is_fronted(items, number)))
                or ((kind in (AND, COMMA)) and _begins_statement(items, number, since))
                or (kind == DETERMINER and item[1] == "the" and _runs_on(items, number))
            ):
                starts.append(item[2])
                since = number
        starts.sort()

    def clause(self, token: int) -> int:
        """Return the number of the clause a token stands in."""
        return bisect_right(self.starts, token) - 1

    def span(self, token: int) -> tuple[int, int]:
        """Return the half-open span of the clause a token stands in."""
        starts = self.starts
        if len(starts) == 1:
            return 0, len(self.words)
        number = bisect_right(starts, token)
        return starts[number - 1], starts[number] if number < len(starts) else len(self.words)


def read_items(words: Sequence[str], root: dict[str, Node]) -> tuple[list[Item], int]:
    """Find the longest term at each word, left to right; return the items and the bit set of their kinds."""
    items: list[Item] = []
    kinds = 0
    skip = 0
    count = len(words)
    for at, node in enumerate(map(root.get, words)):
        if node is None or at < skip:
            continue
        best: Node | None = node if node[0] else None
        after = ahead = at + 1
        children = node[1]
        while children and ahead < count:
            further = children.get(words[ahead])
            if further is None:
                break
            ahead += 1
            children = further[1]
            if further[0]:
                best, after = further, ahead
        if best is None:
            continue
        kinds |= best[2]
        for kind, value in best[0]:
            items.append((kind, value, at, after))
        skip = after
    return items, kinds


def _join_numbers(items: list[Item], folded: Sequence[str]) -> None:
    """Read what joins the numbers of a list as a part of it: "the left 4th, 5th and 6th ribs" are one place."""
    for number, (kind, value, start, end) in enumerate(items):
        if kind in (AND, COMMA) and start and folded[start - 1] in NUMERALS:
            after = end + 1 if end < len(folded) and folded[end] in ("and", "through") else end
            if after < len(folded) and folded[after] == NUMBER:
                items[number] = (FILLER, value, start, end)


def _read_marks(items: list[Item]) -> None:
    """Read marks that part nothing: the colon of "negative for: edema", the brackets of "nodule (8 mm) in the apex".

    "Otherwise" parts what it begins, not the subject from its state: "the lungs are otherwise clear".
    """
    opened = -1
    for number, (kind, value, start, end) in enumerate(items):
        if kind in (CATEGORY, BEARER, NEGATION):
            opened = -1
        if kind != TERMINATOR:
            continue
        if value == ")" and opened >= 0:
            items[opened] = (FILLER, "(", *items[opened][2:])
            items[number] = (FILLER, value, start, end)
        if value == "otherwise" and number and items[number - 1][3] == start and items[number - 1][0] in _SUBJECTS:
            items[number] = (FILLER, value, start, end)
        opened = number if value == "(" and number and items[number - 1][3] == start else -1
        if value == ":" and number and items[number - 1][3] == start and items[number - 1][0] in _LEADING:
            items[number] = (FILLER, value, start, end)


def _read_heading(items: list[Item], words: Sequence[str]) -> list[Item]:
    """Read the colon behind a heading as "is": "heart: normal in size", "pneumothorax: none".

    A heading that names findings and is followed by findings is a title, and states nothing: "tubes and lines: …".
    """
    number = next((n for n, item in enumerate(items) if item[0] not in _HEADING), len(items))
    if not number or number == len(items) or items[number][0] != TERMINATOR or items[number][1] not in _OF_HEADING:
        return items
    _, _, colon, value = items[number]
    kinds = {item[0] for item in items[:number]}
    if CATEGORY in kinds:
        if any(item[0] == CATEGORY for item in items[number + 1 :]):
            named = {item[2:] for item in items[:number] if item[0] == CATEGORY}
            said = any(i[0] in QUALIFIERS or (i[0] == STATE and i[2:] not in named) for i in items[:number])
            return items if said else items[number:]
        if value < len(words) and words[value] in _NONE:
            return [*items[:number], (NEGATION_AFTER, "none", colon, value + 1), *items[number + 2 :]]
    items[number] = (VERB, ":", colon, value)
    return items


def _is_fronted(items: Sequence[Item], number: int) -> bool:
    """Whether only a place stands before "there is": "in the left upper lobe, there is a nodule"."""
    start = items[number][2]
    earlier = [item for item in items[:number] if item[3] <= start]
    return bool(earlier) and all(item[0] in _PLACE_WORDS for item in earlier)


def _begins_statement(items: Sequence[Item], number: int, since: int) -> bool:
    """Whether a comma or "and" is followed by a statement of its own: a noun and its verb, or a new denial.

    ``since`` is the item that begins the statement before it.

    "…is normal, and the lungs are clear" begins one; "heart, mediastinum and hila are normal" does not.
    """
    if number + 1 >= len(items):
        return False
    if any(item[0] in _MATTER for item in items[:number]):
        if _opens(items, number):
            return True
        if _ends_statement(items, number):
            return any(item[0] in NOUNS for item in items[number + 1 :])
    subject = _subject(items, number)
    return subject is not None and _has_said(items[since:number], subject)


def _has_said(items: Sequence[Item], subject: int) -> bool:
    """Whether the items before a conjunction are a statement that one about a ``subject`` does not go on with.

    "No effusion and consolidation is seen" goes on with its list, "no effusion and the heart is enlarged" does not.
    """
    for kind, value, _, _ in reversed(items):
        if kind == VERB or (kind == STATE and value in _WELL):
            return True
        if kind == NEGATION:
            return subject != CATEGORY
        if kind == TERMINATOR:
            break
    return False


def _opens(items: Sequence[Item], number: int) -> bool:
    """Whether the very word behind a conjunction opens a statement: a new denial, or an article.

    "No pneumothorax, a small effusion": what is denied in a list has no article. "Likely atelectasis, and a small
    effusion": a comma before "and" ends what is hedged.
    """
    kind, value, _, _ = items[number + 1]
    if kind == NEGATION:
        return value not in ("nor", "neither")
    if kind != DETERMINER or value not in ("a", "an", "the"):
        return False
    if value == "the":  # "no pneumothorax, and the effusion has resolved"
        return any(item[0] == NEGATION for item in items[:number]) and any(item[0] == VERB for item in items[number:])
    before = items[number - 1]
    parted = items[number][0] == AND and before[0] == COMMA and before[3] == items[number][2]
    return parted or any(item[0] == NEGATION for item in items[:number])


def _ends_statement(items: Sequence[Item], number: int) -> bool:
    """Whether a comma stands right behind the verb that ends a statement: "no effusion is seen, hilar nodes…"."""
    kind, value, _, _ = items[number]
    before = items[number - 1]
    return kind == COMMA and value == "," and before[0] == VERB and before[3] == items[number][2]


def _subject(items: Sequence[Item], number: int) -> int | None:
    """Return the kind of the noun that, with its verb, follows a conjunction; ``None`` if no statement follows."""
    end = items[number][3]
    subject: int | None = None
    for kind, value, start, _ in items[number + 1 :]:
        if kind == VERB or (kind == STATE and subject is not None and value in _WELL):
            return subject
        if kind in (OR, TERMINATOR) or (kind in (AND, COMMA) and start > end and subject in (None, CATEGORY)):
            return None
        if kind == PREPOSITION and subject is None:
            return None
        if subject is None and kind in NOUNS:
            subject = kind
    return None


def _runs_on(items: Sequence[Item], number: int) -> bool:
    """Whether a new sentence begins at an article although no mark ends the one before: "…effusion the lungs are…"."""
    if not number or items[number - 1][3] != items[number][2] or items[number - 1][0] not in (CATEGORY, SITE):
        return False
    if not any(item[0] in (VERB, NEGATION) for item in items[:number]):
        return False
    after = items[number + 1 : number + 5]
    return bool(after) and after[0][0] in (BEARER, SITE) and any(item[0] == VERB for item in after)
