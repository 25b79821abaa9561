"""The linear probe: a frozen tower's features, and one logistic regression a label.

Features are computed once. Regularisation is chosen on the validation split alone, one strength for all labels: with
few validation images the best one of a single label is mostly chance.

Legend of tensor names: N images, S side of the input, F features, L labels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medfilip.evaluation.metrics import auroc
from medfilip.findings.truth import UNKNOWN
from medfilip.model.encoders import ImageEncoder
from medfilip.transfer.settings import Init, ProbeSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def kind_of(init: Init, wanted: str) -> str:
    """Return the features that are taken of a tower: ``pooled`` or ``embedding``; see `ProbeSettings`."""
    if wanted == "learned":
        return "embedding" if init == "checkpoint" else "pooled"
    return wanted


@torch.no_grad()
def features(tower: ImageEncoder, pixels_N1SS: Tensor, kind: str) -> Tensor:
    """Return float32 [N, F] of a tower that stays exactly as it is, running statistics included."""
    tower.eval()
    if kind == "embedding":
        embedded: Tensor = tower(pixels_N1SS)
        return embedded
    map_NCHW = tower.features(pixels_N1SS)
    return torch.cat([map_NCHW.mean(dim=(2, 3)), map_NCHW.amax(dim=(2, 3))], dim=1)


@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Attributes
    ----------
    strength
        The chosen C.
    quality
        Mean AUROC on the validation split; ``None`` if it has no label with both classes.
    untrained
        Labels of which the training share had one class only: their score is constant.
    unconverged
        Labels whose solver ran out of iterations.
    score_NL
        Log-odds of the images that were asked for.
    """

    strength: float
    quality: float | None
    untrained: tuple[str, ...]
    unconverged: tuple[str, ...]
    score_NL: Floats


def fit_probe(
    feature_NF: Floats,
    truth_NL: Ints,
    labels: Sequence[str],
    rows: tuple[Ints, Ints, Ints],
    settings: ProbeSettings,
) -> Probed:
    """Fit a probe.

    Parameters
    ----------
    feature_NF
        Of all images.
    truth_NL
        1 present, 0 absent, -1 unknown: left out of that label's regression.
    rows
        Positions of the images to train on, to choose the strength by, and to score.
    """
    train, validation, test = rows
    mean_F, deviation_F = feature_NF[train].mean(axis=0), feature_NF[train].std(axis=0)
    # A feature that is the same on all training images says nothing; its noise elsewhere must not be blown up.
    standard_NF = np.where(deviation_F > 0, (feature_NF - mean_F) / np.where(deviation_F > 0, deviation_F, 1), 0)
    best: tuple[float, float | None, list[_Line]] | None = None
    for strength in settings.strengths:  # weakest first: among equals the simpler one stays
        lines = [
            _fit_line(standard_NF[train], truth_NL[train, at], strength, settings.iterations)
            for at in range(len(labels))
        ]
        quality = macro_auroc(truth_NL[validation], _scores(lines, standard_NF[validation]))
        if best is None or (quality or 0.0) > (best[1] or 0.0):
            best = strength, quality, lines
    assert best is not None
    strength, quality, lines = best
    return Probed(
        strength,
        quality,
        tuple(label for label, line in zip(labels, lines, strict=True) if line.weight_F is None),
        tuple(label for label, line in zip(labels, lines, strict=True) if not line.converged),
        _scores(lines, standard_NF[test]),
    )


def macro_auroc(truth_NL: Ints, score_NL: Floats) -> float | None:
    """Return the mean AUROC over the labels with both classes, ``None`` without any."""
    found = []
    for at in range(truth_NL.shape[1]):
        known_N = truth_NL[:, at] != UNKNOWN
        value = auroc(truth_NL[known_N, at], score_NL[known_N, at])
        if value is not None:
            found.append(value)
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class _Line:
    weight_F: Floats | None
    bias: float
    converged: bool


def _fit_line(feature_NF: Floats, truth_N: Ints, strength: float, iterations: int) -> _Line:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    known_N = truth_N != UNKNOWN
    if len(set(truth_N[known_N].tolist())) < 2:
        return _Line(None, 0.0, converged=True)
    model = LogisticRegression(C=strength, max_iter=iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # told in the result
        model.fit(feature_NF[known_N], truth_N[known_N])
    return _Line(model.coef_[0], float(model.intercept_[0]), converged=bool(model.n_iter_[0] < iterations))


def _scores(lines: Sequence[_Line], feature_NF: Floats) -> Floats:
    flat_N = np.zeros(len(feature_NF))
    columns = [flat_N if line.weight_F is None else feature_NF @ line.weight_F + line.bias for line in lines]
    return np.stack(columns, axis=1) if columns else np.zeros((len(feature_NF), 0))
