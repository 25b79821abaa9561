"""Shards: Parquet files of one dataset, written whole and read with their hash and schema checked."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import DATASETS, DatasetSchema

ROW_GROUP_BYTES = 32 << 20


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
    pq.write_table(table, sink, compression="zstd", row_group_size=rows_per_group, write_statistics=True)
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
    try:
        file = pq.ParquetFile(io.BytesIO(data))
    except (pa.ArrowInvalid, OSError) as error:
        raise MedfilipError(
            ErrorCode.SHARD_CORRUPT, f"{location} is not a readable Parquet file.", fix="Restore it from a copy."
        ) from error
    check_schema(file.schema_arrow, location, schema)
    return file.read(columns=columns)


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
