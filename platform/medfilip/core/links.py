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


def among(keys: Keys, known: Keys) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return which keys are among known ones (sorted, distinct, at least one), and at which place each of these is."""
    places = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    found = np.asarray(known[places] == keys, np.bool_)
    return found, places[found]


def connected(columns: Sequence[Keys]) -> npt.NDArray[np.int32]:
    """Group rows that are linked, directly or through others, by a common key of any column.

    Parameters
    ----------
    columns
        Columns of equal length; a key means something within its column only.

    Returns
    -------
    array of int32
        For each row the number of its group, from 0 on without gaps, in the order of their first rows.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows = len(columns[0])
    links = _links(columns)
    graph = coo_array((np.ones(len(links[0]), np.bool_), links), shape=(rows, rows))
    del links
    _, groups = connected_components(graph, directed=False)
    return np.asarray(groups, np.int32)


def _links(columns: Sequence[Keys]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    firsts, seconds = zip(*map(neighbours, columns), strict=True)
    return np.concatenate(firsts), np.concatenate(seconds)
