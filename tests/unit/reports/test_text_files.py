"""The tree of MIMIC-CXR and folders of text files."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.reports import text_files
from medfilip.reports.corpora import RawReport, RejectedReport, corpus_fingerprint, plan_corpus, read_part
from medfilip.reports.text_files import FilesPart
from medfilip.storage.location import Location

REPORT = " FINAL REPORT\n EXAMINATION:  CHEST (PA AND LAT)\n\n FINDINGS:\n\n The lungs are clear.\n"


def tree(folder: Path) -> Path:
    for patient, study in (("10000032", "50414267"), ("10000032", "53189527"), ("11000011", "51029426")):
        file = folder / f"files/p{patient[:2]}/p{patient}/s{study}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(REPORT)
    (folder / "files/p10/index.html").write_text("")
    return folder


def tables(folder: Path) -> None:
    split = "dicom_id,study_id,subject_id,split\na,50414267,10000032,train\nb,51029426,11000011,validate\n"
    (folder / "mimic-cxr-2.0.0-split.csv.gz").write_bytes(gzip.compress(split.encode()))
    metadata = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription\na,1,53189527,CT HEAD\n"
    (folder / "mimic-cxr-2.0.0-metadata.csv").write_text(metadata)


def read(path: Path, kind: str = "auto") -> list[RawReport | RejectedReport]:
    parts = plan_corpus(Location.parse(path), kind)  # type: ignore[arg-type]
    return [report for part in parts for report in read_part(part)]


def test_the_tree_is_recognised_and_its_names_are_its_ids(tmp_path: Path) -> None:
    reports = read(tree(tmp_path))
    assert [(r.report_id, r.study_id, r.patient_id, r.split) for r in reports if isinstance(r, RawReport)] == [
        ("s50414267", "50414267", "10000032", None),
        ("s53189527", "53189527", "10000032", None),
        ("s51029426", "51029426", "11000011", None),
    ]
    assert read(tmp_path / "files") == reports
    assert [r.report_id for r in read(tmp_path / "files/p11")] == ["s51029426"]


def test_official_splits_and_titles_are_read_where_they_lie(tmp_path: Path) -> None:
    tables(tree(tmp_path))
    first, second, third = read(tmp_path, "mimic")
    assert isinstance(first, RawReport) and first.split == "train"
    assert isinstance(second, RejectedReport) and second.code is ErrorCode.NOT_CHEST
    assert isinstance(third, RawReport) and third.split == "validation"
    assert [getattr(report, "split", None) for report in read(tmp_path / "files")] == ["train", None, "validation"]


def test_parts_are_bounded_and_the_fingerprint_follows_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "FILES_PER_PART", 2)
    parts = plan_corpus(Location.parse(tree(tmp_path)))
    assert [len(part.names) for part in parts if isinstance(part, FilesPart)] == [2, 1]
    before = corpus_fingerprint(parts)
    assert before == corpus_fingerprint(plan_corpus(Location.parse(tmp_path)))
    (tmp_path / "files/p11/p11000011/s51029426.txt").write_text(REPORT + "x")
    assert before != corpus_fingerprint(plan_corpus(Location.parse(tmp_path)))


def test_any_folder_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/one.txt").write_bytes(b"Clear \x96 lungs.")
    (tmp_path / "two.txt").write_bytes(b"x" * 1_000_000)
    (tmp_path / "three.txt").write_bytes(b"")
    one, three, two = read(tmp_path)
    assert isinstance(one, RawReport) and (one.report_id, one.decoded) == ("a/one", "cp1252")
    assert isinstance(three, RejectedReport) and three.code is ErrorCode.REPORT_EMPTY
    assert isinstance(two, RejectedReport) and two.code is ErrorCode.REPORT_TOO_LONG


def test_no_tree_and_a_broken_table_are_told(tmp_path: Path) -> None:
    with pytest.raises(MedfilipError, match="p10000032") as caught:
        read(tmp_path, "mimic")
    assert caught.value.code is ErrorCode.INPUT_EMPTY
    tree(tmp_path)
    (tmp_path / "mimic-cxr-2.0.0-split.csv").write_text("a,b\n")
    with pytest.raises(MedfilipError, match="split, study_id") as caught:
        read(tmp_path)
    assert caught.value.code is ErrorCode.COLUMN_MISSING
