"""What is known of a corpus's images before one is opened: an Arrow table with a row per file, cut into parts.

A million rows are some hundred megabytes here, where they would be gigabytes as Python objects. Workers read their
part's rows from one Parquet file, whose row groups are the parts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.labels import merge_states
from medfilip.imaging.limits import ImageLimits
from medfilip.reports.columns import Columns
from medfilip.reports.listing import walk
from medfilip.storage.location import Location

SCHEMA = pa.schema(
    [
        ("name", pa.string()),  # path below the folder
        ("bytes", pa.int64()),  # -1 if the table names a file that is not there
        ("changed", pa.int64()),  # nanoseconds
        ("patient_id", pa.string()),
        ("study_id", pa.string()),
        ("view", pa.string()),  # as the table writes it
        ("split", pa.string()),
        ("sex", pa.string()),
        ("age", pa.string()),
        ("source", pa.string()),
        ("labels", pa.string()),  # states of `medfilip.findings.labels.LabelSet`
    ]
)
"""Columns of a listing; what the corpus does not say is null."""

MISSING_BYTES = -1
PART_BYTES = 256 << 20
MIN_FILES_PER_PART, MAX_FILES_PER_PART = 64, 512
_PARTS = 256  # as many as keep a large cluster busy; larger corpora get larger parts, up to the bounds above
_AT_MOST = 4
"""A study of more files than this many parts hold is cut in two: no corpus has one, but a wrong column may make one."""
_BATCH = 50_000
_NO_IMAGES = (
    ".csv", ".gz", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".parquet", ".pdf", ".py", ".tsv", ".txt",
    ".xml", ".yaml", ".yml", ".zip",
)  # fmt: skip
"""Names that are surely no image. Everything else is read: DICOM files have any name, often a bare UID."""


@dataclass(frozen=True)
class ReportTable:
    """A table of images that has the text of their reports too."""

    file: Location
    columns: Columns


@dataclass(frozen=True)
class ImageListing:
    """The images of a corpus.

    Attributes
    ----------
    folder
        Where the files lie.
    kind
        Shape of the corpus (`medfilip.imaging.corpora.ImageKind`).
    rows
        Table of `SCHEMA`.
    labels
        Names of the labels, in the order of the characters of ``labels``.
    others
        Files of other kinds in the folder.
    unlisted
        Image files that the table does not name, and that are not read.
    reports
        The table as one of reports, if it has their text.
    """

    folder: Location
    kind: str
    rows: pa.Table
    labels: tuple[str, ...] = ()
    others: int = 0
    unlisted: int = 0
    reports: ReportTable | None = None

    def fingerprint(self) -> str:
        """Return a hash of names, sizes, times of change and all that tables say.

        From the listing only: hashing terabytes of pixels would cost as much as ingesting them.
        """
        digest = hashlib.sha256(repr((self.kind, self.labels)).encode())
        for batch in self.rows.combine_chunks().to_batches(max_chunksize=_BATCH):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                # Taken anew, so that what is hashed does not depend on what a slice is a slice of.
                writer.write_batch(pa.RecordBatch.from_pydict(batch.to_pydict(), schema=batch.schema))
            digest.update(sink.getvalue())
        return digest.hexdigest()

    def cuts(self) -> list[int]:
        """Return the first row of each part, and the number of rows: by files and bytes, studies kept together."""
        count = self.rows.num_rows
        files = int(np.clip(-(-count // _PARTS), MIN_FILES_PER_PART, MAX_FILES_PER_PART))
        sizes = np.maximum(self.rows["bytes"].to_numpy(), 0)
        begins_study = self._study_begins()
        cuts, held, begin = [0], 0, 0
        for row in range(count):
            full = row - begin >= files or held + sizes[row] > PART_BYTES
            if full and row > begin and (begins_study[row] or row - begin >= _AT_MOST * files):
                cuts.append(row)
                held, begin = 0, row
            held += int(sizes[row])
        return [*cuts, count] if count else [0]

    def _study_begins(self) -> npt.NDArray[np.bool_]:
        begins = np.ones(self.rows.num_rows, np.bool_)
        studies, patients = (self.rows[name].combine_chunks() for name in ("study_id", "patient_id"))
        if len(studies) > 1:
            # Where the study is not known, the header may name one: then the patient's files stay together.
            unknown = pc.and_(pc.is_null(studies[1:]), pc.is_null(studies[:-1]))
            same = pc.if_else(unknown, pc.equal(patients[1:], patients[:-1]), pc.equal(studies[1:], studies[:-1]))
            begins[1:] = ~pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        return begins

    def write(self, file: Location) -> int:
        """Write the rows to a Parquet file, one row group a part; return the number of parts."""
        cuts = self.cuts()
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
            for begin, end in pairwise(cuts):
                writer.write_table(self.rows.slice(begin, end - begin), row_group_size=end - begin)
        file.write_bytes(sink.getvalue().to_pybytes())
        return len(cuts) - 1


def read_part(file: Location, part: int) -> pa.Table:
    """Read the rows of a part."""
    with file.filesystem.open_input_file(file.path) as stream:
        return pq.ParquetFile(stream).read_row_group(part, use_threads=False)


def read_listed(folder: Location, listed: Mapping[str, Any], limits: ImageLimits) -> bytes:
    """Read the file of a row of a listing, unless it is too large to be read at all.

    Raises
    ------
    MedfilipError
        ``IMAGE_MISSING`` or ``IMAGE_TOO_LARGE``.
    """
    limit = limits.max_file_bytes
    if listed["bytes"] < 0:
        raise MedfilipError(ErrorCode.IMAGE_MISSING, "The table names a file that is not there.")
    if listed["bytes"] > limit:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The file has {listed['bytes']} bytes; the limit is {limit}.",
            fix="Raise limits.max_file_bytes if such files are expected.",
        )
    try:
        data: bytes = (folder / listed["name"]).read_bytes()
    except MedfilipError as error:
        if error.code != ErrorCode.INPUT_NOT_FOUND:
            raise
        raise MedfilipError(ErrorCode.IMAGE_MISSING, "The file went away after it was listed.") from None
    return data


def list_files(folder: Location) -> tuple[pa.Table, int]:
    """List the files below a folder that may be images, in an order of names alone, and count the others.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``INPUT_EMPTY``.
    """
    if not folder.is_dir():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no folder of images at {folder}.", fix="Check the setting 'images'."
        )
    batches: list[pa.RecordBatch] = []
    held: list[tuple[str, int, int]] = []
    others = 0
    for file in walk(folder):
        if file.name.lower().endswith(_NO_IMAGES):
            others += 1
            continue
        held.append((file.name, file.size, file.changed))
        if len(held) >= _BATCH:
            batches.append(_batch(held))
            held.clear()
    batches.append(_batch(held))
    files = pa.Table.from_batches(batches)
    if not files.num_rows:
        raise MedfilipError(
            ErrorCode.INPUT_EMPTY, f"There are no image files below {folder}.", fix="Check the setting 'images'."
        )
    return files, others


def _batch(rows: Sequence[tuple[str, int, int]]) -> pa.RecordBatch:
    schema = pa.schema([SCHEMA.field(name) for name in ("name", "bytes", "changed")])
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return pa.RecordBatch.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
    )


def listing_table(columns: dict[str, pa.Array | pa.ChunkedArray | None], rows: int) -> pa.Table:
    """Return a table of `SCHEMA` from the columns that are known."""
    return pa.table([_as(columns.get(field.name), field.type, rows) for field in SCHEMA], schema=SCHEMA)


def one_row_a_file(rows: pa.Table, place: str) -> pa.Table:
    """Join the rows of a file that a table names several times, as tables of boxes or of several readers do.

    What the first row says stands; a label that one of them has is there (`medfilip.findings.labels.merge_states`).

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if a file has several patients: then the columns are not what they were taken for.
    """
    encoded = rows["name"].combine_chunks().dictionary_encode()
    if len(encoded.dictionary) == rows.num_rows:
        return rows
    files = encoded.indices.to_numpy()
    patients = pa.table({"file": encoded.indices, "patient": rows["patient_id"]}).group_by(["file", "patient"])
    if patients.aggregate([]).num_rows > len(encoded.dictionary):
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"{place} names a file with several patients.",
            fix="Say which columns hold path and patient: image_columns.path=COLUMN image_columns.patient_id=COLUMN.",
        )
    first = np.unique(files, return_index=True)[1]
    joined = rows.take(first)
    if rows["labels"].null_count == rows.num_rows:
        return joined
    order = np.argsort(files, kind="stable")
    states = rows["labels"].take(order).to_pylist()
    begins = np.flatnonzero(np.diff(files[order], prepend=-1)).tolist()
    merged = [merge_states(states[begin:end]) for begin, end in pairwise([*begins, len(states)])]
    column = joined.column_names.index("labels")
    return joined.set_column(column, joined.schema.field(column), pa.array(merged, pa.string()))


def _as(column: pa.Array | pa.ChunkedArray | None, kind: pa.DataType, rows: int) -> pa.Array:
    if column is None:
        return pa.nulls(rows, kind)
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return whole.cast(kind)
