"""Renders sentence templates and notes, for every word that fills a slot, where it stands.

A template is plain text with ``{name}`` for a slot and ``<...>`` around the words that name a finding:
``"There is {a} {degree} {laterality} <pleural effusion>."`` An empty slot vanishes together with the blank behind it;
``{a}`` becomes the article of whatever word follows. ``{name}`` holds for every finding of the sentence, ``{name@1}``
for the second alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from medfilip.findings.finding import Alignment, Certainty, Evidence, Finding, Hedge
from medfilip.phantom.dice import Dice

_TOKEN = re.compile(r"\{(?P<slot>\w+(?:@\d)?)\}(?P<blank> ?)|(?P<mark>[<>])|(?P<text>[^{<>]+)")
_LISTS = {"site": "sites", "pattern": "patterns"}
_LONG_WORD = re.compile(r"[a-z]{6,}")


@dataclass(frozen=True)
class Slot:
    """Words of a report and what they say: ``Slot("size", "moderate-sized", "medium")``.

    ``also`` holds what else the same words say: "RLL" is a side and a site.
    """

    name: str
    words: str
    value: str | float
    also: tuple[tuple[str, str], ...] = ()

    @property
    def says(self) -> tuple[tuple[str, str | float], ...]:
        """Every (slot, value) of the words."""
        return ((self.name, self.value), *self.also)


@dataclass
class ReportWriter:
    """Collects the text of a report and the findings that it states.

    ``typos`` is the share of sentences with a misspelt word; spans cover the word as it is written.
    """

    text: str = ""
    findings: list[Finding] = field(default_factory=list)
    dice: Dice | None = None
    typos: float = 0.0

    def plain(self, text: str) -> None:
        """Append words that state no finding."""
        self.text += text

    def state(
        self,
        template: str,
        categories: tuple[str, ...],
        slots: Mapping[str, Slot | None],
        *,
        certainty: Certainty | Sequence[Certainty] = Certainty.PRESENT,
        hedge: Hedge | Sequence[Hedge | None] | None = None,
        alignment: Alignment = Alignment.EXACT,
    ) -> None:
        """Append a sentence and the findings it states, one for each ``<...>`` in the order of ``categories``.

        Certainty and hedge are given once for all findings of the sentence or for each. Spans of the findings are
        offsets into the whole report.
        """
        words, spans, mentions = render(template, slots)
        if self.dice is not None and self.dice.chance(self.typos):
            words, spans, mentions = misspell(words, spans, mentions, self.dice)
        start = len(self.text)
        self.text += words if self.text.endswith(" and ") else words[:1].upper() + words[1:]
        certainties = (certainty,) * len(categories) if isinstance(certainty, Certainty) else certainty
        hedges = (hedge,) * len(categories) if hedge is None or isinstance(hedge, Hedge) else hedge
        for number, (category, (begin, end)) in enumerate(zip(categories, mentions, strict=True)):
            own = [(slots[name], at, to) for name, at, to in spans if "@" not in name or name.endswith(f"@{number}")]
            said = [(slot, value, at, to) for one, at, to in own if one is not None for slot, value in one.says]
            places = [("mention", begin, end), *((slot, at, to) for slot, _, at, to in said)]
            self.findings.append(
                Finding(
                    category=category,
                    certainty=certainties[number],
                    hedge=hedges[number],
                    alignment=alignment,
                    evidence=tuple(Evidence(slot=name, start=start + at, end=start + to) for name, at, to in places),
                    **_values([(slot, value) for slot, value, _, _ in said]),
                )
            )


@lru_cache(maxsize=8192)
def _tokens(template: str) -> tuple[tuple[str | None, str, str, str], ...]:
    return tuple(
        (match["slot"], match["blank"] or "", match["mark"] or "", match["text"] or "")
        for match in _TOKEN.finditer(template)
    )


def render(
    template: str, slots: Mapping[str, Slot | None]
) -> tuple[str, list[tuple[str, int, int]], list[tuple[int, int]]]:
    """Fill a template.

    Returns
    -------
    text
        The sentence, without a capital at its start.
    spans
        Placeholder name, start and end of every slot that has words.
    mentions
        Start and end of every ``<...>``.
    """
    pieces: list[tuple[str, str]] = []  # (kind, words); kind is a placeholder name, "<", ">" or ""
    for name, blank, mark, text in _tokens(template):
        if name == "a":
            pieces += [("a", ""), ("", blank)]
        elif name:
            slot = slots.get(name)
            pieces += [(name, slot.words), ("", blank)] if slot is not None else []
        else:
            pieces.append((mark, text))
    text, spans, mentions, opened = "", [], [], 0
    for index, (kind, words) in enumerate(pieces):
        begin = len(text)
        if kind == "a":
            text += _article("".join(later for _, later in pieces[index + 1 :]).lstrip())
        elif kind == "<":
            opened = begin
        elif kind == ">":
            mentions.append((opened, begin))
        else:
            text += words
            if kind:
                spans.append((kind, begin, len(text)))
    return text, spans, mentions


def misspell(
    words: str, spans: list[tuple[str, int, int]], mentions: list[tuple[int, int]], dice: Dice
) -> tuple[str, list[tuple[str, int, int]], list[tuple[int, int]]]:
    """Swap, drop or double a letter inside one long word, and move the spans with it."""
    found = list(_LONG_WORD.finditer(words))
    if not found:
        return words, spans, mentions
    word = dice.pick(found)
    at = dice.number(word.start() + 1, word.end() - 2)
    kind = dice.number(0, 3)
    if kind == 0 and words[at] != words[at + 1]:
        return words[:at] + words[at + 1] + words[at] + words[at + 2 :], spans, mentions
    shift = 1 if kind == 2 else -1
    words = words[:at] + words[at + 1 :] if shift < 0 else words[:at] + words[at] + words[at:]

    def moved(offset: int) -> int:
        return offset + shift if offset > at else offset

    return (
        words,
        [(name, moved(start), moved(end)) for name, start, end in spans],
        [(moved(start), moved(end)) for start, end in mentions],
    )


def _article(following: str) -> str:
    # "8", "11" and "18" are read "eight", "eleven", "eighteen"; abbreviations letter by letter.
    return "an" if re.match(r"[aeiou]|8|11\b|18\b|(?:RUL|RML|RLL|LUL|LLL|ET|NG)\b", following) else "a"


def _values(said: Sequence[tuple[str, str | float]]) -> dict[str, Any]:
    """Fields of a finding that the slots fill; certainty and hedge are given by the caller."""
    fields: dict[str, Any] = {}
    for name, value in said:
        if name in _LISTS:
            fields[_LISTS[name]] = (*fields.get(_LISTS[name], ()), str(value))
        elif name != "certainty":
            fields[name] = value
    return fields
