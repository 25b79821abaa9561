"""Training objectives as pure functions of logits, targets and mask.

These are the definitions, on whole matrices and differentiable by autograd; `medfilip.model.contrastive` computes the
same values and gradients block by block and over several processes, and is tested against them.

Legend of tensor names: N images, T texts, both of the **global** batch; R pairs of texts that are ranked.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Objective = Literal["soft_sigmoid", "soft_infonce", "mse_bce", "infonce"]
_LEAST_ENTROPY = 0.1  # of groups that are nearly always, or never, described: little is to be learned there
_LEAST_DIFFICULTY = 0.05
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
    return _weighted_mean(bce(logits_NT, target_NT), mask_NT)


def mse_bce(logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Squared error plus binary cross entropy of the same logits (Liang et al. 2025, section III-D).

    Kept for comparison: the optimum of the first term is logit = target, that of the second sigmoid(logit) = target,
    so that the two pull apart and the outputs are no probabilities (method, section 5). The authors' code masks
    nothing; ``mask_NT`` of ones gives their form.
    """
    squared_NT = (logits_NT - target_NT.to(logits_NT.dtype)).square()
    return _weighted_mean(squared_NT + bce(logits_NT, target_NT), mask_NT)


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


def ranking(own_R: Tensor, altered_R: Tensor) -> Tensor:
    """Sum of log(1 + exp(altered − own)) over pairs of logits of one image (Burges et al., ICML 2005).

    Its gradient depends on how far the two lie apart, not on how alike their targets are: it goes on where a soft
    target of .9 beside one of 1 has nothing left to teach.
    """
    return functional.softplus(altered_R - own_R).sum()


def focus_weights(
    logits_NT: Tensor, target_NT: Tensor, mask_NT: Tensor, group_T: Tensor, groups: int, exponent: float
) -> Tensor:
    """Weigh texts by how little has been learned about their group (category) yet; [T], without gradient.

    Each pair of a text is multiplied by its weight. What is large and frequent is learned in a few hundred steps, and
    its texts, most of a batch, then only add noise to what is small or rare. The weight is a category's and not a
    pair's, as in the focal loss (Lin et al., ICCV 2017): each pair keeps its optimum, sigmoid(logit) = target.
    """
    with torch.no_grad():
        sums_3G = logits_NT.new_zeros(3, groups)
        add_to_groups(sums_3G, bce(logits_NT, target_NT), target_NT.to(logits_NT.dtype), mask_NT, group_T)
        return focus_of_groups(sums_3G, exponent)[group_T]


def add_to_groups(sums_3G: Tensor, loss_NB: Tensor, target_NB: Tensor, mask_NB: Tensor, group_B: Tensor) -> None:
    """Add a block's weighted losses, its weighted targets and its weights to the sums of its groups."""
    weight_NB = mask_NB.to(loss_NB.dtype)
    columns_3B = torch.stack([(loss_NB * weight_NB).sum(0), (target_NB * weight_NB).sum(0), weight_NB.sum(0)])
    sums_3G.index_add_(1, group_B, columns_3B)


def focus_of_groups(sums_3G: Tensor, exponent: float) -> Tensor:
    """Return the weight of each group: a power of its loss relative to that of knowing its mean target alone; [G].

    The weights leave the total weight of a batch as it is.
    """
    loss_G, target_G, weight_G = sums_3G
    # Sums in another order, as GPUs and other processes form them, may put a mean of ones a rounding above 1.
    mean_G = (target_G / weight_G.clamp(min=1e-6)).clamp(0, 1)
    entropy_G = -(torch.xlogy(mean_G, mean_G) + torch.xlogy(1 - mean_G, 1 - mean_G))
    difficulty_G = loss_G / weight_G.clamp(min=1e-6) / entropy_G.clamp(min=_LEAST_ENTROPY)
    factor_G = difficulty_G.clamp(_LEAST_DIFFICULTY, 1) ** exponent
    weights_G: Tensor = factor_G * weight_G.sum() / (factor_G * weight_G).sum().clamp(min=1e-6)
    return weights_G


def bce(logits_NT: Tensor, target_NT: Tensor) -> Tensor:
    """Binary cross entropy of each pair against its soft target."""
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
