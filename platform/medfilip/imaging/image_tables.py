"""Tables about images, read whole as columns of text: CSV, TSV, JSON lines and Parquet, also compressed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.tables import table_format
from medfilip.storage.location import Location

_HEAD_BYTES = 1 << 16
_WHOLE_NUMBER = r"^(-?\d+)\.0$"
"""A whole number that an empty neighbour turned into a float before it was written."""


def read_table(file: Location) -> pa.Table:
    """Read a table; every column becomes text, lists of text stay lists, and empty cells are null.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``SHARD_CORRUPT``.
    """
    if not file.exists():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no table at {file}.", fix="Check the setting 'image_table'."
        )
    try:
        found = table_format(file.name)
        if found == "parquet":
            table = pq.read_table(pa.BufferReader(file.read_bytes()))
        elif found == "jsonl":
            with file.filesystem.open_input_stream(file.path) as stream:
                table = pajson.read_json(stream)
        else:
            table = _read_csv(file)
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        raise MedfilipError(
            ErrorCode.SHARD_CORRUPT,
            f"The table {file} cannot be read ({type(error).__name__}).",
            fix="Give a CSV, TSV, JSON lines or Parquet file with a line of column names.",
        ) from None
    return pa.table({name: _text(table[name]) for name in dict.fromkeys(table.column_names)})


def parquet_columns(file: Location) -> list[str]:
    """Return the names of a Parquet table's columns, and none for other files and broken ones."""
    if table_format(file.name) != "parquet":
        return []
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            return list(pq.read_schema(stream).names)
    except (pa.ArrowInvalid, OSError):
        return []


def _read_csv(file: Location) -> pa.Table:
    with file.filesystem.open_input_stream(file.path) as stream:
        data: bytes = stream.read()
    encoding = "utf-8"
    try:
        head = data[:_HEAD_BYTES].decode("utf-8-sig", errors="strict" if len(data) <= _HEAD_BYTES else "ignore")
        pa.array([data]).cast(pa.string())
    except (UnicodeDecodeError, pa.ArrowInvalid):
        encoding, head = "latin-1", data[:_HEAD_BYTES].decode("latin-1")
    first = head.splitlines()[0] if head else ""
    delimiter = "\t" if ".tsv" in file.name.lower() else max(",;\t|", key=first.count)
    rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
    names = next(rows, [])
    # Columns without a name, or with one that another has, keep their place and get a name that nobody asks for.
    unique = [
        name.strip() if name.strip() and names.index(name) == at else f"column {at}" for at, name in enumerate(names)
    ]
    return pacsv.read_csv(
        io.BytesIO(data),
        read_options=pacsv.ReadOptions(column_names=unique, skip_rows=rows.line_num, encoding=encoding),
        parse_options=pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pacsv.ConvertOptions(
            column_types=dict.fromkeys(unique, pa.string()),
            strings_can_be_null=True,
            null_values=["", "NA", "nan", "NaN"],
        ),
    )


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text, whole numbers without a fraction; lists of text stay, and what is no text is null."""
    kind = column.type
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    try:
        if listed:
            return column.cast(pa.list_(pa.string()))
        if pa.types.is_floating(kind):
            column = pc.if_else(pc.is_finite(column), column, pa.scalar(None, kind))  # NaN is how an empty cell looks
            whole = pc.all(pc.equal(column, pc.floor(column))).as_py()
            column = column.cast(pa.int64()) if whole else column
        text = column.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.chunked_array([pa.nulls(len(column), pa.string())])
    trimmed = pc.replace_substring_regex(pc.utf8_trim_whitespace(text), _WHOLE_NUMBER, r"\1")
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def match_files(names: pa.ChunkedArray, wanted: pa.ChunkedArray, place: str) -> pa.Array:
    """Return for each path that a table writes the row of its file, null where there is none.

    Tables and folders rarely begin at the same place: what is compared is the whole path, then the path without the
    leading folders of either, then the file's name, then its name without endings; the first way by which most are
    found is taken. A name that several files share finds none of them in that way, and neither does one that several
    of the table's paths share: ``view1_frontal.jpg`` of one patient is not that of another whose file is not there.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if no file is found in any way, naming both sides.
    """
    every = _plain(wanted)
    distinct = pa.chunked_array([pc.unique(every)])
    best = pa.nulls(len(distinct), pa.int32())
    for files, paths in _ways(names, distinct):
        found = pc.index_in(_unambiguous(paths), value_set=_unambiguous(files), skip_nulls=True)
        if found.null_count < best.null_count:
            best = found
        if best.null_count == 0:
            break
    if best.null_count == len(best):
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            f"None of the {len(best)} files that {place} names is below the folder of images, or their names are not "
            "theirs alone.",
            fix="Give as 'images' the folder that the table's paths begin at, and as image_columns.path its column.",
        )
    return best.take(pc.index_in(every.combine_chunks(), value_set=distinct.combine_chunks()))


def _ways(names: pa.ChunkedArray, wanted: pa.ChunkedArray) -> Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    ways = [(names, wanted)]
    for depth in range(1, 7):
        leading = f"^(?:[^/]*/){{{depth}}}"
        ways.append((names, pc.replace_substring_regex(wanted, leading, "")))
        ways.append((pc.replace_substring_regex(names, leading, ""), wanted))
    base = r"^.*/"
    ending = r"(?i)(\.(dcm|dicom|png|jpe?g|nii|gz))+$"
    plain = [pc.replace_substring_regex(side, base, "") for side in (names, wanted)]
    ways.append((plain[0], plain[1]))
    ways.append(tuple(pc.replace_substring_regex(side, ending, "") for side in plain))
    return ways


def _plain(paths: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(pc.replace_substring(paths, "\\", "/"), r"^(\./|/)+", "")


def _unambiguous(files: pa.ChunkedArray) -> pa.Array:
    """Return names with those that several share made null, so that none of them is found."""
    whole = files.combine_chunks()
    counts = pc.value_counts(whole)
    shared = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    return pc.if_else(pc.is_in(whole, value_set=shared), pa.scalar(None, pa.string()), whole)
