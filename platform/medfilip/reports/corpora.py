"""Corpus readers: a folder, file or bucket prefix of reports → raw reports, in parts that workers read on their own.

Known shapes are a *table* (Parquet, CSV, TSV or JSON lines, with any names of columns), *mimic* (the tree of
MIMIC-CXR), *openi* (the Indiana University collection as Parquet or as a folder of its XML files; Demner-Fushman et
al., JAMIA 2016) and *text* (a folder of .txt files).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.reports.columns import Columns
from medfilip.reports.listing import walk
from medfilip.reports.report import MAX_REPORT_CHARACTERS, RawReport, RejectedReport
from medfilip.reports.tables import TablePart, plan_table, read_table_part, table_format
from medfilip.reports.text_files import FilesPart, is_mimic, plan_mimic, plan_text, read_files_part
from medfilip.storage.location import Location

__all__ = [
    "MAX_REPORT_CHARACTERS",
    "CorpusKind",
    "CorpusPart",
    "RawReport",
    "RejectedReport",
    "corpus_fingerprint",
    "plan_corpus",
    "read_part",
]

CorpusKind = Literal["auto", "table", "openi", "mimic", "text"]

XML_FILES_PER_PART = 2_000
_HASH_BLOCK = 8 << 20


@dataclass(frozen=True)
class XmlPart:
    """A share of a folder of XML files: paths relative to ``folder``."""

    folder: str
    names: tuple[str, ...]


CorpusPart = TablePart | FilesPart | XmlPart
"""A share of a corpus that one worker reads."""


def plan_corpus(location: Location, kind: CorpusKind = "auto", columns: Columns | None = None) -> list[CorpusPart]:
    """List the parts of a corpus, in a fixed order, after checking that its columns are there.

    A folder is one kind of corpus: with ``auto`` the tree of MIMIC-CXR, else Parquet files, else CSV and JSON lines,
    else XML, else text files, whichever is found first.

    Raises
    ------
    MedfilipError
        ``input_not_found``, ``input_empty``, ``column_missing`` or ``shard_corrupt``, naming the file.
    """
    if not location.exists():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no corpus at {location}.", fix="Check the setting 'reports'."
        )
    if kind == "mimic" or (kind == "auto" and is_mimic(location)):
        return list(plan_mimic(location))
    if not location.is_dir():
        if kind == "text" or (
            kind == "auto" and table_format(location.name) is None and location.name.endswith(".txt")
        ):
            return list(plan_text(location.parent, [one for one in walk(location.parent) if one.name == location.name]))
        if table_format(location.name) is None:
            raise _nothing(location, kind)
        return list(plan_table(location, columns or Columns(), _table_kind(kind)))
    parts = _plan_folder(location, kind, columns or Columns())
    if not parts:
        raise _nothing(location, kind)
    return parts


def read_part(part: CorpusPart, accept: frozenset[str] = frozenset()) -> Iterator[RawReport | RejectedReport]:
    """Yield the reports of a part in the order of the file; what cannot be used is yielded as rejected.

    ``accept`` holds codes of `medfilip.reports.report.Doubt` that shall not refuse a report.
    """
    if isinstance(part, TablePart):
        yield from read_table_part(part, accept)
    elif isinstance(part, FilesPart):
        yield from read_files_part(part, accept)
    else:
        from medfilip.reports.openi_xml import read_xml_report

        folder = Location.parse(part.folder)
        for name in part.names:
            yield read_xml_report(folder / name, accept)


def corpus_fingerprint(parts: Sequence[CorpusPart]) -> str:
    """Return a fingerprint of what a corpus holds.

    Tables and XML files are hashed, block by block. Trees of text files are too many for that: their listing is.
    """
    seen: dict[str, str] = {}
    for part in parts:
        if isinstance(part, FilesPart):
            seen[f"{part.names[0]}…"] = part.stamp
        else:
            uris = [part.uri] if isinstance(part, TablePart) else [f"{part.folder}/{name}" for name in part.names]
            for uri in uris:
                if uri not in seen:
                    seen[uri] = _hash(Location.parse(uri))
    return fingerprint(list(seen.values()))


def _hash(file: Location) -> str:
    digest = hashlib.sha256()
    with file.filesystem.open_input_file(file.path) as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _plan_folder(folder: Location, kind: CorpusKind, columns: Columns) -> list[CorpusPart]:
    tables: dict[str, list[str]] = {"parquet": [], "csv": [], "jsonl": []}
    xml: list[str] = []
    for file in walk(folder):
        name = file.name.rsplit("/", 1)[-1]
        found = table_format(name)
        if found is not None:
            tables[found].append(file.name)
        elif name.endswith(".xml"):
            xml.append(file.name)
    if kind != "text":
        for names in (tables["parquet"], [*tables["csv"], *tables["jsonl"]] if kind != "openi" else []):
            if names:
                return [part for name in names for part in plan_table(folder / name, columns, _table_kind(kind))]
        if xml and kind != "table":
            return [
                XmlPart(str(folder), tuple(xml[begin : begin + XML_FILES_PER_PART]))
                for begin in range(0, len(xml), XML_FILES_PER_PART)
            ]
    if kind in ("auto", "text"):
        return list(plan_text(folder, (file for file in walk(folder) if file.name.lower().endswith(".txt"))))
    return []


def _table_kind(kind: CorpusKind) -> Literal["auto", "table", "openi"]:
    return kind if kind in ("table", "openi") else "auto"


def _nothing(location: Location, kind: CorpusKind) -> MedfilipError:
    return MedfilipError(
        ErrorCode.INPUT_EMPTY,
        f"There are no reports of kind '{kind}' at {location}: no .parquet, .csv, .tsv, .jsonl, .xml or .txt files.",
        fix="Give a file or folder with reports, and as 'kind' what it is or auto.",
    )
