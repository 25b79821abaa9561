"""From attenuation to pixel values: scatter, quantum noise, grid, tone curve, sharpening and collimation."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from medfilip.phantom.render.field import Field, blur, enlarge, halve, noise_patch, unit
from medfilip.phantom.render.patient import Exposure

MAX_VALUE = 4095
"""Largest pixel value: 12 bits."""

_MEAN = 14.0  # attenuation of an average chest, cm of water
_MIDDLE = 0.45  # brightness that contrast leaves alone


def veil(density: Field) -> Field:
    """Attenuation smoothed over some centimetres, ``[H, W]``: what scatter adds, and what processing takes away."""
    small = density
    while small.shape[0] > 40:
        small = halve(small)
    small = blur(blur(small), 2)
    return enlarge(small, density.shape[0], density.shape[1])


def expose(density: Field, smooth: Field, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Turn attenuation into 12-bit values, larger is brighter.

    Parameters
    ----------
    density
        Attenuation of the image, cm of water ``[H, W]``.
    smooth
        `veil` of the chest without its lesions: a lesion leaves the rest of the image alone.
    exposure
        Style, dose, gain and contrast.
    rng
        For the noise.
    """
    style = exposure.style
    size = density.shape[0]
    hidden = np.float32(style.scatter + style.flatten)
    signal = smooth * -hidden
    signal += hidden * np.float32(_MEAN)
    signal *= unit(density * np.float32(0.2))  # beside the body there is nothing to hide
    signal += density
    signal *= np.float32(1.0 - 0.6 * style.scatter)
    for _ in range(style.soften):
        signal = blur(signal)
    # The fewer quanta arrive, the larger is their relative scatter: it grows with the square root of the loss.
    strength = signal * np.float32(0.55 / 14.0)
    strength += np.float32(0.25)
    strength *= signal
    strength *= np.float32(1 / 14.0)
    strength += np.float32(0.35)
    strength *= noise_patch(style.grain, rng, size)
    strength *= np.float32(style.noise * math.sqrt(1 / exposure.dose))
    signal += strength
    if style.grid:
        lines = np.arange(size) % 4
        signal += np.float32(style.grid) * (np.float32(0.5) * (lines == 0) - np.float32(0.5) * (lines == 2))
    value = tone(signal, exposure)
    if style.sharpen[0]:
        value += np.float32(style.sharpen[0]) * (value - blur(value))
    if style.sharpen[1]:
        coarse = blur(blur(halve(halve(value))))
        value += np.float32(style.sharpen[1]) * (value - enlarge(coarse, size, size))
    value *= np.float32(MAX_VALUE)
    np.rint(value, out=value)
    return np.clip(value, 0, MAX_VALUE).astype(np.uint16)


def tone(signal: Field, exposure: Exposure) -> Field:
    """Characteristic curve of the detector and its processing: attenuation to brightness (about 0 to 1)."""
    style = exposure.style
    u = signal * np.float32(exposure.gain / style.half)
    np.maximum(u, np.float32(0.0), out=u)
    power = u * u
    if style.steep:
        power *= u
    value: Field = power / (power + np.float32(1.0))
    value *= np.float32((style.shoulder - style.toe) / (0.86 if style.steep else 0.82) * exposure.contrast)
    value += np.float32((style.toe - _MIDDLE) * exposure.contrast + _MIDDLE)
    return value
