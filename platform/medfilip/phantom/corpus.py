"""A phantom corpus on disk, in the shape in which hospitals hand theirs over: DICOM files, and reports in a table.

The same seed gives the same bytes, so a corpus need not be kept: its seed is enough. Next to what a hospital has lie
the truth (``truth.jsonl``), the recipe (``phantom.json``) and, if asked for, the masks of all lesions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from pydantic import BaseModel, ConfigDict, ValidationError

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.fingerprint import canonical_json
from medfilip.findings.finding import Finding
from medfilip.phantom.dicom import dicom_bytes
from medfilip.phantom.draw import Box
from medfilip.phantom.lesions import CategoryTruth
from medfilip.phantom.png import mask_png
from medfilip.phantom.study import GENERATOR_VERSION, PhantomStudy, StudyOptions, generate, make_report

__all__ = ["PhantomTruth", "dicom_bytes", "read_truth", "write_corpus", "write_reports"]

REPORT_COLUMNS = ("report_id", "study_id", "patient_id", "text")
REPORTS_PER_FILE = 100_000
_ROWS_PER_GROUP = 10_000


class PhantomTruth(BaseModel):
    """One line of ``truth.jsonl``: what report and images of a study say.

    ``study_truth`` and ``boxes`` are empty for a report without an image; ``boxes`` maps
    ``category/side`` (``cardiomegaly`` without a side) to ``(row0, col0, row1, col1)``, half open, on the frontal
    image; ``lateral_boxes`` on the lateral one. ``view`` and ``style`` are those of the frontal image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    report_id: str
    study_id: str
    findings: tuple[Finding, ...]
    study_truth: dict[str, CategoryTruth]
    boxes: dict[str, Box]
    lateral_boxes: dict[str, Box] = {}
    view: str | None = None
    style: str | None = None


def write_corpus(
    folder: Path, count: int, seed: int, *, options: StudyOptions | None = None, masks: bool = False
) -> None:
    """Write ``count`` studies of a seed.

    Writes ``reports.parquet`` (report_id, study_id, patient_id, text), ``images/<report_id>.dcm`` (CR and DX,
    MONOCHROME1 and 2, uncompressed and RLE Lossless, with and without a window), ``images/<report_id>-lateral.dcm``
    of the studies that have one, ``truth.jsonl`` and ``phantom.json``; and ``masks/<report_id>/<view>-<lesion>.png``
    (8-bit grey, 255 where the lesion is seen, the pixels of the DICOM file).

    Parameters
    ----------
    folder
        Made if it is not there; files of the same names are replaced.
    count
        Number of studies.
    seed
        Names the studies; a non-negative integer.
    options
        What the studies are made of.
    masks
        Whether to write the masks.

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
        for study in generate(count, seed, options=options):
            for number, name in enumerate(("", "-lateral")[: len(study.images)]):
                (images / f"{study.report_id}{name}.dcm").write_bytes(dicom_bytes(study, number))
            if masks:
                _write_masks(folder / "masks" / study.report_id, study)
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
    _write_recipe(folder, count, seed, images=True, options=options or StudyOptions())


def _write_masks(folder: Path, study: PhantomStudy) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for image in study.images:
        for key, mask in image.masks.items():
            (folder / f"{image.view}-{key.replace('/', '-')}.png").write_bytes(mask_png(mask))


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


def _write_recipe(folder: Path, count: int, seed: int, *, images: bool, options: StudyOptions | None = None) -> None:
    recipe = {"count": count, "seed": seed, "images": images, "generator_version": GENERATOR_VERSION}
    if options is not None:
        recipe |= asdict(options)
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


def _truth(study: PhantomStudy) -> PhantomTruth:
    return PhantomTruth(
        report_id=study.report_id,
        study_id=study.study_uid,
        findings=study.findings,
        study_truth=study.study_truth,
        boxes=study.boxes,
        lateral_boxes=study.images[1].boxes if len(study.images) > 1 else {},
        view=study.images[0].view,
        style=study.images[0].style,
    )
