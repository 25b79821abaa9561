"""Where the data of an evaluation came from: the runs behind it, what each counted and what it refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, Manifest, read_manifest


class RunFacts(BaseModel):
    """What a run's manifest says that a reader of numbers wants to know."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job: str
    run_id: str
    fingerprint: str
    code_version: str
    counts: dict[str, int]
    rejected: dict[str, int]

    @classmethod
    def of(cls, manifest: Manifest) -> RunFacts:
        """Take what is told of a manifest."""
        rows = {name: entry.rows for name, entry in manifest.datasets.items() if name != "rejected"}
        return cls(
            job=manifest.job,
            run_id=manifest.run_id,
            fingerprint=manifest.fingerprint,
            code_version=manifest.code_version,
            counts={**rows, **manifest.counts},
            rejected=manifest.rejected,
        )


def run_of(checkpoint: Location) -> RunFacts | None:
    """Return the run that published a checkpoint folder, if it still lies in one."""
    folder = checkpoint.parent
    if not (folder / MANIFEST_NAME).exists():
        return None
    try:
        return RunFacts.of(read_manifest(folder))
    except MedfilipError:  # of another version: the checkpoint stands for itself
        return None
