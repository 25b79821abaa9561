"""Splits by patient: shares, what is drawn together, and what the corpus states."""

from __future__ import annotations

import numpy as np

from medfilip.reports.splits import NO_SPLIT, SPLITS, assign_splits

DRAWS = np.random.default_rng(0).random(2003)


def splits(
    patients: list[int], contents: list[int], shares: tuple[float, float, float], stated: list[int] | None = None
) -> list[str]:
    numbers = assign_splits(
        np.array(patients),
        [np.array(contents)],
        DRAWS[patients],
        dict(zip(SPLITS, shares, strict=True)),
        np.array(stated or [NO_SPLIT] * len(patients), np.int8),
    )
    return [SPLITS[number] for number in numbers]


def test_splits_follow_patients_and_shared_content() -> None:
    shares = (0.7, 0.1, 0.2)
    patients = list(range(2000))
    drawn = splits(patients, patients, shares)
    assert drawn == splits(patients[::-1], patients[::-1], shares)[::-1]
    assert abs(drawn.count("test") / len(drawn) - 0.2) < 0.03
    linked = splits([*patients, 0, 1, 1, 2], [*patients, 2000, 2000, 2001, 2001], shares)
    assert {*linked[:3], *linked[2000:]} == {drawn[0]}, "the smallest name draws for all"
    assert linked[3:2000] == drawn[3:]


def test_official_splits_win_and_draw_what_shares_their_content() -> None:
    train, validation, test = range(3)
    stated = [test, NO_SPLIT, NO_SPLIT, train, validation]
    drawn = splits([0, 1, 2, 3, 3], [5, 5, 6, 5, 7], (1.0, 0.0, 0.0), stated)
    assert drawn == ["test", "test", "train", "validation", "validation"]


def test_no_rows_have_no_splits() -> None:
    assert splits([], [], (0.7, 0.1, 0.2)) == []
