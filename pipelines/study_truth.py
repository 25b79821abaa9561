"""The truth about the studies of two runs: what reports state, and of phantoms what was drawn."""

from __future__ import annotations

from collections.abc import Sequence

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import sha256_bytes
from medfilip.evaluation.fine_grained import Detail
from medfilip.evaluation.truth import COLUMNS, Drawn, Truth
from medfilip.findings.ontology import load_ontology
from medfilip.phantom.corpus import PhantomTruth
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.shards import iter_shards, read_dataset


def study_truth(findings: Location, drawn: Sequence[PhantomTruth], images: Location) -> Truth:
    """Read what the reports of an extract run state and, if any was drawn, what was, for the studies of an ingest run.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if something was drawn, but for none of these studies.
    """
    tables = iter_shards(findings, read_manifest(findings), "resolved_findings", list(COLUMNS))
    rows = (row for table in tables for row in table.to_pylist())
    return Truth.of(rows, load_ontology(), drawn_truth(drawn, images))


def truth_fingerprint(drawn: Sequence[PhantomTruth]) -> str:
    """Return the fingerprint of what was drawn, or of nothing."""
    return sha256_bytes("".join(item.model_dump_json() for item in drawn).encode())


def drawn_truth(truth: Sequence[PhantomTruth], images: Location) -> dict[str, dict[str, Drawn]]:
    """Return what was drawn (category → whether and how), by study of an ingest run.

    Raises
    ------
    MedfilipError
        As `study_truth`.
    """
    if not truth:
        return {}
    reports = read_dataset(images, read_manifest(images), "reports", ["report_id", "study_id"])
    study_of = dict(zip(reports["report_id"].to_pylist(), reports["study_id"].to_pylist(), strict=True))
    known = {
        study_of[item.report_id]: {
            name: Drawn(shown.status == "present", Detail(shown.laterality, shown.severity, shown.sites))
            for name, shown in item.study_truth.items()
        }
        for item in truth
        if item.report_id in study_of
    }
    if not known:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            "No report of 'images' is in the truth of 'phantom_truth'.",
            fix="Give the corpus these images were made from, ingested with keep_report_ids=true.",
        )
    return known
