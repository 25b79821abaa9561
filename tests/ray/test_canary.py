"""A fake patient's name, planted in every input, must stand in no log, manifest, metric, reject table or error."""

from __future__ import annotations

from pathlib import Path

import pydicom
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.corpus import write_corpus
from medfilip.reports.corpora import MAX_REPORT_CHARACTERS
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from pipelines.console import print_outcome
from pipelines.runtime import map_parts, task_error
from tests.ray.conftest import Ran, run_job

CANARY = "Zebulon Quillfeather"
WORD = "Quillfeather"


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """Plant the name in report texts, ids and DICOM headers, in rows that pass and in rows that are refused."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = tmp_path / "corpus"
    write_corpus(folder, 4, seed=9)
    table = pq.read_table(folder / "reports.parquet")
    rows = table.to_pylist()
    for row in rows:
        row["text"] = row["text"].replace("FINDINGS:", f"FINDINGS: {CANARY} was seen. Mass of {CANARY}.")
        row["patient_id"] += WORD
    endless = {**rows[0], "report_id": f"{WORD}-endless", "text": CANARY * (MAX_REPORT_CHARACTERS // 10)}
    empty = {**rows[0], "report_id": f"{WORD}-empty", "text": ""}
    twice = {**rows[0], "report_id": f"{WORD}-twice"}
    pq.write_table(pa.Table.from_pylist([*rows, endless, empty, twice]), folder / "reports.parquet")
    for number, file in enumerate(sorted((folder / "images").iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.PatientName, dataset.PatientID = CANARY.replace(" ", "^"), WORD
        dataset.ReferringPhysicianName = WORD
        if number == 0:
            dataset.Modality = "CT"
        if number == 1:
            dataset.Rows = dataset.Columns = 60000
        dataset.save_as(file)
    return folder


def test_a_planted_name_is_nowhere_it_should_not_be(
    ray_cluster: None, planted: Path, tiny_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import ray

    root = f"root={tmp_path}/runs"
    ingest = run_job("ingest", f"reports={planted}", f"images={planted}/images", root)
    print_outcome("ingest", ingest)
    extract = run_job("extract", f"reports={ingest.location}", root)
    print_outcome("extract", extract)
    assert ingest.manifest.rejected.keys() >= {
        "report_too_long",
        "report_empty",
        "report_duplicate",
        "image_too_large",
    }
    assert extract.manifest.datasets["mentions"].rows > 0, "the sentences with the name were extracted"
    diagnose = run_job("diagnose_batch", f"images={planted}/images", f"checkpoint={tiny_checkpoint}", root)
    print_outcome("diagnose_batch", diagnose)
    assert diagnose.manifest.datasets["diagnoses"].rows > 0 and "image_too_large" in diagnose.manifest.rejected

    for outcome in (ingest, extract, diagnose):
        for name in set(outcome.manifest.datasets) - {"reports", "sentences"}:
            columns = read_dataset(Ran.of(outcome).location, outcome.manifest, name).to_pydict()
            columns.pop("pixels", None)
            assert WORD not in str(columns), name
    for file in (tmp_path / "runs").rglob("*.json"):
        assert WORD not in file.read_text(), file
    shown = capfd.readouterr()
    assert WORD.lower() not in (shown.out + shown.err).lower()
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    logs = [file for file in (session / "logs").rglob("*") if file.is_file()]
    assert logs
    for file in logs:
        assert WORD.lower().encode() not in file.read_bytes().lower(), file


def _fail(part: str) -> dict[str, object]:
    raise ValueError(f"cannot parse {part}")


def test_a_failing_task_is_told_without_its_input(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        map_parts(Location.parse(tmp_path), "phase", _fail, [CANARY])
    assert WORD not in str(caught.value) and "ValueError" in str(caught.value)
    assert WORD not in str(task_error(RuntimeError(CANARY)))


def _refuse(part: str) -> dict[str, object]:
    try:
        raise ValueError(f"cannot parse {part}")
    except ValueError as error:
        raise MedfilipError(ErrorCode.SHARD_CORRUPT, "The shard is damaged.", fix="Restore it.") from error


def test_a_coded_error_of_a_task_is_told_and_nothing_else(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        map_parts(Location.parse(tmp_path), "phase", _refuse, [CANARY])
    assert str(caught.value) == "The shard is damaged. Restore it."
