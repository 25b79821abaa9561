"""Ingest of other hospitals' corpora on Ray: the tree of MIMIC-CXR with splits, and a table with a column mapping."""

from __future__ import annotations

import csv
import io
import uuid
from collections.abc import Callable

import pytest

from medfilip.core.errors import ErrorCode
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, run_job

BODY = "EXAMINATION:  CHEST (PA AND LAT)\n\nCOMPARISON:  ___.\n\nFINDINGS:  The lungs are clear, seen {}.\n"
TREE = {
    "p10/p10000032/s50414267.txt": BODY.format("well"),
    "p10/p10000032/s53189527.txt": BODY.format("twice"),
    "p11/p11000011/s51029426.txt": "EXAMINATION:  KNEE\n\nFINDINGS:  No fracture of the patella.\n",
    "p12/p12000012/s51029427.txt": BODY.format("here"),
    "p12/p12000012/s51029428.txt": "",
}
SPLIT = "dicom_id,study_id,subject_id,split\na,50414267,10000032,test\nb,51029427,12000012,validate\n"
METADATA = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription\na,10000032,50414267,CHEST (PA AND LAT)\n"
ROWS = [
    ("accession", "study", "mrn", "report_body", "when"),
    ("1", "s1", "m1", "FINDINGS: Left effusion.\nIMPRESSION:\nEffusion.", "2020-01-01"),
    ("1", "s1", "m1", "CORRECTED REPORT\nFINDINGS: Right effusion.", "2020-01-02"),
    ("2", "s2", "m2", "The heart is normal.", "2020-01-01"),
    ("3", "s2", "m2", "ADDENDUM: There is also a nodule.", "2020-01-03"),
    ("4", "s3", "m3", "Kein Infiltrat, Herz nicht vergrößert.", "2020-01-01"),
    ("5", "s4", "m4", "Portable view: lungs are clear.", "2020-01-01"),
    ("6", "s4", "m4", "Lateral view: no effusion.", "2020-01-01"),
]


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path, s3_bucket: str) -> str:
    return str(tmp_path) if request.param == "local" else f"{s3_bucket}/{uuid.uuid4().hex}"


@pytest.fixture
def ingest(ray_cluster: None, place: str) -> Callable[..., Ran]:
    def run(*settings: str) -> Ran:
        return Ran.of(run_job("ingest", *settings, "keep_report_ids=true", f"root={place}/runs"))

    return run


def test_the_tree_of_mimic_with_its_splits(ingest: Callable[..., Ran], place: str) -> None:
    folder = Location.parse(place) / "mimic"
    for name, text in TREE.items():
        (folder / f"files/{name}").write_bytes(text.encode())
    (folder / "mimic-cxr-2.0.0-split.csv").write_bytes(SPLIT.encode())
    (folder / "mimic-cxr-2.0.0-metadata.csv").write_bytes(METADATA.encode())
    ran = ingest(f"reports={folder}")
    rows = {row["report_id"]: row for row in read_dataset(ran.location, ran.manifest, "reports").to_pylist()}
    # The official split of one study holds for its patient.
    assert {name: row["split"] for name, row in rows.items()} == {
        "s50414267": "test",
        "s53189527": "test",
        "s51029427": "validation",
    }
    assert rows["s50414267"]["patient_id"] == rows["s53189527"]["patient_id"] != rows["s51029427"]["patient_id"]
    assert ran.manifest.rejected == {ErrorCode.NOT_CHEST: 1, ErrorCode.REPORT_EMPTY: 1}
    again = run_job("ingest", f"reports={folder}", "keep_report_ids=true", f"root={place}/runs")
    assert again.already_finished


def test_a_table_with_a_mapping_corrections_and_addenda(ingest: Callable[..., Ran], place: str) -> None:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(ROWS)
    file = Location.parse(place) / "reports.csv"
    file.write_bytes(buffer.getvalue().encode("cp1252"))
    mapping = ("report_id=accession", "study_id=study", "patient_id=mrn", "text=report_body", "issued=when")
    ran = ingest(f"reports={file}", *(f"columns.{item}" for item in mapping))
    rows = {row["report_id"]: row for row in read_dataset(ran.location, ran.manifest, "reports").to_pylist()}
    assert rows.keys() == {"1", "2", "5", "6"}
    assert "Right effusion" in rows["1"]["text"]
    section = rows["2"]["sections"][-1]
    assert section["name"] == "addendum"
    assert rows["2"]["text"][section["start"] : section["end"]] == "There is also a nodule."
    assert rows["5"]["study_id"] == rows["6"]["study_id"]
    assert ran.manifest.rejected == {ErrorCode.SUPERSEDED: 1, ErrorCode.LANGUAGE_UNSUPPORTED: 1}
    assert ran.manifest.counts["addenda_merged"] == 1 and "decoded_cp1252" not in ran.manifest.counts
    rejected = read_dataset(ran.location, ran.manifest, "rejected").to_pylist()
    assert {row["id"] for row in rejected} == {"1", "4"} and not any("effusion" in row["message"] for row in rejected)
