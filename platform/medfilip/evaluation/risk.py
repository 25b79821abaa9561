"""Risk and coverage: how wrong the findings are that remain when the least confident are set aside.

Legend of tensor names: N findings, sorted by falling confidence where a curve is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

_BINS = 10
_POINTS = 50


class RiskCoverage(BaseModel):
    """Calibration and selectiveness of confidences.

    Attributes
    ----------
    findings
        How many findings were judged.
    calibration_error
        Expected calibration error over ten bins of equal size, in [0, 1].
    risk_area
        Area under the risk–coverage curve: the mean risk over all coverages.
    curve
        (coverage, risk) from few to all findings.
    bins
        (mean confidence, share right, findings) of each bin.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    findings: int
    calibration_error: float
    risk_area: float
    curve: tuple[tuple[float, float], ...]
    bins: tuple[tuple[float, float, int], ...]


def risk_coverage(confidences: Sequence[float], right: Sequence[bool]) -> RiskCoverage | None:
    """Return risk and calibration of findings with their confidence and whether they were right; none without any."""
    if not confidences:
        return None
    confidence_N = np.asarray(confidences, np.float64)
    wrong_N = 1 - np.asarray(right, np.float64)
    order_N = np.argsort(-confidence_N, kind="stable")
    confidence_N, wrong_N = confidence_N[order_N], wrong_N[order_N]
    count = len(wrong_N)
    risk_N = wrong_N.cumsum() / np.arange(1, count + 1)
    at = np.unique(np.linspace(1, count, min(count, _POINTS)).astype(int)) - 1
    parts = [part for part in np.array_split(np.arange(count), _BINS) if len(part)]
    bins = [(float(confidence_N[p].mean()), float(1 - wrong_N[p].mean()), len(p)) for p in parts]
    return RiskCoverage(
        findings=count,
        calibration_error=sum(size * abs(mean - share) for mean, share, size in bins) / count,
        risk_area=float(risk_N.mean()),
        curve=tuple((float((i + 1) / count), float(risk_N[i])) for i in at),
        bins=tuple(bins),
    )
