"""Corpus readers: a folder, file or bucket prefix of reports → raw reports, in parts that workers read on their own.

Two shapes are known so far: a *table* (Parquet with ``report_id``, ``study_id``, ``patient_id``, ``text`` and
optionally ``split``) and the Indiana University collection (*openi*: its Parquet form, or a folder of its XML files;
Demner-Fushman et al., JAMIA 2016).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.sections import Section, join_sections, split_sections
from medfilip.storage.location import Location

CorpusKind = Literal["auto", "table", "openi"]

MAX_REPORT_CHARACTERS = 100_000
XML_FILES_PER_PART = 2_000

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validate": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}
_TABLE_COLUMNS = ("report_id", "study_id", "patient_id", "text")
_OPENI_SECTIONS = ("indication", "comparison", "findings", "impression")
_OPENI_COLUMNS = ("report_id", *_OPENI_SECTIONS)


@dataclass(frozen=True)
class RawReport:
    """A report as its corpus holds it: identifiers not yet pseudonymised.

    ``public_ids`` says that the corpus is public and de-identified, so that report ids may stay readable.
    ``patient_id`` is ``None`` if the corpus does not say which patient a study belongs to.
    """

    report_id: str
    study_id: str
    patient_id: str | None
    text: str
    sections: list[Section]
    source: str
    split: str | None = None
    public_ids: bool = False


@dataclass(frozen=True)
class RejectedReport:
    """A report that cannot be read, with a reason and without its text."""

    report_id: str
    code: ErrorCode
    message: str


@dataclass(frozen=True)
class CorpusPart:
    """A share of a corpus that one worker reads: a row group of a Parquet file, or a list of XML files."""

    kind: Literal["table", "openi", "openi_xml"]
    uris: tuple[str, ...]
    row_group: int = 0


def plan_corpus(location: Location, kind: CorpusKind = "auto") -> list[CorpusPart]:
    """List the parts of a corpus, in a fixed order, after checking that its columns are there.

    Raises
    ------
    MedfilipError
        ``input_not_found``, ``input_empty``, ``column_missing`` or ``shard_corrupt``, naming the file.
    """
    if not location.exists():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no corpus at {location}.", fix="Check the setting 'reports'."
        )
    files = location.children(recursive=True) if location.is_dir() else [location]
    tables = [file for file in files if file.name.endswith(".parquet") and not file.name.startswith(("truth", "."))]
    if tables:
        return [part for table in tables for part in _plan_parquet(table, kind)]
    xml = [file for file in files if file.name.endswith(".xml")]
    if xml:
        uris = [str(file) for file in xml]
        return [
            CorpusPart("openi_xml", tuple(uris[begin : begin + XML_FILES_PER_PART]))
            for begin in range(0, len(uris), XML_FILES_PER_PART)
        ]
    raise MedfilipError(
        ErrorCode.INPUT_EMPTY,
        f"There are no .parquet or .xml files at {location}.",
        fix="Give a folder or file with reports.",
    )


def read_part(part: CorpusPart) -> Iterator[RawReport | RejectedReport]:
    """Yield the reports of a part in the order of the file; what cannot be read is yielded as rejected."""
    if part.kind == "openi_xml":
        from medfilip.reports.openi_xml import read_xml_report

        for uri in part.uris:
            yield read_xml_report(Location.parse(uri))
        return
    file = Location.parse(part.uris[0])
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            table = pq.ParquetFile(stream).read_row_group(part.row_group)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file) from error
    for row in table.to_pylist():
        yield _check_row(row, part.kind)


def check_report(report: RawReport) -> RawReport | RejectedReport:
    """Refuse a report without text or above the length limit."""
    if not report.sections:
        return RejectedReport(report.report_id, ErrorCode.REPORT_EMPTY, "The report has no text.")
    if len(report.text) > MAX_REPORT_CHARACTERS:
        message = f"The report has {len(report.text)} characters; the limit is {MAX_REPORT_CHARACTERS}."
        return RejectedReport(report.report_id, ErrorCode.REPORT_TOO_LONG, message)
    return report


def _check_row(row: dict[str, object], kind: str) -> RawReport | RejectedReport:
    if not _string(row["report_id"]):
        return RejectedReport("", ErrorCode.REPORT_UNREADABLE, "The row has no report_id.")
    # The Indiana collection has no official split; what a copy of it calls so means something else.
    split = _string(row.get("split")) if kind == "table" else None
    if split and split.lower() not in _SPLIT_NAMES:
        message = f"The split is none of {', '.join(_SPLIT_NAMES)}."
        return RejectedReport(str(row["report_id"]), ErrorCode.SPLIT_UNKNOWN, message)
    return check_report(_from_openi(row) if kind == "openi" else _from_table(row))


def _unreadable(file: Location) -> MedfilipError:
    return MedfilipError(
        ErrorCode.SHARD_CORRUPT, f"{file} is not a readable Parquet file.", fix="Restore it from a copy."
    )


def _plan_parquet(file: Location, kind: CorpusKind) -> list[CorpusPart]:
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            metadata = pq.ParquetFile(stream)
            names, groups = set(metadata.schema_arrow.names), metadata.num_row_groups
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(file) from error
    found: Literal["table", "openi"]
    if kind == "auto":
        found = "openi" if names.issuperset(_OPENI_COLUMNS) and "text" not in names else "table"
    else:
        found = kind
    missing = sorted(set(_OPENI_COLUMNS if found == "openi" else _TABLE_COLUMNS) - names)
    if missing:
        raise MedfilipError(
            ErrorCode.COLUMN_MISSING,
            f"{file} lacks the columns {', '.join(missing)} of a corpus of kind '{found}'.",
            fix="Rename its columns, or set 'kind' to the corpus it is.",
        )
    return [CorpusPart(found, (str(file),), group) for group in range(groups)]


def _from_table(row: dict[str, object]) -> RawReport:
    text = _string(row["text"]) or ""
    report_id = _string(row["report_id"]) or ""
    return RawReport(
        report_id=report_id,
        study_id=_string(row["study_id"]) or report_id,
        patient_id=_string(row["patient_id"]),
        text=text,
        sections=split_sections(text),
        source="table",
        split=_SPLIT_NAMES.get((_string(row.get("split")) or "").lower()),
    )


def _from_openi(row: dict[str, object]) -> RawReport:
    report_id = _string(row["report_id"]) or ""
    text, sections = join_sections({name: _string(row[name]) for name in _OPENI_SECTIONS})
    # The collection does not say which reports share a patient; each study stands for one.
    return RawReport(report_id, report_id, None, text, sections, "openi", public_ids=True)


def _string(value: object) -> str | None:
    return None if value is None else str(value)
