"""What ingest looks at across workers: ids and content hashes of staged rows, never their text or pixels.

Each worker writes the index of its part: ids, and for each a 64-bit key. The look over all parts
(`pipelines.look_over`) holds the keys of all rows, and the ids only of those that may be decided here: which of
several rows are duplicates, and which of several reports about one study stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode
from medfilip.core.ids import hash64, keyed_fraction
from medfilip.reports.splits import NO_SPLIT, SPLITS
from medfilip.storage.location import Location

REPORT = "report"

_TEXT_COLUMNS = ("row_id", "patient", "study", "content", "split", "role")
_KEYED = ("patient", "study", "content")
_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in _TEXT_COLUMNS),
        ("issued", pa.float64()),
        ("names_patient", pa.bool_()),
        ("row_id_key", pa.int64()),
        *((f"{name}_key", pa.uint64()) for name in _KEYED),
        ("draw", pa.float64()),
    ]
)

KEYS = np.dtype(
    [
        ("row_id", np.int64),
        ("patient", np.uint64),
        ("study", np.uint64),
        ("content", np.uint64),
        ("draw", np.float64),  # the fraction that the patient's name draws (`medfilip.core.ids.keyed_fraction`)
        ("stated", np.int8),  # number of the split that the corpus states, or NO_SPLIT
        ("plain", np.bool_),  # whether its role is that of a report as most are
        ("names_patient", np.bool_),
    ]
)
"""What is held of every row. Keys of patients, studies and contents are in the order of their names."""

RowKeys = npt.NDArray[np.void]


class IndexRow(NamedTuple):
    """A staged row.

    ``patient`` and ``study`` are pseudonyms, ``content`` is a hash of its text or pixels in hex, ``split`` what the
    corpus itself states; ``role`` and ``issued`` are those of `medfilip.reports.report.RawReport`.
    Where the corpus does not say whose a row is, ``patient`` stands for its study, and ``names_patient`` is false.
    """

    row_id: str
    patient: str
    study: str
    content: str
    split: str | None
    role: str = REPORT
    issued: float | None = None
    names_patient: bool = True


Rows = Mapping[int, IndexRow]
"""Rows by their number among all rows, in the order of the corpus."""


@dataclass
class Decisions:
    """What was decided about rows, by their numbers.

    Attributes
    ----------
    refused
        Row → `ErrorCode.REPORT_DUPLICATE` or `ErrorCode.SUPERSEDED`.
    addenda
        Row → the addenda that are appended to it, in order.
    merged
        Rows that are addenda of another row and have no row of their own.
    """

    refused: dict[int, ErrorCode] = field(default_factory=dict)
    addenda: dict[int, list[int]] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)


def write_index(file: Location, rows: Iterable[IndexRow], key: bytes) -> None:
    """Write the index of a part, in the order of its rows, with the project's ``key`` for what patients draw."""
    columns: dict[str, Any] = {name: [] for name in IndexRow._fields}
    for row in rows:
        for name, value in row._asdict().items():
            columns[name].append(value)
    columns["row_id_key"] = [hash64(row_id) for row_id in columns["row_id"]]
    columns |= {f"{name}_key": _first_bits(columns[name]) for name in _KEYED}
    columns["draw"] = [keyed_fraction(key, patient) for patient in columns["patient"]]
    table = pa.table(columns, schema=_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    file.write_bytes(sink.getvalue().to_pybytes())


def _first_bits(digests: list[str]) -> npt.NDArray[np.uint64]:
    """Return the first 64 bits of digests in hex: as good as another hash of them, and in their order."""
    return np.frombuffer(bytes.fromhex("".join(digest[:16] for digest in digests)), ">u8").astype(np.uint64)


def read_keys(file: Location) -> RowKeys:
    """Read what is held of every row of a part."""
    table = _read(file, [*(f"{name}_key" for name in ("row_id", *_KEYED)), "draw", "split", "role", "names_patient"])
    keys = np.empty(table.num_rows, KEYS)
    for name in ("row_id", *_KEYED):
        keys[name] = table[f"{name}_key"].to_numpy()
    keys["draw"] = table["draw"].to_numpy()
    stated = pc.index_in(table["split"], value_set=pa.array(SPLITS, pa.string()))
    keys["stated"] = pc.fill_null(stated, NO_SPLIT).to_numpy()
    keys["plain"] = pc.equal(table["role"], REPORT).to_numpy()
    keys["names_patient"] = table["names_patient"].to_numpy()
    return keys


def read_rows(file: Location, rows: npt.NDArray[np.int64]) -> pa.Table:
    """Read some rows of a part: a table with the fields of `IndexRow`."""
    return _read(file, list(IndexRow._fields)).take(rows)


def _read(file: Location, columns: list[str]) -> pa.Table:
    return pq.read_table(pa.BufferReader(file.read_bytes()), schema=_SCHEMA, columns=columns, use_threads=False)


def find_duplicates(rows: Rows) -> list[int]:
    """Return the rows whose id or content an earlier row that stands already has.

    Equal pixels in another study are a duplicate too: no two exposures are alike to the last bit, so it is a copy
    under another name, whatever it is called.
    """
    seen: set[tuple[str, str]] = set()
    repeated: list[int] = []
    for number, row in rows.items():
        mine = {("id", row.row_id), ("content", row.content)}
        if mine & seen:
            repeated.append(number)
        else:
            seen |= mine
    return repeated


def decide_reports(rows: Rows) -> Decisions:
    """Decide which reports stand where several are about one study.

    1. The same content in the same study, or an id that another study has, is a duplicate: the earlier row stays.
    2. Of several reports under one id, the last to be issued stands (in the order of the corpus where it names no
       time); one that says it is a correction stands over one that does not. The others are superseded.
    3. A correction under an id of its own supersedes the report before it in its study, and a preliminary report is
       superseded by any other report of its study. Several other reports of one study all stand.
    4. An addendum is appended to the report with its id, else to the last report of its study; alone, it stands.
    """
    decisions = Decisions()
    for group in _contested(rows, decisions):
        _decide_study(rows, decisions, group)
    return decisions


def _contested(rows: Rows, decisions: Decisions) -> list[list[int]]:
    """Refuse duplicates, and return the rows of every study that has more than one left, in the order of the corpus."""
    study_of: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    studies: dict[str, list[int]] = {}
    for number, row in rows.items():
        if (row.study, row.content) in seen or study_of.setdefault(row.row_id, row.study) != row.study:
            decisions.refused[number] = ErrorCode.REPORT_DUPLICATE
            continue
        seen.add((row.study, row.content))
        studies.setdefault(row.study, []).append(number)
    return [group for group in studies.values() if len(group) > 1]


def _decide_study(rows: Rows, decisions: Decisions, group: list[int]) -> None:
    if all(rows[number].issued is not None for number in group):
        group = sorted(group, key=lambda number: rows[number].issued or 0.0)  # stable: equal times keep their order

    def supersede(number: int) -> None:
        decisions.refused[number] = ErrorCode.SUPERSEDED
        standing.remove(number)

    standing = [number for number in group if rows[number].role != "addendum"]
    by_id: dict[str, int] = {}
    for number in list(standing):
        rival = by_id.setdefault(rows[number].row_id, number)
        if rival != number:
            loser, by_id[rows[number].row_id] = (
                (number, rival)
                if rows[rival].role == "correction" and rows[number].role != "correction"
                else (rival, number)
            )
            supersede(loser)
    for number in [number for number in standing if rows[number].role == "correction"]:
        others = [other for other in standing if rows[other].role in (REPORT, "preliminary")]
        before = [other for other in others if group.index(other) < group.index(number)]
        # It says itself that it came later, whatever the order of the corpus.
        if others:
            supersede(before[-1] if before else others[0])
    for number in [number for number in standing if rows[number].role == "preliminary"]:
        if any(rows[other].role != "preliminary" for other in standing):
            supersede(number)
    _append_addenda(rows, decisions, standing, [number for number in group if rows[number].role == "addendum"])


def _append_addenda(rows: Rows, decisions: Decisions, standing: list[int], addenda: list[int]) -> None:
    own = {rows[number].row_id: number for number in standing}
    for number in addenda:
        base = own.get(rows[number].row_id, standing[-1] if standing else None)
        if base is None:
            own[rows[number].row_id] = number
            continue
        decisions.addenda.setdefault(base, []).append(number)
        decisions.merged.add(number)
