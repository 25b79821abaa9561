"""Shares of the labels: drawn by patient, nested, and with every class in the smallest share where that is possible.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from medfilip.findings.truth import ABSENT, PRESENT
from medfilip.training.order import draw

Ints = NDArray[np.int64]


def patient_order(patients: Sequence[str], truth_NL: Ints, seed: int) -> list[str]:
    """Return all patients in the order in which larger and larger shares take them.

    A share of 1 % drawn blindly would often lack a class altogether, and then measure nothing. So patients come
    first who together bring a present and an absent image of every label, few at a time: always the one who brings
    most of what is missing, in doubt the first of a seeded permutation. All others follow in that permutation.

    Parameters
    ----------
    patients
        Patient of each image.
    truth_NL
        1 present, 0 absent, -1 unknown.
    seed
        Decides the permutation.
    """
    names, group_N = np.unique(np.asarray(patients), return_inverse=True)
    order = np.random.default_rng(draw("labels", seed)).permutation(len(names))
    rank = np.empty(len(names), np.int64)
    rank[order] = np.arange(len(names))
    brings = np.zeros((len(names), 2 * truth_NL.shape[1]), np.bool_)
    np.logical_or.at(brings, group_N, np.concatenate([truth_NL == PRESENT, truth_NL == ABSENT], axis=1))
    missing = brings.any(axis=0)
    first: list[int] = []
    while missing.any():
        gain = (brings & missing).sum(axis=1)
        best = np.flatnonzero(gain == gain.max())
        chosen = int(best[np.argmin(rank[best])])
        first.append(chosen)
        missing &= ~brings[chosen]
    taken = set(first)
    return [str(names[at]) for at in [*first, *(at for at in order.tolist() if at not in taken)]]


def draw_fraction(patients: Sequence[str], truth_NL: Ints, fraction: float, seed: int) -> Ints:
    """Return the positions of the images of a share of the patients, in rising order; at least one patient.

    Shares of one seed are nested: a smaller one lies within every larger one.
    """
    order = patient_order(patients, truth_NL, seed)
    chosen = set(order[: max(1, math.ceil(fraction * len(order) - 1e-9))])
    return np.array([at for at, patient in enumerate(patients) if patient in chosen], np.int64)
