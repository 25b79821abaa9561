"""Dice of masks, with what to do about empty ones said in the name of each number.

``dice`` is the mean over all images: an image without a lesion counts 1 if nothing is marked and 0 if anything is
(the convention of SIIM-ACR, and of MONAI with ``ignore_empty=False``). ``dice_of_lesions`` is the mean over the images
with a lesion only. With few lesions the first is high for a model that never marks anything; neither stands alone.

What becomes a mask is decided by two numbers, chosen on the validation split: the probability from which a pixel is
marked, and the share of the image below which a marked area is called nothing.

Legend of tensor names: N images, T thresholds, A least areas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_AREAS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02)


@dataclass(frozen=True)
class Cut:
    """What makes a mask of probabilities: a pixel's threshold, and the least area as a share of the image."""

    threshold: float
    area: float


def overlaps(probability_N1SS: Tensor, mask_N1SS: Tensor) -> Tensor:
    """Count pixels at every threshold: marked and in the mask, marked, in the mask, all; float32 [N, T, 4]."""
    flat_N1X, truth_NX = probability_N1SS.flatten(1)[:, None], mask_N1SS.flatten(1)
    threshold_T1 = torch.tensor(THRESHOLDS, device=flat_N1X.device)[:, None]
    counts = []
    for flat_1X, truth_X in zip(flat_N1X, truth_NX, strict=True):  # one image at a time: [T, X] at most
        marked_TX = flat_1X >= threshold_T1
        both_T, marked_T = (marked_TX & truth_X).sum(dim=1), marked_TX.sum(dim=1)
        size, everything = truth_X.sum().expand_as(both_T), torch.full_like(both_T, truth_X.numel())
        counts.append(torch.stack([both_T, marked_T, size, everything], dim=1).float())
    return torch.stack(counts) if counts else torch.zeros(0, len(THRESHOLDS), 4)


def dice(counts_NT4: NDArray[np.float32], cut: Cut) -> Floats:
    """Return the Dice of each image after a cut: 1 if neither mask nor marked area has pixels; float64 [N]."""
    both_N, marked_N, size_N, all_N = counts_NT4[:, THRESHOLDS.index(cut.threshold)].astype(np.float64).T
    kept_N = marked_N >= cut.area * all_N
    total_N = marked_N * kept_N + size_N
    return np.where(total_N > 0, 2 * both_N * kept_N / np.maximum(total_N, 1), 1.0)


def choose_cut(counts_NT4: NDArray[np.float32]) -> tuple[Cut, float]:
    """Return the cut with the best mean of both numbers on a **validation** split, and that mean.

    The mean over all images alone would reward marking nothing.
    """
    cuts = [Cut(threshold, area) for threshold in THRESHOLDS for area in LEAST_AREAS]
    qualities = [quality(counts_NT4, cut) for cut in cuts]
    at = int(np.argmax(qualities))
    return cuts[at], qualities[at]


def quality(counts_NT4: NDArray[np.float32], cut: Cut) -> float:
    """Return the mean of both numbers; without any lesion, or any empty mask, of all images."""
    dice_N, lesion_N = dice(counts_NT4, cut), has_lesion(counts_NT4)
    if not len(dice_N):
        return 0.0
    return float(dice_N.mean() + (dice_N[lesion_N].mean() if lesion_N.any() else dice_N.mean())) / 2


def has_lesion(counts_NT4: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each image's mask has pixels."""
    found: NDArray[np.bool_] = counts_NT4[:, 0, 2] > 0
    return found
