"""A language model's reply: parsed, grounded in the sentence, normalised into findings of the ontology.

Schema-constrained decoding makes most replies valid; truncation, refusals and servers without a schema break some, so
every reply is validated. One that cannot be used is kept raw with a code and is never used in part: half a reply is
half a truth that looks whole. An item without its words in the sentence is kept apart with a reason, and so is each
slot that the sentence does not carry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import fingerprint
from medfilip.core.replies import MAX_REPLY_CHARACTERS, parse_reply
from medfilip.extraction.engine import FindingRow, SentenceResult
from medfilip.extraction.grounding import (
    CUES,
    Span,
    find_count,
    find_cue,
    find_measure,
    find_words,
    measure_mm,
    nearest,
    number,
    occurrences,
)
from medfilip.extraction.names import Names, fold
from medfilip.extraction.reply_format import (
    CERTAINTIES,
    CHANGES,
    CHRONICITIES,
    HEDGES,
    SIDES,
    Reply,
    ReplyFinding,
)
from medfilip.findings.finding import Alignment, Certainty, Laterality
from medfilip.findings.ontology import Ontology

READER_VERSION = "3"
MALPOSITIONED = "malpositioned"

_CODES: dict[str, dict[str, Any]] = {
    "hedge": HEDGES,
    "laterality": SIDES,
    "change": CHANGES,
    "chronicity": CHRONICITIES,
}
_EVIDENCE_NAMES = {"sites": "site", "patterns": "pattern"}
_SINGLE_SLOTS = ("hedge", "severity", "size", "size_mm", "count", "laterality", "change", "chronicity", "position")


class ReplyReader:
    """Turns replies into findings of the ontology."""

    def __init__(self, ontology: Ontology) -> None:
        self._names = Names(ontology)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of all that decides what a reply becomes."""
        names = self._names
        places = [dict(names.position_terms), dict(names.site_terms)]
        return fingerprint([READER_VERSION, names.ontology.fingerprint, *places])

    def failed(
        self,
        status: ErrorCode,
        raw_reply: str | None = None,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
    ) -> SentenceResult:
        """Return the result of a sentence that has no usable reply."""
        kept = None if raw_reply is None else raw_reply[:MAX_REPLY_CHARACTERS]
        return SentenceResult(
            [],
            status=status,
            raw_reply=kept,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
        )

    def read(
        self,
        raw: str,
        sentence: str,
        *,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        truncated: bool = False,
    ) -> SentenceResult:
        """Parse, ground and normalise one reply; one that cannot be used is kept raw with a reason code.

        Parameters
        ----------
        raw
            The model's text.
        sentence
            The sentence as it was shown; evidence spans are offsets into it.
        truncated
            Whether the model stopped because its budget was spent.
        """
        counted: dict[str, Any] = {
            "input_tokens": input_tokens,
            "output_tokens": output_tokens,
            "cached_tokens": cached_tokens,
        }
        reply = parse_reply(raw, Reply, truncated=truncated)
        if isinstance(reply, ErrorCode):
            return self.failed(reply, raw, **counted)
        findings: list[FindingRow] = []
        notes: list[dict[str, str]] = []
        seen: dict[str, int] = {}
        for item in reply.f:
            name = fold(item.mention)
            place = seen[name] = seen.get(name, -1) + 1
            found = _Grounding(item, sentence, self._names).finding(place)
            notes += found.notes
            if found.row is not None:
                findings.append(found.row)
        return SentenceResult(merge_duplicates(findings), ungrounded=tuple(notes), **counted)


class _Grounding:
    """One item of a reply on its way to a finding; collects evidence, and notes of what had to be left out."""

    def __init__(self, item: ReplyFinding, sentence: str, names: Names) -> None:
        self.notes: list[dict[str, str]] = []
        self.row: FindingRow | None = None
        self._item = item
        self._sentence = sentence
        self._names = names
        self._evidence: list[dict[str, object]] = []
        self._mention = Span(0, 0)

    def finding(self, place: int) -> _Grounding:
        """Ground the item; ``place`` numbers items that quote the same words, which then stand for later ones."""
        item = self._item
        spans = occurrences(item.mention, self._sentence)
        if not spans:
            self._note("mention_not_in_sentence" if item.mention.strip() else "empty_mention")
            return self
        mention = self._mention = spans[min(place, len(spans) - 1)]
        self._evidence.append(mention.evidence("mention"))
        category, suggestion = self._category()
        certainty, alignment = self._certainty(mention.alignment)
        self.row = {
            "category": category,
            "certainty": certainty,
            **dict.fromkeys(_SINGLE_SLOTS),
            "sites": [],
            "patterns": [],
            "alignment": alignment,
            "evidence": self._evidence,
            "confidence": None,
            "suggestion": suggestion,
        }
        for words in item.qualifiers:
            self._qualify(self.row, words.strip())
        self.row["position"] = self._position()
        return self

    def _note(self, reason: str) -> None:
        self.notes.append({"mention": self._item.mention, "category": self._item.category or "", "reason": reason})

    def _category(self) -> tuple[str, str | None]:
        """Return the category, and a suggestion if the ontology does not know it; the sentence's words decide."""
        names, given = self._names, self._item.category
        spelt = names.category(self._item.mention)
        if not given or not given.strip():
            named = spelt
        else:
            named = names.category(given) or names.misspelt(given)
            if spelt and named != spelt:
                if named and named in names.ontology.descendants(spelt):
                    return named, None
                if named is None or named not in names.ontology.ancestors(spelt):
                    self._note("category_not_supported")
                named = spelt
        if named:
            return named, None
        words = " ".join((given or self._item.mention).lower().replace("_", " ").split())
        return f"other:{words}", names.nearest(words)

    def _certainty(self, alignment: Alignment) -> tuple[Certainty, Alignment]:
        certainty = CERTAINTIES[self._item.certainty]
        if certainty is Certainty.PRESENT:
            return certainty, alignment
        cue = find_cue(self._sentence, self._mention, certainty)
        if cue is None:
            # The model's reading of a whole sentence, which no single word carries.
            self._note("certainty_without_cue")
            return certainty, Alignment.INFERRED
        self._evidence.append(cue.evidence("certainty"))
        return certainty, alignment

    def _qualify(self, row: FindingRow, words: str) -> None:
        """Put one qualifier into its slot, if the sentence carries it and the slot is still free."""
        slot, value, span = self._read_qualifier(words)
        if not words or (slot is not None and (row[slot] == value or value in (row[slot] or ()))):
            return
        if slot is None:
            self._note("qualifier_unknown" if span else "qualifier_not_in_sentence")
        elif span is None:
            self._note(f"{slot}_not_in_sentence")
        elif isinstance(row[slot], list):
            row[slot].append(value)
            self._evidence.append(span.evidence(_EVIDENCE_NAMES[slot]))
        elif row[slot] is None:
            row[slot] = value
            self._evidence.append(span.evidence(slot))
        else:
            self._note(f"{slot}_twice")

    def _read_qualifier(self, words: str) -> tuple[str | None, Any, Span | None]:
        """Return slot, value and evidence of a qualifier; no slot for words that say nothing we know."""
        sentence, mention, names = self._sentence, self._mention, self._names
        for closed, codes in _CODES.items():
            if words.lower() in codes:
                code = codes[words.lower()]
                return closed, code, self._side(code) if closed == "laterality" else find_cue(sentence, mention, code)
        if (size_mm := measure_mm(words)) is not None:
            return "size_mm", size_mm, find_measure(sentence, mention, size_mm)
        if (count := number(words)) is not None:
            return "count", count, find_count(sentence, mention, count)
        span = find_words(sentence, mention, (words,))
        slot, value = self._named(words, copied=span is not None)
        if slot == "sites" and span is None:
            span = find_words(sentence, mention, names.site_terms[value or ""])
        return slot, value, span

    def _named(self, words: str, *, copied: bool) -> tuple[str | None, str | None]:
        """Return slot and value of words that the ontology knows, or that were copied where a code was asked for."""
        names = self._names
        resolvers: dict[str, Callable[[str], str | None]] = {
            "severity": names.severity,
            "size": names.size,
            "patterns": names.pattern,
            "sites": self._site_within,
        }
        for slot, resolve in resolvers.items():
            if (value := resolve(words)) is not None:
                return slot, value
        for slot, codes in _CODES.items():
            for meaning in codes.values():
                if copied and CUES[meaning].fullmatch(words):
                    return slot, str(meaning)
        return None, None

    def _side(self, side: str) -> Span | None:
        span = find_cue(self._sentence, self._mention, side)
        if span is None and side == Laterality.BILATERAL:
            left = find_cue(self._sentence, self._mention, Laterality.LEFT)
            right = find_cue(self._sentence, self._mention, Laterality.RIGHT)
            if left and right:
                self._evidence.append(left.evidence("laterality"))
                return right
        return span

    def _position(self) -> str | None:
        words = self._item.position
        if not words:
            return None
        span = nearest(occurrences(words, self._sentence), self._mention)
        if span is None:
            self._note("position_not_in_sentence")
            return None
        wrong = find_cue(words, Span(0, 0), MALPOSITIONED)
        names = self._names
        value = MALPOSITIONED if wrong else _held(words, names.position(words), names.position_terms)
        if value is None:
            self._note("position_unknown")
            return None
        self._evidence.append(span.evidence("position"))
        return value

    def _site_within(self, words: str) -> str | None:
        return _held(words, self._names.site(words), self._names.site_terms)


def _held(words: str, named: str | None, terms: Mapping[str, Sequence[str]]) -> str | None:
    """Return what words name whole, else the value whose longest name they hold."""
    if named:
        return named
    held = [(len(term), value) for value, names in terms.items() for term in names if occurrences(term, words)]
    return max(held)[1] if held else None


def merge_duplicates(rows: list[FindingRow]) -> list[FindingRow]:
    """Fold statements of one finding into one, with all the evidence.

    Two are one if they agree in category, certainty, side and sites and no other slot contradicts; what one leaves
    open the other fills.
    """
    merged: list[FindingRow] = []
    for row in rows:
        known = next((other for other in merged if _same(other, row)), None)
        if known is None:
            merged.append(row)
            continue
        for slot in _SINGLE_SLOTS:
            known[slot] = row[slot] if known[slot] is None else known[slot]
        known["patterns"] = list(dict.fromkeys([*known["patterns"], *row["patterns"]]))
        known["evidence"] += [span for span in row["evidence"] if span not in known["evidence"]]
    return merged


def _same(one: FindingRow, other: FindingRow) -> bool:
    keys = ("category", "certainty", "laterality", "sites")
    agree = all(one[key] == other[key] for key in keys)
    return agree and all(one[s] is None or other[s] is None or one[s] == other[s] for s in _SINGLE_SLOTS)
