"""What ingest looks at across workers: ids and content hashes of staged rows, never their text or pixels.

Each worker writes the index of its part; one look over all of them draws the splits and finds duplicates.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.storage.location import Location

_SCHEMA = pa.schema([(name, pa.string()) for name in ("row_id", "patient", "study", "content", "split")])


class IndexRow(NamedTuple):
    """A staged row; ``content`` is a hash of its text or pixels, ``split`` what the corpus itself states."""

    row_id: str
    patient: str
    study: str
    content: str
    split: str | None


def write_index(file: Location, rows: Iterable[IndexRow]) -> None:
    """Write the index of a part, in the order of its rows."""
    table = pa.Table.from_pylist([row._asdict() for row in rows], schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    file.write_bytes(sink.getvalue().to_pybytes())


def read_index(file: Location) -> list[IndexRow]:
    """Read the index of a part."""
    table = pq.read_table(pa.BufferReader(file.read_bytes()), schema=_SCHEMA)
    return [IndexRow(*row) for row in zip(*(table[name].to_pylist() for name in _SCHEMA.names), strict=True)]


def find_duplicates(parts: list[list[IndexRow]]) -> list[list[int]]:
    """Return, by part, the rows whose id, or content within their study, an earlier row already has.

    The same words about the same patient in another study are no duplicate: a second normal radiograph.
    """
    seen: set[object] = set()
    repeated: list[list[int]] = []
    for rows in parts:
        found: list[int] = []
        for number, row in enumerate(rows):
            if row.row_id in seen or (row.study, row.content) in seen:
                found.append(number)
            seen.update((row.row_id, (row.study, row.content)))
        repeated.append(found)
    return repeated
