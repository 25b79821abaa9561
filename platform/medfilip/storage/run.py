"""A run: one execution of a job under ``<root>/<job>-<config fingerprint>/<run id>/``, resumable until published."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from medfilip._version import __version__
from medfilip.core.fingerprint import fingerprint
from medfilip.core.ids import new_run_id
from medfilip.storage.lease import Lease
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, DatasetEntry, Manifest, Shard, read_manifest
from medfilip.storage.schemas import DATASETS

RUN_FILE = "run.json"
_GATE_WAIT_S = 30.0


@dataclass(frozen=True)
class RunSpec:
    """What decides a run's result.

    Attributes
    ----------
    job
        Name of the job.
    config
        Its semantic settings (`Settings.semantic`).
    inputs
        Name of an input → fingerprint of its manifest or files.
    versions
        Name of a component (ontology, lexicon, splitter, prompt, …) → its fingerprint.
    """

    job: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Fingerprint of job, settings, inputs, component versions, schema versions and code version."""
        return fingerprint(
            {
                "job": self.job,
                "config": dict(self.config),
                "inputs": dict(self.inputs),
                "versions": dict(self.versions),
                "schemas": {name: schema.version for name, schema in DATASETS.items()},
                "code": __version__,
            }
        )


class Run:
    """An open run. ``manifest`` is set if it was already finished; then there is nothing left to do."""

    def __init__(self, spec: RunSpec, location: Location, manifest: Manifest | None = None) -> None:
        self.spec = spec
        self.location = location
        self.manifest = manifest
        self.seconds: dict[str, float] = {}
        self._started = datetime.now(UTC)
        self._lease: Lease | None = None

    @property
    def run_id(self) -> str:
        """Id of the run: the name of its folder."""
        return self.location.name

    @property
    def staging(self) -> Location:
        """Folder for intermediate files; not part of the result, deleted when the run is published."""
        return self.location / "staging"

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a part of the job; the manifest reports it outside the fingerprint."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    def publish(
        self,
        datasets: Mapping[str, Sequence[Shard]],
        *,
        counts: Mapping[str, int] | None = None,
        rejected: Mapping[str, int] | None = None,
        metrics: Mapping[str, float] | None = None,
        files: Sequence[Shard] = (),
    ) -> Manifest:
        """Publish the manifest, once and last; from then on the run is finished and never changes."""
        manifest = Manifest(
            job=self.spec.job,
            run_id=self.run_id,
            config_fingerprint=self.spec.fingerprint,
            code_version=__version__,
            config=dict(self.spec.config),
            inputs=dict(self.spec.inputs),
            versions=dict(self.spec.versions),
            datasets={
                name: DatasetEntry(
                    schema_version=DATASETS[name].version,
                    rows=sum(shard.rows for shard in shards),
                    shards=tuple(sorted(shards, key=lambda shard: shard.path)),
                )
                for name, shards in datasets.items()
            },
            counts=dict(counts or {}),
            rejected=dict(sorted((rejected or {}).items())),
            metrics=dict(metrics or {}),
            files=tuple(files),
            started_at=self._started,
            finished_at=datetime.now(UTC),
            seconds=self.seconds,
            environment={"python": platform.python_version(), "machine": platform.machine()},
        ).with_fingerprint()
        if self._lease is not None:
            self._lease.check()
        (self.location / MANIFEST_NAME).create(manifest.model_dump_json(indent=2).encode())
        self.staging.delete()
        self.manifest = manifest
        return manifest


def register_file(run: Location, path: str) -> Shard:
    """Return the manifest entry of a file already written below the run folder (no dataset: zero rows)."""
    file = run / path
    return Shard(path=path, rows=0, bytes=file.size(), sha256=file.sha256())


@contextmanager
def open_run(root: Location, spec: RunSpec, *, new_run: bool = False) -> Iterator[Run]:
    """Open the run of ``spec``: the finished one, else the unfinished one, else a new one; hold its lease.

    Raises
    ------
    MedfilipError
        ``run_locked`` if another driver works on the unfinished run.
    """
    folder = root / f"{spec.job}-{spec.fingerprint}"
    folder.make_dir()
    # Two drivers that start together must not each find nothing and begin a run.
    gate = Lease.acquire(folder, wait_s=_GATE_WAIT_S)
    try:
        run = _find_or_create(folder, spec, new_run=new_run)
        if run.manifest is None:
            run._lease = Lease.acquire(run.location)
    finally:
        gate.release()
    if run._lease is None:
        run.staging.delete()  # of a driver that was killed after it had published
        yield run
        return
    try:
        # The former holder may have published between the look and the taking of the lease.
        if (run.location / MANIFEST_NAME).exists():
            run.manifest = read_manifest(run.location)
        yield run
    finally:
        run._lease.release()


def _find_or_create(folder: Location, spec: RunSpec, *, new_run: bool) -> Run:
    earlier = [child for child in folder.children() if (child / RUN_FILE).exists()]
    if earlier and not new_run:
        latest = earlier[-1]
        manifest = read_manifest(latest) if (latest / MANIFEST_NAME).exists() else None
        return Run(spec, latest, manifest)
    location = folder / new_run_id()
    location.make_dir()
    description = {
        "job": spec.job,
        "config": dict(spec.config),
        "inputs": dict(spec.inputs),
        "versions": dict(spec.versions),
    }
    (location / RUN_FILE).create(json.dumps(description, indent=2, sort_keys=True).encode())
    return Run(spec, location)
