"""Duplicates among staged rows: what is one, what is not, and that the earlier row stays."""

from __future__ import annotations

from pathlib import Path

from medfilip.storage.location import Location
from pipelines.row_index import IndexRow, find_duplicates, read_index, write_index


def row(row_id: str, study: str, content: str, patient: str = "p") -> IndexRow:
    return IndexRow(row_id, patient, study, content, None)


def test_the_later_of_two_equal_ids_or_equal_contents_of_a_study_is_refused() -> None:
    first = [row("a", "s1", "x"), row("b", "s1", "x")]
    second = [row("a", "s2", "y"), row("c", "s3", "z")]
    assert find_duplicates([first, second]) == [[1], [0]]


def test_equal_words_about_one_patient_in_two_studies_are_two_reports() -> None:
    assert find_duplicates([[row("a", "s1", "normal"), row("b", "s2", "normal")]]) == [[]]


def test_an_index_survives_writing(tmp_path: Path) -> None:
    rows = [row("a", "s", "ü"), IndexRow("b", "p", "s", "y", "test")]
    file = Location.parse(tmp_path / "index.parquet")
    write_index(file, rows)
    assert read_index(file) == rows
    write_index(file, [])
    assert read_index(file) == []
