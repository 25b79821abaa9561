"""Augmentation that is safe for chest X-rays: small shifts, zooms, rotations, exposure, blur and noise.

A strong crop cuts findings off, and a horizontal flip swaps left and right, heart and liver included: it is off unless
it is asked for, and then the findings are swapped with the image (`medfilip.findings.mirror`). The parameters of each
image come from its own seed, so that they do not depend on how a batch is split among processes; kornia applies them.

Legend of tensor names: N images, S side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medfilip.imaging.preprocess import MODEL_MEAN, MODEL_STD
from medfilip.training.settings import AugmentSettings

_BLUR_KERNEL = 5
_SHARP = 1e-3  # a blur of this many pixels changes nothing that float32 shows


def augment(
    pixels_N1SS: Tensor, seeds: Sequence[int], settings: AugmentSettings, flipped: Sequence[bool] | None = None
) -> Tensor:
    """Augment model input; the same seed gives the same change.

    Parameters
    ----------
    pixels_N1SS
        float32, as `medfilip.imaging.preprocess.to_model` gives it.
    seeds
        One an image.
    settings
        Largest changes.
    flipped
        Which images are mirrored; their findings are the caller's to swap.

    Returns
    -------
    Tensor
        float32, [N, 1, S, S], in the range of the input: a model meets the same grey values in training and in use.
    """
    if not settings.enabled or not len(pixels_N1SS):
        return pixels_N1SS
    from kornia.enhance import adjust_gamma
    from kornia.filters import gaussian_blur2d
    from kornia.geometry.transform import hflip

    generators = [torch.Generator().manual_seed(seed % (1 << 63)) for seed in seeds]
    uniform_N6 = torch.stack([torch.rand(6, generator=generator) * 2 - 1 for generator in generators])
    noise_N1SS = torch.stack([torch.randn(pixels_N1SS.shape[1:], generator=generator) for generator in generators])
    grey_N1SS = pixels_N1SS * MODEL_STD + MODEL_MEAN
    if flipped is not None and any(flipped):
        mirrored_N = torch.tensor(list(flipped))
        grey_N1SS = torch.where(mirrored_N[:, None, None, None], hflip(grey_N1SS), grey_N1SS)
    grey_N1SS = _move(grey_N1SS, uniform_N6, settings).clamp(0, 1)
    if settings.gamma:
        grey_N1SS = adjust_gamma(grey_N1SS.clamp(min=1e-6), (uniform_N6[:, 4] * settings.gamma).exp())
    if settings.blur:
        sigma_N = (uniform_N6[:, 5] * settings.blur).clamp(min=_SHARP)  # half of the images stay as sharp as they are
        grey_N1SS = gaussian_blur2d(grey_N1SS, _BLUR_KERNEL, sigma_N[:, None].expand(-1, 2), border_type="replicate")
    return (grey_N1SS + settings.noise * noise_N1SS - MODEL_MEAN) / MODEL_STD


def _move(grey_N1SS: Tensor, uniform_N6: Tensor, settings: AugmentSettings) -> Tensor:
    from kornia.geometry.transform import get_affine_matrix2d, warp_affine

    side = grey_N1SS.shape[-1]
    count = len(grey_N1SS)
    affine_N33 = get_affine_matrix2d(
        translations=uniform_N6[:, 2:4] * settings.shift * side,
        center=torch.full((count, 2), (side - 1) / 2),
        scale=(1 + uniform_N6[:, 1:2] * settings.scale).expand(-1, 2),
        angle=uniform_N6[:, 0] * settings.rotation,
    )
    # A warp of the same size that keeps the edge going, as a detector that was a little larger would have.
    moved_N1SS: Tensor = warp_affine(
        grey_N1SS, affine_N33[:, :2], (side, side), padding_mode="border", align_corners=True
    )
    return moved_N1SS
