"""A report in the making: its sentences one after the other, parted or joined, with the findings they state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medfilip.findings.finding import Alignment, Certainty, Hedge
from medfilip.phantom.dice import Dice
from medfilip.phantom.wording import Style
from medfilip.phantom.writer import ReportWriter, Slot

_JOINED = 0.38
"""Share of sentences that are joined to the one before where both have verbs."""


@dataclass
class Draft:
    """A report in the making."""

    writer: ReportWriter
    dice: Dice
    style: Style
    has_prior: bool
    detail: float
    """Chance of every further detail of a statement."""
    views: tuple[str, ...] | None = None
    """ViewPosition of every image of the study; ``None`` for a report without images."""
    shown: frozenset[str] = frozenset()
    """Categories that the images show."""

    def spelt(self, text: str) -> str:
        """Spell what has two spellings in the way of this report."""
        return text.replace("EDEMA", "oedema" if self.style.british else "edema")

    sentences: int = 0
    """Of the section that is being written."""
    joinable: bool = False

    def open(self, heading: str) -> None:
        """Begin a section."""
        self.writer.plain(heading)
        self.sentences, self.joinable = 0, False

    def plain(self, sentence: str) -> int:
        """Append a sentence as it is, and return where it starts."""
        self._separate(sentence)
        start = len(self.writer.text)
        joined = self.writer.text.endswith(" and ")
        self.writer.plain(sentence[0].lower() + sentence[1:] if joined else sentence)
        return start

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
        """Append a sentence with findings."""
        self._separate(template, joins=certainty != Certainty.UNCERTAIN and hedge is None)
        self.writer.state(template, categories, slots, certainty=certainty, hedge=hedge, alignment=alignment)

    def _separate(self, sentence: str, *, joins: bool = True) -> None:
        """Part a sentence from the one before, or join two that have verbs of their own: neither scopes the other."""
        joins = joins and sentence.endswith(".") and (" is " in sentence or " are " in sentence)
        if self.sentences and not self.writer.text.endswith((" ", "\n")):
            if joins and self.joinable and self.dice.chance(_JOINED):
                self.writer.text = self.writer.text[:-1] + " and "
                self.joinable = self.dice.chance(0.3)
                return
            self.writer.plain(" ")
        self.sentences += 1
        self.joinable = joins
