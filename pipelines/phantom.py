"""Phantom: a corpus of synthetic studies, to try everything on before one's own data is at hand."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import write_corpus, write_reports
from medfilip.phantom.draw import ALL_STYLES, DEFAULT_SIZE, MIN_SIZE, check_styles
from medfilip.phantom.layouts.corpus import RECIPE, TRUTH, check_layout, write_layout
from medfilip.phantom.lesions import CATEGORIES, check_categories
from medfilip.phantom.study import StudyOptions
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run, register_file
from pipelines.job import JobSettings, Outcome, job_spec

CORPUS = "corpus"


class PhantomSettings(JobSettings):
    """Settings of ``medfilip phantom``."""

    count: int = Field(200, ge=1, description="how many studies")
    images: bool = Field(True, description="draw images; without, reports alone, a million in minutes")
    size: int = Field(DEFAULT_SIZE, ge=MIN_SIZE, le=4096, description="side of the images in pixels")
    categories: tuple[str, ...] = Field(CATEGORIES, description="what images may show, for example [nodule,mass]")
    prevalence: float | None = Field(
        None, gt=0, lt=1, description="share of the studies that have each category, instead of a plausible one"
    )
    styles: tuple[str, ...] = Field(
        ALL_STYLES, description="how images are rendered; leave one out (film, say) to test on it alone"
    )
    lateral: float = Field(0.0, ge=0, le=1, description="share of the upright studies with a lateral image too")
    masks: bool = Field(False, description="write the pixels of every lesion as PNG too")
    truth: bool = Field(True, description="with images=false: write what each report states beside it")
    layout: str | None = Field(
        None, description="lay the files out as a public data set does: chestxray14, rsna, … (evaluate protocol --list)"
    )
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
    if settings.layout is not None:
        _check_layout(settings)
    with open_run(root, job_spec("phantom", settings.semantic()), new_run=new_run) as phantom:
        if phantom.manifest is not None:
            return _outcome(phantom, settings, already_finished=True)
        with phantom.stage("write"):
            names = _write(settings, Path(phantom.location.path) / CORPUS)
        files = [register_file(phantom.location, f"{CORPUS}/{name}") for name in names]
        phantom.publish({}, counts={"studies": settings.count}, files=files)
    return _outcome(phantom, settings)


def _check_layout(settings: PhantomSettings) -> None:
    check_layout(str(settings.layout))
    if not settings.images or settings.masks:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            "The setting 'layout' goes with images=true and masks=false: the data set says what else there is.",
            fix="Leave images and masks out.",
        )


def _write(settings: PhantomSettings, folder: Path) -> list[str]:
    """Write a corpus, and return the names of the files that the manifest shall list."""
    if not settings.images:
        return write_reports(folder, settings.count, settings.seed, truth=settings.truth)
    options = StudyOptions(
        size=settings.size,
        categories=check_categories(settings.categories),
        prevalence=settings.prevalence,
        styles=check_styles(settings.styles),
        lateral=settings.lateral,
    )
    if settings.layout is not None:
        write_layout(folder, settings.layout, settings.count, settings.seed, options=options)
        return [TRUTH, RECIPE]
    write_corpus(folder, settings.count, settings.seed, options=options, masks=settings.masks)
    return ["reports.parquet", "truth.jsonl", "phantom.json"]


def _outcome(phantom: Run, settings: PhantomSettings, *, already_finished: bool = False) -> Outcome:
    corpus = phantom.location / CORPUS
    if settings.layout is not None:
        step = f"medfilip evaluate protocol {settings.layout} data={corpus} checkpoint=CHECKPOINT allow_partial=true"
        return Outcome.of(phantom, step, already_finished=already_finished)
    where = f"reports={corpus} images={corpus / 'images'}" if settings.images else f"reports={corpus}"
    step = f"medfilip ingest {where} keep_report_ids=true"
    return Outcome.of(phantom, step, already_finished=already_finished)
