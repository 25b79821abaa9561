"""Scores become probabilities and decisions: curves and operating points, fitted on the validation split only.

Users ask of every number whether it is a probability. The answer is data here: each label says whether its own
calibration, the one over all categories, or none was applied.

Legend of tensor names: N images, K knots of a curve.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import expit, logit

Basis = Literal["category", "overall", "none"]
Kind = Literal["platt", "temperature", "isotonic"]
Method = Kind | Literal["auto"]
"""How a curve is fitted; ``auto`` takes, for each category, what has the smallest log loss in cross-validation."""
Rule = Literal["f1", "youden", "sensitivity"]
"""What an operating point is chosen by: the best F1, the best sum of sensitivity and specificity, or the highest
threshold that still reaches a wanted sensitivity."""

MIN_OF_EACH = 8
"""A curve is fitted only from this many positives and as many negatives."""
_MIN_ISOTONIC = 50  # a step function of fewer images follows their noise
_FOLDS = 5

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Curve(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    positives: int
    negatives: int


class Platt(_Curve):
    """probability = sigmoid(slope · margin + intercept) (Platt 1999)."""

    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        found: Floats = expit(self.slope * margin_N + self.intercept)
        return found


class Temperature(_Curve):
    """probability = sigmoid(margin / (2 · temperature)): the model's own estimate, tempered (Guo et al. 2017)."""

    temperature: float = Field(gt=0, allow_inf_nan=False)

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        found: Floats = expit(margin_N / (2 * self.temperature))
        return found


class Isotonic(_Curve):
    """A rising curve through knots (Zadrozny and Elkan 2002), constant beyond the first and the last."""

    margins: tuple[float, ...] = Field(min_length=1)
    probabilities: tuple[float, ...] = Field(min_length=1)

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        return np.interp(margin_N, self.margins, self.probabilities)


Curve = Platt | Temperature | Isotonic


class OperatingPoint(BaseModel):
    """Where a category is called present.

    Attributes
    ----------
    threshold
        Of the calibrated probability.
    sensitivity, specificity
        There, on the images it was chosen on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(ge=0, le=1)
    rule: Rule
    sensitivity: float
    specificity: float
    positives: int
    negatives: int


class Calibration(BaseModel):
    """Curves and operating points by category, and one curve over all of them for labels that have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    categories: dict[str, Curve] = {}
    overall: Curve | None = None
    operating_points: dict[str, OperatingPoint] = {}

    def apply(self, margin_N: Floats, category: str | None) -> tuple[Floats, Basis]:
        """Turn margins (logit of the positive prompts minus logit of the negated ones) into probabilities.

        Without any curve the model's own estimate stands: both logits speak about the same question, so half of
        their difference is the logit of the label.
        """
        curve = self.categories.get(category) if category else None
        if curve is not None:
            return curve.probability(margin_N), "category"
        if self.overall is not None:
            return self.overall.probability(margin_N), "overall"
        return expit(margin_N / 2), "none"


def fit_calibration(
    margins: Mapping[str, Floats],
    truths: Mapping[str, Ints],
    *,
    method: Method = "platt",
    rule: Rule = "f1",
    sensitivity: float = 0.9,
) -> Calibration:
    """Fit one curve and one operating point a category, and one curve over all.

    Parameters
    ----------
    margins
        Category → margin of each image, [N].
    truths
        Category → 1 present, 0 absent, -1 unknown, [N]; unknown images are left out.
    method
        Kind of the curves. An isotonic curve needs 50 images of a kind and is a Platt curve with fewer.
    rule, sensitivity
        What operating points are chosen by; ``sensitivity`` is what the rule of that name wants.

    Returns
    -------
    Calibration
        Without curve and operating point where there are too few images of a kind, or where the score points the
        wrong way: a negative slope would hide a model that inverts.
    """
    if not margins:
        return Calibration()
    known = {name: (margin_N[truths[name] >= 0], truths[name][truths[name] >= 0]) for name, margin_N in margins.items()}
    categories: dict[str, Curve] = {}
    points: dict[str, OperatingPoint] = {}
    for name, (margin_N, truth_N) in known.items():
        if (curve := _fit(margin_N, truth_N, method)) is not None:
            categories[name] = curve
            points[name] = operating_point(curve.probability(margin_N), truth_N, rule, sensitivity)
    everything = [np.concatenate(parts) for parts in zip(*known.values(), strict=True)]
    return Calibration(
        categories=categories, overall=_fit(everything[0], everything[1], method), operating_points=points
    )


def operating_point(probability_N: Floats, truth_N: Ints, rule: Rule, sensitivity: float = 0.9) -> OperatingPoint:
    """Choose the threshold of a category, on images none of which is unknown; both classes must be there."""
    value_V, position_N = np.unique(probability_N, return_inverse=True)
    positives, negatives = int((truth_N == 1).sum()), int((truth_N == 0).sum())
    found_V = _from_above(position_N, truth_N == 1)
    false_V = _from_above(position_N, truth_N == 0)
    reached_V, spared_V = found_V / positives, 1 - false_V / negatives
    if rule == "f1":
        at = int(np.argmax(2 * found_V / (found_V + false_V + positives)))
    elif rule == "youden":
        at = int(np.argmax(reached_V + spared_V))
    else:
        at = int(np.flatnonzero(reached_V >= sensitivity - 1e-12)[-1])
    # Halfway to the next lower value: at the value itself, the last bit of a sum would decide about its own images.
    threshold = (value_V[at] + value_V[at - 1]) / 2 if at else value_V[at]
    return OperatingPoint(
        threshold=float(threshold),
        rule=rule,
        sensitivity=float(reached_V[at]),
        specificity=float(spared_V[at]),
        positives=positives,
        negatives=negatives,
    )


def _from_above(position_N: NDArray[np.intp], counted_N: NDArray[np.bool_]) -> Floats:
    """Count the images at each value and above it."""
    count_V = np.bincount(position_N, weights=counted_N.astype(np.float64))
    found: Floats = count_V[::-1].cumsum()[::-1].astype(np.float64)
    return found


def _fit(margin_N: Floats, truth_N: Ints, method: Method) -> Curve | None:
    positives = int(truth_N.sum())
    fewest = min(positives, len(truth_N) - positives)
    # Whatever the method: a score that points the wrong way gets no curve, and Platt's slope says so.
    if fewest < MIN_OF_EACH or (platt := _fit_platt(margin_N, truth_N)) is None:
        return None
    usable: list[Kind] = [name for name in _FITS if name != "isotonic" or fewest >= _MIN_ISOTONIC]
    if method == "auto":
        kind = min(usable, key=lambda name: _cross_validated_loss(margin_N, truth_N, _FITS[name]))
    else:
        kind = method if method in usable else "platt"
    return platt if kind == "platt" else _FITS[kind](margin_N, truth_N)


def _fit_platt(margin_N: Floats, truth_N: Ints) -> Curve | None:
    from sklearn.linear_model import LogisticRegression

    target_N, counts = _smoothed(truth_N)
    features, labels = np.tile(margin_N, 2)[:, None], np.repeat([1, 0], len(margin_N))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # convergence notes: a poor curve is refused below
        model = LogisticRegression(C=1e4, max_iter=1000)
        model.fit(features, labels, sample_weight=np.concatenate([target_N, 1 - target_N]))
    slope, intercept = float(model.coef_[0, 0]), float(model.intercept_[0])
    return Platt(slope=slope, intercept=intercept, **counts) if slope > 0 else None


def _fit_temperature(margin_N: Floats, truth_N: Ints) -> Curve | None:
    from scipy.optimize import minimize_scalar

    target_N, counts = _smoothed(truth_N)

    def loss(log_temperature: float) -> float:
        return _log_loss(expit(margin_N / (2 * np.exp(log_temperature))), target_N)

    best = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded")
    return Temperature(temperature=float(np.exp(best.x)), **counts)


def _fit_isotonic(margin_N: Floats, truth_N: Ints) -> Curve | None:
    from sklearn.isotonic import IsotonicRegression

    target_N, counts = _smoothed(truth_N)  # no image is certain: a probability of 0 or 1 could never be forgiven
    model = IsotonicRegression(out_of_bounds="clip").fit(margin_N, target_N)
    return Isotonic(
        margins=tuple(float(value) for value in model.X_thresholds_),
        probabilities=tuple(float(value) for value in model.y_thresholds_),
        **counts,
    )


_FITS: dict[Kind, Callable[[Floats, Ints], Curve | None]] = {
    "platt": _fit_platt,
    "temperature": _fit_temperature,
    "isotonic": _fit_isotonic,
}


def _cross_validated_loss(margin_N: Floats, truth_N: Ints, fit: Callable[[Floats, Ints], Curve | None]) -> float:
    """Return the mean log loss of images that a curve was not fitted on; infinite if there is none for some fold."""
    from sklearn.model_selection import StratifiedKFold

    summed = 0.0
    for train, held_out in StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(margin_N, truth_N):
        curve = fit(margin_N[train], truth_N[train])
        if curve is None:
            return float("inf")
        summed += _log_loss(curve.probability(margin_N[held_out]), truth_N[held_out]) * len(held_out)
    return summed / len(truth_N)


def _smoothed(truth_N: Ints) -> tuple[Floats, dict[str, int]]:
    """Return Platt's targets, which keep a curve finite when the classes separate, and the counts of the classes."""
    positives = int(truth_N.sum())
    negatives = len(truth_N) - positives
    target_N = np.where(truth_N == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    return target_N, {"positives": positives, "negatives": negatives}


def _log_loss(probability_N: Floats, target_N: NDArray[np.generic]) -> float:
    logit_N = logit(np.clip(probability_N, 1e-12, 1 - 1e-12))
    return float(np.mean(np.logaddexp(0, logit_N) - target_N * logit_N))
