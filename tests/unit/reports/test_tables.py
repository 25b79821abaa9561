"""Tables of any shape: columns given or found, encodings by record, parts that read like the whole."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.columns import Columns, moment
from medfilip.reports.corpora import RawReport, RejectedReport, corpus_fingerprint, plan_corpus, read_part
from medfilip.reports.tables import plan_table, read_table_part
from medfilip.storage.location import Location


def read(path: Path, **columns: str) -> list[RawReport | RejectedReport]:
    parts = plan_corpus(Location.parse(path), columns=Columns(**columns))
    return [report for part in parts for report in read_part(part)]


def good(path: Path, **columns: str) -> list[RawReport]:
    reports = read(path, **columns)
    assert all(isinstance(report, RawReport) for report in reports)
    return [report for report in reports if isinstance(report, RawReport)]


def write_csv(file: Path, rows: list[list[str]], encoding: str = "utf-8", delimiter: str = ",") -> Path:
    with file.open("w", encoding=encoding, newline="") as stream:
        csv.writer(stream, delimiter=delimiter).writerows(rows)
    return file


ROWS = [
    ["Accession", "MRN", "Report Text", "Split"],
    ["a1", "p1", "FINDINGS:\nClear, normal.\n\nIMPRESSION: Normal.", "train"],
    ["a2", "p2", 'The "left" lung is clear; no effusion.', "VAL"],
]


@pytest.mark.parametrize(("name", "delimiter"), [("r.csv", ","), ("r.csv", ";"), ("r.tsv", "\t"), ("r.csv", "|")])
def test_a_delimited_file_is_read_by_the_names_it_has(tmp_path: Path, name: str, delimiter: str) -> None:
    first, second = good(write_csv(tmp_path / name, ROWS, delimiter=delimiter))
    assert (first.report_id, first.study_id, first.patient_id, first.split) == ("a1", "a1", "p1", "train")
    assert first.text == ROWS[1][2] and [one.name for one in first.sections] == ["findings", "impression"]
    assert second.text == ROWS[2][2] and second.split == "validation"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
def test_encodings_of_a_delimited_file(tmp_path: Path, encoding: str) -> None:
    rows = [["report_id", "patient_id", "text"], ["1", "p", "The heart – at 38 °C – is normal."]]
    (report,) = good(write_csv(tmp_path / "r.csv", rows, encoding))
    assert report.text == rows[1][2]


def test_compressed_files_give_the_same(tmp_path: Path) -> None:
    plain = write_csv(tmp_path / "r.csv", ROWS)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert read(tmp_path / "r.csv.gz") == read(plain)
    (tmp_path / "cut.csv.gz").write_bytes(gzip.compress(plain.read_bytes())[:-12])
    with pytest.raises(MedfilipError) as caught:
        read(tmp_path / "cut.csv.gz")
    assert caught.value.code is ErrorCode.SHARD_CORRUPT and "cut.csv.gz" in str(caught.value)


def test_a_large_file_in_parts_is_the_file(tmp_path: Path) -> None:
    texts = [f'Line one of {number}.\n"Clear" lungs, normal heart.\n' for number in range(300)]
    rows = [["report_id", "patient_id", "text"], *([f"r{at}", f"p{at}", text] for at, text in enumerate(texts))]
    plain = write_csv(tmp_path / "r.csv", rows)
    lines = [json.dumps(dict(zip(rows[0], row, strict=True))) for row in rows[1:]]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    for file in (plain, tmp_path / "r.jsonl"):
        parts = plan_table(Location.parse(file), Columns(), "auto", part_bytes=2000)
        found = [report for part in parts for report in read_table_part(part, frozenset())]
        assert len(parts) > 5
        assert [report.text for report in found if isinstance(report, RawReport)] == texts


def test_a_bad_record_costs_one_record(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("report_id,patient_id,text\n1,p,Clear lungs.\n2,p\n3,p,Normal heart.\n")
    codes = [getattr(report, "code", None) for report in read(tmp_path / "r.csv")]
    assert codes == [None, ErrorCode.REPORT_UNREADABLE, None]
    (tmp_path / "r.jsonl").write_text(
        '{"report_id": 1, "patient_id": 2, "text": "Clear lungs."}\n{"report_id":\n[1]\n\n'
        '{"report_id": 3.0, "patient_id": 2, "text": "Normal."}\n'
    )
    reports = read(tmp_path / "r.jsonl")
    assert [getattr(report, "code", None) for report in reports] == [None, *[ErrorCode.REPORT_UNREADABLE] * 2, None]
    assert [reports[0].report_id, reports[3].report_id] == ["1", "3"]


def test_an_open_quote_and_an_endless_field_do_not_swallow_the_file(tmp_path: Path) -> None:
    good_row = "9,p,Clear lungs.\n"
    (tmp_path / "r.csv").write_text('report_id,patient_id,text\n1,p,"open\n' + "x" * (9 << 20) + "\n" + good_row)
    codes = [getattr(report, "code", None) for report in read(tmp_path / "r.csv")]
    assert codes == [ErrorCode.REPORT_UNREADABLE, None]


def test_sections_in_columns_become_sections(tmp_path: Path) -> None:
    rows = [
        ["uid", "findings", "impression", "indication", "patient"],
        ["7", "Clear.", "Normal.", "Cough", "p"],
        ["8", "", "", "Cough", "p"],
    ]
    first, second = read(write_csv(tmp_path / "r.csv", rows))
    assert isinstance(first, RawReport)
    assert [one.name for one in first.sections] == ["indication", "findings", "impression"]
    assert isinstance(second, RejectedReport) and second.code is ErrorCode.REPORT_NO_CONTENT


def test_columns_can_be_named_and_what_lacks_is_told(tmp_path: Path) -> None:
    rows = [["Nr", "Who", "Words", "When"], ["1", "p", "Clear lungs.", "2020-01-02"]]
    file = write_csv(tmp_path / "r.csv", rows)
    (report,) = good(file, report_id="Nr", patient_id="Who", text="Words", issued="When")
    assert report.issued == moment("2020-01-02T00:00:00+00:00")
    (report,) = good(file, report_id="Nr", patient_id="none", text="Words")
    assert report.patient_id is None
    with pytest.raises(MedfilipError) as caught:
        read(file, report_id="Nr")
    assert caught.value.code is ErrorCode.COLUMN_MISSING
    message = str(caught.value)
    assert "Nr, Who, Words, When" in message
    assert "columns.text=COLUMN" in message and "columns.patient_id=none" in message
    with pytest.raises(MedfilipError, match=r"columns\.text"):
        read(file, text="Missing")


def test_a_file_without_names_does_not_tell_its_text(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "r.csv", [["1", "p", "The planted secret is in the first line of this file."]])
    with pytest.raises(MedfilipError) as caught:
        read(file)
    assert "secret" not in str(caught.value)


def test_parquet_with_large_and_binary_columns(tmp_path: Path) -> None:
    table: dict[str, Any] = {
        "id": pa.array([1, 2, 3]),
        "mrn": pa.array([1.0, None, 3.0]),
        "report": pa.array([b"Clear \x96 lungs.", b"Normal heart.", None], pa.large_binary()),
    }
    pq.write_table(pa.table(table), tmp_path / "r.parquet")
    first, second, third = read(tmp_path / "r.parquet")
    assert isinstance(first, RawReport) and (first.report_id, first.patient_id) == ("1", "1")
    assert first.text == "Clear – lungs." and first.decoded == "cp1252"
    assert isinstance(second, RawReport) and second.patient_id is None
    assert isinstance(third, RejectedReport) and third.code is ErrorCode.REPORT_EMPTY


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "r.csv", ROWS)
    before = corpus_fingerprint(plan_corpus(Location.parse(file)))
    assert before == corpus_fingerprint(plan_corpus(Location.parse(tmp_path)))
    write_csv(file, ROWS[:2])
    assert before != corpus_fingerprint(plan_corpus(Location.parse(file)))


@pytest.mark.parametrize(
    ("value", "expected"), [("12.5", 12.5), (3, 3.0), ("x", None), (None, None), (float("inf"), None)]
)
def test_moments(value: object, expected: float | None) -> None:
    assert moment(value) == expected
