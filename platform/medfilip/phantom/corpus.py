"""A phantom corpus on disk, in the shape in which hospitals hand theirs over: DICOM files, and reports in a table.

The same seed gives the same bytes, so a corpus need not be kept: its seed is enough. Next to what a hospital has lie
the truth (``truth.jsonl``) and the recipe (``phantom.json``).
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json
from medfilip.findings.finding import Finding
from medfilip.phantom.draw import FIELD_MM, MAX_VALUE, Box
from medfilip.phantom.lesions import CategoryTruth
from medfilip.phantom.study import GENERATOR_VERSION, PhantomStudy, generate, make_report

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

REPORT_COLUMNS = ("report_id", "study_id", "patient_id", "text")
REPORTS_PER_FILE = 100_000
_ROWS_PER_GROUP = 10_000
_DATE, _TIME = "20200101", "120000"  # a corpus that holds the date of its making would differ from day to day
_DX, _CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"
_IMPLEMENTATION_UID = "2.25.206213907021873440211839285029163894741"


class PhantomTruth(BaseModel):
    """One line of ``truth.jsonl``: what report and image of a study say.

    ``study_truth`` and ``boxes`` are empty for a report without an image; ``boxes`` maps
    ``category/side`` (``cardiomegaly`` without a side) to ``(row0, col0, row1, col1)``, half open.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    report_id: str
    study_id: str
    findings: tuple[Finding, ...]
    study_truth: dict[str, CategoryTruth]
    boxes: dict[str, Box]


def write_corpus(folder: Path, count: int, seed: int) -> None:
    """Write ``count`` studies of a seed.

    Writes ``reports.parquet`` (report_id, study_id, patient_id, text), ``images/<report_id>.dcm`` (CR and DX,
    MONOCHROME1 and 2, uncompressed and RLE Lossless, with and without a window), ``truth.jsonl`` and ``phantom.json``.

    Parameters
    ----------
    folder
        Made if it is not there; files of the same names are replaced.
    count
        Number of studies.
    seed
        Names the studies; a non-negative integer.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if count is not positive or the seed is negative.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check(count, seed)
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with (folder / "truth.jsonl").open("w", encoding="utf-8", newline="\n") as truth:
        for study in generate(count, seed):
            (images / f"{study.report_id}.dcm").write_bytes(dicom_bytes(study))
            truth.write(canonical_json(_truth(study).model_dump(mode="json")) + "\n")
            rows.append(
                {
                    "report_id": study.report_id,
                    "study_id": study.study_uid,
                    "patient_id": study.patient_id,
                    "text": study.text,
                }
            )
    schema = pa.schema([(name, pa.string()) for name in REPORT_COLUMNS])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "reports.parquet")
    _write_recipe(folder, count, seed, images=True)


def write_reports(folder: Path, count: int, seed: int, *, truth: bool = True) -> list[str]:
    """Write ``count`` reports of a seed without images, in memory that does not grow with their number.

    Writes ``reports-00000.parquet`` … with the columns of `write_corpus`, `REPORTS_PER_FILE` rows each,
    ``phantom.json``, and ``truth.jsonl`` if asked for.

    Parameters
    ----------
    folder
        Made if it is not there; files of the same names are replaced.
    count
        Number of reports.
    seed
        Names the reports; a non-negative integer.
    truth
        Whether to write what each report states, line by line as it is generated.

    Returns
    -------
    list of str
        Names of the files.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if count is not positive or the seed is negative.
    """
    _check(count, seed)
    folder.mkdir(parents=True, exist_ok=True)
    names: list[str] = []
    with (folder / "truth.jsonl").open("w", encoding="utf-8", newline="\n") if truth else nullcontext() as lines:
        for begin in range(0, count, REPORTS_PER_FILE):
            name = f"reports-{begin // REPORTS_PER_FILE:05d}.parquet"
            _write_reports_file(folder / name, range(begin, min(begin + REPORTS_PER_FILE, count)), seed, lines)
            names.append(name)
    names += ["truth.jsonl"] if truth else []
    _write_recipe(folder, count, seed, images=False)
    return [*names, "phantom.json"]


def _write_reports_file(file: Path, indices: range, seed: int, lines: TextIO | None) -> None:
    """Write a file row group by row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.string()) for name in REPORT_COLUMNS])
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for begin in range(indices.start, indices.stop, _ROWS_PER_GROUP):
            rows = []
            for index in range(begin, min(begin + _ROWS_PER_GROUP, indices.stop)):
                report = make_report(seed, index)
                rows.append((report.report_id, report.study_uid, report.patient_id, report.text))
                if lines is not None:
                    truth = PhantomTruth(
                        report_id=report.report_id,
                        study_id=report.study_uid,
                        findings=report.findings,
                        study_truth={},
                        boxes={},
                    )
                    lines.write(truth.model_dump_json() + "\n")
            columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
            writer.write_table(pa.table(columns, schema=schema))


def _check(count: int, seed: int) -> None:
    if count < 1 or seed < 0:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A phantom corpus needs count >= 1 and seed >= 0, not count = {count} and seed = {seed}.",
            fix="Pass a positive count and a non-negative seed.",
        )


def _write_recipe(folder: Path, count: int, seed: int, *, images: bool) -> None:
    recipe = {"count": count, "seed": seed, "images": images, "generator_version": GENERATOR_VERSION}
    (folder / "phantom.json").write_text(canonical_json(recipe) + "\n", encoding="utf-8")


def read_truth(folder: Path) -> Iterator[PhantomTruth]:
    """Read ``truth.jsonl`` of a corpus, study by study.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND`` if the file is missing, ``SCHEMA_MISMATCH`` if a line is not a `PhantomTruth`.
    """
    path = folder / "truth.jsonl"
    if not path.is_file():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND,
            "The folder holds no truth.jsonl.",
            fix="Pass a folder that write_corpus has written.",
        )
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield PhantomTruth.model_validate_json(line)
            except ValidationError as error:
                raise MedfilipError(
                    ErrorCode.SCHEMA_MISMATCH,
                    f"Line {number} of truth.jsonl is not the truth of a phantom study.",
                    fix="Write the corpus again with this version.",
                ) from error


def dicom_bytes(study: PhantomStudy) -> bytes:
    """Encode the image of a study as a DICOM Part 10 file.

    Modality, photometric interpretation, compression and window vary with the number of the study, so that any few
    neighbouring studies cover all kinds.
    """
    from pydicom.uid import UID, RLELossless

    is_dx, inverted, compressed, windowed = (bool(study.index >> bit & 1) for bit in (0, 1, 2, 3))
    file = _header(study, UID(_DX if is_dx else _CR))
    file.Modality = "DX" if is_dx else "CR"
    file.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    file.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    if windowed:
        file.WindowCenter, file.WindowWidth = (MAX_VALUE + 1) // 2, MAX_VALUE + 1
    stored = (MAX_VALUE - study.image if inverted else study.image).astype("<u2")
    file.Rows, file.Columns = stored.shape
    spacing = round(FIELD_MM / stored.shape[0], 6)
    file.ImagerPixelSpacing = [spacing, spacing]
    file.PixelData = stored.tobytes()
    file["PixelData"].VR = "OW"
    if compressed:
        file.compress(RLELossless, generate_instance_uid=False)
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _header(study: PhantomStudy, sop_class: str) -> FileDataset:
    """Attributes that do not depend on how the pixels are stored."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = UID(study.sop_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(_IMPLEMENTATION_UID)
    file = FileDataset(io.BytesIO(), {}, file_meta=meta, preamble=b"\0" * 128)
    file.SOPClassUID, file.SOPInstanceUID = UID(sop_class), UID(study.sop_uid)
    file.StudyInstanceUID, file.SeriesInstanceUID = UID(study.study_uid), UID(_series_uid(study))
    file.StudyDate = file.ContentDate = file.AcquisitionDate = _DATE
    file.StudyTime = file.ContentTime = file.AcquisitionTime = _TIME
    file.AccessionNumber, file.StudyID = study.report_id, str(study.index)
    file.SeriesNumber = file.InstanceNumber = 1
    file.PatientName, file.PatientID = study.patient_name, study.patient_id
    file.PatientBirthDate, file.PatientSex, file.PatientAge = "", study.sex, f"{study.age:03d}Y"
    file.ReferringPhysicianName, file.Manufacturer = "", "MedFILIP phantom"
    file.ImageType = ["ORIGINAL", "PRIMARY", ""]
    file.BodyPartExamined, file.ViewPosition, file.PatientOrientation = "CHEST", "PA", ["L", "F"]
    file.PresentationIntentType = "FOR PRESENTATION"
    file.BurnedInAnnotation = "NO"
    file.SamplesPerPixel, file.PixelRepresentation = 1, 0
    file.BitsAllocated, file.BitsStored, file.HighBit = 16, 12, 11
    return file


def _series_uid(study: PhantomStudy) -> str:
    return f"2.25.{int(study.study_uid.removeprefix('2.25.')) ^ 1}"


def _truth(study: PhantomStudy) -> PhantomTruth:
    return PhantomTruth(
        report_id=study.report_id,
        study_id=study.study_uid,
        findings=study.findings,
        study_truth=study.study_truth,
        boxes=study.boxes,
    )
