import hashlib
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_decode
from medfilip.phantom import corpus as corpus_module
from medfilip.phantom.corpus import dicom_bytes, read_truth, write_corpus, write_reports
from medfilip.phantom.study import GENERATOR_VERSION, StudyOptions, make_report, make_study

COUNT = 5


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, COUNT, 11)
    return folder


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path, COUNT, 11)
    assert digests(tmp_path) == digests(corpus)
    assert len(digests(corpus)) == COUNT + 3


def test_reports_truth_and_images_belong_together(corpus: Path) -> None:
    table = pq.read_table(corpus / "reports.parquet")
    assert table.column_names == ["report_id", "study_id", "patient_id", "text"]
    truths = list(read_truth(corpus))
    for row, truth in zip(table.to_pylist(), truths, strict=True):
        assert (row["report_id"], row["study_id"]) == (truth.report_id, truth.study_id)
        file = pydicom.dcmread(corpus / "images" / f"{row['report_id']}.dcm")
        assert (file.StudyInstanceUID, file.PatientID) == (row["study_id"], row["patient_id"])
        assert all(row["text"][one.start : one.end] for finding in truth.findings for one in finding.evidence)
        present = {category for category, one in truth.study_truth.items() if one.status == "present"}
        assert present == {key.split("/")[0] for key in truth.boxes}


def test_recipe(corpus: Path) -> None:
    recipe = json.loads((corpus / "phantom.json").read_text())
    facts = {"count": COUNT, "seed": 11, "images": True, "generator_version": GENERATOR_VERSION}
    assert recipe == facts | json.loads(json.dumps(asdict(StudyOptions())))


def test_lateral_images_and_masks_are_written_on_request(tmp_path: Path) -> None:
    write_corpus(tmp_path, 6, 2, options=StudyOptions(size=64, lateral=1.0), masks=True)
    truths = list(read_truth(tmp_path))
    assert {truth.view for truth in truths} == {"PA", "AP"}
    for truth in truths:
        lateral = tmp_path / "images" / f"{truth.report_id}-lateral.dcm"
        assert lateral.exists() == (truth.view == "PA")
        if truth.view == "PA":
            file = pydicom.dcmread(lateral)
            assert (file.ViewPosition, list(file.PatientOrientation), file.InstanceNumber) == ("LL", ["P", "F"], 2)
            frontal = pydicom.dcmread(tmp_path / "images" / f"{truth.report_id}.dcm")
            assert file.StudyInstanceUID == frontal.StudyInstanceUID and file.SOPInstanceUID != frontal.SOPInstanceUID
        boxes = {(truth.view, key): box for key, box in truth.boxes.items()}
        boxes |= {("LL", key): box for key, box in truth.lateral_boxes.items()}
        written = {path.stem for path in (tmp_path / "masks" / truth.report_id).iterdir()}
        assert written == {f"{view}-{key.replace('/', '-')}" for view, key in boxes}
        for (view, key), (row0, col0, row1, col1) in boxes.items():
            data = (tmp_path / "masks" / truth.report_id / f"{view}-{key.replace('/', '-')}.png").read_bytes()
            mask = png_decode(data)
            assert mask.shape == (64, 64) and mask[row0:row1, col0:col1].any() and not mask[:row0].any()
            assert not mask[row1:].any() and not mask[:, :col0].any() and not mask[:, col1:].any()


def test_reports_alone_are_written_file_by_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "REPORTS_PER_FILE", 8)
    monkeypatch.setattr(corpus_module, "_ROWS_PER_GROUP", 3)
    names = write_reports(tmp_path / "a", 20, 3)
    assert names == [*(f"reports-{number:05d}.parquet" for number in range(3)), "truth.jsonl", "phantom.json"]
    rows = [row for name in names[:3] for row in pq.read_table(tmp_path / "a" / name).to_pylist()]
    assert [row["text"] for row in rows] == [make_report(3, index).text for index in range(20)]
    assert pq.ParquetFile(tmp_path / "a" / names[0]).num_row_groups == 3
    for row, truth in zip(rows, read_truth(tmp_path / "a"), strict=True):
        assert (row["report_id"], row["study_id"]) == (truth.report_id, truth.study_id)
        assert all(row["text"][one.start : one.end] for finding in truth.findings for one in finding.evidence)
    assert write_reports(tmp_path / "b", 20, 3, truth=False) == [*names[:3], "phantom.json"]
    assert digests(tmp_path / "b") == {
        name: hash_ for name, hash_ in digests(tmp_path / "a").items() if name != "truth.jsonl"
    }


def test_images_come_back_through_the_reader() -> None:
    """All 16 kinds of file: modality x photometric x compression x window, and the pixels mean the same in each."""
    seen = set()
    with IsolatedDecoder(ImageLimits()) as decoder:
        for index in range(16):
            study = make_study(3, index, size=64)
            result = read_dicom(dicom_bytes(study), ImageLimits(), decoder)
            file = pydicom.dcmread(io.BytesIO(dicom_bytes(study)))
            windowed = "WindowCenter" in file
            seen.add((file.Modality, result.photometric, result.transfer_syntax, windowed))
            low, high = (0, 4095) if windowed else (int(study.image.min()), int(study.image.max()))
            expected = (study.image.astype(float) - low) / (high - low)
            assert np.abs(result.pixels / 65535 - expected).max() < 1e-4
            assert (result.view, result.bits_stored, result.study_uid) == ("frontal", 12, study.study_uid)
            assert result.spacing_mm == pytest.approx(360 / 64)
            assert (file.ViewPosition, file.ManufacturerModelName) == (study.images[0].view, study.images[0].style)
    assert len(seen) == 16


@pytest.mark.parametrize(("count", "seed"), [(0, 1), (3, -1)])
def test_bad_arguments(tmp_path: Path, count: int, seed: int) -> None:
    with pytest.raises(MedfilipError) as caught:
        write_corpus(tmp_path, count, seed)
    assert caught.value.code == ErrorCode.CONFIG_INVALID
    with pytest.raises(MedfilipError):
        write_reports(tmp_path, count, seed)


def test_truth_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(MedfilipError) as caught:
        list(read_truth(tmp_path))
    assert caught.value.code == ErrorCode.INPUT_NOT_FOUND
    (tmp_path / "truth.jsonl").write_text('{"report_id": "x"}\n')
    with pytest.raises(MedfilipError, match="Line 1") as caught:
        list(read_truth(tmp_path))
    assert caught.value.code == ErrorCode.SCHEMA_MISMATCH
