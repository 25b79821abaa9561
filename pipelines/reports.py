"""The report half of ingest: parts of a corpus → staged rows of `reports`, their index, and what was refused."""

from __future__ import annotations

from collections import Counter
from typing import Any

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import sha256_bytes
from medfilip.core.ids import pseudonym
from medfilip.reports.corpora import CorpusPart, RawReport, read_part
from medfilip.storage.location import Location
from medfilip.storage.schemas import REJECTED, REPORTS
from medfilip.storage.shards import write_shard
from pipelines.images import PHANTOM
from pipelines.row_index import IndexRow, write_index

PIECE_ROWS = 20_000
PIECE_CHARACTERS = 64 << 20
"""Bounds of one staged piece: a part that cannot be cut (a compressed table) becomes many of them."""


class _Pieces:
    """Collects the rows of a part and writes them away piece by piece, under names that only the part decides."""

    def __init__(self, staging: Location, number: int, key: bytes) -> None:
        self.written: list[dict[str, Any]] = []
        self._staging, self._number, self._key = staging, number, key
        self._clear()

    def _clear(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.index: list[IndexRow] = []
        self.rejected: list[dict[str, object]] = []
        self._characters = 0

    def add(self, row: dict[str, Any], index: IndexRow) -> None:
        """Take a row, and write if there are enough."""
        self.rows.append(row)
        self.index.append(index)
        self._characters += len(row["text"])
        self._write_if_full()

    def refuse(self, row: dict[str, object]) -> None:
        """Take a row of ``rejected``, and write if there are enough."""
        self.rejected.append(row)
        self._write_if_full()

    def _write_if_full(self) -> None:
        if max(len(self.rows), len(self.rejected)) >= PIECE_ROWS or self._characters >= PIECE_CHARACTERS:
            self.write()

    def write(self) -> None:
        """Write what was collected; an empty part has one empty piece."""
        if not self.rows and not self.rejected and self.written:
            return
        name = f"part-{self._number:05d}"
        path = f"{name}-{len(self.written):04d}.parquet" if self.written else f"{name}.parquet"
        write_shard(self._staging / "reports", path, REPORTS, REPORTS.from_rows(self.rows))
        write_index(self._staging / f"reports_index/{path}", self.index, self._key)
        write_shard(self._staging / "reports_rejected", path, REJECTED, REJECTED.from_rows(self.rejected))
        self.written.append({"path": path, "rows": len(self.rows), "rejected": len(self.rejected)})
        self._clear()


def ingest_reports(
    numbered: tuple[int, CorpusPart],
    *,
    staging: Location,
    key: bytes,
    keep_ids: bool,
    accept: frozenset[str],
    excluded: frozenset[str],
    synthetic: bool,
) -> dict[str, Any]:
    """Read a part of the corpus and stage ``reports`` rows without a split; one bad report costs one row.

    Returns the pieces that were written, and how many reports needed which decoding.
    """
    number, part = numbered
    pieces = _Pieces(staging, number, key)
    decoded: Counter[str] = Counter()

    def refuse(report_id: str, code: ErrorCode, message: str) -> None:
        public = pseudonym(key, "report", report_id) if not keep_ids else report_id
        pieces.refuse({"id": public, "stage": "ingest", "code": code, "message": message})

    for report in read_part(part, accept):
        if not isinstance(report, RawReport):
            refuse(report.report_id, report.code, report.message)
        elif excluded & {report.report_id, report.study_id, report.patient_id}:
            refuse(report.report_id, ErrorCode.EXCLUDED, "The report is on the list of excluded ids.")
        else:
            row = _report_row(report, key, keep_ids=keep_ids or report.public_ids)
            content = sha256_bytes(report.text.encode())
            index = IndexRow(
                row["report_id"],
                row["patient_id"],
                row["study_id"],
                content,
                row["split"],
                report.role,
                report.issued,
                names_patient=bool(report.patient_id),
            )
            pieces.add(row | {"source": PHANTOM} if synthetic else row, index)
            decoded[report.decoded] += 1
    pieces.write()
    return {"pieces": pieces.written, "decoded": dict(decoded)}


def _report_row(report: RawReport, key: bytes, *, keep_ids: bool) -> dict[str, Any]:
    return {
        "report_id": report.report_id if keep_ids else pseudonym(key, "report", report.report_id),
        "study_id": pseudonym(key, "study", report.study_id),
        "patient_id": pseudonym(key, "patient", report.patient_id or report.study_id),
        "text": report.text,
        "sections": [{"name": s.name, "start": s.start, "end": s.end} for s in report.sections],
        "source": report.source,
        "split": report.split,
    }
