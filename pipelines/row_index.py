"""What ingest looks at across workers: ids and content hashes of staged rows, never their text or pixels.

Each worker writes the index of its part; one look over all of them draws the splits, finds duplicates, and decides
which of several reports about one study stands.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode
from medfilip.storage.location import Location

_TEXT_COLUMNS = ("row_id", "patient", "study", "content", "split", "role")
_SCHEMA = pa.schema([*((name, pa.string()) for name in _TEXT_COLUMNS), ("issued", pa.float64())])


class IndexRow(NamedTuple):
    """A staged row.

    ``content`` is a hash of its text or pixels, ``split`` what the corpus itself states; ``role`` and ``issued`` are
    those of `medfilip.reports.report.RawReport`.
    """

    row_id: str
    patient: str
    study: str
    content: str
    split: str | None
    role: str = "report"
    issued: float | None = None


Place = tuple[int, int]
"""Part and row of an index row."""


@dataclass
class Decisions:
    """What the look over all parts decided about the rows of one part.

    Attributes
    ----------
    refused
        Row → `ErrorCode.REPORT_DUPLICATE` or `ErrorCode.SUPERSEDED`.
    addenda
        Row → the places of the addenda that are appended to it, in order.
    merged
        Rows that are addenda of another row and have no row of their own.
    """

    refused: dict[int, ErrorCode] = field(default_factory=dict)
    addenda: dict[int, list[Place]] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)


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


def decide_reports(parts: list[list[IndexRow]]) -> list[Decisions]:
    """Decide which reports stand where several are about one study.

    1. The same content in the same study, or an id that another study has, is a duplicate: the earlier row stays.
    2. Of several reports under one id, the last to be issued stands (in the order of the corpus where it names no
       time); one that says it is a correction stands over one that does not. The others are superseded.
    3. A correction under an id of its own supersedes the report before it in its study, and a preliminary report is
       superseded by any other report of its study. Several other reports of one study all stand.
    4. An addendum is appended to the report with its id, else to the last report of its study; alone, it stands.
    """
    decisions = [Decisions() for _ in parts]
    for group in _contested(parts, decisions):
        _decide_study(parts, decisions, group)
    return decisions


def _contested(parts: list[list[IndexRow]], decisions: list[Decisions]) -> list[list[Place]]:
    """Refuse duplicates, and return the rows of every study that has more than one left, in the order of the corpus."""
    study_of: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    places: dict[str, Place | list[Place]] = {}  # a list only where it is needed: most studies have one report
    for part, rows in enumerate(parts):
        for number, row in enumerate(rows):
            if (row.study, row.content) in seen or study_of.setdefault(row.row_id, row.study) != row.study:
                decisions[part].refused[number] = ErrorCode.REPORT_DUPLICATE
                continue
            seen.add((row.study, row.content))
            known = places.get(row.study)
            if known is None:
                places[row.study] = (part, number)
            elif isinstance(known, list):
                known.append((part, number))
            else:
                places[row.study] = [known, (part, number)]
    return [known for known in places.values() if isinstance(known, list)]


def _decide_study(parts: list[list[IndexRow]], decisions: list[Decisions], group: list[Place]) -> None:
    rows = {place: parts[place[0]][place[1]] for place in group}
    if all(row.issued is not None for row in rows.values()):
        group = sorted(group, key=lambda place: rows[place].issued or 0.0)  # stable: equal times keep their order

    def supersede(place: Place) -> None:
        decisions[place[0]].refused[place[1]] = ErrorCode.SUPERSEDED
        standing.remove(place)

    standing = [place for place in group if rows[place].role != "addendum"]
    by_id: dict[str, Place] = {}
    for place in list(standing):
        rival = by_id.setdefault(rows[place].row_id, place)
        if rival != place:
            loser, by_id[rows[place].row_id] = (
                (place, rival)
                if rows[rival].role == "correction" and rows[place].role != "correction"
                else (rival, place)
            )
            supersede(loser)
    for place in [place for place in standing if rows[place].role == "correction"]:
        others = [other for other in standing if rows[other].role in ("report", "preliminary")]
        before = [other for other in others if group.index(other) < group.index(place)]
        # It says itself that it came later, whatever the order of the corpus.
        if others:
            supersede(before[-1] if before else others[0])
    for place in [place for place in standing if rows[place].role == "preliminary"]:
        if any(rows[other].role != "preliminary" for other in standing):
            supersede(place)
    _append_addenda(rows, decisions, standing, [place for place in group if rows[place].role == "addendum"])


def _append_addenda(
    rows: dict[Place, IndexRow], decisions: list[Decisions], standing: list[Place], addenda: list[Place]
) -> None:
    own = {rows[place].row_id: place for place in standing}
    for place in addenda:
        base = own.get(rows[place].row_id) or (standing[-1] if standing else None)
        if base is None:
            own[rows[place].row_id] = place
            continue
        decisions[base[0]].addenda.setdefault(base[1], []).append(place)
        decisions[place[0]].merged.add(place[1])
