"""Ingest of corpora of images on Ray: trees and tables, labels that become findings, what is refused, local and S3."""

from __future__ import annotations

import gzip
import io
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.study import make_study
from medfilip.storage.location import Location
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import Ran, run_job

MIMIC = {
    "p10/p10000032/s50414267/aa.jpg": 0,
    "p10/p10000032/s50414267/bb.jpg": 1,
    "p11/p11000011/s51029426/cc.jpg": 2,
    "p11/p11000011/s51029427/dd.jpg": 2,  # the same picture under another name
    "p12/p12000012/s51029428/ee.jpg": None,  # no picture
}
TABLES = {
    "mimic-cxr-2.0.0-metadata.csv.gz": "dicom_id,subject_id,study_id,ViewPosition\naa,10000032,50414267,PA\n"
    "bb,10000032,50414267,LATERAL\ncc,11000011,51029426,AP\n",
    "mimic-cxr-2.0.0-split.csv.gz": "dicom_id,study_id,subject_id,split\naa,50414267,10000032,validate\n"
    "bb,50414267,10000032,validate\ncc,51029426,11000011,test\ndd,51029427,11000011,test\n",
    "mimic-cxr-2.0.0-chexpert.csv.gz": "subject_id,study_id,Atelectasis,Edema,No Finding\n"
    "10000032,50414267,1.0,0.0,\n11000011,51029426,,,1.0\n12000012,51029428,1.0,,\n",
}


def picture(index: int, kind: str) -> bytes:
    grey = (make_study(7, index, size=96).image >> 4).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return buffer.getvalue()


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path, s3_bucket: str) -> Location:
    return Location.parse(tmp_path if request.param == "local" else f"{s3_bucket}/{uuid.uuid4().hex}")


def write_mimic(place: Location) -> None:
    for name, index in MIMIC.items():
        (place / f"files/{name}").write_bytes(b"\xff\xd8\xff broken" if index is None else picture(index, "JPEG"))
    for name, text in TABLES.items():
        (place / name).write_bytes(gzip.compress(text.encode(), mtime=0))


def test_the_tree_of_mimic_becomes_images_and_findings(ray_cluster: None, place: Location) -> None:
    write_mimic(place)
    ran = Ran.of(run_job("ingest", f"images={place}/files", f"root={place}/runs"))
    assert ran.manifest.rejected == {ErrorCode.IMAGE_DUPLICATE: 1, ErrorCode.IMAGE_UNDECODABLE: 1}
    rows = read_dataset(ran.location, ran.manifest, "images").to_pylist()
    assert sorted((row["view"], row["view_position"], row["split"]) for row in rows) == [
        ("frontal", "AP", "test"),
        ("frontal", "PA", "validation"),
        ("lateral", "LATERAL", "validation"),
    ]
    assert len({row["patient_id"] for row in rows}) == 2 and {row["view_source"] for row in rows} == {"table"}
    findings = read_dataset(ran.location, ran.manifest, "resolved_findings").to_pylist()
    assert sorted((row["category"], row["certainty"]) for row in findings) == [
        ("atelectasis", "absent"),
        ("atelectasis", "present"),
        ("edema", "absent"),
        ("edema", "absent"),
    ]
    assert {row["study_id"] for row in findings} == {row["study_id"] for row in rows}
    pairs = Ran.of(run_job("inject", f"findings={ran.location}", f"images={ran.location}", f"root={place}/runs"))
    assert pairs.manifest.counts["images_with_findings"] == 3


def test_a_table_gives_reports_images_sources_and_characteristics(ray_cluster: None, tmp_path: Path) -> None:
    for index in range(3):
        (tmp_path / f"{index}.png").write_bytes(picture(index, "PNG"))
    lines = [
        "file,mrn,study,projection,report,dataset,sex,age",
        "0.png,1,s1,PA,FINDINGS: Left pleural effusion.,ward,F,57",
        "1.png,1,s1,lateral,FINDINGS: Left pleural effusion.,ward,F,57",
        "2.png,2,s2,AP,FINDINGS: The lungs are clear.,icu,M,93",
        "3.png,3,s3,AP,FINDINGS: Cardiomegaly.,icu,M,40",
    ]
    (tmp_path / "list.csv").write_text("\n".join(lines))
    settings = (f"images={tmp_path}/list.csv", "keep_characteristics=true", f"root={tmp_path}/runs")
    ran = Ran.of(run_job("ingest", *settings))
    images = read_dataset(ran.location, ran.manifest, "images").to_pylist()
    reports = read_dataset(ran.location, ran.manifest, "reports").to_pylist()
    assert sorted((row["view"], row["source"], row["sex"], row["age_years"]) for row in images) == [
        ("frontal", "icu", "M", 90),
        ("frontal", "ward", "F", 57),
        ("lateral", "ward", "F", 57),
    ]
    assert ran.manifest.rejected == {ErrorCode.IMAGE_MISSING: 1, ErrorCode.REPORT_DUPLICATE: 1}
    of_study = {row["study_id"]: (row["patient_id"], row["split"]) for row in reports}
    assert len(of_study) == 3
    assert all(of_study[row["study_id"]] == (row["patient_id"], row["split"]) for row in images)


def test_a_table_that_names_other_files_is_told(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(0, "PNG"))
    (tmp_path / "list.csv").write_text("path,patient_id\nelsewhere/b.png,1\n")
    with pytest.raises(MedfilipError) as caught:
        run_job("ingest", f"images={tmp_path}", f"image_table={tmp_path}/list.csv", f"root={tmp_path}/runs")
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND and "image_columns.path" in caught.value.fix
