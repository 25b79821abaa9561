"""One look over all staged parts: splits, duplicates, and which report stands, in some 100 bytes a row.

Of every row it holds 64-bit keys. Equal keys choose the rows about which something may have to be decided, and the
decisions are made on the ids of those rows themselves (`pipelines.row_index`): that two keys are equal by chance costs
a needless look. Only a split is drawn by keys alone: two patients whose keys are equal by chance share a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from medfilip.core.errors import ErrorCode
from medfilip.core.links import connected, repeated
from medfilip.reports.splits import SplitNumbers, assign_splits
from medfilip.storage.location import Location
from pipelines.row_index import KEYS, IndexRow, RowKeys, decide_reports, find_duplicates, read_keys, read_rows

_ROWS_AT_ONCE = 50_000
"""Rows whose ids are held as Python objects at a time; more if what belongs together is more."""
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads the bits of one key before another is added to it

Numbers = npt.NDArray[np.int64]


class Verdict(IntEnum):
    """What becomes of a row."""

    STANDS = 0
    DUPLICATE = 1
    SUPERSEDED = 2
    MERGED = 3  # it is an addendum whose text another row takes


_VERDICTS = {ErrorCode.REPORT_DUPLICATE: Verdict.DUPLICATE, ErrorCode.SUPERSEDED: Verdict.SUPERSEDED}


class StagedPart(NamedTuple):
    """A staged part: its name below staging, the file of its index, and how many rows it has."""

    path: str
    file: Location
    rows: int


class Look:
    """The keys of all staged rows, reports before images; a row's number is its place among them.

    Attributes
    ----------
    parts
        The parts, in order.
    begins
        Number of the first row of each part, and of all rows at the end.
    reports
        How many rows are reports.
    keys
        Keys of all rows.
    """

    def __init__(self, reports: Sequence[StagedPart], images: Sequence[StagedPart]) -> None:
        self.parts = [*reports, *images]
        self.begins = np.cumsum([0, *(part.rows for part in self.parts)])
        self.reports = int(self.begins[len(reports)])
        self.keys: RowKeys = np.empty(self.begins[-1], KEYS)
        for part, begin, end in zip(self.parts, self.begins, self.begins[1:], strict=False):
            self.keys[begin:end] = read_keys(part.file)

    def rows(self, numbers: Numbers) -> Iterator[pa.Table]:
        """Yield tables of the ids of rows, given by ascending numbers."""
        bounds = np.searchsorted(numbers, self.begins)
        for part, first, begin, end in zip(self.parts, self.begins, bounds, bounds[1:], strict=False):
            if begin < end:
                yield read_rows(part.file, numbers[begin:end] - first)

    def place(self, number: int) -> tuple[int, int]:
        """Return the part of a row, and its row there."""
        part = int(np.searchsorted(self.begins, number, side="right")) - 1
        return part, number - int(self.begins[part])

    def places(self, numbers: Numbers) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Yield for each part that holds any of some rows: its number, which of them it holds, and their rows in it."""
        parts = np.searchsorted(self.begins, numbers, side="right") - 1
        for part in np.unique(parts):
            held = np.flatnonzero(parts == part)
            yield int(part), held, numbers[held] - self.begins[part]


@dataclass
class Decided:
    """What the look over all parts decided, row by row.

    Attributes
    ----------
    verdicts
        `Verdict` of each row.
    addenda
        Row → the addenda that are appended to it, in order.
    named_by
        For each row the report that names its patient, or -1 if it does so itself.
    splits
        Number of each row's split (`medfilip.reports.splits.SPLITS`).
    """

    verdicts: npt.NDArray[np.int8]
    addenda: dict[int, list[int]]
    named_by: Numbers
    splits: SplitNumbers


def look_over(look: Look, shares: Mapping[str, float]) -> Decided:
    """Decide on all rows; ``shares`` are those of the splits."""
    named_by = _named_by(look)
    verdicts, addenda = np.zeros(len(look.keys), np.int8), {}
    for rows in _batches(look, _questionable_reports(look)):
        decisions = decide_reports(rows)
        for number, code in decisions.refused.items():
            verdicts[number] = _VERDICTS[code]
        verdicts[list(decisions.merged)] = Verdict.MERGED
        addenda.update(decisions.addenda)
    for rows in _batches(look, _questionable_images(look)):
        verdicts[find_duplicates(rows)] = Verdict.DUPLICATE
    return Decided(verdicts, addenda, named_by, _splits(look, named_by, shares))


def _named_by(look: Look) -> Numbers:
    """Find whose report names a row's patient: the last report of its study.

    Many de-identified images name no patient: then their study's report says whose they are.
    """
    studies, patients = look.keys["study"], look.keys["patient"]
    if not look.reports:
        return np.full(len(studies), -1, np.int64)
    # Of the reversed rows the first of each study is found.
    known, lasts = np.unique(studies[: look.reports][::-1], return_index=True)
    lasts = look.reports - 1 - lasts
    at = np.minimum(np.searchsorted(known, studies), len(known) - 1)
    named_by = np.where(known[at] == studies, lasts[at], -1)
    named_by[patients[named_by] == patients] = -1  # where there is none, the last row is looked at in vain
    return named_by


def _splits(look: Look, named_by: Numbers, shares: Mapping[str, float]) -> SplitNumbers:
    keys = look.keys
    named = np.where(named_by < 0, np.arange(len(keys)), named_by)
    links = (keys["study"], keys["content"])
    return assign_splits(keys["patient"][named], links, keys["draw"][named], shares, keys["stated"])


def _questionable_reports(look: Look) -> Numbers:
    """Return the reports about which something may have to be decided: all of a study, if any is not as most are."""
    keys = look.keys[: look.reports]
    asks = repeated(keys["study"]) & (repeated(_of_study(keys)) | ~keys["plain"])
    asks |= repeated(keys["row_id"])
    return np.flatnonzero(np.isin(keys["study"], keys["study"][asks]))


def _questionable_images(look: Look) -> Numbers:
    keys = look.keys[look.reports :]
    return look.reports + np.flatnonzero(repeated(keys["row_id"]) | repeated(_of_study(keys)))


def _of_study(keys: RowKeys) -> npt.NDArray[np.uint64]:
    """Return keys of contents within their study."""
    return np.asarray(keys["study"] * _ODD + keys["content"], np.uint64)


def _batches(look: Look, numbers: Numbers) -> Iterator[dict[int, IndexRow]]:
    """Yield rows with their ids, in the order of the corpus; rows with a study or id in common are in one batch."""
    if not len(numbers):
        return
    table = pa.concat_tables(look.rows(numbers))
    groups = connected([look.keys[name][numbers] for name in ("study", "row_id")])
    order = np.argsort(groups, kind="stable")
    begin = 0
    while begin < len(order):
        last = groups[order[min(begin + _ROWS_AT_ONCE, len(order)) - 1]]
        end = int(np.searchsorted(groups, last, side="right", sorter=order))
        held = np.sort(order[begin:end])
        columns = (column.to_pylist() for column in table.take(held).columns)
        yield dict(zip(numbers[held].tolist(), map(IndexRow._make, zip(*columns, strict=True)), strict=True))
        begin = end
