"""De-identification as a job: copies in the order of patients, a list of them, and the same again on a second run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pydicom

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import sha256_bytes
from medfilip.storage.shards import read_dataset
from tests.ray.conftest import STUDIES, Ran, run_job


def test_every_file_is_copied_without_its_identity(ray_cluster: None, corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    shutil.copytree(corpus / "images", folder)
    (folder / "noise.dcm").write_bytes(b"no DICOM")
    ran = Ran.of(run_job("deidentify", f"images={folder}", f"root={tmp_path}/runs"))
    assert ran.manifest.rejected == {ErrorCode.IMAGE_NOT_DICOM: 1}
    rows = read_dataset(ran.location, ran.manifest, "deidentified").to_pylist()
    sources = [pydicom.dcmread(file) for file in (corpus / "images").iterdir()]
    assert len(rows) == len(sources) >= STUDIES
    assert len({row["patient_id"] for row in rows}) == len({source.PatientID for source in sources})
    names = {str(source.PatientName) for source in sources} | {source.PatientID for source in sources}
    for row in rows:
        data = (ran.location / row["path"]).read_bytes()
        assert sha256_bytes(data) == row["sha256"] and not any(name.encode() in data for name in names)

    again = Ran.of(run_job("deidentify", f"images={ran.location}/dicom", f"root={tmp_path}/runs"))
    assert again.manifest.counts["already_deidentified"] == len(rows)
    hashes = sorted(row["sha256"] for row in rows)
    assert hashes == sorted(read_dataset(again.location, again.manifest, "deidentified")["sha256"].to_pylist())
