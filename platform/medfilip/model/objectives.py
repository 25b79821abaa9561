"""Training objectives as pure functions of logits, targets and mask.

These are the definitions, on whole matrices and differentiable by autograd; `medfilip.model.contrastive` computes the
same values and gradients block by block and over several processes, and is tested against them.

Legend of tensor names: N images, T texts, both of the **global** batch.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["soft_sigmoid", "soft_infonce", "mse_bce", "infonce"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


def objective_loss(objective: Objective, logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Compute an objective by name; for ``infonce`` the target marks each image's own texts with 1."""
    match objective:
        case "soft_sigmoid":
            return soft_sigmoid(logits_NT, target_NT, mask_NT)
        case "mse_bce":
            return mse_bce(logits_NT, target_NT, mask_NT)
        case "soft_infonce":
            return soft_infonce(logits_NT, target_NT, mask_NT)
        case "infonce":
            return infonce(logits_NT, target_NT)


def soft_sigmoid(logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Binary cross entropy of every pair against its soft target, weighted by the mask (the default objective).

    Its optimum is sigmoid(logit) = target, which makes outputs calibratable; pairs are independent, so that masking a
    pair takes nothing from the others (Zhai et al. 2023, extended by soft targets; method, section 5).

    Parameters
    ----------
    logits_NT, target_NT, mask_NT
        Logits, targets in [0, 1] and weights in [0, 1].

    Returns
    -------
    Tensor
        The mean over the weight, a scalar; 0 if everything is masked out.
    """
    return _weighted_mean(_bce(logits_NT, target_NT), mask_NT)


def mse_bce(logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Squared error plus binary cross entropy of the same logits (Liang et al. 2025, section III-D).

    Kept for comparison: the optimum of the first term is logit = target, that of the second sigmoid(logit) = target,
    so that the two pull apart and the outputs are no probabilities (method, section 5). The authors' code masks
    nothing; ``mask_NT`` of ones gives their form.
    """
    squared_NT = (logits_NT - target_NT.to(logits_NT.dtype)).square()
    return _weighted_mean(squared_NT + _bce(logits_NT, target_NT), mask_NT)


def soft_infonce(logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Symmetric cross entropy to the row- and column-normalised targets (method, section 5).

    Masked pairs stay out of the softmax; a row or column without any target is left out of the mean.
    """
    hidden_NT = logits_NT.masked_fill(mask_NT == 0, float("-inf"))
    by_image = _cross_entropy(hidden_NT, target_NT * (mask_NT > 0))
    by_text = _cross_entropy(hidden_NT.T, (target_NT * (mask_NT > 0)).T)
    return (by_image + by_text) / 2


def infonce(logits_NT: Tensor, own_NT: Tensor) -> Tensor:
    """CLIP's objective with several texts an image: own texts are positives, all others negatives (the baseline)."""
    return soft_infonce(logits_NT, own_NT, torch.ones_like(logits_NT))


def _bce(logits_NT: Tensor, target_NT: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits_NT, target_NT.to(logits_NT.dtype), reduction="none")


def _weighted_mean(loss_NT: Tensor, mask_NT: Tensor) -> Tensor:
    weight_NT = mask_NT.to(loss_NT.dtype)
    return (loss_NT * weight_NT).sum() / weight_NT.sum().clamp(min=1e-6)


def _cross_entropy(logits_AB: Tensor, target_AB: Tensor) -> Tensor:
    has_target_A = target_AB.sum(dim=1) > 0
    logits_AB, target_AB = logits_AB[has_target_A], target_AB[has_target_A].to(logits_AB.dtype)
    if not len(logits_AB):
        return logits_AB.sum()
    share_AB = target_AB / target_AB.sum(dim=1, keepdim=True)
    log_probability_AB = logits_AB.log_softmax(dim=1)
    # 0 · −inf is not a number: pairs without a target are set to zero before they are multiplied.
    return -(share_AB * log_probability_AB.masked_fill(share_AB == 0, 0.0)).sum(dim=1).mean()
