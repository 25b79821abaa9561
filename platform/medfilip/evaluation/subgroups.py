"""Whether a model serves everyone alike: the macro AUROC within groups of images, and the gap between groups.

Groups of one column are compared on the same labels, those that have enough images of both classes in each of them;
otherwise the gap would be one between labels. A group that is too small is named and left out.

Legend of tensor names: N images, L labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.metrics import Floats, Interval, Ints, Weights, aurocs, interval_of, resample_weights
from medfilip.model.diagnoser import Scores

AGE_BANDS = ((0, 18), (18, 40), (40, 60), (60, 80), (80, 200))


class GroupResult(BaseModel):
    """Numbers of one group."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    group: str
    images: int
    patients: int
    pos_auroc: Interval | None
    pnc_auroc: Interval | None


class SubgroupResult(BaseModel):
    """Groups of one column.

    Attributes
    ----------
    labels
        What the means are over.
    left_out
        Group → images of it, too few to be compared.
    gap
        Largest less smallest PNC mean, with the interval of that difference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    labels: tuple[str, ...]
    groups: tuple[GroupResult, ...]
    left_out: dict[str, int] = {}
    gap: Interval | None


def age_band(years: int | None) -> str | None:
    """Return the band of an age, such as "40-59"."""
    if years is None:
        return None
    low, high = next(band for band in AGE_BANDS if band[0] <= years < band[1])
    return f"{low}-{high - 1}" if high < AGE_BANDS[-1][1] else f"{low}+"


def evaluate_subgroups(
    scores: Scores,
    truth_NL: Ints,
    patients: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    *,
    min_images: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> tuple[SubgroupResult, ...]:
    """Evaluate every column that tells at least two groups apart.

    Parameters
    ----------
    scores, truth_NL, patients
        As `medfilip.evaluation.zero_shot.evaluate_zero_shot` takes them.
    columns
        Column → group of each image, ``None`` where it is unknown.
    min_images
        Of each class, for a label to be compared.
    """
    weights_RN = resample_weights(patients, resamples, seed)
    found = (
        _column(name, np.array(values, dtype=object), scores, truth_NL, np.asarray(patients), weights_RN, min_images)
        for name, values in columns.items()
    )
    return tuple(item for item in found if item is not None)


def _column(
    name: str, group_N: NDArray[np.object_], scores: Scores, truth_NL: Ints, patients_N: NDArray[np.str_],
    weights_RN: Weights, min_images: int,
) -> SubgroupResult | None:  # fmt: skip
    rows = {str(group): np.flatnonzero(group_N == group) for group in sorted({g for g in group_N if g is not None})}
    usable = {group: _usable(truth_NL[members], min_images) for group, members in rows.items()}
    kept = [group for group in rows if usable[group].any()]
    shared_L = np.logical_and.reduce([usable[group] for group in kept]) if kept else np.zeros(0, bool)
    if len(kept) < 2 or not shared_L.any():
        return None
    labels = np.flatnonzero(shared_L)
    groups, margins = [], []
    for group in kept:
        members = rows[group]
        weights, truth = weights_RN[:, members], truth_NL[members]
        margin_R = _mean_auroc(truth, scores.margins[members], labels, weights)
        groups.append(
            GroupResult(
                group=group,
                images=len(members),
                patients=len(set(patients_N[members].tolist())),
                pos_auroc=interval_of(_mean_auroc(truth, scores.positive_NL[members], labels, weights)),
                pnc_auroc=interval_of(margin_R),
            )
        )
        margins.append(margin_R)
    return SubgroupResult(
        column=name,
        labels=tuple(scores.labels[at] for at in labels),
        groups=tuple(groups),
        left_out={group: len(rows[group]) for group in rows if group not in kept},
        gap=interval_of(np.max(margins, axis=0) - np.min(margins, axis=0)),
    )


def _usable(truth_NL: Ints, min_images: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = ((truth_NL == 1).sum(axis=0) >= min_images) & ((truth_NL == 0).sum(axis=0) >= min_images)
    return found


def _mean_auroc(truth_NL: Ints, score_NL: Floats, labels: NDArray[np.int64], weights_RN: Weights) -> Floats:
    found = []
    for at in labels:
        known_N = truth_NL[:, at] >= 0
        found.append(aurocs(truth_NL[known_N, at], score_NL[known_N, at], weights_RN[:, known_N]))
    mean_R: Floats = np.mean(found, axis=0)
    return mean_R
