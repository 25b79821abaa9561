"""Synthetic report sentences with exact findings: a stream that is a pure function of its seed.

Three kinds of truth are told apart (`Example.truth`):

- ``exact``: the generator knows every word's meaning, and rules can read the sentence too,
- ``rules``: a sentence of normality, technique, advice or anatomy in a state, whose truth is what rules read in it,
- ``beyond``: the generator knows the meaning, and rules do not: descriptions in words that are no term, findings whose
  place or cue stands where rules do not look, sentences that lean on the one before.

The stream is drawn in blocks with a seed of their own, so that several processes write it together.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Literal

import numpy as np

from medfilip.core.ids import hash64
from medfilip.distillation.grammar import STATES, Frames, Grammar, Paraphrase, expand, load_grammar, pieces
from medfilip.distillation.line import SIDES, Line, evidence_of, lung_place, remove_word
from medfilip.distillation.phrases import Claim, Phrases, Piece, Stock
from medfilip.extraction.engine import FindingRow
from medfilip.extraction.lexicon_data import Composed, LexiconData, load_lexicon_data
from medfilip.findings.finding import Alignment, Change, Laterality
from medfilip.findings.ontology import Ontology, load_ontology
from medfilip.phantom.dice import Dice
from medfilip.phantom.writer import misspell
from medfilip.reports.sentences import normal_text

GENERATOR_VERSION = "1"
BLOCK = 2_000
"""Sentences of one block."""

Truth = Literal["exact", "rules", "beyond"]

_MISSPELT, _REMOVED = 0.025, 0.14
_PLAIN, _COMPOSED, _PARAPHRASED = 0.2, 0.08, 0.1
"""Shares of draws; the rest are frames."""
_NO_BLANK = re.compile(r"\s+([,;:.?])")


@dataclass(frozen=True)
class Example:
    """A sentence in normal form with what it says.

    Attributes
    ----------
    text, context
        As `medfilip.reports.sentences.Sentence` has them.
    findings
        The truth, rows with evidence spans into ``text``; empty and meaningless where ``truth`` is ``rules``.
    phenomenon
        What the sentence is an example of.
    truth
        See the module's text.
    """

    text: str
    context: str | None
    findings: tuple[FindingRow, ...]
    phenomenon: str
    truth: Truth


class Generator:
    """Writes examples.

    Parameters
    ----------
    seed
        Of the whole stream.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        ontology: Ontology | None = None,
        lexicon: LexiconData | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        self._seed = seed
        self._grammar = grammar or load_grammar()
        self._stock = Stock(ontology or load_ontology(), lexicon or load_lexicon_data(), self._grammar)
        self._frame_weights = list(accumulate(kind.weight for kind in self._grammar.frames))
        self._compositions = tuple(self._composed_words())
        self._bare = tuple(kind for kind in self._grammar.frames if kind.phenomenon == "stated")

    def stream(self, count: int, *, first_block: int = 0) -> Iterator[Example]:
        """Yield ``count`` examples from a block on."""
        for start in range(0, count, BLOCK):
            yield from self.block(first_block + start // BLOCK, min(BLOCK, count - start))

    def block(self, number: int, count: int = BLOCK) -> Iterator[Example]:
        """Yield the first ``count`` examples of a block."""
        dice = Dice(np.random.default_rng(hash64("sentences", str(self._seed), str(number)) & ((1 << 63) - 1)))
        written = 0
        while written < count:
            example = self._draw(dice)
            if example is not None:
                written += 1
                yield example

    def _draw(self, dice: Dice) -> Example | None:
        """Draw one example; ``None`` for a frame that does not suit the category drawn for it."""
        throw = dice.throw()
        if throw < _PLAIN:
            return self._plain(dice)
        if throw < _PLAIN + _COMPOSED:
            return self._composition(dice)
        if throw < _PLAIN + _COMPOSED + _PARAPHRASED:
            return self._paraphrase(dice.pick(self._grammar.paraphrases), dice)
        frames = self._grammar.frames[bisect(self._frame_weights, dice.throw() * self._frame_weights[-1])]
        return self._framed(frames, dice)

    # ---- frames

    def _framed(self, kind: Frames, dice: Dice) -> Example | None:
        frame = expand(dice.pick(kind.frames), dice)
        if "[" in frame or "]" in frame:  # an alternative that holds another
            frame = expand(frame, dice)
        claims = [
            Claim(category, state) for category, state in zip(self._categories(kind, dice), kind.states, strict=True)
        ]
        if not self._suits(frame, claims[0]):
            return None
        if kind.change is not None:
            claims[0].values["change"] = kind.change
        line, phrases = Line(), Phrases(self._stock, dice)
        for what, words in pieces(frame):
            if what == "text":
                line.add(words)
            elif what == "cue":
                self._cue(line, words, kind, claims)
            elif what == "slot":
                self._slot(line, words, claims, phrases, dice)
        context = self._context(dice) if kind.context else None
        if kind.context and context is None:
            return None
        truth: Truth = "beyond" if kind.beyond or kind.context else "exact"
        return self._finish(line, claims, kind.phenomenon, truth, dice, context=context)

    def _categories(self, kind: Frames, dice: Dice) -> list[str]:
        grammar, stock = self._grammar, self._stock
        if kind.kind == "device":
            return [dice.pick(tuple(grammar.tips) if dice.chance(0.6) else stock.devices)]
        if kind.phenomenon in ("explained", "versus", "context"):
            first = dice.favour(grammar.observations if kind.phenomenon == "explained" else grammar.explanations)
            return [first, *dice.some(tuple(c for c in grammar.explanations if c != first), len(kind.states) - 1)]
        found: list[str] = []
        while len(found) < len(kind.states):
            denial = kind.states[len(found)] == "absent" and dice.chance(0.6)
            category = dice.favour(grammar.denied) if denial else stock.category(dice)
            if category not in found:
                found.append(category)
        return found

    def _suits(self, frame: str, claim: Claim) -> bool:
        if "{where}" in frame and claim.category not in self._grammar.family_of:
            return False
        return "{tip}" not in frame or claim.category in self._grammar.tips

    def _cue(self, line: Line, words: str, kind: Frames, claims: list[Claim]) -> None:
        """Add words that deny or hedge; they are evidence for every claim that is not plainly stated."""
        start = line.text
        line.add(words)
        begin = len(line.text) - len(words) if line.text != start else 0
        for number, claim in enumerate(claims):
            slots = {"absent": ("certainty",), "resolved": ("certainty", "change"), "none": ()}.get(claim.state)
            if slots is None:
                slots = ("change",) if kind.change else ("hedge",) if claim.state != "present" else ()
            line.marks += [(number, slot, begin, len(line.text)) for slot in slots]

    def _slot(self, line: Line, name: str, claims: list[Claim], phrases: Phrases, dice: Dice) -> None:
        grammar = self._grammar
        if name[0].isdigit():
            number = int(name[0])
            detail = 0.75 if len(claims) > 1 else 1.0
            line.add_phrase(number, phrases.finding(claims[number], bare=name.endswith("-"), detail=detail))
        elif name == "list":
            self._list(line, claims, phrases, dice)
        elif name == "change":
            line.add_phrase(0, phrases.change_word(claims[0]))
        elif name == "where":
            line.add_phrase(0, phrases.place_behind(claims[0]))
        elif name == "tip":
            line.add_phrase(0, phrases.tip(claims[0]))
        elif name == "plain":
            line.add(" ".join(expand(dice.pick(grammar.clauses), dice).split()))
        else:
            options = grammar.words[name]
            line.add(dice.favour(options) if dice.chance(0.7) else dice.pick(options))

    def _list(self, line: Line, claims: list[Claim], phrases: Phrases, dice: Dice) -> None:
        """Add a list of denied findings; the claims of the frame are the first of them, more are added."""
        count = 2 + dice.chance(0.5) + dice.chance(0.25) + dice.chance(0.15)
        first = len(claims) - 1
        categories = dice.some(self._grammar.denied, count) if dice.chance(0.9) else []
        while len(categories) < count:
            category = self._stock.category(dice)
            categories += [category] if category not in categories else []
        claims[first:] = [Claim(category, claims[first].state) for category in categories]
        cues = [mark for mark in line.marks if mark[0] == first]
        line.marks += [(first + more, *mark[1:]) for more in range(1, count) for mark in cues]
        parts = [phrases.finding(claim, bare=dice.chance(0.9), detail=0.7) for claim in claims[first:]]
        comma, last = dice.chance(0.5), dice.favour(("or", "and", "nor"))
        for number, part in enumerate(parts):
            if number == count - 1:
                line.add(f", {last}" if comma and count > 2 else last)
            elif number:
                line.add(",")
            line.add_phrase(first + number, part)

    def _context(self, dice: Dice) -> str | None:
        """Return a sentence for the next one to lean on."""
        example = self._framed(dice.pick(self._bare), dice)
        return example.text if example is not None else None

    # ---- the other kinds

    def _plain(self, dice: Dice) -> Example | None:
        line = Line()
        text = re.sub(r"\s+", " ", expand(dice.pick(self._grammar.plain), dice)).strip(" ,")
        if dice.chance(0.35):
            more = re.sub(r"\s+", " ", expand(dice.pick(self._grammar.plain), dice)).strip(" ,")
            text = f"{text}{dice.favour((', and ', '; ', ', ', ' and ', ' with '))}{more}"
        line.add(_NO_BLANK.sub(r"\1", text).replace(" : ", ": "))
        return self._finish(line, [], "plain", "rules", dice)

    def _composed_words(self) -> Iterator[tuple[tuple[str, ...], tuple[str, ...], Composed]]:
        """Yield bearers, states and what they amount to, as the lexicon composes them."""
        data, ontology = self._stock.lexicon, self._stock.ontology
        for bearer, states in data.compositions.items():
            words: tuple[str, ...] = data.bearers.get(bearer, ())
            if not words and bearer in ontology.sites:
                words = ontology.sites[bearer].synonyms
            elif not words and bearer in ontology.categories:
                words = ontology.categories[bearer].terms
            for state, composed in states.items():
                if words and state in data.states:
                    yield words, data.states[state], composed

    def _composition(self, dice: Dice) -> Example | None:
        bearers, states, _ = dice.pick(self._compositions)
        bearer = dice.favour(bearers) if dice.chance(0.6) else dice.pick(bearers)
        state = dice.favour(states) if dice.chance(0.6) else dice.pick(states)
        degree = dice.favour(("mildly", "slightly", "mild", "minimal", "moderate", "stable", "moderately", "markedly"))
        side = dice.pick(("left ", "right ", "", "", ""))
        text = dice.pick(
            (
                f"the {side}{bearer} is {state}",
                f"{side}{bearer} is {state}",
                f"the {side}{bearer} appears {state}",
                f"{state} {bearer}",
                f"{degree} {state} {side}{bearer}",
                f"there is {degree} {state} of the {side}{bearer}",
                f"{state} of the {side}{bearer}",
                f"the {side}{bearer} remains {degree} {state}",
                f"the {bearer}s are {state}",
                f"{side}{bearer} {state} is noted",
                f"no {state} of the {side}{bearer}",
            )
        )
        line = Line()
        line.add(text)
        return self._finish(line, [], "anatomy in a state", "rules", dice)

    def _paraphrase(self, told: Paraphrase, dice: Dice) -> Example | None:
        claim = Claim(told.category, told.state, Alignment.NORMALISED)
        frame = expand(told.frame, dice)
        frame = expand(frame, dice) if "[" in frame else frame
        line, phrases = Line(), Phrases(self._stock, dice)
        for what, words in pieces(frame):
            if what == "mention":
                side = dice.pick(SIDES)
                if "{side}" in words:
                    claim.values["laterality"] = side
                self._mention(line, words, side)
            elif words == "side":
                side = dice.pick(SIDES)
                claim.values["laterality"] = side
                line.add(str(side), (0,), ("laterality",))
            elif words == "place":
                line.add_phrase(0, lung_place(claim, dice))
            elif words == "degree":
                line.add_phrase(0, self._degree(claim, dice))
            elif words == "mm":
                line.add_phrase(0, [phrases.measure(claim)])
            else:
                line.add(words)
        lead = dice.throw()
        if lead < 0.12 and told.state == "present":
            self._with_change(line, claim, dice)
        example = self._finish(line, [claim], "paraphrase", "beyond", dice)
        if example is None or lead < 0.6:
            return example
        return self._beside(example, dice)

    def _mention(self, line: Line, words: str, side: Laterality) -> None:
        """Add the words of a mention, which may hold a side."""
        said = words.replace("{side}", str(side))
        line.add(said, (0,), ("mention",))
        if said != words:
            start = line.text.rindex(str(side))
            line.marks.append((0, "laterality", start, start + len(side)))

    def _degree(self, claim: Claim, dice: Dice) -> list[Piece]:
        value = dice.pick(("minimal", "mild", "moderate", "severe"))
        words = self._stock.ontology.severities[value]
        claim.values["severity"] = value
        return [(dice.favour([word for word in words if not word.endswith((" of", "ly"))]), ("severity",))]

    def _with_change(self, line: Line, claim: Claim, dice: Dice) -> None:
        value = dice.pick((Change.NEW, Change.UNCHANGED, Change.INCREASED, Change.DECREASED))
        words = {"new": "new", "unchanged": "unchanged", "increased": "increased", "decreased": "decreased"}[value]
        claim.values["change"] = value
        line.add(",")
        line.add(words, (0,), ("change",))
        line.add(f"since {dice.pick(self._grammar.words['when'])}")

    def _beside(self, example: Example, dice: Dice) -> Example | None:
        """Put a paraphrase beside a clause that states nothing, or behind a view."""
        clause = " ".join(expand(dice.pick(self._grammar.clauses), dice).split())
        if dice.chance(0.6):
            return replace(example, text=f"{example.text}{dice.pick((', and ', '; ', ', '))}{clause}")
        lead = f"{clause}{dice.pick((', but ', '; ', ', and '))}"
        findings = tuple(
            {
                **row,
                "evidence": [
                    {**s, "start": s["start"] + len(lead), "end": s["end"] + len(lead)} for s in row["evidence"]
                ],
            }
            for row in example.findings
        )
        return replace(example, text=lead + example.text, findings=findings)

    # ---- the end of a sentence

    def _finish(
        self,
        line: Line,
        claims: list[Claim],
        phenomenon: str,
        truth: Truth,
        dice: Dice,
        *,
        context: str | None = None,
    ) -> Example | None:
        """Misspell and remove a word now and then, and check the normal form."""
        text, marks = line.text, line.marks
        while dice.chance(_REMOVED if text == line.text else 0.4):
            before = text
            text, marks = remove_word(text, marks, self._grammar.kept_words, dice)
            if text == before:
                break
        if dice.chance(_MISSPELT):
            named = [(str(number), start, end) for number, (_, _, start, end) in enumerate(marks)]
            text, moved, _ = misspell(text, named, [], dice)
            marks = [(*marks[int(number)][:2], start, end) for number, start, end in moved]
        normal = normal_text(text)
        if not text.startswith(normal):
            return None
        if any(end > len(normal) for *_, end in marks):
            return None
        findings = tuple(
            claim.row(evidence_of(marks, number)) for number, claim in enumerate(claims) if claim.state in STATES
        )
        return Example(normal, context, findings, phenomenon, truth)
