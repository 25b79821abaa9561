"""What a transfer measurement found, with intervals over the patients of the test split.

A row is a mode, an initialisation and a share of labels. Its numbers are means over seeds, on the same test images;
its interval resamples patients, and so does that of its difference to random initialisation, which is paired: both
are measured on the same resamples. Seeds and training sets are not resampled: an interval says how far the number
holds for other patients, not for other training runs.

Legend of tensor names: R runs (seeds), N images, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.evaluation.metrics import Interval, auprc, auroc, interval
from medfilip.findings.truth import ABSENT, PRESENT, UNKNOWN
from medfilip.transfer.settings import Init, Mode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Ints], float | None]


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelRow(_Result):
    """Numbers of one label on the test split; missing where it lacks a class."""

    label: str
    positives: int
    negatives: int
    unknown: int
    auroc: Interval | None
    auprc: Interval | None


class TransferRow(_Result):
    """One row.

    Attributes
    ----------
    metric
        ``auroc``: mean over the labels with both classes. ``dice``: mean over images with a lesion.
    value
        The metric.
    dice_all
        Dice over all images, where an empty mask counts 1 if nothing is marked.
    over_random
        How much more than the same cell from random weights.
    labels
        Of a classification.
    runs
        What each seed's cell tells of itself: weights it began with, images, chosen step or strength, …
    """

    mode: Mode
    init: Init
    fraction: float
    metric: str
    value: Interval | None
    dice_all: Interval | None = None
    over_random: Interval | None = None
    labels: tuple[LabelRow, ...] = ()
    runs: tuple[dict[str, Any], ...]


class Absent(_Result):
    """An initialisation that was not measured, and why."""

    init: Init
    reason: str


class TransferResult(_Result):
    """Everything that is published as ``transfer.json``."""

    synthetic: bool
    checkpoint: str
    tower_in_file: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    rows: tuple[TransferRow, ...]
    absent: tuple[Absent, ...]


class Ranking:
    """Scores of R runs against what is known, for statistics that share their work on a resample.

    Parameters
    ----------
    truth_NL
        1 present, 0 absent, -1 unknown.
    score_RNL
        Of each run.
    """

    def __init__(self, truth_NL: Ints, score_RNL: Floats) -> None:
        self._truth_NL, self._score_RNL = truth_NL, score_RNL
        self._areas = [remembered(self._statistic(auroc, at)) for at in range(truth_NL.shape[1])]
        self._usable = [at for at in range(truth_NL.shape[1]) if {PRESENT, ABSENT} <= set(truth_NL[:, at].tolist())]

    def macro(self, rows: Ints) -> float | None:
        """Return the mean AUROC over runs and over the labels that have both classes on all images."""
        found = [self._areas[at](rows) for at in self._usable]
        numbers = [value for value in found if value is not None]
        return float(np.mean(numbers)) if numbers and len(numbers) == len(found) else None

    def label_rows(self, labels: Sequence[str], samples: Sequence[Ints]) -> tuple[LabelRow, ...]:
        """Return the numbers of every label, as means over runs."""
        rows = []
        for at, label in enumerate(labels):
            truth_N = self._truth_NL[:, at]
            rows.append(
                LabelRow(
                    label=label,
                    positives=int((truth_N == PRESENT).sum()),
                    negatives=int((truth_N == ABSENT).sum()),
                    unknown=int((truth_N == UNKNOWN).sum()),
                    auroc=interval(self._areas[at], len(truth_N), samples),
                    auprc=interval(self._statistic(auprc, at), len(truth_N), samples),
                )
            )
        return tuple(rows)

    def _statistic(self, metric: Callable[[Ints, Floats], float | None], at: int) -> Statistic:
        truth_N, score_RN = self._truth_NL[:, at], self._score_RNL[:, :, at]

        def statistic(rows: Ints) -> float | None:
            known = rows[truth_N[rows] != UNKNOWN]
            found = [metric(truth_N[known], score_N[known]) for score_N in score_RN]
            numbers = [value for value in found if value is not None]
            return float(np.mean(numbers)) if numbers and len(numbers) == len(found) else None

        return statistic


def remembered(statistic: Statistic) -> Statistic:
    """Return a statistic that computes each set of rows once: labels, means and differences ask for the same."""
    known: dict[bytes, float | None] = {}

    def asked(rows: Ints) -> float | None:
        key = blake2b(rows.tobytes(), digest_size=16).digest()
        if key not in known:
            known[key] = statistic(rows)
        return known[key]

    return asked


def dice_statistic(dice_RN: Floats, counted_N: NDArray[np.bool_]) -> Statistic:
    """Return the mean Dice over runs and over the images that count, of any rows."""
    dice_N = dice_RN.mean(axis=0)

    def statistic(rows: Ints) -> float | None:
        rows = rows[counted_N[rows]]
        return float(dice_N[rows].mean()) if len(rows) else None

    return statistic


def difference(one: Statistic, other: Statistic) -> Statistic:
    """Return how much more one statistic is than another on the same rows."""

    def statistic(rows: Ints) -> float | None:
        first, second = one(rows), other(rows)
        return None if first is None or second is None else first - second

    return statistic
