"""Deidentify: DICOM files → copies that do not say whose they are, and a list of them; pixels stay as they are.

`ingest` needs none of this: it keeps no header. This is for handing files on, or for moving them to where a model is
trained. The profile is that of PS3.15, annex E (`medfilip.imaging.deidentify`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.core.ids import pseudonym
from medfilip.core.secrets import project_key
from medfilip.core.settings import operational
from medfilip.findings.ontology import load_ontology
from medfilip.imaging.corpora import ImageCorpus, list_images
from medfilip.imaging.deidentify import METHOD, Deidentifier
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import read_listed, read_part
from medfilip.storage.location import Location
from medfilip.storage.manifest import Shard
from medfilip.storage.run import Run, open_run
from medfilip.storage.schemas import DEIDENTIFIED, REJECTED
from medfilip.storage.shards import write_shard
from pipelines.job import JobSettings, Outcome, job_spec
from pipelines.progress import ProgressPrinter
from pipelines.runtime import no_progress, stream_parts
from serve.cluster import ray_session

FOLDER = "dicom"


class DeidentifySettings(JobSettings):
    """Settings of ``medfilip deidentify``."""

    images: str = Field(description="folder of DICOM files, read with all its subfolders")
    keep_characteristics: bool = Field(False, description="keep sex, age (at most 90), size and weight")
    limits: ImageLimits = Field(ImageLimits(), description="bounds on files; accept_burned_in for checked pixels")
    quiet: bool = operational(False, description="show no progress")


SETTINGS = DeidentifySettings


def run(settings: DeidentifySettings, *, new_run: bool = False) -> Outcome:
    """Write ``dicom/<patient>/<study>/<file>.dcm`` below the run, and the dataset ``deidentified`` that lists them."""
    listing = list_images(ImageCorpus(Location.parse(settings.images), "folder"), load_ontology())
    key = project_key()
    spec = job_spec(
        "deidentify",
        {name: value for name, value in settings.semantic().items() if name != "images"},
        inputs={"images": listing.fingerprint()},
        versions={"project_key": pseudonym(key, "check", "project"), "method": METHOD},
    )
    with open_run(Location.parse(settings.root), spec, new_run=new_run) as job:
        if job.manifest is not None:
            return _outcome(job, already_finished=True)
        with ray_session(settings.ray, settings.ray.address), job.stage("files"):
            file = job.staging / "images_listing.parquet"
            parts = listing.write(file)
            work = FileDeidentifier(listing.folder, file, job.location, key, settings)
            show = no_progress if settings.quiet else ProgressPrinter().stage
            records = stream_parts(job.staging, "files", work, parts, progress=show)
        rejected: Counter[str] = Counter()
        counts: Counter[str] = Counter({"files_of_other_kinds": listing.others})
        for record in records:
            rejected.update(record["rejected"])
            counts.update(record["counts"])
        shards = {
            name: [Shard(**record["shards"][name]) for record in records] for name in ("deidentified", "rejected")
        }
        if not counts["files"]:
            raise MedfilipError(
                ErrorCode.INPUT_EMPTY,
                f"No file could be de-identified; refused: {dict(rejected)}.",
                fix="Check that 'images' holds DICOM images.",
            )
        job.publish(shards, counts=counts, rejected=rejected)
    return _outcome(job)


def _outcome(job: Run, *, already_finished: bool = False) -> Outcome:
    step = f"medfilip ingest images={job.location / FOLDER}"
    return Outcome.of(job, step, already_finished=already_finished)


@dataclass(frozen=True)
class FileDeidentifier:
    """De-identifies parts of a listing."""

    folder: Location
    listing: Location
    run: Location
    key: bytes
    settings: DeidentifySettings

    def __call__(self, part: int) -> dict[str, Any]:
        """De-identify the files of a part; one bad file costs one row."""
        characteristics = self.settings.keep_characteristics
        deidentify = Deidentifier(self.key, self.settings.limits, keep_characteristics=characteristics)
        rows: list[dict[str, object]] = []
        rejected: list[dict[str, object]] = []
        already = 0
        for listed in read_part(self.listing, part).to_pylist():
            name = pseudonym(self.key, "file", listed["name"])
            try:
                found = deidentify(read_listed(self.folder, listed, self.settings.limits))
            except MedfilipError as error:
                rejected.append({"id": name, "stage": "deidentify", "code": error.code, "message": error.message})
                continue
            already += found.already
            path = f"{FOLDER}/{found.patient_id or 'unknown'}/{found.study_uid or 'unknown'}/{name}.dcm"
            (self.run / path).write_bytes(found.data)
            rows.append(
                {
                    "path": path,
                    "patient_id": found.patient_id,
                    "study_uid": found.study_uid,
                    "sop_uid": found.sop_uid,
                    "bytes": len(found.data),
                    "sha256": sha256_bytes(found.data),
                }
            )
        file = f"part-{part:05d}.parquet"
        shards = {
            "deidentified": write_shard(self.run, f"deidentified/{file}", DEIDENTIFIED, DEIDENTIFIED.from_rows(rows)),
            "rejected": write_shard(self.run, f"rejected/{file}", REJECTED, REJECTED.from_rows(rejected)),
        }
        return {
            "shards": {name: shard.model_dump() for name, shard in shards.items()},
            "rejected": dict(Counter(str(row["code"]) for row in rejected)),
            "counts": {"files": len(rows), "already_deidentified": already},
        }
