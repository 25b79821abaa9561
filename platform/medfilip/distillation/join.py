"""How all sources become one training set, in memory that numbers decide and not texts.

Each part of the rows comes with three numbers a row (`with_numbers`). Those of all rows together say which rows stay;
the texts then pass by part after part.

Legend of array names: N rows of all parts, P rows of one part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from medfilip.core.ids import hash64, hash64_each
from medfilip.distillation.dataset import COLUMNS, TRAIN, Row, split_of, split_part, splits_of, unique
from medfilip.distillation.row_file import table_of
from medfilip.extraction.gold import GoldSentence


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


class Numbers:
    """The numbers of all rows, collected part by part."""

    def __init__(self) -> None:
        self._columns: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]] = []
        self._codes: dict[str, int] = {}

    def add(self, part: pa.Table) -> None:
        """Take the columns ``key``, ``rank`` and ``phenomenon`` of a part."""
        names = part["phenomenon"].combine_chunks().dictionary_encode()
        codes = np.array([self._codes.setdefault(n, len(self._codes)) for n in names.dictionary.to_pylist()], np.int16)
        phenomenon_P = codes[names.indices.to_numpy()] if part.num_rows else np.zeros(0, np.int16)
        self._columns.append((part["key"].to_numpy(), part["rank"].to_numpy(), phenomenon_P))

    def choose(self, decided: Collection[int], most: float, counts: Counter[str]) -> list[NDArray[np.bool_]]:
        """Return for each part which of its rows stay.

        Of rows about one sentence in its context the first one stays, none where a person decided, and at most a share
        of the rows for any one phenomenon.

        Parameters
        ----------
        decided
            Keys of the sentences that persons decided.
        most
            That share.
        counts
            Takes ``duplicate``, ``gold_decides`` and ``over_share``.
        """
        if not self._columns:
            return []
        sizes = [len(columns[0]) for columns in self._columns]
        key_N, rank_N, phenomenon_N = (np.concatenate(column) for column in zip(*self._columns, strict=True))
        kept_N = np.zeros(len(key_N), bool)
        kept_N[np.unique(key_N, return_index=True)[1]] = True
        counts["duplicate"] += len(key_N) - int(kept_N.sum())
        decided_N = kept_N & np.isin(key_N, np.fromiter(decided, np.int64, len(decided)))
        counts["gold_decides"] += int(decided_N.sum())
        kept_N &= ~decided_N
        limit = max(1, int(most * int(kept_N.sum())))
        for code in range(len(self._codes)):
            rows = np.flatnonzero(kept_N & (phenomenon_N == code))
            over = rows[np.argsort(rank_N[rows], kind="stable")][limit:]
            kept_N[over] = False
            counts["over_share"] += len(over)
        return np.split(kept_N, np.cumsum(sizes)[:-1])


def with_numbers(rows: Sequence[Row]) -> pa.Table:
    """Return the table of a part: rows with numbers.

    These are ``key``, a hash of sentence and context; ``rank``, which decides what stays of a phenomenon; and ``part``,
    which decides the split.
    """
    table = table_of(rows)
    stated = [row.text for row in rows], [row.context or "" for row in rows]
    numbers = {
        "key": pa.array(hash64_each(["row"] * len(rows), *stated), pa.int64()),
        "rank": pa.array(hash64_each(["balance"] * len(rows), *stated), pa.int64()),
        "part": pa.array([split_part(row.text) for row in rows], pa.int16()),
    }
    for name, column in numbers.items():
        table = table.append_column(name, column)
    return table


def key_of(text: str, context: str | None) -> int:
    """Return the key of a sentence in its context."""
    return hash64("row", text, context or "")


def reviewed_rows(
    gold: Sequence[GoldSentence], reviewed: Iterable[Row], mixture: Mixture, counts: Counter[str]
) -> list[Row]:
    """Return the rows that gold became, in their splits and as often as they shall stand there."""
    texts = {item.text for item in gold}
    rows: list[Row] = []
    for row in unique(reviewed, counts):
        split = split_of(row.text, mixture.gold_test_share if row.text in texts else mixture.test_share)
        rows.extend([replace(row, split=split)] * (mixture.gold_weight if split == TRAIN else 1))
    return rows


def in_splits(
    parts: Iterable[pa.Table], kept: Sequence[NDArray[np.bool_]], gold: Sequence[GoldSentence], mixture: Mixture
) -> Iterator[pa.Table]:
    """Yield the rows of each part that stay, in their splits.

    A sentence is in the split of its text in whatever context, reviewed or not: none that is measured was trained on.
    """
    texts = pa.array(sorted({item.text for item in gold}), pa.string())
    for part, kept_P in zip(parts, kept, strict=True):
        table = part.filter(pa.array(kept_P))
        gold_P = pc.is_in(table["text"], value_set=texts).to_numpy()
        shares_P = np.where(gold_P, mixture.gold_test_share, mixture.test_share)
        split: Any = pa.array(splits_of(table["part"].to_numpy(), shares_P), pa.string())
        yield table.set_column(table.column_names.index("split"), "split", split).select(list(COLUMNS))


def count_rows(table: pa.Table) -> Counter[str]:
    """Count rows by split, and by source behind ``from_``."""
    counts: Counter[str] = Counter()
    for column, prefix in (("split", ""), ("source", "from_")):
        for entry in pc.value_counts(table[column]).to_pylist():
            counts[f"{prefix}{entry['values']}"] += entry["counts"]
    return counts
