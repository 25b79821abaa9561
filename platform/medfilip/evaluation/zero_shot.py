"""Zero-shot classification, reported two ways: POS and PNC (method, section 7).

POS ranks images by the positive prompt alone, PNC by positive against negated prompts. A model that never learned
negation can look good in POS and be at chance or inverted in PNC, which is what a probability is made from.

Legend of tensor names: N images, L labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict
from sklearn.metrics import roc_curve

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.metrics import (
    DEFAULT_RESAMPLES,
    Floats,
    Interval,
    Ints,
    auprc,
    auroc,
    f1,
    interval,
    patient_resamples,
)
from medfilip.model.calibration import Basis
from medfilip.model.diagnoser import Scores

_CURVE_POINTS = 200  # a drawn curve needs no more; the numbers come from all images


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelResult(_Result):
    """Numbers of one label; those that need both classes are missing when ``skipped`` says why."""

    label: str
    positives: int
    negatives: int
    unknown: int
    basis: Basis
    threshold: float
    pos_auroc: Interval | None = None
    pnc_auroc: Interval | None = None
    pnc_auprc: Interval | None = None
    f1: Interval | None = None
    curve: tuple[tuple[float, float], ...] = ()
    skipped: str | None = None


class ZeroShotResult(_Result):
    """Numbers of all labels and their plain means over the labels that have both classes."""

    images: int
    patients: int
    resamples: int
    labels: tuple[LabelResult, ...]
    macro_pos_auroc: Interval | None
    macro_pnc_auroc: Interval | None

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
    resamples, seed
        Of the bootstrap over patients.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` without images; ``SCHEMA_MISMATCH`` if the shapes do not fit together.
    """
    if truth_NL.shape != scores.probability_NL.shape or len(patients) != len(truth_NL):
        raise MedfilipError(
            ErrorCode.SCHEMA_MISMATCH,
            f"Truth {list(truth_NL.shape)}, scores {list(scores.probability_NL.shape)} and {len(patients)} patients "
            "do not belong together.",
            fix="Give one row a image and one column a label.",
        )
    samples = patient_resamples(patients, resamples, seed)
    labels = tuple(
        _label_result(scores, truth_NL, at, (thresholds or {}).get(label, 0.5), samples)
        for at, label in enumerate(scores.labels)
    )
    usable = [at for at, item in enumerate(labels) if item.skipped is None]
    return ZeroShotResult(
        images=len(truth_NL),
        patients=len(set(patients)),
        resamples=resamples,
        labels=labels,
        macro_pos_auroc=_macro(scores.positive_NL, truth_NL, usable, samples),
        macro_pnc_auroc=_macro(scores.margins, truth_NL, usable, samples),
    )


def _label_result(scores: Scores, truth_NL: Ints, at: int, threshold: float, samples: Sequence[Ints]) -> LabelResult:
    truth_N = truth_NL[:, at]
    positives, negatives = int((truth_N == 1).sum()), int((truth_N == 0).sum())
    missing = [name for name, count in (("positive", positives), ("negative", negatives)) if not count]
    result = LabelResult(
        label=scores.labels[at],
        positives=positives,
        negatives=negatives,
        unknown=len(truth_N) - positives - negatives,
        basis=scores.basis_L[at],
        threshold=threshold,
        skipped=f"no {' and no '.join(missing)} images" if missing else None,
    )
    if missing:
        return result
    positive_N, margin_N, probability_N = scores.positive_NL[:, at], scores.margins[:, at], scores.probability_NL[:, at]

    def over(score_N: Floats, metric: str) -> Interval | None:
        def statistic(rows: Ints) -> float | None:
            rows = rows[truth_N[rows] >= 0]
            if metric == "f1":
                return f1(truth_N[rows], score_N[rows], threshold)
            return (auroc if metric == "auroc" else auprc)(truth_N[rows], score_N[rows])

        return interval(statistic, len(truth_N), samples)

    return result.model_copy(
        update={
            "pos_auroc": over(positive_N, "auroc"),
            "pnc_auroc": over(margin_N, "auroc"),
            "pnc_auprc": over(margin_N, "auprc"),
            "f1": over(probability_N, "f1"),
            "curve": _curve(truth_N, margin_N),
        }
    )


def _macro(score_NL: Floats, truth_NL: Ints, usable: Sequence[int], samples: Sequence[Ints]) -> Interval | None:
    if not usable:
        return None

    def statistic(rows: Ints) -> float | None:
        found = []
        for at in usable:
            known = rows[truth_NL[rows, at] >= 0]
            value = auroc(truth_NL[known, at], score_NL[known, at])
            if value is None:
                return None
            found.append(value)
        return float(np.mean(found))

    return interval(statistic, len(truth_NL), samples)


def _curve(truth_N: Ints, score_N: Floats) -> tuple[tuple[float, float], ...]:
    known = truth_N >= 0
    false_positive, true_positive, _ = roc_curve(truth_N[known], score_N[known])
    keep = np.unique(np.linspace(0, len(false_positive) - 1, min(len(false_positive), _CURVE_POINTS)).astype(int))
    return tuple((float(false_positive[i]), float(true_positive[i])) for i in keep)
