"""The manifest: the one file that makes a run's output a dataset.

It is published once and last. It lists every shard with its rows, bytes and hash; readers read the listed shards and
never a folder listing. The fingerprint covers what decides the content (schema, configuration, code version, inputs,
shard hashes); timings and hosts stand beside it, so that two runs of the same work have the same fingerprint.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.storage.location import Location

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION: Literal[1] = 1

_BESIDE_THE_CONTENT = {"fingerprint", "run_id", "started_at", "finished_at", "seconds", "environment"}
"""What may differ between two runs of the same work."""


class Shard(BaseModel):
    """One published file of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = Field(description="relative to the run folder")
    rows: int
    bytes: int
    sha256: str


class DatasetEntry(BaseModel):
    """One dataset of a run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int
    rows: int
    shards: tuple[Shard, ...]


class Manifest(BaseModel):
    """What a finished run published, and what it was made from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    manifest_version: Literal[1] = MANIFEST_VERSION
    job: str
    run_id: str
    config_fingerprint: str
    code_version: str
    config: dict[str, Any]
    inputs: dict[str, str] = Field(default_factory=dict, description="name of an input → fingerprint of its manifest")
    versions: dict[str, str] = Field(default_factory=dict, description="ontology, lexicon, splitter, … → fingerprint")
    datasets: dict[str, DatasetEntry] = Field(default_factory=dict)
    counts: dict[str, int] = Field(default_factory=dict, description="what the run counted, by name")
    rejected: dict[str, int] = Field(default_factory=dict, description="reason code → rows refused")
    metrics: dict[str, float] = Field(default_factory=dict, description="headline numbers of the run, by name")
    files: tuple[Shard, ...] = Field(default=(), description="outputs that are no datasets: checkpoints, reports")
    fingerprint: str = ""
    # outside the fingerprint
    started_at: datetime
    finished_at: datetime
    seconds: dict[str, float] = Field(default_factory=dict, description="stage → wall time")
    environment: dict[str, str] = Field(default_factory=dict)

    def with_fingerprint(self) -> Manifest:
        """Return a copy whose fingerprint is computed from its content."""
        content = self.model_dump(mode="json", exclude=_BESIDE_THE_CONTENT)
        return self.model_copy(update={"fingerprint": fingerprint(content)})

    def dataset(self, name: str) -> DatasetEntry:
        """Return a dataset of this run by name."""
        if name not in self.datasets:
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                f"The run {self.run_id} of job '{self.job}' has no dataset '{name}' "
                f"(it has: {', '.join(self.datasets)}).",
                fix="Give the run of the job that writes it.",
            )
        return self.datasets[name]


def run_folder(uri: str) -> Location:
    """Return the folder of a run that a user named by its folder or by its manifest."""
    location = Location.parse(uri)
    return location.parent if location.name == MANIFEST_NAME else location


def read_manifest(run: Location) -> Manifest:
    """Read and check the manifest of a run, given its folder."""
    location = run / MANIFEST_NAME
    if not location.exists():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_PUBLISHED,
            f"There is no {MANIFEST_NAME} at {location.parent}: the run is unfinished or the path is wrong.",
            fix="Start its job again with the same settings (it resumes), or give the folder of a finished run.",
        )
    try:
        manifest = Manifest.model_validate_json(location.read_bytes())
    except ValidationError as error:
        raise MedfilipError(
            ErrorCode.MANIFEST_CORRUPT,
            f"{location} is not a manifest of version {MANIFEST_VERSION} ({error.error_count()} fields do not fit).",
            fix="Restore the file or run the job again with --new-run.",
        ) from error
    if manifest.with_fingerprint().fingerprint != manifest.fingerprint:
        raise MedfilipError(
            ErrorCode.MANIFEST_CORRUPT,
            f"The content of {location} does not match its fingerprint.",
            fix="Restore the file or run the job again with --new-run.",
        )
    return manifest
