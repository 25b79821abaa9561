"""Renders sentence templates and notes, for every word that fills a slot, where it stands.

A template is plain text with ``{name}`` for a slot and ``<...>`` around the words that name a finding:
``"There is {a} {degree} {laterality} <pleural effusion>."`` An empty slot vanishes together with the blank behind it;
``{a}`` becomes the article of whatever word follows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from medfilip.findings.finding import Alignment, Certainty, Evidence, Finding, Hedge

_TOKEN = re.compile(r"\{(?P<slot>\w+)\}(?P<blank> ?)|(?P<mark>[<>])|(?P<text>[^{<>]+)")
_LISTS = {"site": "sites", "pattern": "patterns"}


@dataclass(frozen=True)
class Slot:
    """Words of a report and what they say: ``Slot("size", "moderate-sized", "medium")``."""

    name: str
    words: str
    value: str | float


@dataclass
class ReportWriter:
    """Collects the text of a report and the findings that it states."""

    text: str = ""
    findings: list[Finding] = field(default_factory=list)

    def plain(self, text: str) -> None:
        """Append words that state no finding."""
        self.text += text

    def state(
        self,
        template: str,
        categories: tuple[str, ...],
        slots: Mapping[str, Slot | None],
        *,
        certainty: Certainty = Certainty.PRESENT,
        hedge: Hedge | None = None,
        alignment: Alignment = Alignment.EXACT,
    ) -> None:
        """Append a sentence and the findings it states, one for each ``<...>`` in the order of ``categories``.

        Slots hold for all findings of the sentence. Spans of the findings are offsets into the whole report.
        """
        words, spans, mentions = render(template, slots)
        start = len(self.text)
        self.text += words[:1].upper() + words[1:]
        values = _values([slots[name] for name, *_ in spans])
        for category, (begin, end) in zip(categories, mentions, strict=True):
            places = [("mention", begin, end), *((_slot(slots, name), at, to) for name, at, to in spans)]
            evidence = tuple(Evidence(slot=name, start=start + at, end=start + to) for name, at, to in places)
            self.findings.append(
                Finding(
                    category=category,
                    certainty=certainty,
                    hedge=hedge,
                    alignment=alignment,
                    evidence=evidence,
                    **values,
                )
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
    for match in _TOKEN.finditer(template):
        name = match["slot"]
        if name == "a":
            pieces += [("a", ""), ("", match["blank"])]
        elif name:
            slot = slots.get(name)
            pieces += [(name, slot.words), ("", match["blank"])] if slot is not None else []
        else:
            pieces.append((match["mark"] or "", match["text"] or ""))
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


def _article(following: str) -> str:
    # "8", "11" and "18" are read "eight", "eleven", "eighteen".
    return "an" if re.match(r"[aeiou]|8|11\b|18\b", following) else "a"


def _slot(slots: Mapping[str, Slot | None], name: str) -> str:
    slot = slots[name]
    assert slot is not None
    return slot.name


def _values(slots: list[Slot | None]) -> dict[str, Any]:
    """Fields of a finding that the slots fill; certainty and hedge are given by the caller."""
    fields: dict[str, Any] = {}
    for slot in slots:
        assert slot is not None
        if slot.name in _LISTS:
            fields[_LISTS[slot.name]] = (str(slot.value),)
        elif slot.name != "certainty":
            fields[slot.name] = slot.value
    return fields
