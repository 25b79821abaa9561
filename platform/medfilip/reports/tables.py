"""Tables of reports: Parquet, CSV, TSV and JSON lines, read in batches and cut where that is safe."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.columns import SECTION_COLUMNS, Columns, identifier, moment, read_row, resolve_columns
from medfilip.reports.encoding import Decoded, clean_text, decode_text
from medfilip.reports.ranges import PART_BYTES, csv_cuts, jsonl_cuts
from medfilip.reports.report import MAX_REPORT_CHARACTERS, RawReport, RejectedReport, Source, make_report
from medfilip.reports.sections import join_sections
from medfilip.storage.location import Location

TableFormat = Literal["parquet", "csv", "jsonl"]
_ENDINGS: dict[str, TableFormat] = {
    ".parquet": "parquet", ".csv": "csv", ".tsv": "csv", ".csv.gz": "csv", ".tsv.gz": "csv",
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".jsonl.gz": "jsonl", ".ndjson.gz": "jsonl",
}  # fmt: skip
_OPENI_SECTIONS = ("indication", "comparison", "findings", "impression")
_OPENI_COLUMNS = ("report_id", *_OPENI_SECTIONS)
_BATCH_ROWS = 512
_MAX_FIELD = 8 << 20
"""Longest field or line: far above the longest report, so that an open quote cannot swallow a whole file."""
_HEAD_BYTES = 1 << 20
_MAX_ID = 200


@dataclass(frozen=True)
class TablePart:
    """A share of a table: a row group, or the bytes ``[begin, end)`` (to the end of the file if 0) of a text file.

    ``delimiter`` and ``header`` are those of a CSV file; ``columns`` is field → column; ``openi`` says that the table
    is the Indiana collection's.
    """

    uri: str
    format: TableFormat
    columns: tuple[tuple[str, str], ...]
    openi: bool = False
    row_group: int = 0
    begin: int = 0
    end: int = 0
    delimiter: str = ","
    header: tuple[str, ...] = ()


def table_format(name: str) -> TableFormat | None:
    """Return the format of a file by its name; the truth beside a phantom corpus and hidden files are no tables."""
    if name.startswith((".", "truth")):
        return None
    return next((found for ending, found in _ENDINGS.items() if name.lower().endswith(ending)), None)


def plan_table(
    file: Location, columns: Columns, kind: Literal["auto", "table", "openi"], part_bytes: int = PART_BYTES
) -> list[TablePart]:
    """Cut a table into parts, after checking that it has the columns.

    Raises
    ------
    MedfilipError
        ``column_missing``, ``shard_corrupt``.
    """
    found = table_format(file.name) or "parquet"
    try:
        if found == "parquet":
            return _plan_parquet(file, columns, kind)
        return _plan_csv(file, columns, part_bytes) if found == "csv" else _plan_jsonl(file, columns, part_bytes)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise _unreadable(file) from error


def read_table_part(part: TablePart, accept: frozenset[str]) -> Iterator[RawReport | RejectedReport]:
    """Yield the reports of a part in the order of the file; what cannot be read is yielded as rejected."""
    file, columns = Location.parse(part.uri), dict(part.columns)
    rows = {"parquet": _parquet_rows, "csv": _csv_rows, "jsonl": _jsonl_rows}[part.format](file, part)
    try:
        for number, row in rows:
            if isinstance(row, str):
                name = f"{file.name}#{number}"
                yield RejectedReport(name, ErrorCode.REPORT_UNREADABLE, f"Record {number} of the part: {row}")
            else:
                yield _to_report(read_row(row, columns), part, accept)
    except (pa.ArrowInvalid, OSError, EOFError) as error:
        raise _unreadable(file) from error


def _plan_parquet(file: Location, columns: Columns, kind: str) -> list[TablePart]:
    with file.filesystem.open_input_file(file.path) as stream:
        metadata = pq.ParquetFile(stream)
        names, groups = list(metadata.schema_arrow.names), metadata.num_row_groups
    openi = kind == "openi" or (kind == "auto" and set(names).issuperset(_OPENI_COLUMNS) and "text" not in names)
    if openi:
        missing = [name for name in _OPENI_COLUMNS if name not in names]
        if missing:
            raise MedfilipError(
                ErrorCode.COLUMN_MISSING,
                f"{file} lacks the columns {', '.join(missing)} of a corpus of kind 'openi'.",
                fix="Rename its columns, or set 'kind' to the corpus it is.",
            )
        found = {name: name for name in _OPENI_COLUMNS}
    else:
        found = resolve_columns(columns, names, str(file))
    return [TablePart(str(file), "parquet", tuple(found.items()), openi, group) for group in range(groups)]


def _plan_csv(file: Location, columns: Columns, part_bytes: int) -> list[TablePart]:
    with file.filesystem.open_input_stream(file.path) as stream:
        head = stream.read(_HEAD_BYTES)
    wide = head[:2] in (b"\xff\xfe", b"\xfe\xff")
    text = head.decode("utf-16", errors="ignore") if wide else head.decode("latin-1")
    delimiter = "\t" if ".tsv" in file.name.lower() else _delimiter(text)
    csv.field_size_limit(_MAX_FIELD)
    header = tuple(_field(name) for name in next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), []))
    found = tuple(resolve_columns(columns, header, str(file)).items())
    cuts = [0]
    if not wide and not file.name.endswith(".gz") and file.size() > part_bytes:
        with file.filesystem.open_input_stream(file.path) as stream:
            cuts = csv_cuts(stream, delimiter, part_bytes=part_bytes)
    return [
        TablePart(str(file), "csv", found, begin=begin, end=end, delimiter=delimiter, header=header)
        for begin, end in zip(cuts, [*cuts[1:], 0], strict=True)
    ]


def _plan_jsonl(file: Location, columns: Columns, part_bytes: int) -> list[TablePart]:
    names: dict[str, None] = {}
    with file.filesystem.open_input_stream(file.path) as stream:
        for line in stream.read(_HEAD_BYTES).splitlines()[:100]:
            names |= dict.fromkeys(_object(line) or {})
    found = tuple(resolve_columns(columns, list(names), str(file)).items())
    cuts = [0]
    if not file.name.endswith(".gz") and file.size() > part_bytes:
        with file.filesystem.open_input_file(file.path) as stream:
            cuts = jsonl_cuts(stream, file.size(), part_bytes=part_bytes)
    return [
        TablePart(str(file), "jsonl", found, begin=begin, end=end)
        for begin, end in zip(cuts, [*cuts[1:], 0], strict=True)
    ]


def _parquet_rows(file: Location, part: TablePart) -> Iterator[tuple[int, dict[str, Any] | str]]:
    # Buffered and not read ahead: a row group may hold a million reports.
    number = 0
    with file.filesystem.open_input_file(file.path) as stream:
        table = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
        names = list(dict.fromkeys(name for _, name in part.columns))
        for batch in table.iter_batches(_BATCH_ROWS, row_groups=[part.row_group], columns=names, use_threads=False):
            for row in batch.to_pylist():
                number += 1
                yield number, row


def _csv_rows(file: Location, part: TablePart) -> Iterator[tuple[int, Mapping[str, Any] | str]]:
    csv.field_size_limit(_MAX_FIELD)
    with _open(file, part) as binary:
        wide = binary.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff") if isinstance(binary, io.BufferedReader) else False
        # Byte by byte, so that the structure is read whatever the encoding is; each field is decoded on its own.
        text = io.TextIOWrapper(binary, encoding="utf-16" if wide else "latin-1", errors="replace", newline="")
        reader = csv.reader(text, delimiter=part.delimiter)
        number = 0
        while True:
            number += 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield number, "A quote is not closed, or a field is too long."
                continue
            if not row or (part.begin == 0 and number == 1):
                continue
            if len(row) != len(part.header):
                yield number, f"It has {len(row)} fields; the first line names {len(part.header)}."
                continue
            fields = row if wide else [field.encode("latin-1") for field in row]
            yield number, dict(zip(part.header, fields, strict=True))


def _jsonl_rows(file: Location, part: TablePart) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _open(file, part) as binary:
        number = 0
        while line := binary.readline(_MAX_FIELD):
            number += 1
            if len(line) == _MAX_FIELD and not line.endswith(b"\n"):
                while (rest := binary.readline(_MAX_FIELD)) and not rest.endswith(b"\n"):
                    pass
                yield number, f"The line is longer than {_MAX_FIELD} bytes."
                continue
            if line.strip():
                yield number, _object(line) or "The line is no JSON object."


def _open(file: Location, part: TablePart) -> BinaryIO:
    """Open the bytes of a part; only what is cut is read at once."""
    if part.begin or part.end:
        with file.filesystem.open_input_file(file.path) as stream:
            size = (part.end or file.size()) - part.begin
            stream.seek(part.begin)
            return io.BytesIO(stream.read(size))
    return io.BufferedReader(file.filesystem.open_input_stream(file.path), 1 << 20)


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        decoded = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        found = decode_text(line)
        decoded = found.text if found else ""
    try:
        value = json.loads(decoded, strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _to_report(row: dict[str, Any], part: TablePart, accept: frozenset[str]) -> RawReport | RejectedReport:
    report_id = identifier(row.get("report_id"))
    if not report_id or len(report_id) > _MAX_ID:
        return RejectedReport("", ErrorCode.REPORT_UNREADABLE, "The row has no report_id, or one that is too long.")
    study, patient = identifier(row.get("study_id")), identifier(row.get("patient_id"))
    if part.openi:
        # The collection does not say which reports share a patient; each study stands for one. It has no official
        # split either: what a copy of it calls so means something else.
        source = Source(report_id, report_id, None, "openi", public_ids=True)
    else:
        title = _decode(row.get("title"))
        issued = moment(row.get("issued"))
        if issued is None and row.get("issued") is not None:
            return RejectedReport(report_id, ErrorCode.REPORT_UNREADABLE, "The time of issue is no ISO 8601 time.")
        source = Source(
            report_id,
            study or report_id,
            patient,
            "table",
            identifier(row.get("split")),
            title.text if title else None,
            issued,
        )
    if row.get("text") is not None or "text" in dict(part.columns):
        return make_report(source, _decode(row.get("text") or ""), accept=accept)
    found = {name: _decode(row.get(name) or "") for name in SECTION_COLUMNS if name in dict(part.columns)}
    if None in found.values():
        return make_report(source, None, accept=accept)
    decoded = {name: one for name, one in found.items() if one is not None}
    if sum(len(one.text) for one in decoded.values()) > MAX_REPORT_CHARACTERS:
        return make_report(source, Decoded("".join(one.text for one in decoded.values()), "utf-8"), accept=accept)
    text, _ = join_sections({name: one.text for name, one in decoded.items()})
    how = max((one.how for one in decoded.values()), key=lambda name: (name != "utf-8", name), default="utf-8")
    return make_report(source, Decoded(text, how), accept=accept)


def _decode(value: Any) -> Decoded | None:
    if value is None:
        return None
    return decode_text(value) if isinstance(value, bytes) else clean_text(str(value))


def _field(name: str) -> str:
    """Return a name of the first line, which was read byte by byte."""
    try:
        decoded = decode_text(name.encode("latin-1"))
    except UnicodeEncodeError:
        decoded = clean_text(name)
    return decoded.text.strip() if decoded else name


def _delimiter(head: str) -> str:
    line = head.split("\n", 1)[0]
    return max(",;\t|", key=lambda character: (line.count(character), character == ","))


def _unreadable(file: Location) -> MedfilipError:
    kind = "Parquet" if file.name.endswith(".parquet") else "compressed or text"
    return MedfilipError(
        ErrorCode.SHARD_CORRUPT, f"{file} is not a readable {kind} file.", fix="Restore it from a copy."
    )
