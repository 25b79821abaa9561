"""The cache of sentence findings: published increments under one extractor fingerprint, in which an id occurs once.

``<root>/sentence_findings/<extractor fingerprint>/<run id>/`` holds what one run added. A run first asks which ids it
lacks, computes those, and publishes them under a lease, so that two runs never publish one id twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from medfilip._version import __version__
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.lease import Lease
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, DatasetEntry, Manifest, read_manifest
from medfilip.storage.schemas import SENTENCE_FINDINGS
from medfilip.storage.shards import read_dataset, write_shard

ROWS_PER_SHARD = 500_000
_LEASE_WAIT_S = 300.0


class FindingsCache:
    """What one extractor has found in which sentence, over all runs below one root."""

    def __init__(self, root: Location, extractor_fingerprint: str) -> None:
        self._fingerprint = extractor_fingerprint
        self._folder = root / "sentence_findings" / extractor_fingerprint

    def known_ids(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the sorted ids of all published increments."""
        ids = [table["sentence_id"].to_numpy() for table in self._tables(["sentence_id"])]
        return np.unique(np.concatenate(ids)) if ids else np.empty(0, np.int64)

    def read(self) -> pa.Table:
        """Return all published rows, sorted by ``sentence_id``."""
        tables = list(self._tables(None))
        table = pa.concat_tables(tables) if tables else SENTENCE_FINDINGS.empty()
        return table.sort_by("sentence_id")

    def has(self, run_id: str) -> bool:
        """Whether a run has published its increment."""
        return (self._folder / run_id / MANIFEST_NAME).exists()

    def rows_of(self, run_id: str) -> int:
        """Return how many rows a run has added."""
        return read_manifest(self._folder / run_id).dataset(SENTENCE_FINDINGS.name).rows

    def publish(self, run_id: str, rows: pa.Table) -> None:
        """Publish the rows whose ids are not known yet, as one increment.

        Rows on which the engine itself failed are left out: the next run tries them again.
        """
        increment = self._folder / run_id
        started = datetime.now(UTC)
        self._folder.make_dir()
        lease = Lease.acquire(self._folder, wait_s=_LEASE_WAIT_S)
        try:
            new = ~np.isin(rows["sentence_id"].to_numpy(), self.known_ids())
            answered = pc.not_equal(rows["status"], ErrorCode.ENGINE_FAILED)
            fresh = rows.filter(pc.and_(pa.array(new), answered)).sort_by("sentence_id")
            shards = [
                write_shard(
                    increment,
                    f"part-{number:05d}.parquet",
                    SENTENCE_FINDINGS,
                    fresh.slice(number * ROWS_PER_SHARD, ROWS_PER_SHARD),
                )
                for number in range(-(-fresh.num_rows // ROWS_PER_SHARD))
            ]
            entry = DatasetEntry(schema_version=SENTENCE_FINDINGS.version, rows=fresh.num_rows, shards=tuple(shards))
            manifest = Manifest(
                job="sentence_findings",
                run_id=run_id,
                config_fingerprint=self._fingerprint,
                code_version=__version__,
                config={},
                datasets={SENTENCE_FINDINGS.name: entry},
                started_at=started,
                finished_at=datetime.now(UTC),
            ).with_fingerprint()
            (increment / MANIFEST_NAME).create(manifest.model_dump_json(indent=2).encode())
        finally:
            lease.release()

    def _tables(self, columns: list[str] | None) -> Iterator[pa.Table]:
        for folder in self._folder.children():
            if not (folder / MANIFEST_NAME).exists():
                continue
            try:
                yield read_dataset(folder, read_manifest(folder), SENTENCE_FINDINGS.name, columns)
            except MedfilipError as error:
                fix = f"Delete the folder {folder}: its sentences are then extracted again."
                raise MedfilipError(error.code, error.message, fix=fix) from error
