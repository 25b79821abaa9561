"""What a job is, and the table of all jobs: name, module, one line. Modules load only when their job runs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

from medfilip.core.settings import Settings, operational
from medfilip.storage.manifest import Manifest
from medfilip.storage.run import Run
from pipelines.runtime import RaySettings


class JobSettings(Settings):
    """What every job can be told."""

    root: str = operational("runs", description="where runs are written: a folder or s3://bucket/prefix")
    ray: RaySettings = operational(RaySettings(), description="the Ray cluster")


class JobModule(Protocol):
    """Interface of a job's module."""

    SETTINGS: type[JobSettings]

    def run(self, settings: JobSettings, *, new_run: bool) -> Outcome:
        """Run the job to its published manifest."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a job ended with.

    Attributes
    ----------
    location
        Folder of the run.
    manifest
        Its manifest.
    already_finished
        Whether an earlier execution had published it, so that nothing was done now.
    next_steps
        Commands worth running next.
    """

    location: str
    manifest: Manifest
    already_finished: bool
    next_steps: tuple[str, ...] = ()

    @classmethod
    def of(cls, run: Run, *next_steps: str, already_finished: bool = False) -> Outcome:
        """Return the outcome of a published run."""
        assert run.manifest is not None
        return cls(str(run.location), run.manifest, already_finished, next_steps)


@dataclass(frozen=True)
class Job:
    """An entry of the table of jobs."""

    name: str
    summary: str

    def load(self) -> JobModule:
        """Import the job's module."""
        return cast(JobModule, importlib.import_module(f"pipelines.{self.name}"))


JOBS = {
    job.name: job
    for job in (
        Job("phantom", "Write synthetic studies (DICOM + report + exact truth) to try everything on."),
        Job("ingest", "Raw reports and images → clean, de-identified, split datasets."),
        Job("extract", "Reports → findings, with rules and vLLM."),
        Job("inject", "Findings → training pairs with visual-attribute knowledge."),
        Job("pretrain", "Pairs → a dual encoder, trained against the semantic similarity matrix."),
        Job("evaluate", "Extraction and zero-shot diagnosis, measured with intervals."),
    )
}
