"""The truth about the studies of two runs: what reports state, and of phantoms what was drawn."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.fine_grained import Detail
from medfilip.evaluation.truth import COLUMNS, Shown, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.findings.truth import UNKNOWN
from medfilip.imaging.given import radiograph_of
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.phantom.corpus import PhantomTruth, read_truth
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import iter_shards, read_dataset

_COMPARED = 3


@dataclass(frozen=True)
class Corpus:
    """What was drawn for a phantom corpus; nothing without one."""

    folder: Path | None

    @classmethod
    def of(cls, phantom_truth: str | None) -> Corpus:
        """Take the setting ``phantom_truth``."""
        return cls(Path(phantom_truth) if phantom_truth else None)

    @cached_property
    def drawn(self) -> tuple[PhantomTruth, ...]:
        """Every study, as it was drawn."""
        return tuple(read_truth(self.folder)) if self.folder else ()

    @cached_property
    def fingerprint(self) -> str:
        """Fingerprint of what was drawn, or of nothing."""
        return sha256_bytes("".join(item.model_dump_json() for item in self.drawn).encode())

    def by_study(self, images: Location) -> dict[str, dict[str, Shown]]:
        """Return what was drawn (category → whether and how), by study of an ingest run.

        Raises
        ------
        MedfilipError
            ``NOT_ENOUGH_DATA`` if the images are not those of the corpus.
        """
        if self.folder is None:
            return {}
        study_of = studies_of_reports(images)
        known = {
            study_of[item.report_id]: {
                name: Shown(shown.status == "present", Detail(shown.laterality, shown.severity, shown.sites))
                for name, shown in item.study_truth.items()
            }
            for item in self.drawn
            if item.report_id in study_of
        }
        if not known:
            raise not_of_this_corpus()
        columns = ["study_id", "view", "pixel_hash"]
        _check(self.folder, study_of, read_dataset(images, read_manifest(images), "images", columns))
        return known


def study_truth(findings: Location | None, corpus: Corpus, images: Location, *, silent: int = UNKNOWN) -> Truth:
    """Read what the reports of an extract run state and, if any was drawn, what was, for the studies of an ingest run.

    Parameters
    ----------
    findings
        The extract run; nothing is stated without one.
    silent
        As in `Truth`.

    Raises
    ------
    MedfilipError
        As `Corpus.by_study`.
    """
    return Truth.of(
        () if findings is None else _stated(findings), load_ontology(), corpus.by_study(images), silent=silent
    )


def _stated(findings: Location) -> Iterable[dict[str, object]]:
    for table in iter_shards(findings, read_manifest(findings), "resolved_findings", list(COLUMNS)):
        yield from table.to_pylist()


def studies_of_reports(images: Location) -> dict[str, str]:
    """Return the study of each report of an ingest run."""
    reports = read_dataset(images, read_manifest(images), "reports", ["report_id", "study_id"])
    return dict(zip(reports["report_id"].to_pylist(), reports["study_id"].to_pylist(), strict=True))


def _check(corpus: Path, study_of: dict[str, str], images: pa.Table) -> None:
    """Compare the pixels of a few images with those of a phantom corpus.

    Corpora of all seeds number their reports alike: equal ids do not say that truth and images belong together.
    """
    report_of = {study: report for report, study in study_of.items()}
    limits, compared = ImageLimits(), 0
    columns = (images[name].to_pylist() for name in ("study_id", "view", "pixel_hash"))
    for study, view, known in zip(*columns, strict=True):
        file = corpus / "images" / f"{report_of.get(study)}.dcm"
        if view == "lateral" or not file.is_file():
            continue
        if radiograph_of(file, limits, shared_decoder(limits)).pixel_hash != known:
            raise not_of_this_corpus()
        compared += 1
        if compared == _COMPARED:
            return
    if not compared:
        raise not_of_this_corpus()


def not_of_this_corpus() -> MedfilipError:
    """Return the error of truth and images that do not belong together."""
    return MedfilipError(
        ErrorCode.NOT_ENOUGH_DATA,
        "The images of 'images' are not those of 'phantom_truth'.",
        fix="Give the corpus these images were made from, ingested with keep_report_ids=true.",
    )
