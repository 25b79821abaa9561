"""What engines and people say of real sentences → readings, and how all sources become one training set.

Rules are believed where they doubt nothing, a model where all it said stands in the sentence; where both read a
sentence they must agree. A person's word counts before either of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from medfilip.distillation.coverage import PHENOMENA
from medfilip.distillation.dataset import TRAIN, Reading, Row, RowWriter, balanced, split_of, unique
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


@dataclass(frozen=True)
class Mixture:
    """How sources are joined.

    Attributes
    ----------
    test_share, gold_test_share
        Shares of the sentences, and of the reviewed ones, that are held out to be measured by.
    phenomenon_share
        Largest share of one phenomenon; gold is not thinned out.
    gold_weight
        How often a reviewed sentence stands in the rows to train on.
    """

    test_share: float
    gold_test_share: float
    phenomenon_share: float
    gold_weight: int


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


def join(
    gold: Sequence[GoldSentence],
    reviewed: Sequence[Row],
    others: Iterable[Row],
    mixture: Mixture,
    counts: Counter[str],
) -> list[Row]:
    """Return the training set: each sentence in its context once, save for the weight of gold, in splits by its text.

    Parameters
    ----------
    gold
        All decisions: no other reading of their sentences stays, whether or not their own became a row.
    reviewed
        The rows that gold became (`gold_rows`).
    others
        Rows of phantoms, engines and the generator; of those about the same sentence the first one stays.
    counts
        Takes ``gold_decides``, ``duplicate`` and ``over_share``.
    """
    decided = {(item.text, item.context or "") for item in gold}
    reviewed = list(unique(reviewed, counts))
    undecided: list[Row] = []
    for row in unique(others, counts):
        if (row.text, row.context or "") in decided:
            counts["gold_decides"] += 1
        else:
            undecided.append(row)
    thinned = balanced(undecided, mixture.phenomenon_share, counts)
    # By its text in whatever context: no sentence that is measured was trained on.
    texts = {item.text for item in gold}
    rows: list[Row] = []
    for row in (*reviewed, *thinned):
        split = split_of(row.text, mixture.gold_test_share if row.text in texts else mixture.test_share)
        repeated = mixture.gold_weight if row.source == GOLD and split == TRAIN else 1
        rows.extend([replace(row, split=split)] * repeated)
    return rows
