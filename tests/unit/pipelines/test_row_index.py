"""Duplicates among staged rows: what is one, what is not, and that the earlier row stays."""

from __future__ import annotations

from pathlib import Path

from medfilip.core.errors import ErrorCode
from medfilip.storage.location import Location
from pipelines.row_index import IndexRow, decide_reports, find_duplicates, read_index, write_index


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


def decided(*rows: IndexRow) -> tuple[dict[int, ErrorCode], dict[int, list[tuple[int, int]]], set[int]]:
    (found,) = decide_reports([list(rows)])
    return found.refused, found.addenda, found.merged


def test_the_later_of_two_reports_under_one_id_stands() -> None:
    assert decided(row("a", "s", "x"), row("a", "s", "y")) == ({0: ErrorCode.SUPERSEDED}, {}, set())
    early, late = row("a", "s", "x")._replace(issued=2.0), row("a", "s", "y")._replace(issued=1.0)
    assert decided(early, late)[0] == {1: ErrorCode.SUPERSEDED}
    corrected = row("a", "s", "x")._replace(role="correction")
    assert decided(corrected, row("a", "s", "y"))[0] == {1: ErrorCode.SUPERSEDED}
    assert decided(row("a", "s", "x"), row("a", "s", "y"), row("a", "s", "z"))[0].keys() == {0, 1}


def test_two_reports_of_a_study_both_stand() -> None:
    assert decided(row("a", "s", "x"), row("b", "s", "y")) == ({}, {}, set())


def test_an_id_of_another_study_and_equal_content_are_duplicates() -> None:
    found = decided(row("a", "s1", "x"), row("a", "s2", "y"), row("b", "s1", "x"))[0]
    assert found == {1: ErrorCode.REPORT_DUPLICATE, 2: ErrorCode.REPORT_DUPLICATE}


def test_a_correction_supersedes_the_report_before_it_and_a_preliminary_one_any_other() -> None:
    correction = row("c", "s", "z")._replace(role="correction")
    assert decided(row("a", "s", "x"), row("b", "s", "y"), correction)[0] == {1: ErrorCode.SUPERSEDED}
    assert decided(correction, row("a", "s", "x"))[0] == {1: ErrorCode.SUPERSEDED}
    preliminary = row("p", "s", "w")._replace(role="preliminary")
    assert decided(row("a", "s", "x"), preliminary)[0] == {1: ErrorCode.SUPERSEDED}
    assert decided(preliminary)[0] == {}


def test_addenda_join_their_report_across_parts_in_order() -> None:
    first, second = (row(name, "s", name)._replace(role="addendum") for name in ("x", "y"))
    own = row("a", "s", "own")._replace(role="addendum")
    decisions = decide_reports([[first, row("a", "s", "1")], [second, own]])
    assert decisions[0].addenda == {1: [(0, 0), (1, 0), (1, 1)]}
    assert (decisions[0].merged, decisions[1].merged) == ({0}, {0, 1})
    assert not decisions[0].refused and not decisions[1].refused


def test_an_addendum_without_its_report_stands() -> None:
    lone = [row("a", "s", name)._replace(role="addendum") for name in ("x", "y")]
    assert decided(*lone) == ({}, {0: [(0, 1)]}, {1})
