"""Files of rows that are larger than memory: written and read some rows at a time.

The bytes of a file depend on its rows and facts alone, not on the pieces in which the rows came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.distillation.dataset import COLUMNS, Row

SCHEMA = pa.schema([(name, pa.string()) for name in COLUMNS])
_GROUP, _BATCH = 65_536, 8_192
_FEW_VALUES = ["phenomenon", "source", "split"]
_PREFIX = "medfilip."


def table_of(rows: Iterable[Row]) -> pa.Table:
    """Return rows as a table of `COLUMNS`."""
    rows = list(rows)
    return pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=SCHEMA)


def rows_of(table: pa.Table | pa.RecordBatch) -> Iterator[Row]:
    """Yield the rows of a table."""
    for values in zip(*(table.column(name).to_pylist() for name in COLUMNS), strict=True):
        yield Row(*values)


class RowFile:
    """The rows of a training set, read as often as somebody iterates, never all at once.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` or ``COLUMN_MISSING``.
    """

    def __init__(self, file: Path) -> None:
        if not file.is_file():
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND, f"There is no training set {file}.", fix="Make one, or check the path."
            )
        schema = pq.read_schema(file)
        if missing := [column for column in COLUMNS if column not in schema.names]:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"The training set {file} lacks the columns {', '.join(missing)}.",
                fix="Give a file that medfilip.distillation wrote.",
            )
        told = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        self._file = file
        self.facts = {key.removeprefix(_PREFIX): value for key, value in told.items() if key.startswith(_PREFIX)}

    def __iter__(self) -> Iterator[Row]:
        with pq.ParquetFile(self._file) as parquet:
            for batch in parquet.iter_batches(_BATCH, columns=list(COLUMNS)):
                yield from rows_of(batch)


class RowFileWriter:
    """Writes a training set from tables of `COLUMNS`; a context manager.

    Parameters
    ----------
    facts
        About the making of the rows.
    compression_level
        Of zstd: 19 for what is shipped, fewer for what is large.
    """

    def __init__(self, file: Path, facts: Mapping[str, str], *, compression_level: int = 6) -> None:
        schema = SCHEMA.with_metadata({f"{_PREFIX}{name}": value for name, value in facts.items()})
        self._writer = pq.ParquetWriter(
            file, schema, compression="zstd", compression_level=compression_level, use_dictionary=_FEW_VALUES
        )
        self._schema, self._waiting = schema, SCHEMA.empty_table()

    def __enter__(self) -> Self:
        return self

    def write(self, table: pa.Table) -> None:
        """Take some rows; they are written in groups of equal size."""
        waiting = pa.concat_tables([self._waiting, table.select(list(COLUMNS))])
        while waiting.num_rows >= _GROUP:
            self._write(waiting.slice(0, _GROUP))
            waiting = waiting.slice(_GROUP)
        self._waiting = waiting

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._waiting.num_rows:
            self._write(self._waiting)
        self._writer.close()

    def _write(self, table: pa.Table) -> None:
        self._writer.write_table(table.replace_schema_metadata(self._schema.metadata).combine_chunks(), _GROUP)


def write_rows(rows: Iterable[Row], file: Path, facts: Mapping[str, str]) -> None:
    """Write rows as one Parquet file, with facts about their making in its metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with RowFileWriter(file, facts, compression_level=19) as writer:
        writer.write(table_of(rows))


def read_rows(file: Path) -> tuple[list[Row], dict[str, str]]:
    """Read a whole file: rows and facts; see `RowFile` for what is raised."""
    read = RowFile(file)
    return list(read), read.facts
