"""Metrics of one class, and intervals that resample patients.

Images of one patient resemble each other, so resampling images would make intervals too narrow. A class without
positives or negatives has no AUROC: it gets no number and is reported by name, never dropped in silence.

The formulas are scikit-learn's and torchmetrics', and tested against them. They are written for all resamples at
once: a resample is a weight for every image, images are sorted once, and everything else is a running sum. That is
what lets each number of 10,000 images have an interval of a thousand resamples within seconds.

Legend of tensor names: N images, R resamples, P patients, V distinct scores in rising order, B bins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Weights = NDArray[np.uint16]

DEFAULT_RESAMPLES = 1000
CALIBRATION_BINS = 15
_LEVEL = (2.5, 97.5)
_CELLS = 1 << 21  # of a block of resamples: 16 MB a temporary array


class Interval(BaseModel):
    """A value with its 95 % bootstrap interval; the interval is missing where too few resamples had both classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        """Write "0.913 [0.874, 0.950]"."""
        bounds = "" if self.low is None or self.high is None else f" [{self.low:.3f}, {self.high:.3f}]"
        return f"{self.value:.3f}{bounds}"


@dataclass(frozen=True)
class Counts:
    """True and false positives and negatives of a decision in each resample, all [R]."""

    true_positive: Floats
    false_positive: Floats
    false_negative: Floats
    true_negative: Floats

    @property
    def has_both(self) -> NDArray[np.bool_]:
        """Whether a resample has positives and negatives."""
        positive, negative = self.true_positive + self.false_negative, self.true_negative + self.false_positive
        return (positive > 0) & (negative > 0)

    @property
    def f1(self) -> Floats:
        """F1; NaN without both classes."""
        called, known = self.true_positive + self.false_positive, self.true_positive + self.false_negative
        return self._known(2 * self.true_positive, called + known)

    @property
    def mcc(self) -> Floats:
        """Matthews correlation; 0 if everything is called alike (as scikit-learn), NaN without both classes."""
        tp, fp, fn, tn = self.true_positive, self.false_positive, self.false_negative, self.true_negative
        norm = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
        return np.where(self.has_both, divided(tp * tn - fp * fn, norm, otherwise=0.0), np.nan)

    @property
    def sensitivity(self) -> Floats:
        """Share of the positives that are called; NaN without both classes."""
        return self._known(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> Floats:
        """Share of the negatives that are not called; NaN without both classes."""
        return self._known(self.true_negative, self.true_negative + self.false_positive)

    def _known(self, numerator_R: Floats, denominator_R: Floats) -> Floats:
        return np.where(self.has_both, divided(numerator_R, denominator_R), np.nan)


def auroc(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the area under the ROC curve, ties counted half, or ``None`` without both classes."""
    return _single(aurocs(truth_N, score_N, each_once(len(truth_N))))


def auprc(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the average precision (precision summed over the steps of recall), or ``None`` without both classes."""
    return _single(auprcs(truth_N, score_N, each_once(len(truth_N))))


def f1(truth_N: Ints, score_N: Floats, threshold: float) -> float | None:
    """Return F1 of ``score >= threshold``, or ``None`` without both classes.

    The threshold must come from other data than these (a validation split, or 0.5 of a calibrated probability).
    """
    return _single(decisions(truth_N, score_N >= threshold, each_once(len(truth_N))).f1)


def best_threshold(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the threshold with the best F1 on a **validation** split, or ``None`` without both classes."""
    if not 0 < truth_N.sum() < len(truth_N):
        return None
    value_V, position_N = np.unique(score_N, return_inverse=True)
    found_V = np.bincount(position_N, weights=truth_N, minlength=len(value_V))[::-1].cumsum()[::-1]
    called_V = np.bincount(position_N, minlength=len(value_V))[::-1].cumsum()[::-1]
    return float(value_V[int(np.argmax(2 * found_V / (called_V + truth_N.sum())))])


def aurocs(truth_N: Ints, score_N: Floats, weights_RN: Weights) -> Floats:
    """Return `auroc` of every resample, [R]; NaN without both classes."""

    def area(positive_BV: Floats, negative_BV: Floats) -> Floats:
        lower_BV = negative_BV.cumsum(axis=1) - negative_BV
        pairs_B = positive_BV.sum(axis=1) * negative_BV.sum(axis=1)
        return divided((positive_BV * (lower_BV + negative_BV / 2)).sum(axis=1), pairs_B)

    return _by_value(truth_N, score_N, weights_RN, area)


def auprcs(truth_N: Ints, score_N: Floats, weights_RN: Weights) -> Floats:
    """Return `auprc` of every resample, [R]; NaN without both classes."""

    def area(positive_BV: Floats, negative_BV: Floats) -> Floats:
        found_BV = positive_BV[:, ::-1].cumsum(axis=1)
        called_BV = found_BV + negative_BV[:, ::-1].cumsum(axis=1)
        summed_B = (divided(found_BV, called_BV, otherwise=0.0) * positive_BV[:, ::-1]).sum(axis=1)
        both_B = (positive_BV.sum(axis=1) > 0) & (negative_BV.sum(axis=1) > 0)
        return np.where(both_B, divided(summed_B, positive_BV.sum(axis=1)), np.nan)

    return _by_value(truth_N, score_N, weights_RN, area)


def decisions(truth_N: Ints, called_N: NDArray[np.bool_], weights_RN: Weights) -> Counts:
    """Count right and wrong decisions in every resample."""
    kind_N = 2 * truth_N + called_N
    columns = [weighted_sums(weights_RN, kind_N == kind) for kind in (3, 1, 2, 0)]
    return Counts(*columns)


def calibration_errors(
    truth_N: Ints, probability_N: Floats, weights_RN: Weights, bins: int = CALIBRATION_BINS
) -> Floats:
    """Return the expected calibration error of every resample, [R]: bins of equal width, weighted by their images."""
    bin_N = np.minimum((probability_N * bins).astype(np.int64), bins - 1)
    member_NB = (bin_N[:, None] == np.arange(bins)).astype(np.float64)
    gap_RB = np.abs(weighted_sums(weights_RN, member_NB * (truth_N - probability_N)[:, None]))
    return divided(gap_RB.sum(axis=1), weighted_sums(weights_RN, np.ones(len(truth_N))))


def calibration_error_by_chance(probability_N: Floats, draws: int = 200, seed: int = 0) -> float:
    """Return the mean expected calibration error of as many images whose probabilities are exactly right.

    It is not 0: within a bin, the share of positives scatters about the mean probability. An error near this one shows
    no miscalibration.
    """
    generator = np.random.default_rng(seed)
    found = [
        calibration_errors((generator.random(len(probability_N)) < probability_N).astype(np.int64), probability_N, once)
        for once in [each_once(len(probability_N))] * draws
    ]
    return float(np.mean(found))


def weighted_sums(weights_RN: Weights, value_N: NDArray[Any]) -> Floats:
    """Sum values over every resample: [R] of [N], or [R, B] of [N, B]."""
    parts = [weights_RN[rows].astype(np.float64) @ value_N.astype(np.float64) for rows in _blocks(weights_RN)]
    return np.concatenate(parts)


def weighted_means(weights_RN: Weights, value_N: NDArray[Any]) -> Floats:
    """Return the mean of values over every resample, [R]; values that are NaN do not count."""
    known_N = ~np.isnan(value_N)
    return divided(weighted_sums(weights_RN, np.where(known_N, value_N, 0.0)), weighted_sums(weights_RN, known_N))


def patient_resamples(patients: Sequence[str], resamples: int, seed: int = 0) -> list[Ints]:
    """Draw bootstrap samples of patients and return each as positions of their images, with repetition.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without any patient.
    """
    group_N, drawn_RP = _drawn_patients(patients, resamples, seed)
    members = [np.flatnonzero(group_N == group) for group in range(drawn_RP.shape[1])]
    return [np.concatenate([members[group] for group in drawn_P]).astype(np.int64) for drawn_P in drawn_RP]


def resample_weights(patients: Sequence[str], resamples: int, seed: int = 0) -> Weights:
    """Return how often each image is in each of the `patient_resamples`, [1 + R, N]; row 0 has each image once.

    Raises
    ------
    MedfilipError
        As `patient_resamples`.
    """
    group_N, drawn_RP = _drawn_patients(patients, resamples, seed)
    counts = [np.bincount(drawn_P, minlength=drawn_RP.shape[1])[group_N].astype(np.uint16) for drawn_P in drawn_RP]
    return np.concatenate([each_once(len(patients)), np.array(counts, np.uint16).reshape(-1, len(patients))])


def each_once(images: int) -> Weights:
    """Return the weights of no resampling, [1, N]."""
    return np.ones((1, images), np.uint16)


def interval(statistic: Callable[[Ints], float | None], images: int, samples: Sequence[Ints]) -> Interval | None:
    """Compute a statistic on all images and its percentile interval over resamples.

    Parameters
    ----------
    statistic
        Takes positions of images; ``None`` where it is undefined.
    images
        Number of images.
    samples
        From `patient_resamples`, shared by all statistics so that they move together.

    Returns
    -------
    Interval or None
        ``None`` if the statistic is undefined on all images.
    """
    values = [statistic(rows) for rows in (np.arange(images), *samples)]
    return interval_of(np.array([np.nan if value is None else value for value in values]))


def interval_of(value_R: Floats) -> Interval | None:
    """Return the interval of a statistic from its value on all images (first) and on every resample (the rest).

    ``None`` if it is undefined (NaN) on all images.
    """
    if np.isnan(value_R[0]):
        return None
    drawn = value_R[1:][~np.isnan(value_R[1:])]
    # With a handful of positives many resamples have none; bounds of the rest would flatter.
    if len(value_R) == 1 or len(drawn) < 0.9 * (len(value_R) - 1):
        return Interval(value=float(value_R[0]))
    low, high = np.percentile(drawn, _LEVEL)
    return Interval(value=float(value_R[0]), low=float(low), high=float(high))


def divided(numerator: Floats, denominator: Floats, otherwise: float = np.nan) -> Floats:
    """Divide element by element; ``otherwise`` where the denominator is 0."""
    found: Floats = np.full(np.shape(numerator), otherwise)
    np.divide(numerator, denominator, out=found, where=denominator != 0)
    return found


def _drawn_patients(patients: Sequence[str], resamples: int, seed: int) -> tuple[Ints, Ints]:
    """Return the number of each image's patient, [N], and draws of as many patients as there are, [R, P]."""
    if not patients:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA, "There is no image to evaluate.", fix="Check the split that is evaluated."
        )
    names, group_N = np.unique(np.asarray(patients), return_inverse=True)
    generator = np.random.default_rng(seed)
    draws = [generator.integers(0, len(names), len(names)) for _ in range(resamples)]
    return group_N, np.array(draws, np.int64).reshape(resamples, len(names))


def _by_value(truth_N: Ints, score_N: Floats, weights_RN: Weights, area: Callable[[Floats, Floats], Floats]) -> Floats:
    """Apply a formula to the weights of positives and negatives at each distinct score, in rising order."""
    if not len(truth_N):
        return np.full(len(weights_RN), np.nan)
    order_N = np.argsort(score_N, kind="stable")
    rising_N, positive_N = score_N[order_N], truth_N[order_N] == 1
    start_V = np.flatnonzero(np.concatenate([[True], rising_N[1:] != rising_N[:-1]]))
    found = []
    for rows in _blocks(weights_RN):
        weights_BN = weights_RN[rows][:, order_N].astype(np.float64)
        positive_BV = np.add.reduceat(weights_BN * positive_N, start_V, axis=1)
        negative_BV = np.add.reduceat(weights_BN * ~positive_N, start_V, axis=1)
        found.append(area(positive_BV, negative_BV))
    return np.concatenate(found)


def _blocks(weights_RN: Weights) -> Iterator[slice]:
    size = max(1, _CELLS // max(1, weights_RN.shape[1]))
    return (slice(at, at + size) for at in range(0, len(weights_RN), size))


def _single(value_R: Floats) -> float | None:
    return None if np.isnan(value_R[0]) else float(value_R[0])
