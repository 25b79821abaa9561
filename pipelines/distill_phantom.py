"""A phantom corpus as a source of `pipelines.distill`: where its truth lies, cut into parts that tasks read.

A corpus is what ``medfilip phantom`` wrote: ``reports*.parquet`` and, line by line in the same order, ``truth.jsonl``.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.distillation.dataset import Reading
from medfilip.distillation.truth import readings_of_report, unequivocal
from medfilip.phantom.corpus import PhantomTruth
from medfilip.storage.location import Location

TRUTH = "truth.jsonl"
REPORTS_PER_PART = 10_000
_COLUMNS = ["report_id", "text"]
_CHUNK = 8 << 20
_LINE_END = 10


@dataclass(frozen=True)
class CorpusPart:
    """Some reports of a corpus, and the bytes of ``truth.jsonl`` that hold their truth.

    Attributes
    ----------
    first
        Number of the first report within the corpus.
    files
        Names of the corpus's files of reports, with the reports in each.
    """

    folder: Location
    files: tuple[tuple[str, int], ...]
    first: int
    reports: int
    begin: int
    end: int

    def readings(self, counts: Counter[str]) -> list[Reading]:
        """Return what the sentences of its reports state; see `medfilip.distillation.truth` for the counts.

        Raises
        ------
        MedfilipError
            ``SCHEMA_MISMATCH`` if a line is no truth of a phantom report, or of another report than stands there.
        """

        def found() -> Iterator[Reading]:
            for number, (line, (report_id, text)) in enumerate(
                zip(self._lines(), self._texts(), strict=True), start=self.first + 1
            ):
                yield from readings_of_report(text, self._truth(line, number, report_id).findings, counts)

        return unequivocal(found(), counts)

    def _truth(self, line: bytes, number: int, report_id: str) -> PhantomTruth:
        try:
            truth = PhantomTruth.model_validate_json(line)
        except ValidationError as error:
            raise _unfit(self.folder, f"Line {number} is not the truth of a phantom report.") from error
        if truth.report_id != report_id:
            raise _unfit(self.folder, f"Line {number} is the truth of another report than row {number} of the table.")
        return truth

    def _lines(self) -> list[bytes]:
        truth = self.folder / TRUTH
        with truth.filesystem.open_input_file(truth.path) as stream:
            stream.seek(self.begin)
            return bytes(stream.read(self.end - self.begin)).splitlines()

    def _texts(self) -> Iterator[tuple[str, str]]:
        skipped, wanted = self.first, self.reports
        for name, rows in self.files:
            if skipped >= rows:
                skipped -= rows
                continue
            table = _rows(self.folder / name, skipped, min(wanted, rows - skipped))
            yield from zip(*(table[column].to_pylist() for column in _COLUMNS), strict=True)
            wanted -= table.num_rows
            skipped = 0
            if not wanted:
                return


@dataclass(frozen=True)
class Corpus:
    """A phantom corpus; ``fingerprint`` is that of its reports and truth."""

    parts: tuple[CorpusPart, ...]
    fingerprint: str

    @classmethod
    def of(cls, folder: Location) -> Corpus:
        """Find the parts of a corpus; its files are read once.

        Raises
        ------
        MedfilipError
            ``INPUT_NOT_FOUND`` if it lacks reports or truth, ``SCHEMA_MISMATCH`` if these differ in number.
        """
        children = folder.children() if folder.is_dir() else []
        names = sorted(one.name for one in children if one.name.startswith("reports") and one.name.endswith(".parquet"))
        if not names or not (folder / TRUTH).exists():
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"The setting 'phantom' names {folder}, which holds no reports*.parquet with {TRUTH}.",
                fix="Give the folder 'corpus' of a phantom run, without a layout and with truth=true.",
            )
        digests = [(folder / name).sha256() for name in names]
        files = tuple((name, _count_rows(folder / name)) for name in names)
        digest, starts, lines = _scan_lines(folder / TRUTH)
        if lines != sum(rows for _, rows in files):
            raise _unfit(folder, f"It holds {lines:,d} reports, the table {sum(rows for _, rows in files):,d}.")
        parts = tuple(
            CorpusPart(folder, files, first, min(REPORTS_PER_PART, lines - first), begin, end)
            for first, (begin, end) in zip(
                range(0, lines, REPORTS_PER_PART), itertools.pairwise(starts), strict=True
            )
        )  # fmt: skip
        return cls(parts, fingerprint([digest, *digests]))


def _unfit(folder: Location, problem: str) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SCHEMA_MISMATCH,
        f"{TRUTH} of {folder} does not fit its reports. {problem}",
        fix="Write the corpus again with this version.",
    )


def _rows(file: Location, skip: int, count: int) -> pa.Table:
    """Read some rows of a file of reports: the row groups that hold them."""
    with file.filesystem.open_input_file(file.path) as stream:
        parquet = pq.ParquetFile(stream)
        ends = np.cumsum([parquet.metadata.row_group(n).num_rows for n in range(parquet.num_row_groups)])
        first, last = np.searchsorted(ends, [skip, skip + count - 1], side="right")
        table = parquet.read_row_groups(list(range(first, last + 1)), columns=_COLUMNS)
        return table.slice(skip - (int(ends[first - 1]) if first else 0), count)


def _count_rows(file: Location) -> int:
    with file.filesystem.open_input_file(file.path) as stream:
        return int(pq.ParquetFile(stream).metadata.num_rows)


def _scan_lines(file: Location) -> tuple[str, list[int], int]:
    """Return the hash of a text file, where each part of it begins and the last one ends, and its number of lines."""
    digest, starts, lines, at = hashlib.sha256(), [0], 0, 0
    with file.filesystem.open_input_stream(file.path) as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == _LINE_END)
            whole = ends[(-lines - 1) % REPORTS_PER_PART :: REPORTS_PER_PART]
            starts += (at + whole + 1).tolist()
            lines, at = lines + len(ends), at + len(chunk)
    return digest.hexdigest(), [*starts, at] if starts[-1] < at else starts, lines
