"""Rows with a key in common: which they are, and which are linked through others."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from medfilip.core.links import connected, repeated


def test_rows_are_linked_by_any_column_and_through_others() -> None:
    first, second = np.array([1, 1, 2, 3, 4]), np.array([7, 8, 8, 9, 1])
    assert connected([first, second]).tolist() == [0, 0, 0, 1, 2]
    assert connected([first]).tolist() == [0, 0, 1, 2, 3]
    assert repeated(first).tolist() == [True, True, False, False, False]


def test_no_rows_are_no_groups() -> None:
    assert connected([np.empty(0, np.int64)] * 2).tolist() == repeated(np.empty(0, np.int64)).tolist() == []


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-9, 9)), min_size=1, max_size=30))
def test_groups_are_those_that_spread_from_row_to_row(rows: list[tuple[int, int]]) -> None:
    groups = list(range(len(rows)))
    for _ in rows:
        for one, (a, b) in enumerate(rows):
            for other, (c, d) in enumerate(rows):
                if a == c or b == d:
                    groups[one] = groups[other] = min(groups[one], groups[other])
    found = connected([np.array(column) for column in zip(*rows, strict=True)]).tolist()
    assert len(set(zip(found, groups, strict=True))) == len(set(found)) == len(set(groups))
