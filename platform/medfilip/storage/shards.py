"""Shards: Parquet files of one dataset, written whole and read with their hash and schema checked."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import DATASETS, DatasetSchema

T = TypeVar("T")

ROW_GROUP_BYTES = 32 << 20
CHECKED = {"write_page_checksum": True}
"""Arguments of a Parquet writer: a damaged page must be noticed where no manifest has the file's hash yet."""


def write_shard(run: Location, path: str, schema: DatasetSchema, table: pa.Table) -> Shard:
    """Write ``table`` as one shard below the run folder and return its manifest entry.

    Rows keep their order; the caller sorts. Writing the same table again gives the same bytes and hash.
    """
    table = schema.conform(table)
    data = _encode(table)
    (run / path).write_bytes(data)
    return Shard(path=path, rows=table.num_rows, bytes=len(data), sha256=sha256_bytes(data))


def _encode(table: pa.Table) -> bytes:
    rows = max(table.num_rows, 1)
    rows_per_group = max(1, min(rows, ROW_GROUP_BYTES * rows // max(table.nbytes, 1)))
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=rows_per_group, write_statistics=True, **CHECKED)
    return sink.getvalue()


def read_shard(run: Location, shard: Shard, schema: DatasetSchema, columns: list[str] | None = None) -> pa.Table:
    """Read one shard; a hash that does not match its manifest is `ErrorCode.SHARD_CORRUPT`."""
    location = run / shard.path
    data = location.read_bytes()
    if sha256_bytes(data) != shard.sha256:
        raise MedfilipError(
            ErrorCode.SHARD_CORRUPT,
            f"The shard {location} does not match the hash in its manifest.",
            fix="Restore it from a copy, or run the job that wrote it again with --new-run.",
        )
    return decode_shard(data, location, schema, columns)


def decode_shard(data: bytes, location: Location, schema: DatasetSchema, columns: list[str] | None = None) -> pa.Table:
    """Parse the bytes of a shard and check dataset, version and columns."""
    file = _decoded(lambda: pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True), location)
    check_schema(file.schema_arrow, location, schema)
    return _decoded(lambda: file.read(columns=columns), location)


def write_staged(location: Location, schema: DatasetSchema, table: pa.Table) -> None:
    """Write an intermediate file that no manifest lists: its own digest stands before it."""
    data = _encode(schema.conform(table))
    location.write_bytes(hashlib.sha256(data).digest() + data)


def read_staged(location: Location, schema: DatasetSchema, columns: list[str] | None = None) -> pa.Table:
    """Read what `write_staged` wrote; a damaged file is `ErrorCode.SHARD_CORRUPT`."""
    content = location.read_bytes()
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[size:]).digest() != content[:size]:
        raise corrupt(location)
    return decode_shard(content[size:], location, schema, columns)


def decode_table(data: bytes, location: Location) -> pa.Table:
    """Parse the bytes of a Parquet file that is no shard; a damaged one is `ErrorCode.SHARD_CORRUPT`."""
    return _decoded(lambda: pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True).read(), location)


def _decoded(decode: Callable[[], T], location: Location) -> T:
    try:
        return decode()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise corrupt(location) from error


def corrupt(location: Location) -> MedfilipError:
    """Return the error of a damaged file."""
    return MedfilipError(
        ErrorCode.SHARD_CORRUPT,
        f"{location} is damaged.",
        fix="Restore it from a copy; or, if its run is unfinished, delete the run's folder 'staging' and start again.",
    )


def check_schema(found: pa.Schema, location: Location, schema: DatasetSchema) -> None:
    """Refuse a file of another dataset or another schema version, naming both."""
    metadata = found.metadata or {}
    name = metadata.get(b"medfilip.dataset", b"?").decode()
    version = metadata.get(b"medfilip.schema_version", b"?").decode()
    if (name, version) != (schema.name, str(schema.version)):
        raise MedfilipError(
            ErrorCode.SCHEMA_VERSION_MISMATCH,
            f"{location} holds dataset '{name}' version {version}; this version reads '{schema.name}' "
            f"version {schema.version}.",
            fix="Run the job that wrote it again with this version of medfilip.",
        )
    missing = [column for column in schema.columns.names if column not in found.names]
    if missing:
        raise MedfilipError(
            ErrorCode.COLUMN_MISSING,
            f"{location} lacks the columns {missing} of dataset '{schema.name}'.",
            fix="Run the job that wrote it again with --new-run.",
        )


def read_dataset(run: Location, manifest: Manifest, name: str, columns: list[str] | None = None) -> pa.Table:
    """Read all shards of a dataset of a run into one table, in manifest order."""
    schema = DATASETS[name]
    tables = list(iter_shards(run, manifest, name, columns))
    if tables:
        return pa.concat_tables(tables)
    empty = schema.empty()
    return empty.select(columns) if columns else empty


def iter_shards(run: Location, manifest: Manifest, name: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """Yield the shards of a dataset one by one, in manifest order."""
    for shard in manifest.dataset(name).shards:
        yield read_shard(run, shard, DATASETS[name], columns)
