"""Corpus readers: tables and the Indiana collection's two forms, and what they refuse."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports.corpora import MAX_REPORT_CHARACTERS, RawReport, RejectedReport, plan_corpus, read_part
from medfilip.storage.location import Location

XML = """<eCitation><uId id="CXR7"/><MedlineCitation><Article><Abstract>
<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION">Cough</AbstractText>
<AbstractText Label="FINDINGS">Lungs &lt;clear&gt;.</AbstractText><AbstractText Label="IMPRESSION"/>
</Abstract></Article></MedlineCitation></eCitation>"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><eCitation>&b;</eCitation>'


def read(folder, **kwargs: str) -> list[RawReport | RejectedReport]:
    parts = plan_corpus(Location.parse(folder), **kwargs)  # type: ignore[arg-type]
    return [report for part in parts for report in read_part(part)]


def table(folder, **columns: list[object]) -> None:
    defaults: dict[str, list[object]] = {
        "report_id": ["r1"],
        "study_id": ["s1"],
        "patient_id": ["p1"],
        "text": ["Clear."],
    }
    pq.write_table(pa.table(defaults | columns), folder / "reports.parquet")


def test_a_table_is_read_with_its_split(tmp_path) -> None:
    table(tmp_path, split=["test"])
    (report,) = read(tmp_path)
    assert isinstance(report, RawReport)
    assert (report.report_id, report.study_id, report.patient_id, report.split) == ("r1", "s1", "p1", "test")
    assert not report.public_ids


def test_the_indiana_collection_as_parquet_and_as_xml_gives_the_same_report(tmp_path) -> None:
    (tmp_path / "xml").mkdir()
    (tmp_path / "xml/7.xml").write_text(XML)
    row = {"report_id": ["CXR7"], "indication": ["Cough"], "comparison": ["None."], "findings": ["Lungs <clear>."]}
    rest = {"impression": pa.array([None], pa.string()), "split": ["open"]}
    pq.write_table(pa.table(row | rest), tmp_path / "openi.parquet")
    (from_xml,), (from_table,) = read(tmp_path / "xml"), read(tmp_path / "openi.parquet")
    assert from_xml == from_table
    assert isinstance(from_xml, RawReport) and from_xml.public_ids and "Lungs <clear>." in from_xml.text


def test_hostile_xml_costs_one_report(tmp_path) -> None:
    (tmp_path / "a.xml").write_text(BOMB)
    (tmp_path / "b.xml").write_text("<broken")
    (tmp_path / "c.xml").write_text(XML)
    found = read(tmp_path)
    assert [getattr(report, "code", None) for report in found] == [ErrorCode.REPORT_UNREADABLE] * 2 + [None]


def test_empty_and_endless_reports_are_refused_without_their_text(tmp_path) -> None:
    long = "secret " * (MAX_REPORT_CHARACTERS // 6)
    table(
        tmp_path,
        report_id=["a", "b", "c"],
        study_id=["a", "b", "c"],
        patient_id=["a", "b", "c"],
        text=["", long, "IMPRESSION:"],
    )
    empty, endless, bare = read(tmp_path)
    assert isinstance(empty, RejectedReport) and empty.code is ErrorCode.REPORT_EMPTY
    assert isinstance(endless, RejectedReport) and endless.code is ErrorCode.REPORT_TOO_LONG
    assert "secret" not in endless.message and str(MAX_REPORT_CHARACTERS) in endless.message
    assert isinstance(bare, RejectedReport)


def test_missing_columns_files_and_folders_are_named(tmp_path) -> None:
    def code(path) -> tuple[ErrorCode, str]:
        with pytest.raises(MedfilipError) as caught:
            plan_corpus(Location.parse(path))
        return caught.value.code, str(caught.value)

    assert code(tmp_path / "nowhere")[0] is ErrorCode.INPUT_NOT_FOUND
    assert code(tmp_path)[0] is ErrorCode.INPUT_EMPTY
    pq.write_table(pa.table({"ref": ["a"], "words": ["b"]}), tmp_path / "x.parquet")
    missing, message = code(tmp_path)
    assert missing is ErrorCode.COLUMN_MISSING and "report_id, patient_id, text" in message
    assert "ref, words" in message and "columns.patient_id=none" in message
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nothing PAR1")
    assert code(tmp_path)[0] is ErrorCode.SHARD_CORRUPT


def test_a_row_without_an_id_or_with_a_strange_split_is_refused(tmp_path) -> None:
    four = ["a", None, "c", "d"]
    table(
        tmp_path, report_id=four, study_id=four, patient_id=four, text=["Clear."] * 4, split=["VAL", None, "tset", None]
    )
    first, second, third, fourth = read(tmp_path)
    assert isinstance(first, RawReport) and first.split == "validation"
    assert isinstance(second, RejectedReport) and second.code is ErrorCode.REPORT_UNREADABLE
    assert isinstance(third, RejectedReport) and third.code is ErrorCode.SPLIT_UNKNOWN
    assert isinstance(fourth, RawReport) and fourth.split is None
