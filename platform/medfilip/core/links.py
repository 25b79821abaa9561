"""What rows have in common, over columns of integer keys: a few bytes a row where sets of strings took hundreds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[Any]
"""Integers, one a row; equal ones stand for one and the same thing."""


def neighbours(keys: Keys) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return pairs of rows with equal keys that link all rows of a key, each row to the next one that has it."""
    order = np.argsort(keys, kind="stable").astype(np.int32)
    ordered = keys[order]
    same = ordered[1:] == ordered[:-1]
    return order[:-1][same], order[1:][same]


def repeated(keys: Keys) -> npt.NDArray[np.bool_]:
    """Return which rows have a key that another row has too."""
    found = np.zeros(len(keys), np.bool_)
    for rows in neighbours(keys):
        found[rows] = True
    return found


def connected(columns: Sequence[Keys]) -> npt.NDArray[np.int32]:
    """Group rows that are linked, directly or through others, by a common key of any column.

    Parameters
    ----------
    columns
        Columns of equal length; a key means something within its column only.

    Returns
    -------
    array of int32
        For each row the number of its group, from 0 on without gaps.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = [neighbours(column) for column in columns]
    first, second = (np.concatenate(rows) for rows in zip(*pairs, strict=True))
    rows = len(columns[0])
    graph = coo_array((np.ones(len(first), np.bool_), (first, second)), shape=(rows, rows))
    _, groups = connected_components(graph, directed=False)
    return np.asarray(groups, np.int32)
