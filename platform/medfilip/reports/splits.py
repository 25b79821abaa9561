"""Train, validation and test by patient: what shares a patient, an image or a text shares a split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from medfilip.core.links import Keys, connected

SPLITS = ("train", "validation", "test")
"""From the one to train on to the one furthest from training; a split's number is its place here."""

NO_SPLIT = -1

SplitNumbers = npt.NDArray[np.int8]


def assign_splits(
    patients: Keys,
    links: Sequence[Keys],
    draws: npt.NDArray[np.float64],
    shares: Mapping[str, float],
    stated: SplitNumbers,
) -> SplitNumbers:
    """Assign a split to every row.

    A split that the corpus states for a patient wins; where it states two, the one further from training. A patient
    without one that shares content with such patients follows them, again to the split furthest from training.

    Parameters
    ----------
    patients
        Whom each row is about: integers in the order of the patients' names.
    links
        What else draws rows together: their studies, and the hashes of their texts and images, since an identical text
        or image on both sides of a split would be tested on what was trained on.
    draws
        For each row its patient's `medfilip.core.ids.keyed_fraction`: stable for a project, and nobody else can predict
        it. The smallest name of patients that belong together draws for all: the order of rows must not matter.
    shares
        Share of each split; they sum to 1.
    stated
        What the corpus states for each row, or `NO_SPLIT`.
    """
    if not len(patients):
        return np.empty(0, np.int8)
    groups = connected((patients, *links))
    bounds = np.cumsum([shares[split] for split in SPLITS])
    drawn = np.searchsorted(bounds, draws[_smallest_of_groups(groups, patients)], side="right")
    drawn = np.minimum(drawn, len(SPLITS) - 1).astype(np.int8)
    followed = _furthest(groups, stated)
    splits: SplitNumbers = np.where(followed == NO_SPLIT, drawn, followed)[groups]
    if np.any(stated != NO_SPLIT):
        official = _official(patients, stated)
        splits = np.where(official == NO_SPLIT, splits, official)
    return splits


def _smallest_of_groups(groups: npt.NDArray[np.int32], patients: Keys) -> npt.NDArray[np.int64]:
    """Return for each group a row of its smallest patient."""
    order = np.lexsort((patients, groups))
    begins = np.flatnonzero(np.diff(groups[order], prepend=-1))
    smallest: npt.NDArray[np.int64] = order[begins]
    return smallest


def _official(patients: Keys, stated: SplitNumbers) -> SplitNumbers:
    """Return for each row what the corpus states for its patient."""
    numbers = np.unique(patients, return_inverse=True)[1]
    return _furthest(numbers, stated)[numbers]


def _furthest(groups: npt.NDArray[np.integer], stated: SplitNumbers) -> SplitNumbers:
    """Return for each group the stated split that is furthest from training."""
    furthest = np.full(int(groups.max()) + 1, NO_SPLIT, np.int8)
    np.maximum.at(furthest, groups, stated)
    return furthest
