"""Scores become probabilities: Platt scaling, fitted on the validation split only.

Users ask of every number whether it is a probability. The answer is data here: each label says whether its own
calibration, the one over all categories, or none was applied.

Legend of tensor names: N images.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit

Basis = Literal["category", "overall", "none"]
MIN_OF_EACH = 8
"""A curve is fitted only from this many positives and as many negatives."""


class Platt(BaseModel):
    """probability = sigmoid(slope · margin + intercept)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)
    positives: int
    negatives: int


class Calibration(BaseModel):
    """Curves by category, and one over all of them for labels that have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    categories: dict[str, Platt] = {}
    overall: Platt | None = None

    def apply(self, margin_N: NDArray[np.float64], category: str | None) -> tuple[NDArray[np.float64], Basis]:
        """Turn margins (logit of the positive prompts minus logit of the negated ones) into probabilities.

        Without any curve the model's own estimate stands: both logits speak about the same question, so half of
        their difference is the logit of the label.
        """
        curve, basis = (self.categories.get(category), "category") if category else (None, "category")
        if curve is None:
            curve, basis = self.overall, "overall"
        if curve is None:
            return expit(margin_N / 2), "none"
        return expit(curve.slope * margin_N + curve.intercept), "category" if basis == "category" else "overall"


def fit_calibration(margins: Mapping[str, NDArray[np.float64]], truths: Mapping[str, NDArray[np.int64]]) -> Calibration:
    """Fit one curve a category and one over all.

    Parameters
    ----------
    margins
        Category → margin of each image, [N].
    truths
        Category → 1 present, 0 absent, -1 unknown, [N]; unknown images are left out.

    Returns
    -------
    Calibration
        Without a curve where there are too few images of a kind, or where the score points the wrong way: a negative
        slope would hide a model that inverts.
    """
    known = {category: truths[category] >= 0 for category in margins}
    categories = {
        category: curve
        for category, margin_N in margins.items()
        if (curve := _fit(margin_N[known[category]], truths[category][known[category]])) is not None
    }
    if not margins:
        return Calibration()
    overall = _fit(
        np.concatenate([margins[category][known[category]] for category in margins]),
        np.concatenate([truths[category][known[category]] for category in margins]),
    )
    return Calibration(categories=categories, overall=overall)


def _fit(margin_N: NDArray[np.float64], truth_N: NDArray[np.int64]) -> Platt | None:
    from sklearn.linear_model import LogisticRegression

    positives = int(truth_N.sum())
    negatives = len(truth_N) - positives
    if min(positives, negatives) < MIN_OF_EACH:
        return None
    # Platt's targets keep the curve finite when the classes separate: each image counts partly for both classes.
    target_N = np.where(truth_N == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    features, labels = np.tile(margin_N, 2)[:, None], np.repeat([1, 0], len(margin_N))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence notes: a poor curve is refused below
        model = LogisticRegression(C=1e4, max_iter=1000)
        model.fit(features, labels, sample_weight=np.concatenate([target_N, 1 - target_N]))
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    if not slope > 0:
        return None
    return Platt(slope=slope, intercept=intercept, positives=positives, negatives=negatives)
