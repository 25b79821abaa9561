"""The truth about the studies of two runs: what reports state, and of phantoms what was drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.fine_grained import Detail
from medfilip.evaluation.truth import COLUMNS, Drawn, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.corpus import PhantomTruth, read_truth
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import iter_shards, read_dataset
from medfilip.transfer.labelled import check_corpus, not_of_this_corpus, studies_of_reports


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

    def by_study(self, images: Location) -> dict[str, dict[str, Drawn]]:
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
                name: Drawn(shown.status == "present", Detail(shown.laterality, shown.severity, shown.sites))
                for name, shown in item.study_truth.items()
            }
            for item in self.drawn
            if item.report_id in study_of
        }
        if not known:
            raise not_of_this_corpus()
        columns = ["study_id", "view", "pixel_hash"]
        check_corpus(self.folder, images, read_dataset(images, read_manifest(images), "images", columns))
        return known


def study_truth(findings: Location, corpus: Corpus, images: Location) -> Truth:
    """Read what the reports of an extract run state and, if any was drawn, what was, for the studies of an ingest run.

    Raises
    ------
    MedfilipError
        As `Corpus.by_study`.
    """
    tables = iter_shards(findings, read_manifest(findings), "resolved_findings", list(COLUMNS))
    rows = (row for table in tables for row in table.to_pylist())
    return Truth.of(rows, load_ontology(), corpus.by_study(images))
