"""Augmentation that is safe for chest X-rays: small shifts, zooms, rotations, exposure and noise, no flips.

A horizontal flip swaps left and right, heart and liver included; a strong crop cuts the finding off. The parameters of
each image come from its own seed, so that they do not depend on how a batch is split among processes.

Legend of tensor names: N images, S side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from medfilip.training.settings import AugmentSettings


def augment(pixels_N1SS: Tensor, seeds: Sequence[int], settings: AugmentSettings) -> Tensor:
    """Augment images; the same seed gives the same change.

    Parameters
    ----------
    pixels_N1SS
        float32 of any range.
    seeds
        One a image.
    settings
        Largest changes.

    Returns
    -------
    Tensor
        float32, [N, 1, S, S], with grey values scaled to [0, 1].
    """
    if not settings.enabled or not len(pixels_N1SS):
        return pixels_N1SS
    generators = [torch.Generator().manual_seed(seed % (1 << 63)) for seed in seeds]
    uniform_N5 = torch.stack([torch.rand(5, generator=generator) * 2 - 1 for generator in generators])
    noise_N1SS = torch.stack([torch.randn(pixels_N1SS.shape[1:], generator=generator) for generator in generators])
    moved_N1SS = _move(_to_unit_range(pixels_N1SS), uniform_N5, settings)
    gamma_N111 = (uniform_N5[:, 4] * settings.gamma).exp()[:, None, None, None]
    return moved_N1SS.clamp(min=1e-6) ** gamma_N111 + settings.noise * noise_N1SS


def _to_unit_range(pixels_N1SS: Tensor) -> Tensor:
    low = pixels_N1SS.amin(dim=(1, 2, 3), keepdim=True)
    high = pixels_N1SS.amax(dim=(1, 2, 3), keepdim=True)
    return (pixels_N1SS - low) / (high - low).clamp(min=1e-6)


def _move(pixels_N1SS: Tensor, uniform_N5: Tensor, settings: AugmentSettings) -> Tensor:
    angle_N = uniform_N5[:, 0] * math.radians(settings.rotation)
    zoom_N = 1 + uniform_N5[:, 1] * settings.scale
    shift_N2 = uniform_N5[:, 2:4] * settings.shift * 2  # the grid runs from -1 to 1
    cosine_N, sine_N = angle_N.cos() * zoom_N, angle_N.sin() * zoom_N
    affine_N23 = torch.stack(
        [
            torch.stack([cosine_N, -sine_N, shift_N2[:, 0]], dim=1),
            torch.stack([sine_N, cosine_N, shift_N2[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid_NSS2 = functional.affine_grid(affine_N23, list(pixels_N1SS.shape), align_corners=False)
    return functional.grid_sample(pixels_N1SS, grid_NSS2, padding_mode="border", align_corners=False)
