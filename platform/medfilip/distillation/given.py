"""What engines and people say of real sentences → readings.

Rules are believed where they doubt nothing, a model where all it said stands in the sentence; where both read a
sentence they must agree. A person's word counts before either of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from medfilip.distillation.coverage import PHENOMENA
from medfilip.distillation.dataset import Reading, Row, RowWriter
from medfilip.extraction.engine import OK, FindingRow
from medfilip.extraction.gold import GoldSentence
from medfilip.extraction.lexicon import LexiconEngine

GOLD = "gold"
PLAIN = "plain"
"""Phenomenon of a sentence that shows none of the others."""

_RAREST_FIRST = (
    "measure", "placeholder", "hedge", "device", "change", "list", "degree", "side", "negation", "normality",
)  # fmt: skip
_NO_LOSS = "certainty_without_cue"


def phenomenon_of(text: str) -> str:
    """Return the rarest phenomenon that a sentence shows."""
    return next((name for name in _RAREST_FIRST if PHENOMENA[name].search(text)), PLAIN)


def reading_of_row(
    text: str, context: str | None, row: Mapping[str, Any], others: Mapping[str, Sequence[FindingRow]]
) -> Reading | str:
    """Return the reading that an engine's row states, or why it is not believed.

    Parameters
    ----------
    row
        Of ``sentence_findings``.
    others
        What other engines found in the sentence, by their names; one of them must agree, if there is one.
    """
    if row["status"] != OK:
        return "not_read"
    if row["engine"] == LexiconEngine.name:
        if row["doubts"]:
            return "doubted"
    elif any(note["reason"] != _NO_LOSS for note in row["ungrounded"] or ()):
        return "ungrounded"
    other = next((tuple(found) for name, found in others.items() if name != row["engine"]), None)
    return Reading(text, context, tuple(row["findings"]), row["engine"], phenomenon_of(text), other)


def gold_rows(gold: Iterable[GoldSentence], writer: RowWriter) -> list[Row]:
    """Return the rows of what persons decided; a decision that no reply can state is counted and left out."""
    rows = []
    for item in gold:
        findings = tuple(finding.to_row() for finding in item.findings)
        row = writer.row(Reading(item.text, item.context, findings, GOLD, phenomenon_of(item.text)))
        if row is not None:
            rows.append(row)
    return rows
