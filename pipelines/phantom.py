"""Phantom: a corpus of synthetic studies, to try everything on before one's own data is at hand."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import write_corpus
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run, register_file
from pipelines.job import JobSettings, Outcome, job_spec

CORPUS = "corpus"


class PhantomSettings(JobSettings):
    """Settings of ``medfilip phantom``."""

    count: int = Field(200, ge=1, description="how many studies")
    seed: int = Field(0, ge=0, description="the same seed gives the same studies, to the byte")


SETTINGS = PhantomSettings


def run(settings: PhantomSettings, *, new_run: bool = False) -> Outcome:
    """Write ``corpus/`` below the run: ``reports.parquet``, ``images/*.dcm`` and ``truth.jsonl``."""
    root = Location.parse(settings.root)
    if root.scheme != "file":
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The setting 'root' of the phantom job must be a local folder: it writes single files.",
            fix="Write locally, then copy the folder 'corpus' where it is needed.",
        )
    with open_run(root, job_spec("phantom", settings.semantic()), new_run=new_run) as phantom:
        if phantom.manifest is not None:
            return _outcome(phantom, already_finished=True)
        with phantom.stage("write"):
            write_corpus(Path(phantom.location.path) / CORPUS, settings.count, settings.seed)
        names = ("reports.parquet", "truth.jsonl", "phantom.json")
        files = [register_file(phantom.location, f"{CORPUS}/{name}") for name in names]
        phantom.publish({}, counts={"studies": settings.count}, files=files)
    return _outcome(phantom)


def _outcome(phantom: Run, *, already_finished: bool = False) -> Outcome:
    corpus = phantom.location / CORPUS
    step = f"medfilip ingest reports={corpus} images={corpus / 'images'} keep_report_ids=true"
    return Outcome.of(phantom, step, already_finished=already_finished)
