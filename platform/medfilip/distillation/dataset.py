"""The training set of a student: readings of sentences → checked rows with the reply that is wanted for each.

A reading is a sentence with what a teacher says of it: the generator, rules, a large model, a person. It becomes a row
only if the reply that states it survives the way back (written, parsed, grounded, the same findings) and, where there
is another reading to compare with, the two agree. A slot that the reader would take out again, since no words of the
sentence carry it, is taken out here (``trimmed``). What is dropped is counted under a stable reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfilip.core.ids import hash64
from medfilip.distillation.sentences import Example
from medfilip.extraction.doubt import Doubt
from medfilip.extraction.engine import OK, FindingRow, SentenceResult
from medfilip.extraction.names import Names
from medfilip.extraction.prompt import PromptTemplate
from medfilip.extraction.reply import ReplyReader
from medfilip.extraction.reply_format import MAX_FINDINGS, write_reply
from medfilip.extraction.reply_writer import reply_of
from medfilip.extraction.routing import disagreements
from medfilip.findings.ontology import Ontology

TRAIN, VALIDATION, TEST = "train", "validation", "test"
COLUMNS = ("text", "context", "reply", "phenomenon", "source", "split")
TRIMMED = "trimmed"
"""Count of rows that lost a slot and stay."""

_COMPARED = ("hedge", "severity", "size", "size_mm", "count", "laterality", "change", "chronicity", "position")
_NO_LOSS = "certainty_without_cue"
_SPLIT_PARTS, _VALIDATION = 1_000, 10
_UNSIGNED = (1 << 64) - 1


@dataclass(frozen=True)
class Reading:
    """What a teacher says of a sentence.

    Attributes
    ----------
    text, context
        Normal form of the sentence and of what it leans on.
    findings
        The teacher's, with evidence spans into ``text``.
    source
        Name of the teacher.
    phenomenon
        What the sentence is an example of; rows are balanced by it.
    other
        Another reading that must agree; ``None`` if there is none, or none that is worth asking.
    """

    text: str
    context: str | None
    findings: tuple[FindingRow, ...]
    source: str
    phenomenon: str = "given"
    other: tuple[FindingRow, ...] | None = None


@dataclass(frozen=True)
class Row:
    """A row of the training set; ``reply`` is the compact form that the student is to write."""

    text: str
    context: str | None
    reply: str
    phenomenon: str
    source: str
    split: str

    @property
    def values(self) -> dict[str, str | None]:
        """The row as a dictionary of `COLUMNS`."""
        return {name: getattr(self, name) for name in COLUMNS}


@dataclass
class RowWriter:
    """Turns readings into rows; ``counts`` says how many stayed (``kept``) and why others did not."""

    ontology: Ontology
    prompt: PromptTemplate
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._names, self._reader = Names(self.ontology), ReplyReader(self.ontology)

    def row(self, reading: Reading) -> Row | None:
        """Return the row of a reading, or count why there is none."""
        reply, reason = self._reply(reading)
        if reply is None:
            self.counts[reason] += 1
            return None
        self.counts["kept"] += 1
        return Row(
            reading.text, reading.context, reply, reading.phenomenon, reading.source, split_of(reading.text)
        )  # fmt: skip

    def _reply(self, reading: Reading) -> tuple[str | None, str]:
        """Return the reply, or ``None`` and the reason."""
        reason = self._unfit(reading)
        if reason:
            return None, reason
        text, findings = reading.text, reading.findings
        reply, read = self._there_and_back(text, findings)
        losses = _losses(read)
        if read.status != OK or not losses <= _TRIMMABLE:
            return None, "reply_unreadable" if read.status != OK else min(losses - _TRIMMABLE)
        if losses:
            kept = read.findings
            reply, read = self._there_and_back(text, kept)
            if _losses(read) or not _same_core(findings, kept):
                return None, "reply_changed"
            self.counts[TRIMMED] += 1
            findings = tuple(kept)
        return (reply, "") if _same(findings, read.findings) else (None, "reply_changed")

    def _unfit(self, reading: Reading) -> str:
        """Return why a reading cannot be written as a reply at all, or is not believed."""
        text, findings = reading.text, reading.findings
        if not self.prompt.fits(text) or len(reading.context or "") > self.prompt.max_context_characters:
            return "too_long"
        if len(findings) > MAX_FINDINGS:
            return "too_many_findings"
        if any(row["category"] not in self.ontology.categories for row in findings):
            return "category_unknown"
        if any(not row["evidence"] or row["evidence"][0]["slot"] != "mention" for row in findings):
            return "mention_missing"
        kinds = disagreements(reading.other, findings, self.ontology) if reading.other is not None else []
        return f"disagrees_{kinds[0]}" if kinds else ""

    def _there_and_back(self, text: str, findings: Sequence[FindingRow]) -> tuple[str, SentenceResult]:
        reply = write_reply(reply_of(text, findings, self._names))
        return reply, self._reader.read(reply, text)


_SLOTS = (*_COMPARED, "sites", "patterns")
_TRIMMABLE = {
    "qualifier_not_in_sentence",
    "qualifier_unknown",
    "position_unknown",
    *(f"{slot}_{loss}" for slot in _SLOTS for loss in ("not_in_sentence", "twice")),
}
"""Reasons for which a slot is taken out and the finding stays."""


def _losses(read: SentenceResult) -> set[str]:
    return {note["reason"] for note in read.ungrounded} - {_NO_LOSS}


def _same(one: Sequence[FindingRow], other: Sequence[FindingRow]) -> bool:
    return sorted(map(_whole, one)) == sorted(map(_whole, other))


def _same_core(one: Sequence[FindingRow], other: Sequence[FindingRow]) -> bool:
    return sorted(map(_core, one)) == sorted(map(_core, other))


def _core(row: FindingRow) -> tuple[str, str]:
    return str(row["category"]), str(row["certainty"])


def _whole(row: FindingRow) -> tuple[str, ...]:
    lists = (",".join(sorted(row["sites"])), ",".join(sorted(row["patterns"])))
    return (*_core(row), *(str(row[slot]) for slot in _COMPARED), *lists)


def split_part(text: str) -> int:
    """Return what decides the split of a sentence: a number below 1,000, from its hash."""
    return (hash64("student", text) & _UNSIGNED) % _SPLIT_PARTS


def splits_of(part_N: NDArray[np.int16], test_share_N: NDArray[np.float64]) -> NDArray[np.str_]:
    """Return the splits of sentences with these parts; see `split_of`."""
    is_test_N = part_N < _VALIDATION + test_share_N * _SPLIT_PARTS
    return np.where(part_N < _VALIDATION, VALIDATION, np.where(is_test_N, TEST, TRAIN))


def split_of(text: str, test_share: float = 0.01) -> str:
    """Return the split of a sentence, by its hash, whoever read it: one in a hundred is for validation."""
    return str(splits_of(np.array([split_part(text)], np.int16), np.array([test_share]))[0])


def reading_of(example: Example, rules: SentenceResult) -> Reading | str:
    """Decide whose truth a synthetic sentence gets, given what rules read in it; else return why it has none.

    Of a sentence that the generator and rules both understand, the reading that states more is taken if it holds the
    other: rules list denials that a frame does not know of ("the lungs are clear and …").
    """
    found = tuple(rules.findings)
    # A word that was removed here hides nothing: what is left is the whole of what the sentence says.
    doubted = set(rules.doubts) - {Doubt.PLACEHOLDER}
    if example.truth == "rules":
        if doubted:
            return "doubted"
        return Reading(example.text, example.context, found, "rules", example.phenomenon)
    if example.truth == "beyond":
        return Reading(example.text, example.context, example.findings, "generator", example.phenomenon)
    told, read = {_core(row) for row in example.findings}, {_core(row) for row in found}
    if not doubted and read > told:
        return Reading(example.text, example.context, found, "rules", example.phenomenon, other=example.findings)
    if not read <= told:
        return "disagrees_category"
    return Reading(example.text, example.context, example.findings, "generator", example.phenomenon, other=found)


def unique(rows: Iterable[Row], counts: Counter[str]) -> Iterator[Row]:
    """Yield each sentence in its context once; the first reading of it stays."""
    seen: set[int] = set()
    for row in rows:
        key = hash64("row", row.text, row.context or "")
        if key in seen:
            counts["duplicate"] += 1
            continue
        seen.add(key)
        yield row


def balanced(rows: Sequence[Row], most: float, counts: Counter[str]) -> list[Row]:
    """Keep at most a share of the rows for any one phenomenon; which of them stay is decided by their hashes."""
    limit = max(1, int(most * len(rows)))
    by_phenomenon: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_phenomenon.setdefault(row.phenomenon, []).append(number)
    dropped: set[int] = set()
    for numbers in by_phenomenon.values():
        ranked = sorted(numbers, key=lambda n: hash64("balance", rows[n].text, rows[n].context or ""))
        dropped.update(ranked[limit:])
    counts["over_share"] += len(dropped)
    return [row for number, row in enumerate(rows) if number not in dropped]
