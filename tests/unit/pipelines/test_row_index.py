"""Duplicates among staged rows: what is one, what is not, and that the earlier row stays."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from medfilip.core.errors import ErrorCode
from medfilip.core.fingerprint import sha256_bytes
from medfilip.core.ids import hash64, keyed_fraction, pseudonym
from medfilip.reports.splits import NO_SPLIT, SPLITS
from medfilip.storage.location import Location
from pipelines.row_index import IndexRow, decide_reports, find_duplicates, read_keys, read_rows, write_index


def row(row_id: str, study: str, content: str, patient: str = "p") -> IndexRow:
    return IndexRow(row_id, patient, study, content, None)


def numbered(rows: Iterable[IndexRow]) -> dict[int, IndexRow]:
    return dict(enumerate(rows))


def test_the_later_of_two_equal_ids_or_equal_contents_of_a_study_is_refused() -> None:
    rows = [row("a", "s1", "x"), row("b", "s1", "x"), row("a", "s2", "y"), row("c", "s3", "z")]
    assert find_duplicates(numbered(rows)) == [1, 2]


def test_equal_words_about_one_patient_in_two_studies_are_two_reports() -> None:
    assert decide_reports(numbered([row("a", "s1", "normal"), row("b", "s2", "normal")])).refused == {}


def test_equal_pixels_are_one_image_whatever_they_are_called() -> None:
    images = [row("a", "s1", "x"), row("b", "s2", "x"), row("b", "s2", "y"), row("c", "s3", "z"), row("d", "s3", "y")]
    assert find_duplicates(numbered(images)) == [1, 4]  # the second is none of the third, since it does not stand


def test_an_index_survives_writing(tmp_path: Path) -> None:
    patient, study, content = pseudonym(b"k", "patient", "1"), pseudonym(b"k", "study", "1"), sha256_bytes(b"text")
    rows = [
        IndexRow("ü", patient, study, content, None),
        IndexRow("b", patient, study, content, "test", "addendum", 3.0),
    ]
    file = Location.parse(tmp_path / "index.parquet")
    write_index(file, rows, b"k")
    assert [IndexRow(**one) for one in read_rows(file, np.array([1, 0])).to_pylist()] == rows[::-1]
    keys = read_keys(file)
    assert keys["row_id"].tolist() == [hash64("ü"), hash64("b")]
    assert keys["patient"].tolist() == [int(patient[:16], 16)] * 2
    assert keys["content"].tolist() == [int(content[:16], 16)] * 2
    assert keys["draw"].tolist() == [keyed_fraction(b"k", patient)] * 2
    assert (keys["stated"].tolist(), keys["plain"].tolist()) == ([NO_SPLIT, SPLITS.index("test")], [True, False])
    write_index(file, [], b"k")
    assert len(read_keys(file)) == 0


def decided(*rows: IndexRow) -> tuple[dict[int, ErrorCode], dict[int, list[int]], set[int]]:
    found = decide_reports(numbered(rows))
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


def test_addenda_join_their_report_in_order() -> None:
    first, second = (row(name, "s", name)._replace(role="addendum") for name in ("x", "y"))
    own = row("a", "s", "own")._replace(role="addendum")
    assert decided(first, row("a", "s", "1"), second, own) == ({}, {1: [0, 2, 3]}, {0, 2, 3})


def test_an_addendum_without_its_report_stands() -> None:
    lone = [row("a", "s", name)._replace(role="addendum") for name in ("x", "y")]
    assert decided(*lone) == ({}, {0: [1]}, {1})
