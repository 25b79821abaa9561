"""The journal of attempts: who is a suspect, who is quarantined, and who is neither."""

from __future__ import annotations

from pathlib import Path

from medfilip.storage.location import Location
from pipelines.attempts import AttemptJournal


def life(folder: Path, session: str = "s1", actor: str = "a1") -> AttemptJournal:
    """Begin a life of an engine actor."""
    journal = AttemptJournal(Location.parse(folder), session, actor)
    journal.recover()
    return journal


def test_whoever_was_in_the_engine_when_it_died_is_a_suspect(tmp_path: Path) -> None:
    first = life(tmp_path)
    first.end(first.begin([1, 2]))
    first.begin([3, 4])
    second = life(tmp_path)
    assert [second.is_suspect(i) for i in (1, 2, 3, 4)] == [False, False, True, True]
    assert not any(second.is_quarantined(i) for i in (1, 2, 3, 4))


def test_only_one_that_dies_alone_is_quarantined(tmp_path: Path) -> None:
    life(tmp_path).begin([3, 4])
    second = life(tmp_path)
    second.end(second.begin([3], suspect=True))
    second.begin([4], suspect=True)
    third = life(tmp_path)
    assert (third.is_quarantined(3), third.is_quarantined(4)) == (False, True)
    assert life(tmp_path, actor="a2").is_quarantined(4), "all actors of the run know"


def test_a_batch_of_one_has_killed_once_not_twice(tmp_path: Path) -> None:
    life(tmp_path).begin([9])
    second = life(tmp_path)
    assert second.is_suspect(9) and not second.is_quarantined(9)


def test_a_killed_driver_accuses_nobody(tmp_path: Path) -> None:
    life(tmp_path, session="s1").begin([1])
    later = life(tmp_path, session="s2")
    assert not later.is_suspect(1)


def test_marks_outlive_the_driver(tmp_path: Path) -> None:
    life(tmp_path).begin([5])
    life(tmp_path).begin([5], suspect=True)
    life(tmp_path)
    assert life(tmp_path, session="s2").is_quarantined(5)
