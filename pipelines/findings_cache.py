"""The cache of sentence findings, or of other replies of engines: published increments under one fingerprint.

``<root>/sentence_findings/<extractor fingerprint>/<run id>/`` holds what one run added, cut into ranges of ids. A run
first asks which ids it lacks, computes those, and publishes them under a lease. An id stands in one increment, save
that a sentence whose answer was a failure may be tried again: then the later answer, or the usable one, is what counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.extraction.engine import OK
from medfilip.storage.lease import Lease
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, DatasetEntry, Manifest, Shard, read_manifest
from medfilip.storage.schemas import SENTENCE_FINDINGS, DatasetSchema
from medfilip.storage.shards import read_shard, write_shard
from pipelines.sentences import bucket_bounds

RETRIED = frozenset(
    {
        ErrorCode.ENGINE_FAILED,
        ErrorCode.REPLY_EMPTY,
        ErrorCode.REPLY_INVALID,
        ErrorCode.REPLY_REFUSED,
        ErrorCode.REPLY_TRUNCATED,
    }
)
"""Failures that another try may mend; a sentence that is too long stays too long."""

_LEASE_WAIT_S = 300.0


@dataclass(frozen=True)
class FindingsCache:
    """What one extractor has found in which sentence, over all runs below one root."""

    root: Location
    extractor: str
    schema: DatasetSchema = SENTENCE_FINDINGS

    @property
    def folder(self) -> Location:
        """Folder of all increments."""
        return self.root / self.schema.name / self.extractor

    def has(self, run_id: str) -> bool:
        """Whether a run has published its increment."""
        return (self.folder / run_id / MANIFEST_NAME).exists()

    def rows_of(self, run_id: str) -> int:
        """Return how many rows a run has added."""
        return read_manifest(self.folder / run_id).dataset(self.schema.name).rows

    def spent_by(self, run_id: str) -> Counter[str]:
        """Return the tokens a run has spent, and how many findings it has made of them."""
        return Counter(read_manifest(self.folder / run_id).counts)

    def read_range(
        self, bucket: int, buckets: int, columns: Sequence[str] | None = None, *, without: str | None = None
    ) -> pa.Table:
        """Return the rows that count of one range of ids, sorted by ``sentence_id``.

        Parameters
        ----------
        columns
            Columns wanted; ``sentence_id`` and ``status`` always come with them.
        without
            A run whose increment is left out.
        """
        wanted = None if columns is None else list(dict.fromkeys(("sentence_id", "status", *columns)))
        first, last = bucket_bounds(bucket, buckets)
        tables = []
        for table in self._tables(first, last, wanted, without):
            ids = table["sentence_id"].to_numpy()
            begin, end = np.searchsorted(ids, first), np.searchsorted(ids, last, side="right")
            tables.append(table.slice(begin, end - begin))
        if not tables:
            empty = self.schema.empty()
            return empty.select(wanted) if wanted else empty
        return latest(tables)

    def write_range(self, run_id: str, bucket: int, buckets: int, rows: pa.Table) -> Shard:
        """Write one range of a run's increment, sorted; the increment counts only once it is published."""
        path = f"part-{bucket:05d}-of-{buckets:05d}.parquet"
        return write_shard(self.folder / run_id, path, self.schema, rows.sort_by("sentence_id"))

    def publish(self, run_id: str, shards: Sequence[Shard], spent: Mapping[str, int]) -> None:
        """Publish the ranges a run has written as one increment, with what it spent on them."""
        increment, started = self.folder / run_id, datetime.now(UTC)
        self.folder.make_dir()
        lease = Lease.acquire(self.folder, wait_s=_LEASE_WAIT_S)
        try:
            rows = sum(shard.rows for shard in shards)
            entry = DatasetEntry(schema_version=self.schema.version, rows=rows, shards=tuple(shards))
            manifest = Manifest(
                job=self.schema.name,
                run_id=run_id,
                config_fingerprint=self.extractor,
                code_version=__version__,
                config={},
                datasets={self.schema.name: entry},
                counts=dict(spent),
                started_at=started,
                finished_at=datetime.now(UTC),
            ).with_fingerprint()
            (increment / MANIFEST_NAME).create(manifest.model_dump_json(indent=2).encode())
        finally:
            lease.release()

    def _tables(self, first: int, last: int, columns: list[str] | None, without: str | None) -> Iterator[pa.Table]:
        """Yield the published shards that can hold ids of a range, increment by increment."""
        for folder in self.folder.children():
            if folder.name == without or not (folder / MANIFEST_NAME).exists():
                continue
            try:
                for shard in read_manifest(folder).dataset(self.schema.name).shards:
                    begin, end = _range_of(shard)
                    if shard.rows and begin <= last and first <= end:
                        yield read_shard(folder, shard, self.schema, columns)
            except MedfilipError as error:
                fix = f"Delete the folder {folder}: its sentences are then extracted again."
                raise MedfilipError(error.code, error.message, fix=fix) from error


def _range_of(shard: Shard) -> tuple[int, int]:
    """Return the range of ids that a shard's name states."""
    bucket, buckets = shard.path.removeprefix("part-").removesuffix(".parquet").split("-of-")
    return bucket_bounds(int(bucket), int(buckets))


def latest(tables: Sequence[pa.Table]) -> pa.Table:
    """Return one row for each id: a usable answer before a failure, then the one of the later table."""
    order = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
    table = pa.concat_tables(tables)
    usable = pc.equal(table["status"], OK).to_numpy(zero_copy_only=False)
    ids = table["sentence_id"].to_numpy()
    ranked = np.lexsort((order, usable, ids))
    final = np.append(ids[ranked][1:] != ids[ranked][:-1], [True])[: len(ranked)]
    return table.take(ranked[final]).combine_chunks()
