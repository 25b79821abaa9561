"""Scores become probabilities and decisions: curves and operating points, fitted on the validation split only.

Users ask of every number whether it is a probability. The answer is data here: each label says whether its own
calibration, the one over all categories, or none was applied.

Legend of tensor names: N images, K knots of a curve.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Literal, get_args

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
_Z95 = 1.959964  # 97.5 % quantile of the normal distribution
DECIDED = 0.9
"""Share of validation images that a finding is decided for; the least sure rest is left to people."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class _Curve(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    positives: int
    negatives: int


class Platt(_Curve):
    """probability = sigmoid(slope · margin + intercept) (Platt 1999).

    Attributes
    ----------
    covariance
        Var(slope), Cov(slope, intercept) and Var(intercept), from the curvature of the likelihood.
    """

    slope: float = Field(gt=0, allow_inf_nan=False)
    intercept: float = Field(allow_inf_nan=False)
    covariance: tuple[float, float, float] | None = None

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        found: Floats = expit(self.slope * margin_N + self.intercept)
        return found

    def interval(self, margin_N: Floats) -> tuple[Floats, Floats] | None:
        """Return the 95 % interval of the curve (delta method), [N] each; ``None`` without a covariance."""
        if self.covariance is None:
            return None
        slope, both, intercept = self.covariance
        variance_N = slope * margin_N**2 + 2 * both * margin_N + intercept
        return _interval(self.slope * margin_N + self.intercept, variance_N)


class Temperature(_Curve):
    """probability = sigmoid(margin / (2 · temperature)): the model's own estimate, tempered (Guo et al. 2017).

    Attributes
    ----------
    variance
        Of the factor ``1 / (2 · temperature)``, from the curvature of the likelihood.
    """

    temperature: float = Field(gt=0, allow_inf_nan=False)
    variance: float | None = Field(None, ge=0)

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        found: Floats = expit(margin_N / (2 * self.temperature))
        return found

    def interval(self, margin_N: Floats) -> tuple[Floats, Floats] | None:
        """Return the 95 % interval of the curve, [N] each; ``None`` without a variance."""
        if self.variance is None:
            return None
        return _interval(margin_N / (2 * self.temperature), self.variance * margin_N**2)


class Isotonic(_Curve):
    """A rising curve through knots (Zadrozny and Elkan 2002), constant beyond the first and the last."""

    margins: tuple[float, ...] = Field(min_length=1)
    probabilities: tuple[float, ...] = Field(min_length=1)

    def probability(self, margin_N: Floats) -> Floats:
        """Apply the curve."""
        return np.interp(margin_N, self.margins, self.probabilities)

    def interval(self, margin_N: Floats) -> None:
        """Return ``None``: a step function has no interval of this kind."""
        return


def _interval(logit_N: Floats, variance_N: Floats) -> tuple[Floats, Floats]:
    half_N = _Z95 * np.sqrt(np.maximum(variance_N, 0))
    return expit(logit_N - half_N), expit(logit_N + half_N)


Curve = Platt | Temperature | Isotonic


class OperatingPoint(BaseModel):
    """Where a category is called present.

    Attributes
    ----------
    threshold
        Of the calibrated probability.
    sensitivity, specificity
        There, on the images it was chosen on.
    undecided
        Least distance of a decided probability from the threshold, in logits: of the images it was chosen on the
        surest nine tenths (`DECIDED`) lie at least as far away.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(ge=0, le=1)
    rule: Rule
    sensitivity: float
    specificity: float
    positives: int
    negatives: int
    undecided: float = Field(0.0, ge=0)


class Calibration(BaseModel):
    """Curves and operating points by category, and one curve over all of them for labels that have none.

    Attributes
    ----------
    operating_points
        Category → where it is called present, by the rule that was chosen.
    alternatives
        The operating points by every rule, for those who ask for another one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    categories: dict[str, Curve] = {}
    overall: Curve | None = None
    operating_points: dict[str, OperatingPoint] = {}
    alternatives: dict[Rule, dict[str, OperatingPoint]] = {}

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

    def interval(self, margin_N: Floats, category: str | None) -> tuple[Floats, Floats] | None:
        """Return the 95 % interval of the curve that `apply` uses, [N] each; ``None`` where it has none."""
        curve = (self.categories.get(category) if category else None) or self.overall
        return curve.interval(margin_N) if curve is not None else None

    def operating_point(self, category: str | None, rule: Rule | None = None) -> OperatingPoint | None:
        """Return where a category is called present, by its own rule or another one."""
        points = self.operating_points if rule is None else self.alternatives.get(rule, {})
        return points.get(category) if category else None


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
    points: dict[Rule, dict[str, OperatingPoint]] = {name: {} for name in get_args(Rule)}
    for name, (margin_N, truth_N) in known.items():
        if (curve := _fit(margin_N, truth_N, method)) is not None:
            categories[name] = curve
            probability_N = curve.probability(margin_N)
            for each, found in points.items():
                found[name] = operating_point(probability_N, truth_N, each, sensitivity)
    everything = [np.concatenate(parts) for parts in zip(*known.values(), strict=True)]
    return Calibration(
        categories=categories, overall=_fit(everything[0], everything[1], method),
        operating_points=points[rule], alternatives=points,
    )  # fmt: skip


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
        undecided=float(np.quantile(confidence_of(probability_N, float(threshold)), 1 - DECIDED, method="lower")),
    )


def confidence_of(probability_N: Floats, threshold: float) -> Floats:
    """Return how far a probability lies from where the decision flips, in logits; [N]."""
    limited_N = np.clip(probability_N, 1e-9, 1 - 1e-9)
    flip = float(np.clip(threshold, 1e-9, 1 - 1e-9))
    distance_N: Floats = np.abs(np.log(limited_N / (1 - limited_N)) - np.log(flip / (1 - flip)))
    return distance_N


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
    if slope <= 0:
        return None
    weight_N = _information(slope * margin_N + intercept)
    information = np.array(
        [[(weight_N * margin_N**2).sum(), (weight_N * margin_N).sum()], [(weight_N * margin_N).sum(), weight_N.sum()]]
    )
    covariance = np.linalg.pinv(information)
    return Platt(
        slope=slope, intercept=intercept, **counts,
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
    )  # fmt: skip


def _fit_temperature(margin_N: Floats, truth_N: Ints) -> Curve | None:
    from scipy.optimize import minimize_scalar

    target_N, counts = _smoothed(truth_N)

    def loss(log_temperature: float) -> float:
        return _log_loss(expit(margin_N / (2 * np.exp(log_temperature))), target_N)

    best = minimize_scalar(loss, bounds=(-5.0, 5.0), method="bounded")
    temperature = float(np.exp(best.x))
    curvature = float((_information(margin_N / (2 * temperature)) * margin_N**2).sum())
    return Temperature(temperature=temperature, variance=1 / curvature if curvature > 0 else None, **counts)


def _information(logit_N: Floats) -> Floats:
    """Return what each image says about the logit: p · (1 - p), [N]."""
    probability_N: Floats = expit(logit_N)
    return probability_N * (1 - probability_N)


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
