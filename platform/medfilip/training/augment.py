"""Augmentation that is safe for chest X-rays: small shifts, zooms, rotations, exposure, blur and noise.

A strong crop cuts findings off, and a horizontal flip swaps left and right, heart and liver included: it is off unless
it is asked for, and then the findings are swapped with the image (`medfilip.findings.mirror`). What happens to an
image depends on its own seed alone, not on how a batch is split among processes or on which device it is computed;
kornia applies it.

Legend of tensor names: I images, S side.
"""

from __future__ import annotations

import torch
from torch import Tensor

from medfilip.imaging.preprocess import MODEL_MEAN, MODEL_STD
from medfilip.training.settings import AugmentSettings

_BLUR_KERNEL = 5
_SHARP = 1e-3  # a blur of this many pixels changes nothing that float32 shows
_NOISE_STREAM = 1000
_LOW_32 = 0xFFFFFFFF


def augment(pixels_I1SS: Tensor, seed_I: Tensor, settings: AugmentSettings, flipped_I: Tensor | None = None) -> Tensor:
    """Augment model input; the same seed gives the same change.

    Parameters
    ----------
    pixels_I1SS
        float32, as `medfilip.imaging.preprocess.to_model` gives it.
    seed_I
        int64, one an image.
    settings
        Largest changes.
    flipped_I
        bool, which images are mirrored; their findings are the caller's to swap.

    Returns
    -------
    Tensor
        float32, [I, 1, S, S], in the range of the input: a model meets the same grey values in training and in use.
    """
    if not settings.enabled or not len(pixels_I1SS):
        return pixels_I1SS
    from kornia.enhance import adjust_gamma
    from kornia.filters import gaussian_blur2d
    from kornia.geometry.transform import hflip

    uniform_I6 = _draws(seed_I)
    grey_I1SS = pixels_I1SS * MODEL_STD + MODEL_MEAN
    if flipped_I is not None:
        grey_I1SS = torch.where(flipped_I[:, None, None, None], hflip(grey_I1SS), grey_I1SS)
    grey_I1SS = _move(grey_I1SS, uniform_I6, settings).clamp(0, 1)
    if settings.gamma:
        grey_I1SS = adjust_gamma(grey_I1SS.clamp(min=1e-6), (uniform_I6[:, 4] * settings.gamma).exp())
    if settings.blur:
        sigma_I = (uniform_I6[:, 5] * settings.blur).clamp(min=_SHARP)  # half of the images stay as sharp as they are
        grey_I1SS = gaussian_blur2d(grey_I1SS, _BLUR_KERNEL, sigma_I[:, None].expand(-1, 2), border_type="replicate")
    if settings.noise:
        grey_I1SS = grey_I1SS + settings.noise * _noise(grey_I1SS, seed_I)
    return (grey_I1SS - MODEL_MEAN) / MODEL_STD


def augment_masks(mask_I1SS: Tensor, seed_I: Tensor, settings: AugmentSettings) -> Tensor:
    """Move masks as `augment` moves the images of the same seeds; bool, [I, 1, S, S]."""
    if not settings.enabled or not len(mask_I1SS):
        return mask_I1SS
    return _move(mask_I1SS.float(), _draws(seed_I), settings) >= 0.5


def _draws(seed_I: Tensor) -> Tensor:
    return 2 * uniform(seed_I[:, None], torch.arange(6, device=seed_I.device)) - 1


def uniform(seed: Tensor, stream: Tensor) -> Tensor:
    """Return uniform numbers in [0, 1) that depend on seed and stream alone, on any device; float32, broadcast.

    A counter-based generator: the finaliser of SplitMix (Steele et al., OOPSLA 2014) in its 32-bit form, on 64-bit
    integers, since few devices have unsigned arithmetic.
    """
    state = (seed ^ (seed >> 32)) & _LOW_32
    state = (state + (stream + 1) * 0x9E3779B9) & _LOW_32
    for _ in range(2):  # once leaves neighbouring streams of neighbouring seeds related
        state = ((state ^ (state >> 16)) * 0x21F0AAAD) & _LOW_32
        state = ((state ^ (state >> 15)) * 0x735A2D97) & _LOW_32
        state = state ^ (state >> 15)
    return (state >> 8).to(torch.float32) / (1 << 24)


def _noise(grey_I1SS: Tensor, seed_I: Tensor) -> Tensor:
    """Noise of unit variance and triangular density: the sum of two uniform numbers a pixel."""
    pixel = torch.arange(grey_I1SS[0].numel(), device=grey_I1SS.device)
    # One number of 24 bits gives both: 12 bits are more than the grey values of a detector have.
    both_IX = uniform(seed_I[:, None], _NOISE_STREAM + pixel) * (1 << 12)
    first_IX = both_IX.floor()
    triangular_IX = first_IX / (1 << 12) + (both_IX - first_IX) - 1
    return (triangular_IX * 6**0.5).view_as(grey_I1SS)


def _move(grey_I1SS: Tensor, uniform_I6: Tensor, settings: AugmentSettings) -> Tensor:
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine

    side = grey_I1SS.shape[-1]
    count = len(grey_I1SS)
    affine_I33 = get_affine_matrix2d(
        translations=uniform_I6[:, 2:4] * settings.shift * side,
        center=torch.full((count, 2), (side - 1) / 2, device=grey_I1SS.device),
        scale=(1 + uniform_I6[:, 1:2] * settings.scale).expand(-1, 2),
        angle=uniform_I6[:, 0] * settings.rotation,
    )
    # A warp of the same size that keeps the edge going, as a detector that was a little larger would have.
    moved_I1SS: Tensor = warp_affine(
        grey_I1SS, affine_I33[:, :2], (side, side), padding_mode="border", align_corners=True
    )
    return moved_I1SS
