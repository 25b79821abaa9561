"""Full fine-tuning: the image tower with a linear head, trained on what is known of each label.

Legend of tensor names: N images, S side of the input, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from medfilip.findings.truth import PRESENT, UNKNOWN
from medfilip.model.encoders import ImageEncoder
from medfilip.transfer.probe import macro_auroc

Ints = NDArray[np.int64]


class Classifier(nn.Module):
    """An image tower and one logit a label."""

    def __init__(self, tower: ImageEncoder, labels: int) -> None:
        super().__init__()
        self.tower = tower
        self.head = nn.Linear(tower.project.out_features, labels)
        # Zeros favour no label and no initialisation of the tower: at first only the tower's features differ.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @torch.no_grad()
    def expect(self, truth_NL: Ints) -> None:
        """Let the head begin at the share of each label among the training images."""
        known_L, present_L = (truth_NL != UNKNOWN).sum(axis=0), (truth_NL == PRESENT).sum(axis=0)
        share_L = torch.tensor((present_L + 0.5) / (known_L + 1.0), dtype=torch.float32)
        self.head.bias.copy_(torch.logit(share_L))

    def forward(self, pixels_N1SS: Tensor) -> Tensor:
        """Return the logits [N, L]."""
        logits_NL: Tensor = self.head(self.tower(pixels_N1SS))
        return logits_NL


def masked_loss(logits_NL: Tensor, truth_NL: Tensor, known: int) -> Tensor:
    """Return binary cross entropy over what is known, summed and divided by ``known``.

    ``known`` counts the known entries of the **global** batch, so that the losses of several processes add up.
    """
    known_NL = truth_NL != UNKNOWN
    target_NL = (truth_NL == PRESENT).to(logits_NL.dtype)
    loss_NL = functional.binary_cross_entropy_with_logits(logits_NL, target_NL, reduction="none")
    return torch.where(known_NL, loss_NL, 0).sum() / max(known, 1)


def ranking(truth_NL: Ints, logits_NL: NDArray[np.float32], labels: Sequence[str]) -> float:
    """Return the mean validation AUROC by which a step is chosen; minus the loss where no label has both classes."""
    assert truth_NL.shape == (len(logits_NL), len(labels))
    found = macro_auroc(truth_NL, logits_NL.astype(np.float64))
    if found is not None:
        return found
    known = int((truth_NL != UNKNOWN).sum())
    return -float(masked_loss(torch.from_numpy(logits_NL), torch.from_numpy(truth_NL), known))
