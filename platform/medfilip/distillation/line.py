"""A sentence being written, with which of its words say what; and how a word of it is removed."""

from __future__ import annotations

import re
from typing import TypeAlias

from medfilip.distillation.phrases import Claim, Piece
from medfilip.findings.finding import Laterality
from medfilip.phantom.dice import Dice

Mark: TypeAlias = tuple[int, str, int, int]
"""Number of a claim, slot, and the half-open span of the words that fill it."""

SIDES = (Laterality.LEFT, Laterality.RIGHT)
_WORD = re.compile(r"[a-z]{4,}")


class Line:
    """A sentence being written: its text, and which words are evidence of which slot of which claim."""

    def __init__(self) -> None:
        self.text = ""
        self.marks: list[Mark] = []

    def add(self, words: str, claims: tuple[int, ...] = (), slots: tuple[str, ...] = ()) -> None:
        """Append words behind a blank; they are evidence of slots of claims."""
        if not words:
            return
        glue = "" if not self.text or words[0] in ",;:.?" or self.text[-1] in "(/" else " "
        start = len(self.text) + len(glue)
        self.text += glue + words
        self.marks += [(claim, slot, start, len(self.text)) for claim in claims for slot in slots]

    def add_phrase(self, claim: int, phrase: list[Piece]) -> None:
        """Append a phrase about a claim."""
        for words, slots in phrase:
            self.add(words, (claim,), slots)


def evidence_of(marks: list[Mark], claim: int) -> list[dict[str, object]]:
    """Return the spans of a claim as evidence, its mention first."""
    own = [(slot, start, end) for number, slot, start, end in marks if number == claim]
    own.sort(key=lambda mark: mark[0] != "mention")
    return [{"slot": slot, "start": start, "end": end} for slot, start, end in own]


def remove_word(text: str, marks: list[Mark], kept: frozenset[str], dice: Dice) -> tuple[str, list[Mark]]:
    """Replace a word that says nothing by "xxxx", as texts without identity have it."""
    free = [
        match
        for match in _WORD.finditer(text)
        if match.group() not in kept
        and not any(start < match.end() and match.start() < end for _, _, start, end in marks)
    ]
    if not free:
        return text, marks
    word = dice.pick(free)
    shift = 4 - (word.end() - word.start())
    moved = [
        (claim, slot, start + shift, end + shift) if start >= word.end() else (claim, slot, start, end)
        for claim, slot, start, end in marks
    ]
    return f"{text[: word.start()]}xxxx{text[word.end() :]}", moved


_LUNG_PLACES = (
    ("lower lobe", "lower_lobe"), ("upper lobe", "upper_lobe"), ("lung base", "lung_base"), ("base", "lung_base"),
    ("apex", "lung_apex"), ("upper zone", "upper_lung"), ("lower zone", "lower_lung"), ("mid lung", "mid_lung"),
    ("lung", None),
)  # fmt: skip


def lung_place(claim: Claim, dice: Dice) -> list[Piece]:
    """Return a side and a site of the lung, and put them into a claim."""
    side = dice.pick(SIDES)
    words, site = dice.pick(_LUNG_PLACES)
    claim.values["laterality"] = side
    if site is not None:
        claim.sites.append(site)
    return [(str(side), ("laterality",)), (words, ("site",) if site else ())]
