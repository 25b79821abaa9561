"""Zero-shot classification, reported two ways: POS and PNC (method, section 7).

POS ranks images by the positive prompt alone, PNC by positive against negated prompts. A model that never learned
negation can look good in POS and be at chance or inverted in PNC, which is what a probability is made from.

Legend of tensor names: N images, L labels, R resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_curve

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.metrics import (
    DEFAULT_RESAMPLES,
    Floats,
    Interval,
    Ints,
    Weights,
    auprcs,
    aurocs,
    best_threshold,
    calibration_error_by_chance,
    calibration_errors,
    decisions,
    interval_of,
    resample_weights,
)
from medfilip.evaluation.selective import risk_coverage
from medfilip.model.calibration import Basis, confidence_of
from medfilip.model.diagnoser import Scores

_CURVE_POINTS = 200  # a drawn curve needs no more; the numbers come from all images

Metric = Literal[
    "pos_auroc", "pnc_auroc", "pos_auprc", "pnc_auprc", "f1", "mcc", "sensitivity", "specificity", "ece", "aurc",
    "risk_at_90",
]  # fmt: skip
"""Names of the numbers of a label.

F1, MCC, sensitivity and specificity are those of the decision at the label's threshold; the expected calibration error
is that of the probability; ``aurc`` and ``risk_at_90`` are the area under the risk–coverage curve of the decision and
its risk at 90 % coverage.
"""
METRICS: tuple[Metric, ...] = get_args(Metric)


ThresholdSource = Literal["checkpoint", "validation", "default"]
"""Who chose a threshold: the checkpoint's calibration, the validation split, or nobody, which is 0.5."""


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelResult(_Result):
    """Numbers of one label; there are none when ``skipped`` says why.

    Attributes
    ----------
    ece_by_chance
        What the expected calibration error of exactly right probabilities would be, on as many images.
    curve
        ROC curve of the PNC score: false and true positive rate.
    reliability
        Mean probability, share of positives and number of images of each tenth of the probability that has any.
    """

    label: str
    positives: int
    negatives: int
    unknown: int
    basis: Basis
    threshold: float
    threshold_from: ThresholdSource = "default"
    metrics: dict[Metric, Interval] = {}
    ece_by_chance: float | None = None
    curve: tuple[tuple[float, float], ...] = ()
    reliability: tuple[tuple[float, float, int], ...] = ()
    skipped: str | None = None


class ZeroShotResult(_Result):
    """Numbers of all labels and their plain means over the labels that have both classes."""

    images: int
    patients: int
    resamples: int
    labels: tuple[LabelResult, ...]
    macro: dict[Metric, Interval] = {}

    @property
    def skipped(self) -> tuple[str, ...]:
        """Labels that are in no mean."""
        return tuple(item.label for item in self.labels if item.skipped is not None)


def evaluate_zero_shot(
    scores: Scores,
    truth_NL: Ints,
    patients: Sequence[str],
    *,
    thresholds: Mapping[str, float] | None = None,
    only: Sequence[Metric] = METRICS,
    resamples: int = DEFAULT_RESAMPLES,
    seed: int = 0,
) -> ZeroShotResult:
    """Evaluate scores against truth.

    Parameters
    ----------
    scores
        From `medfilip.model.diagnoser.Diagnoser.score`.
    truth_NL
        1 present, 0 absent, -1 unknown; unknown images do not count for that label.
    patients
        Patient of each image.
    thresholds
        Label → threshold on the probability, found on a validation split; 0.5 for the others.
    only
        Metrics to compute.
    resamples, seed
        Of the bootstrap over patients.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without images; ``SCHEMA_MISMATCH`` if the shapes do not fit together.
    """
    check_shapes(scores, truth_NL, patients)
    weights_RN = resample_weights(patients, resamples, seed)
    labels, values = [], []
    for at, label in enumerate(scores.labels):
        result = _label_result(scores, truth_NL, at, (thresholds or {}).get(label, 0.5))
        if result.skipped is None:
            values.append(_values(scores, truth_NL[:, at], at, result.threshold, weights_RN, only))
            result = result.model_copy(update={"metrics": intervals(values[-1])})
        labels.append(result)
    return ZeroShotResult(
        images=len(truth_NL),
        patients=len(set(patients)),
        resamples=resamples,
        labels=tuple(labels),
        macro=intervals(_means(values)),
    )


def choose_thresholds(scores: Scores, truth_NL: Ints) -> dict[str, float]:
    """Choose each label's threshold on a **validation** split, by F1; labels of which it lacks a class have none."""
    found: dict[str, float] = {}
    for at, label in enumerate(scores.labels):
        known_N = truth_NL[:, at] >= 0
        threshold = best_threshold(truth_NL[known_N, at], scores.probability_NL[known_N, at])
        if threshold is not None:
            found[label] = threshold
    return found


def macro_values(
    scores: Scores, truth_NL: Ints, patients: Sequence[str], metric: Metric, *, resamples: int, seed: int = 0
) -> Floats:
    """Return a macro metric on all images (first) and on each resample, [1 + R]: to compare models pair by pair.

    Two models on the same images, labels and seed see the same resamples, so that the interval of the difference of
    their values does not hold what the choice of patients does to both.

    Raises
    ------
    MedfilipError
        As `evaluate_zero_shot`.
    """
    check_shapes(scores, truth_NL, patients)
    weights_RN = resample_weights(patients, resamples, seed)
    known = [at for at in range(len(scores.labels)) if {0, 1} <= set(truth_NL[:, at].tolist())]
    found = [_values(scores, truth_NL[:, at], at, 0.5, weights_RN, [metric]) for at in known]
    return _means(found).get(metric, np.full(len(weights_RN), np.nan))


def _means(values: Sequence[Mapping[Metric, Floats]]) -> dict[Metric, Floats]:
    """Return the mean over labels in each resample; NaN in one label is NaN, for a mean of others is another number."""
    return {name: np.mean([found[name] for found in values], axis=0) for name in values[0]} if values else {}


def check_shapes(scores: Scores, truth_NL: Ints, patients: Sequence[str]) -> None:
    """Refuse scores, truth and patients that do not belong together.

    Raises
    ------
    MedfilipError
        ``SCHEMA_MISMATCH``.
    """
    if truth_NL.shape != scores.probability_NL.shape or len(patients) != len(truth_NL):
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"Truth {list(truth_NL.shape)}, scores {list(scores.probability_NL.shape)} and {len(patients)} patients "
            "do not belong together.",
            fix="Give one row a image and one column a label.",
        )


def intervals(values: Mapping[Metric, Floats]) -> dict[Metric, Interval]:
    """Turn the values of each resample into intervals."""
    return {name: found for name, value_R in values.items() if (found := interval_of(value_R)) is not None}


def _label_result(scores: Scores, truth_NL: Ints, at: int, threshold: float) -> LabelResult:
    truth_N = truth_NL[:, at]
    positives, negatives = int((truth_N == 1).sum()), int((truth_N == 0).sum())
    missing = [name for name, count in (("positive", positives), ("negative", negatives)) if not count]
    known_N = truth_N >= 0
    return LabelResult(
        label=scores.labels[at],
        positives=positives,
        negatives=negatives,
        unknown=len(truth_N) - positives - negatives,
        basis=scores.basis_L[at],
        threshold=threshold,
        skipped=f"no {' and no '.join(missing)} images" if missing else None,
        ece_by_chance=None if missing else calibration_error_by_chance(scores.probability_NL[known_N, at]),
        curve=() if missing else _curve(truth_N[known_N], scores.margins[known_N, at]),
        reliability=() if missing else _reliability(truth_N[known_N], scores.probability_NL[known_N, at]),
    )


def _values(
    scores: Scores, truth_N: Ints, at: int, threshold: float, weights_RN: Weights, only: Sequence[Metric]
) -> dict[Metric, Floats]:
    """Return the metrics of one label in every resample."""
    known_N = truth_N >= 0
    truth_N, weights_RN = truth_N[known_N], weights_RN[:, known_N]
    positive_N, margin_N = scores.positive_NL[known_N, at], scores.margins[known_N, at]
    probability_N = scores.probability_NL[known_N, at]
    called_N = probability_N >= threshold
    counts = decisions(truth_N, called_N, weights_RN)
    wrong_N, sure_N = called_N != (truth_N == 1), confidence_of(probability_N, threshold)
    compute: dict[Metric, Callable[[], Floats]] = {
        "pos_auroc": lambda: aurocs(truth_N, positive_N, weights_RN),
        "pnc_auroc": lambda: aurocs(truth_N, margin_N, weights_RN),
        "pos_auprc": lambda: auprcs(truth_N, positive_N, weights_RN),
        "pnc_auprc": lambda: auprcs(truth_N, margin_N, weights_RN),
        "f1": lambda: counts.f1,
        "mcc": lambda: counts.mcc,
        "sensitivity": lambda: counts.sensitivity,
        "specificity": lambda: counts.specificity,
        "ece": lambda: calibration_errors(truth_N, probability_N, weights_RN),
        "aurc": lambda: risk_coverage(wrong_N, sure_N, weights_RN)[0],
        "risk_at_90": lambda: risk_coverage(wrong_N, sure_N, weights_RN)[1],
    }
    return {name: compute[name]() for name in only}


def _curve(truth_N: Ints, score_N: Floats) -> tuple[tuple[float, float], ...]:
    false_positive, true_positive, _ = roc_curve(truth_N, score_N)
    keep = np.unique(np.linspace(0, len(false_positive) - 1, min(len(false_positive), _CURVE_POINTS)).astype(int))
    return tuple((float(false_positive[i]), float(true_positive[i])) for i in keep)


def _reliability(truth_N: Ints, probability_N: Floats, bins: int = 10) -> tuple[tuple[float, float, int], ...]:
    """Return mean probability, share of positives and number of images of each bin that has any."""
    bin_N = np.minimum((probability_N * bins).astype(int), bins - 1)
    members = [np.flatnonzero(bin_N == at) for at in range(bins)]
    return tuple(
        (float(probability_N[rows].mean()), float(truth_N[rows].mean()), len(rows)) for rows in members if len(rows)
    )
