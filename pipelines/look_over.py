"""One look over all staged parts: splits, duplicates, and which report stands, in some 100 bytes a row.

Of every row it holds 64-bit keys. Equal keys choose the rows about which something may have to be decided, and the
decisions are made on the ids of those rows themselves (`pipelines.row_index`): that two keys are equal by chance costs
a needless look. Only splits are drawn by keys alone: among ten million patients two have equal keys by chance in one of
some 300,000 corpora, and then they share a split.
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
from medfilip.core.links import among, connected, repeated
from medfilip.reports.splits import SplitNumbers, assign_splits
from medfilip.storage.location import Location
from pipelines.row_index import KEYS, IndexRow, RowKeys, decide_reports, find_duplicates, read_keys, read_rows

_ROWS_AT_ONCE = 5_000
"""Rows whose ids are held as Python objects at a time; more if what belongs together is more."""
TEMPLATE_PATIENTS = 3
"""A report's text that more patients than these share is a template: it ties nobody to anybody."""
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads the bits of one key before another is added to it

Numbers = npt.NDArray[np.int64]
_NO_PAIRS = np.empty((0, 2), np.int64)


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
                _give_back()

    def places(self, numbers: Numbers) -> tuple[Numbers, Numbers]:
        """Return for each of some rows its part, and its row there."""
        parts = np.searchsorted(self.begins, numbers, side="right") - 1
        return parts, numbers - self.begins[parts]


class Pairs(NamedTuple):
    """Rows, ascending, and reports that give them something."""

    rows: Numbers
    others: Numbers

    def within(self, begin: int, end: int) -> Pairs:
        """Return the pairs of the rows in a range."""
        first, after = np.searchsorted(self.rows, (begin, end))
        return Pairs(self.rows[first:after], self.others[first:after])


@dataclass
class Decided:
    """What the look over all parts decided, row by row.

    Attributes
    ----------
    verdicts
        `Verdict` of each row.
    addenda
        Rows with the addenda that are appended to them, in order.
    named_by
        Rows whose patient another row names, with that row.
    splits
        Number of each row's split (`medfilip.reports.splits.SPLITS`).
    templates
        How many reports have a text that many patients share.
    """

    verdicts: npt.NDArray[np.int8]
    addenda: Pairs
    named_by: Pairs
    splits: SplitNumbers
    templates: int


def look_over(look: Look, shares: Mapping[str, float]) -> Decided:
    """Decide on all rows; ``shares`` are those of the splits. Rows of ``look`` take the patient that others name."""
    named = _named_by(look)
    for name in ("patient", "draw"):
        look.keys[name][named.rows] = look.keys[name][named.others]
    verdicts, addenda = np.zeros(len(look.keys), np.int8), [_NO_PAIRS]
    for rows in _batches(look, _questionable_reports(look), ("study", "row_id")):
        decisions = decide_reports(rows)
        for number, code in decisions.refused.items():
            verdicts[number] = _VERDICTS[code]
        verdicts[list(decisions.merged)] = Verdict.MERGED
        found = [(row, addendum) for row, appended in decisions.addenda.items() for addendum in appended]
        addenda.append(np.array(found, np.int64).reshape(-1, 2))
    for rows in _batches(look, _questionable_images(look), ("row_id", "content")):
        verdicts[find_duplicates(rows)] = Verdict.DUPLICATE
    keys = look.keys
    templates = _templates(keys[: look.reports])
    contents = keys["content"].copy()
    contents[templates] = templates.astype(np.uint64) * _ODD  # no two alike
    splits = assign_splits(keys["patient"], (keys["study"], contents), keys["draw"], shares, keys["stated"])
    pairs = np.concatenate(addenda)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return Decided(verdicts, Pairs(*pairs.T), named, splits, len(templates))


def _named_by(look: Look) -> Pairs:
    """Find rows whose patient another row names, and which: the last report of their study that names one.

    Many de-identified images name no patient: then their study's report says whose they are.
    """
    studies, patients = look.keys["study"], look.keys["patient"]
    shared = np.flatnonzero(repeated(studies))  # a row that is alone in its study names its patient itself
    reports = shared[(shared < look.reports) & look.keys["names_patient"][shared]]
    if not len(reports):
        return Pairs(*_NO_PAIRS.T)
    # Of the reversed reports the first of each study is found.
    known, reversed_places = np.unique(studies[reports][::-1], return_index=True)
    reported, places = among(studies[shared], known)
    rows, lasts = shared[reported], reports[len(reports) - 1 - reversed_places[places]]
    differs = patients[rows] != patients[lasts]
    return Pairs(rows[differs], lasts[differs])


def _templates(keys: RowKeys) -> Numbers:
    """Return the reports whose text more than a few patients share.

    A copied report must not be trained on in one split and tested on in another. But one hospital's "normal chest" is
    the report of half of its patients: tied together by it, all of them would be in one split.
    """
    shared = np.flatnonzero(repeated(keys["content"]))
    contents, patients = keys["content"][shared], keys["patient"][shared]
    order = np.lexsort((patients, contents))
    other_content = np.diff(contents[order], prepend=~contents[order[:1]]) != 0
    other_patient = other_content | (np.diff(patients[order], prepend=patients[order[:1]]) != 0)
    groups = np.cumsum(other_content) - 1
    many = np.bincount(groups, weights=other_patient) > TEMPLATE_PATIENTS
    return np.sort(shared[order[many[groups]]])


def _questionable_reports(look: Look) -> Numbers:
    """Return the reports about which something may have to be decided: all of a study, if any is not as most are."""
    keys = look.keys[: look.reports]
    asks = repeated(keys["study"]) & (repeated(_of_study(keys)) | ~keys["plain"])
    asks |= repeated(keys["row_id"])
    studies = np.unique(keys["study"][asks])
    return np.flatnonzero(among(keys["study"], studies)[0]) if len(studies) else np.empty(0, np.int64)


def _questionable_images(look: Look) -> Numbers:
    keys = look.keys[look.reports :]
    return look.reports + np.flatnonzero(repeated(keys["row_id"]) | repeated(keys["content"]))


def _of_study(keys: RowKeys) -> npt.NDArray[np.uint64]:
    """Return keys of contents within their study."""
    return np.asarray(keys["study"] * _ODD + keys["content"], np.uint64)


def _batches(look: Look, numbers: Numbers, linked: Sequence[str]) -> Iterator[dict[int, IndexRow]]:
    """Yield rows with their ids, in the order of the corpus; what is linked by a key is in one batch."""
    if not len(numbers):
        return
    table = pa.concat_tables(look.rows(numbers))
    groups = connected([look.keys[name][numbers] for name in linked])
    order = np.argsort(groups, kind="stable")
    begin = 0
    while begin < len(order):
        last = groups[order[min(begin + _ROWS_AT_ONCE, len(order)) - 1]]
        end = int(np.searchsorted(groups, last, side="right", sorter=order))
        held = np.sort(order[begin:end])
        columns = (column.to_pylist() for column in table.take(held).columns)
        yield dict(zip(numbers[held].tolist(), map(IndexRow._make, zip(*columns, strict=True)), strict=True))
        begin = end
    del table
    _give_back()


def _give_back() -> None:
    """Give memory that Arrow keeps for later back to the system: few rows that stay hold on to all that were read."""
    pa.default_memory_pool().release_unused()
