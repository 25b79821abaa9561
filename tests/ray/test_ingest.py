"""Ingest on Ray: pseudonyms, splits, refusals with reasons, duplicates, and the same result on S3."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.preprocess import png_decode
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import STUDIES, Ran, run_job


def test_every_study_arrives_once_with_its_image(ingested: Ran) -> None:
    reports = read_dataset(ingested.location, ingested.manifest, "reports").to_pylist()
    images = read_dataset(ingested.location, ingested.manifest, "images").to_pylist()
    assert len({row["report_id"] for row in reports}) == len(reports) == STUDIES
    assert {row["study_id"] for row in reports} == {row["study_id"] for row in images}
    split_of = {row["patient_id"]: row["split"] for row in reports}
    assert all(split_of[row["patient_id"]] == row["split"] for row in images)
    for row in images:
        pixels = png_decode(row["pixels"])
        assert pixels.shape == (row["height"], row["width"])
        assert pixels.dtype.itemsize * 8 == row["bits"] == 16
        assert row["view"] == "frontal"


def test_no_identifier_of_the_source_is_kept(ingested: Ran, corpus: Path) -> None:
    raw = pq.read_table(corpus / "reports.parquet")
    known = set(raw["patient_id"].to_pylist()) | set(raw["study_id"].to_pylist())
    for name in ("reports", "images"):
        table = read_dataset(ingested.location, ingested.manifest, name)
        for column in ("patient_id", "study_id"):
            assert not known & set(table[column].to_pylist())


def test_a_second_start_does_nothing(ingested: Ran, corpus: Path, root: Path) -> None:
    outcome = run_job("ingest", f"reports={corpus}", f"images={corpus}/images", "keep_report_ids=true", f"root={root}")
    assert outcome.already_finished and outcome.location == str(ingested.location)


def test_what_is_refused_is_counted_with_a_reason(ray_cluster: None, corpus: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    shutil.copytree(corpus / "images", images)
    first = next(images.iterdir())
    (images / "again.dcm").write_bytes(first.read_bytes())
    (images / "noise.dcm").write_bytes(b"not an image at all")
    reports = pq.read_table(corpus / "reports.parquet")
    patient = reports["patient_id"][0].as_py()
    (tmp_path / "withdrawn.txt").write_text(f"{patient}\n")
    outcome = run_job(
        "ingest",
        f"reports={corpus}",
        f"images={images}",
        f"exclude_ids={tmp_path}/withdrawn.txt",
        f"root={tmp_path}/runs",
    )
    excluded = sum(value == patient for value in reports["patient_id"].to_pylist())
    assert outcome.manifest.rejected == {
        ErrorCode.EXCLUDED: 2 * excluded,
        ErrorCode.IMAGE_DUPLICATE: 1,
        ErrorCode.IMAGE_UNSUPPORTED: 1,
    }
    assert outcome.manifest.counts["images"] == STUDIES - excluded
    rejected = read_dataset(Ran.of(outcome).location, outcome.manifest, "rejected")
    assert rejected.num_rows == sum(outcome.manifest.rejected.values())
    assert not any(patient in str(row) for row in rejected.to_pylist())


def test_the_same_shards_on_s3(ingested: Ran, corpus: Path, s3_bucket: str) -> None:
    target = f"{s3_bucket}/{uuid.uuid4().hex}"
    settings = (f"reports={corpus}", f"images={corpus}/images", "keep_report_ids=true", f"root={target}")
    outcome = run_job("ingest", *settings)
    assert outcome.location.startswith(target)
    assert outcome.manifest.fingerprint == ingested.manifest.fingerprint
    extract = run_job("extract", f"reports={outcome.location}", f"root={target}")
    assert extract.manifest.counts["reports"] == STUDIES


def test_an_empty_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        run_job("ingest", f"images={tmp_path}", f"root={tmp_path}/runs")
    assert caught.value.code is ErrorCode.INPUT_EMPTY


def test_images_without_a_patient_follow_their_report_and_any_name_is_read(
    ray_cluster: None, corpus: Path, tmp_path: Path
) -> None:
    import pydicom

    (tmp_path / "images").mkdir()
    for number, file in enumerate(sorted((corpus / "images").iterdir())):
        dataset = pydicom.dcmread(file)
        dataset.PatientID = ""
        dataset.save_as(tmp_path / "images" / f"1.2.840.{number}")
    (tmp_path / "images" / "list.csv").write_text("no image")
    settings = (f"reports={corpus}", f"images={tmp_path}/images", "keep_report_ids=true", f"root={tmp_path}/runs")
    ran = Ran.of(run_job("ingest", *settings))
    reports = read_dataset(ran.location, ran.manifest, "reports").to_pylist()
    images = read_dataset(ran.location, ran.manifest, "images").to_pylist()
    of_study = {row["study_id"]: (row["patient_id"], row["split"]) for row in reports}
    assert len(images) == STUDIES and ran.manifest.counts["files_of_other_kinds"] == 1
    assert all((row["patient_id"], row["split"]) == of_study[row["study_id"]] for row in images)
