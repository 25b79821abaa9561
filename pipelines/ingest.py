"""Ingest: raw reports and images → `reports`, `images` and `rejected`, pseudonymised, checked and split by patient.

Every part of the input is staged by a worker on its own; then one look over ids, text and pixel hashes (never over
texts or pixels) draws the splits and finds duplicates; then each staged part becomes a published shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

from pydantic import Field, model_validator

from medfilip.core.fingerprint import sha256_bytes
from medfilip.core.ids import pseudonym
from medfilip.core.secrets import project_key
from medfilip.core.settings import operational
from medfilip.findings.labels import ABSENT, UNSAID
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, ImageKind, label_set, list_images
from medfilip.imaging.image_columns import ImageColumns
from medfilip.imaging.intake import QualityChecks
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import ImageListing
from medfilip.reports.columns import Columns
from medfilip.reports.corpora import CorpusKind, CorpusPart, corpus_fingerprint, plan_corpus
from medfilip.reports.report import Doubt
from medfilip.storage.location import Location
from medfilip.storage.run import Run, open_run
from pipelines.images import PHANTOM, ImageIngester, ImageOptions
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.progress import ProgressPrinter
from pipelines.publish import SplitShares, publish
from pipelines.reports import ingest_reports
from pipelines.runtime import Progress, map_parts, no_progress, stream_parts
from serve.cluster import ray_session


class IngestSettings(JobSettings):
    """Settings of ``medfilip ingest``."""

    reports: str | None = Field(
        None, description="corpus of reports: a table (.parquet, .csv, .tsv, .jsonl, also .gz) or a folder of them, "
        "the tree of MIMIC-CXR, or a folder of .xml (Open-I) or .txt files",
    )  # fmt: skip
    images: str | None = Field(
        None, description="folder of DICOM, PNG and JPEG files, read with all its subfolders; or a table of them"
    )
    image_kind: ImageKind = Field("auto", description="shape of the images: auto, folder, mimic, nih, openi or table")
    image_table: str | None = Field(None, description="table about the images: paths, patients, views, labels, splits")
    image_columns: ImageColumns = Field(
        ImageColumns(), description="names of the image table's columns; looked for where not given"
    )
    unlisted_labels: Literal["unknown", "absent"] = Field(
        "unknown", description="what a finding is that a list of labels does not name"
    )
    keep_characteristics: bool = Field(
        False, description="keep sex and age (at most 90), which evaluation by subgroup needs"
    )
    kind: CorpusKind = Field("auto", description="shape of the corpus: auto, table, mimic, openi or text")
    columns: Columns = Field(Columns(), description="names of a table's columns; looked for where not given")
    accept: tuple[Doubt, ...] = Field(
        (), description="doubts that shall not refuse a report: language_unsupported, not_chest, not_radiograph"
    )
    keep_report_ids: bool = Field(False, description="keep report ids readable (public, de-identified corpora only)")
    exclude_ids: str | None = Field(None, description="file with one patient, study or report id a line to leave out")
    store_size: int = Field(1024, ge=64, le=4096, description="long side of stored images, in pixels")
    split: SplitShares = Field(SplitShares(), description="share of each split")
    limits: ImageLimits = Field(ImageLimits(), description="bounds on image files, checked before decoding")
    checks: QualityChecks = Field(QualityChecks(), description="what follows from what the pixels look like")
    quiet: bool = operational(False, description="show no progress")

    @model_validator(mode="after")
    def _need_an_input(self) -> IngestSettings:
        if not self.reports and not self.images:
            raise ValueError("give reports=FOLDER, images=FOLDER or both")
        if self.image_table and not self.images:
            raise ValueError("image_table says something about images: give images=FOLDER too")
        if self.image_table and self.image_kind == "folder":
            raise ValueError("image_kind=folder reads no table: leave image_table out, or give image_kind=table")
        return self


SETTINGS = IngestSettings


def run(settings: IngestSettings, *, new_run: bool = False) -> Outcome:
    """Ingest a corpus; see the module's text."""
    listing = _list_images(settings)
    corpus = _plan_reports(settings, listing)
    excluded = frozenset(_read_excluded(settings.exclude_ids))
    key = project_key()
    spec = job_spec(
        "ingest",
        # Where the input lies does not matter; what it holds is in the fingerprints of the inputs.
        {name: value for name, value in settings.semantic().items() if name not in _PLACES}
        | {"exclude_ids": sorted(sha256_bytes(item.encode()) for item in excluded)},
        inputs=_input_fingerprints(corpus, listing),
        # Another key gives other pseudonyms: that is another result.
        versions={"project_key": pseudonym(key, "check", "project")},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as ingest:
        if ingest.manifest is not None:
            return _outcome(ingest, already_finished=True)
        with ray_session(settings.ray, settings.ray.address):
            with ingest.stage("reports"):
                stage_reports = partial(
                    ingest_reports,
                    staging=ingest.staging,
                    key=key,
                    keep_ids=settings.keep_report_ids,
                    accept=frozenset(settings.accept),
                    excluded=excluded,
                    synthetic=_is_phantom(settings.reports),
                )
                show = no_progress if settings.quiet else ProgressPrinter().stage
                parts = list(enumerate(corpus))
                reports = map_parts(ingest.staging, "reports", stage_reports, parts, progress=show)
            with ingest.stage("images"):
                options = ImageOptions(
                    key=key,
                    limits=settings.limits,
                    checks=settings.checks,
                    store_size=settings.store_size,
                    excluded=excluded,
                    keep_characteristics=settings.keep_characteristics,
                    source=PHANTOM if _is_phantom(settings.images) else None,
                )
                images = _stage_images(ingest, listing, options, show) if listing else []
            with ingest.stage("publish"):
                publish(ingest, reports, images, listing, settings.split)
    return _outcome(ingest)


_PLACES = ("reports", "images", "image_table")


def _list_images(settings: IngestSettings) -> ImageListing | None:
    if not settings.images:
        return None
    corpus = ImageCorpus(
        Location.parse(settings.images),
        settings.image_kind,
        Location.parse(settings.image_table) if settings.image_table else None,
        settings.image_columns,
        ABSENT if settings.unlisted_labels == "absent" else UNSAID,
    )
    return list_images(corpus, load_ontology())


def _stage_images(ingest: Run, listing: ImageListing, options: ImageOptions, show: Progress) -> list[dict[str, object]]:
    file = ingest.staging / "images_listing.parquet"
    parts = listing.write(file)
    work = ImageIngester(listing.folder, file, ingest.staging, options, label_set(listing, load_ontology()))
    return stream_parts(ingest.staging, "images", work, parts, progress=show)


def _plan_reports(settings: IngestSettings, listing: ImageListing | None) -> list[CorpusPart]:
    if settings.reports:
        return plan_corpus(Location.parse(settings.reports), settings.kind, settings.columns)
    if listing is not None and listing.reports is not None:
        return plan_corpus(listing.reports.file, "table", listing.reports.columns)
    return []


def _outcome(ingest: Run, *, already_finished: bool = False) -> Outcome:
    manifest = ingest.manifest
    step = f"medfilip extract reports={ingest.location}"
    if manifest is not None and not manifest.counts.get("reports") and "resolved_findings" in manifest.datasets:
        step = f"medfilip inject findings={ingest.location} images={ingest.location}"
    return Outcome.of(ingest, step, already_finished=already_finished)


def _is_phantom(corpus: str | None) -> bool:
    """Whether a corpus, or the one an image folder belongs to, says that it is synthetic."""
    if corpus is None:
        return False
    folder = Location.parse(corpus)
    return any((place / "phantom.json").exists() for place in (folder, folder.parent) if place.is_dir())


def _read_excluded(file: str | None) -> set[str]:
    if file is None:
        return set()
    lines = Location.parse(file).read_bytes().decode("utf-8-sig").splitlines()
    return {line.strip() for line in lines if line.strip()}


def _input_fingerprints(corpus: Sequence[CorpusPart], listing: ImageListing | None) -> dict[str, str]:
    inputs: dict[str, str] = {}
    if corpus:
        inputs["reports"] = corpus_fingerprint(corpus)
    if listing is not None:
        inputs["images"] = listing.fingerprint()
    return inputs
