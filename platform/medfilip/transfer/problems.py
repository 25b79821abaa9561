"""What is trained in one cell of the grid: a module, its loss on a global batch, and how good it is.

Legend of tensor names: N images, S side of the input, L labels, T thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medfilip.findings.truth import UNKNOWN
from medfilip.training.augment import augment, augment_masks
from medfilip.training.images import ImageSource
from medfilip.training.order import draw
from medfilip.training.settings import AugmentSettings
from medfilip.transfer.classifier import Classifier, masked_loss, ranking
from medfilip.transfer.dice import choose_cut, overlaps
from medfilip.transfer.labelled import Labelled
from medfilip.transfer.masks import Mask
from medfilip.transfer.segmenter import Segmenter, mask_loss

Ints = NDArray[np.int64]
Predicted = NDArray[np.float32]
_SIGNED = 1 << 63
_AT_ONCE = 64


class Problem(Protocol):
    """A module and how it is trained; rows are positions in the table of images."""

    @property
    def module(self) -> nn.Module:
        """What is optimised."""
        ...

    def loss(self, batch_N: Ints, own: slice, epoch: int) -> Tensor:
        """Return this process's part of the loss of a global batch: the parts add up to the whole."""
        ...

    def predict(self, rows: Ints) -> Predicted:
        """Return what metrics are computed from, [N, …], in eval mode and without augmentation."""
        ...

    def quality(self, rows: Ints, predicted: Predicted) -> float:
        """Return how good predictions are, more is better: what chooses a step on the validation split."""
        ...


class _Pictures:
    """Images by their position in the table, on the module's device."""

    def __init__(self, images: ImageSource, labelled: Labelled, augmentation: AugmentSettings, seed: int) -> None:
        self._images, self._labelled, self.augmentation, self._seed = images, labelled, augmentation, seed

    def plain(self, rows: Ints, device: torch.device) -> Tensor:
        """Return float32 [N, 1, S, S]."""
        shard_N, row_N = self._labelled.shard_N, self._labelled.row_N
        pixels = [self._images.get(int(shard_N[at]), int(row_N[at])) for at in rows]
        return torch.from_numpy(np.stack(pixels)).to(device)

    def seeds(self, rows: Ints, epoch: int, device: torch.device) -> Tensor:
        """Return what the augmentation of each image in an epoch depends on; int64 [N]."""
        drawn = [draw("augment", self._seed, epoch, self._labelled.images[at]) % _SIGNED for at in rows]
        return torch.tensor(drawn, dtype=torch.int64, device=device)


class Classification:
    """Several labels of an image, some of them unknown.

    Parameters
    ----------
    model
        On its device.
    images, labelled
        Pixels and truth.
    augmentation, seed
        How training images are changed.
    bf16
        Whether the forward pass uses bfloat16.
    """

    def __init__(
        self,
        model: Classifier,
        images: ImageSource,
        labelled: Labelled,
        augmentation: AugmentSettings,
        seed: int,
        *,
        bf16: bool = False,
    ) -> None:
        self.module, self._labelled, self._bf16 = model, labelled, bf16
        self._pictures = _Pictures(images, labelled, augmentation, seed)

    def loss(self, batch_N: Ints, own: slice, epoch: int) -> Tensor:
        """See `Problem`."""
        device, rows = device_of(self.module), batch_N[own]
        known = int((self._labelled.truth_NL[batch_N] != UNKNOWN).sum())
        if not len(rows):
            return _nothing(self.module)
        seeds_N = self._pictures.seeds(rows, epoch, device)
        pixels_N1SS = augment(self._pictures.plain(rows, device), seeds_N, self._pictures.augmentation)
        with autocast(device, on=self._bf16):
            logits_NL = self.module(pixels_N1SS)
        return masked_loss(logits_NL.float(), torch.from_numpy(self._labelled.truth_NL[rows]).to(device), known)

    @torch.no_grad()
    def predict(self, rows: Ints) -> Predicted:
        """Return logits [N, L]; see `Problem`."""

        def of(part: Ints) -> Tensor:
            device = device_of(self.module)
            with autocast(device, on=self._bf16):
                logits_NL: Tensor = self.module(self._pictures.plain(part, device))
            return logits_NL.float()

        return _in_parts(self.module, rows, of, (len(self._labelled.labels),))

    def quality(self, rows: Ints, predicted: Predicted) -> float:
        """Return the mean AUROC; see `Problem`."""
        return ranking(self._labelled.truth_NL[rows], predicted, self._labelled.labels)


class Segmentation:
    """The mask of one category.

    Parameters
    ----------
    mask
        Position of an image → bool [S, S], in the pixels of the model's input.
    """

    def __init__(
        self,
        model: Segmenter,
        images: ImageSource,
        labelled: Labelled,
        mask: Callable[[int], Mask],
        augmentation: AugmentSettings,
        seed: int,
        *,
        bf16: bool = False,
    ) -> None:
        self.module, self._mask, self._bf16 = model, mask, bf16
        self._pictures = _Pictures(images, labelled, augmentation, seed)

    def loss(self, batch_N: Ints, own: slice, epoch: int) -> Tensor:
        """See `Problem`."""
        device, rows = device_of(self.module), batch_N[own]
        if not len(rows):
            return _nothing(self.module)
        seeds_N, changes = self._pictures.seeds(rows, epoch, device), self._pictures.augmentation
        pixels_N1SS = augment(self._pictures.plain(rows, device), seeds_N, changes)
        mask_N1SS = augment_masks(self._masks(rows, device), seeds_N, changes)
        with autocast(device, on=self._bf16):
            logits_N1SS = self.module(pixels_N1SS)
        return mask_loss(logits_N1SS.float(), mask_N1SS, len(batch_N))

    @torch.no_grad()
    def predict(self, rows: Ints) -> Predicted:
        """Return counts of pixels [N, T, 4]; see `Problem` and `medfilip.transfer.dice.overlaps`."""

        def of(part: Ints) -> Tensor:
            device = device_of(self.module)
            with autocast(device, on=self._bf16):
                logits_N1SS = self.module(self._pictures.plain(part, device))
            return overlaps(logits_N1SS.float().sigmoid(), self._masks(part, device))

        return _in_parts(self.module, rows, of, overlaps(torch.zeros(0, 1, 1, 1), torch.zeros(0, 1, 1, 1)).shape[1:])

    def quality(self, rows: Ints, predicted: Predicted) -> float:
        """Return the mean of Dice with and without empty masks, at the best cut; see `Problem`."""
        assert len(rows) == len(predicted)
        return choose_cut(predicted)[1]

    def _masks(self, rows: Ints, device: torch.device) -> Tensor:
        return torch.from_numpy(np.stack([self._mask(int(at)) for at in rows])[:, None]).to(device)


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters lie."""
    return next(module.parameters()).device


def autocast(device: torch.device, *, on: bool) -> torch.autocast:
    """Return the context of a forward pass in bfloat16, or one that does nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=on)


def _nothing(module: nn.Module) -> Tensor:
    """Return a loss of 0 for a process without images in a small batch; its gradients count as zeros."""
    return torch.stack([one.sum() * 0 for one in module.parameters() if one.requires_grad]).sum()


def _in_parts(module: nn.Module, rows: Ints, of: Callable[[Ints], Tensor], shape: tuple[int, ...]) -> Predicted:
    was_training = module.training
    module.eval()
    found = [of(rows[at : at + _AT_ONCE]).cpu().numpy() for at in range(0, len(rows), _AT_ONCE)]
    module.train(was_training)
    return np.concatenate(found).astype(np.float32) if found else np.zeros((0, *shape), np.float32)
