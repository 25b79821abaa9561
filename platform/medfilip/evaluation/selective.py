"""What abstaining buys: risk against coverage (El-Yaniv and Wiener 2010; AURC of Geifman et al. 2019).

A model that may abstain answers its most confident images first. Risk is the share of wrong decisions among the
images that are answered, coverage the share that is. AURC is the mean risk over all coverages: low when what is wrong
is also what the model is unsure of.

Legend of tensor names: N images, R resamples, B resamples of a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medfilip.evaluation.metrics import Floats, Weights, divided


def risk_coverage(
    wrong_N: NDArray[np.bool_], confidence_N: Floats, weights_RN: Weights, coverage: float = 0.9
) -> tuple[Floats, Floats]:
    """Measure the risk of the most confident images.

    Returns
    -------
    aurc_R, risk_R
        Area under the risk–coverage curve, and the risk at the first ``coverage`` of the images, in each resample.
    """
    order_N = np.argsort(-confidence_N, kind="stable")
    size = max(1, (1 << 21) // max(1, len(order_N)))
    areas, risks = [], []
    for at in range(0, len(weights_RN), size):
        weights_BN = weights_RN[at : at + size][:, order_N].astype(np.float64)
        answered_BN = weights_BN.cumsum(axis=1)
        risk_BN = divided((weights_BN * wrong_N[order_N]).cumsum(axis=1), answered_BN, otherwise=0.0)
        total_B = answered_BN[:, -1]
        areas.append(divided((risk_BN * weights_BN).sum(axis=1), total_B))
        last_B = (answered_BN < coverage * total_B[:, None] - 1e-9).sum(axis=1)
        risks.append(risk_BN[np.arange(len(risk_BN)), np.minimum(last_B, len(order_N) - 1)])
    return np.concatenate(areas), np.concatenate(risks)
