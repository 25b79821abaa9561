"""What a job is, and the table of all jobs: name, module, one line. Modules load only when their job runs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

from medfilip.core.fingerprint import fingerprint, sha256_bytes
from medfilip.core.settings import Settings, operational
from medfilip.storage.manifest import Manifest
from medfilip.storage.run import Run, RunSpec
from pipelines.runtime import RaySettings


class JobSettings(Settings):
    """What every job can be told."""

    root: str = operational("runs", description="where runs are written: a folder or s3://bucket/prefix")
    ray: RaySettings = operational(RaySettings(), description="the Ray cluster")


class JobModule(Protocol):
    """Interface of a job's module."""

    SETTINGS: type[JobSettings]

    def run(self, settings: JobSettings, *, new_run: bool) -> Outcome | None:
        """Run the job to its published manifest; ``None`` if it was only asked what it would do."""
        ...


_PACKAGES = ("medfilip", "pipelines", "serve")


def code_files() -> Iterator[tuple[str, bytes]]:
    """Yield the files of this code, installed or in a checkout, by their path in a wheel."""
    for package in _PACKAGES:
        (origin,) = importlib.import_module(package).__path__
        for file in Path(origin).rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                yield f"{package}/{file.relative_to(origin).as_posix()}", file.read_bytes()


@lru_cache(maxsize=1)
def code_fingerprint() -> str:
    """Return the fingerprint of this code: changed code neither resumes nor stands for the runs of the old one."""
    return fingerprint([[name, sha256_bytes(data)] for name, data in sorted(code_files())])


def job_spec(
    job: str,
    config: Mapping[str, Any],
    inputs: Mapping[str, str] | None = None,
    versions: Mapping[str, str] | None = None,
) -> RunSpec:
    """Return what decides a job's result, with the code that runs it among the versions."""
    return RunSpec(job, config, inputs or {}, {**(versions or {}), "code": code_fingerprint()})


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
        Job("deidentify", "DICOM files → copies without identity (PS3.15 basic profile), the same for one key."),
        Job("extract", "Reports → findings, with rules and vLLM."),
        Job("distill", "Sentences with findings → a small language model of your own for extraction."),
        Job("inject", "Findings → training pairs with visual-attribute knowledge."),
        Job("pretrain", "Pairs → a dual encoder, trained against the semantic similarity matrix."),
        Job("calibrate", "Probabilities, operating points and familiarity, fitted to validation studies."),
        Job("finetune", "Transfer of a checkpoint: probe, full fine-tuning, segmentation, at 1, 10, 100 % of labels."),
        Job("diagnose_batch", "Studies of a folder, a bucket, a table or an ingest → diagnoses, as the endpoint's."),
        Job("evaluate", "Extraction and zero-shot diagnosis, measured with intervals."),
        Job("ablation", "Each part of the method changed: the same training, compared pair by pair."),
        Job("evaluate_extraction", "Findings against phantom truth or annotators, measured with intervals."),
        Job("evaluate_protocol", "Zero-shot diagnosis on a public data set, with locked splits."),
    )
}
