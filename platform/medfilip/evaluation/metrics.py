"""Metrics of one class, and intervals that resample patients.

Images of one patient resemble each other, so resampling images would make intervals too narrow. A class without
positives or negatives has no AUROC: it gets no number and is reported by name, never dropped in silence.

The formulas are scikit-learn's and tested against it; written on counts they are thirty times faster, which is what
lets every number have an interval of a thousand resamples.

Legend of tensor names: N images, V distinct scores in rising order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from medfilip.core.errors import ErrorCode, MedfilipError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DEFAULT_RESAMPLES = 1000
_LEVEL = (2.5, 97.5)


class Interval(BaseModel):
    """A value with its 95 % bootstrap interval; the interval is missing where too few resamples had both classes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float
    low: float | None = None
    high: float | None = None


def auroc(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the area under the ROC curve, ties counted half, or ``None`` without both classes."""
    if not _has_both(truth_N):
        return None
    positive_V, negative_V = _counts_by_value(truth_N, score_N)
    lower_V = negative_V.cumsum() - negative_V
    return float((positive_V * (lower_V + negative_V / 2)).sum() / (positive_V.sum() * negative_V.sum()))


def auprc(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the average precision (precision summed over the steps of recall), or ``None`` without both classes."""
    if not _has_both(truth_N):
        return None
    positive_V, negative_V = (counts[::-1] for counts in _counts_by_value(truth_N, score_N))
    found_V = positive_V.cumsum()
    precision_V = found_V / (found_V + negative_V.cumsum())
    return float((precision_V * positive_V).sum() / positive_V.sum())


def f1(truth_N: Ints, score_N: Floats, threshold: float) -> float | None:
    """Return F1 of ``score >= threshold``, or ``None`` without both classes.

    The threshold must come from other data than these (a validation split, or 0.5 of a calibrated probability).
    """
    if not _has_both(truth_N):
        return None
    called_N = score_N >= threshold
    return float(2 * truth_N[called_N].sum() / (called_N.sum() + truth_N.sum()))


def best_threshold(truth_N: Ints, score_N: Floats) -> float | None:
    """Return the threshold with the best F1 on a **validation** split, or ``None`` without both classes."""
    if not _has_both(truth_N):
        return None
    candidates = np.unique(score_N)
    found = [f1(truth_N, score_N, value) or 0.0 for value in candidates]
    return float(candidates[int(np.argmax(found))])


def patient_resamples(patients: Sequence[str], resamples: int, seed: int = 0) -> list[Ints]:
    """Draw bootstrap samples of patients and return each as positions of their images, with repetition.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without any patient.
    """
    if not patients:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA, "There is no image to evaluate.", fix="Check the split that is evaluated."
        )
    names, group_N = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(group_N == group) for group in range(len(names))]
    generator = np.random.default_rng(seed)
    draws = (generator.integers(0, len(names), len(names)) for _ in range(resamples))
    return [np.concatenate([members[group] for group in drawn]).astype(np.int64) for drawn in draws]


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
    value = statistic(np.arange(images))
    if value is None:
        return None
    drawn = [found for sample in samples if (found := statistic(sample)) is not None]
    # With a handful of positives many resamples have none; bounds of the rest would flatter.
    if not samples or len(drawn) < 0.9 * len(samples):
        return Interval(value=value)
    low, high = np.percentile(drawn, _LEVEL)
    return Interval(value=value, low=float(low), high=float(high))


def _counts_by_value(truth_N: Ints, score_N: Floats) -> tuple[Floats, Floats]:
    """Count positives and negatives at each distinct score."""
    distinct_V, position_N = np.unique(score_N, return_inverse=True)
    total_V = np.bincount(position_N, minlength=len(distinct_V)).astype(np.float64)
    positive_V = np.bincount(position_N, weights=truth_N, minlength=len(distinct_V)).astype(np.float64)
    return positive_V, total_V - positive_V


def _has_both(truth_N: Ints) -> bool:
    return bool(truth_N.min(initial=1) == 0 and truth_N.max(initial=0) == 1)
