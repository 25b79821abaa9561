"""Phantom: a corpus of synthetic studies, to try everything on before one's own data is at hand."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import write_corpus, write_reports
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run, register_file
from pipelines.job import JobSettings, Outcome, job_spec

CORPUS = "corpus"


class PhantomSettings(JobSettings):
    """Settings of ``medfilip phantom``."""

    count: int = Field(200, ge=1, description="how many studies")
    images: bool = Field(True, description="draw images; without, reports alone, a million in minutes")
    truth: bool = Field(True, description="with images=false: write what each report states beside it")
    seed: int = Field(0, ge=0, description="the same seed gives the same studies, to the byte")


SETTINGS = PhantomSettings


def run(settings: PhantomSettings, *, new_run: bool = False) -> Outcome:
    """Write ``corpus/`` below the run: reports, ``images/*.dcm`` if wanted, and ``truth.jsonl``."""
    root = Location.parse(settings.root)
    if root.scheme != "file":
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The setting 'root' of the phantom job must be a local folder: it writes single files.",
            fix="Write locally, then copy the folder 'corpus' where it is needed.",
        )
    with open_run(root, job_spec("phantom", settings.semantic()), new_run=new_run) as phantom:
        if phantom.manifest is not None:
            return _outcome(phantom, images=settings.images, already_finished=True)
        with phantom.stage("write"):
            folder = Path(phantom.location.path) / CORPUS
            if settings.images:
                write_corpus(folder, settings.count, settings.seed)
                names = ["reports.parquet", "truth.jsonl", "phantom.json"]
            else:
                names = write_reports(folder, settings.count, settings.seed, truth=settings.truth)
        files = [register_file(phantom.location, f"{CORPUS}/{name}") for name in names]
        phantom.publish({}, counts={"studies": settings.count}, files=files)
    return _outcome(phantom, images=settings.images)


def _outcome(phantom: Run, *, images: bool, already_finished: bool = False) -> Outcome:
    corpus = phantom.location / CORPUS
    where = f"reports={corpus} images={corpus / 'images'}" if images else f"reports={corpus}"
    step = f"medfilip ingest {where} keep_report_ids=true"
    return Outcome.of(phantom, step, already_finished=already_finished)
