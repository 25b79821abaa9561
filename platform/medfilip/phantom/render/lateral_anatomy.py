"""Anatomy of a left lateral image: sternum in front (left), spine behind, heart and both hemidiaphragms between.

Proportions follow the textbook lateral: clear spaces behind the sternum and behind the heart, a spine that darkens
downwards, a posterior costophrenic angle below the domes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from medfilip.phantom.render.field import (
    Field,
    bump,
    chord,
    curve,
    noise_patch,
    smooth_noise,
    step,
    unit,
)
from medfilip.phantom.render.geometry import Plane
from medfilip.phantom.render.thorax import AIR, unit_ramp
from medfilip.phantom.render.vessels import blurred_tree, grow

_NORMAL_DOME = 0.672


class Lateral(Plane):
    """Geometry of one left lateral image: ``x`` grows from front to back, 0 in the middle of the field."""

    @cached_property
    def x(self) -> Field:
        """Position from front to back ``[1, W]``."""
        return self.across

    @cached_property
    def dome(self) -> float:
        """Height of the top of the right hemidiaphragm."""
        return self.patient.dome - 0.5 * self.exposure.breath + self.shape.inflation

    @cached_property
    def front(self) -> Field:
        """Inner side of the sternum ``[H, 1]``; a hyperinflated chest is deeper."""
        deep = -0.5 * self.shape.inflation
        knots = [
            (0.10, -0.04),
            (0.17, -0.155),
            (0.30, -0.228 + deep),
            (0.48, -0.268 + deep),
            (0.62, -0.268 + deep),
            (0.74, -0.235 + deep),
        ]
        return curve(self.y, knots)

    @cached_property
    def back(self) -> Field:
        """Inner side of the posterior chest wall ``[H, 1]``."""
        return curve(self.y, [(0.11, 0.02), (0.16, 0.13), (0.26, 0.235), (0.45, 0.292), (0.65, 0.290), (0.85, 0.255)])

    @cached_property
    def spine(self) -> Field:
        """Middle of the vertebral bodies ``[H, 1]``: the kyphosis of the thoracic spine."""
        return curve(self.y, [(0.0, 0.035), (0.12, 0.070), (0.28, 0.170), (0.47, 0.215), (0.68, 0.195), (0.95, 0.130)])

    def floor(self, lower: float = 0.0) -> Field:
        """Height of a hemidiaphragm ``[1, W]``, ``lower`` than the right one, that ends in the posterior angle."""
        u = (self.x + 0.06) * (1 / 0.33)
        behind = np.where(u > 0, np.float32(1.0), np.float32(0.42))
        flat = 1.0 - 6.0 * max(self.shape.inflation, 0.0)
        fall = (0.155 + (_NORMAL_DOME - self.dome) * 0.75) * u * u * behind * (0.75 + 0.25 * u * u)
        floor: Field = (self.dome - 0.022 + lower + flat * fall).astype(np.float32)
        return floor

    @cached_property
    def heart_axes(self) -> tuple[float, float, float, float]:
        """Centre and half axes of the heart."""
        ratio = self.shape.heart if self.shape.heart is not None else self.patient.heart
        size = 0.118 + 0.17 * (ratio - 0.44)
        drop = 0.8 * (self.dome - _NORMAL_DOME)
        return -0.130 + 0.55 * (size - 0.118), 0.562 + drop, size * 1.10, size * 1.20

    @cached_property
    def heart(self) -> Field:
        """Depth inside the border of the heart, in shares of its size ``[H, W]``."""
        x0, y0, a, b = self.heart_axes
        u, v = (self.x - x0) * np.float32(1 / a), (self.y - y0) * np.float32(1 / b)
        u = np.where(u < 0, 0.80 * u, u)  # the right ventricle leans on the sternum
        v = np.where(v > 0, 0.72 * v, v)
        inside: Field = 1.0 - np.sqrt(u * u + v * v - 0.70 * u * v)
        return inside

    @cached_property
    def hilum(self) -> tuple[float, float]:
        """Place where the vessels of both lungs cross."""
        return -0.005, 0.425 + 0.35 * (self.dome - _NORMAL_DOME)


def body(g: Lateral) -> Field:
    """Attenuation of the soft tissue ``[H, W]``: a trunk seen from its broad side, and the raised arms."""
    fat = g.patient.habitus
    belly = 0.03 + 0.07 * fat
    skin_front = curve(
        g.y,
        [
            (0.0, -0.15), (0.07, -0.16), (0.17, -0.215), (0.30, -0.265 - 0.4 * belly), (0.5, -0.305 - 0.5 * belly),
            (0.75, -0.31 - belly), (1.0, -0.31 - belly),
        ],
    )  # fmt: skip
    skin_back = curve(
        g.y, [(0.0, 0.17), (0.09, 0.235), (0.25, 0.325), (0.45, 0.36 + 0.3 * belly), (0.75, 0.345), (1.0, 0.30)]
    )
    breast = g.patient.breast * 0.05 * bump(((g.y - 0.55) * (1 / 0.16)) ** 2)
    wide = curve(g.y, [(0.0, 15.0), (0.12, 24.0), (0.25, 28.0), (0.5, 29.0), (0.75, 28.0), (1.0, 27.0)]) * (
        0.92 + 0.2 * fat
    )
    middle, half = 0.5 * (skin_front + skin_back), 0.5 * (skin_back - skin_front)
    ratio = (g.x - middle) / (half + np.where(g.x < middle, breast, np.float32(0.0)))
    trunk = wide * np.sqrt(unit(1.0 - ratio * ratio))
    arm = 15.0 * chord(0.105 - np.abs((g.y - 0.035) + 0.30 * (g.x + 0.12) + 0.9 * (g.x + 0.1) * (g.x + 0.1)), 0.10)
    arm = arm * step(0.05 - g.x, 0.30)
    shoulder = 8.0 * bump(((g.x - 0.03) * (1 / 0.26)) ** 2 + ((g.y - 0.12) * (1 / 0.14)) ** 2)
    tissue: Field = np.maximum(trunk, arm) + shoulder * (trunk > 1.0)
    return tissue


def lungs(g: Lateral) -> Field:
    """Thickness of both lungs along the beam, cm, without heart and hila ``[H, W]``."""
    deep = (21.5 + 2.0 * g.patient.habitus) * (1.0 + 1.4 * g.shape.inflation)
    along = deep * curve(g.y, [(0.10, 0.15), (0.18, 0.42), (0.30, 0.80), (0.45, 1.0), (0.8, 1.0)])
    depth = along * chord(np.minimum(g.x - g.front, g.back - g.x), 0.10)
    right, left = g.floor(), g.floor(0.022)
    share = 0.5 * step(right - g.y, 0.005) + 0.5 * step(left - g.y, 0.005) * step(g.x + 0.10, 0.02)
    share += 0.5 * step(left - g.y, 0.02) * step(-0.10 - g.x, 0.02)
    depth *= share
    between = 0.36 * bump(((g.x - 0.02) * (1 / 0.20)) ** 2) * step(0.62 - g.y, 0.3)  # mediastinum and hila
    return depth * (1.0 - between)


def anatomy(g: Lateral, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Attenuation of a chest, thickness of aerated lung (cm) and what vessels and texture add, ``[H, W]`` each."""
    tissue = body(g)
    air = lungs(g)
    heart = 0.56 * chord(g.heart + 0.06 * step(-g.x - 0.12, 0.1), 0.95)
    air *= 1.0 - heart
    hx, hy = g.hilum
    cluster = bump(((g.x - hx) * (1 / 0.055)) ** 2 + ((g.y - hy) * (1 / 0.065)) ** 2)
    air *= 1.0 - 0.18 * cluster
    np.minimum(air, np.maximum(tissue - 2.5, 0.0), out=air)
    density = tissue - np.float32(AIR) * air
    kind, strength = g.exposure.style.texture
    marks = noise_patch(kind, rng, g.size) * np.float32(0.9 * strength)
    marks += 0.30 * smooth_noise(rng, g.size, g.size, 16)
    marks *= unit(air * np.float32(1 / 12.0))
    marks += _vessels(g) * unit(air * np.float32(1 / 5.0))
    density += marks
    density -= _trachea(g)
    density += _aorta(g)
    _bones(g, density)
    np.maximum(density, 0.0, out=density)
    return density, air, marks


def _vessels(g: Lateral) -> Field:
    """Vessels of both lungs, which cross at the hilum and spread to front and back."""
    x, y = g.hilum
    levels = grow(np.random.default_rng([g.patient.tree, 6]), [(x + 0.012, y, 1.0), (x - 0.012, y, -1.0)])
    return 2.6 * blurred_tree(g, g.everywhere, levels)


def _trachea(g: Lateral) -> Field:
    """Air of trachea and of the left upper bronchus seen end on, cm ``[H, W]``."""
    x, y = g.hilum
    middle = curve(g.y, [(0.0, -0.045), (0.2, -0.020), (y - 0.06, x - 0.002)])
    tube = 3.0 * np.sqrt(unit(1.0 - ((g.x - middle) * (1 / 0.024)) ** 2))
    tube = tube * step(y - 0.045 - g.y, 0.03) * step(g.y - 0.02, 0.05)
    ring = np.sqrt((g.x - x) ** 2 + (g.y - y + 0.01) ** 2)
    return np.maximum(tube, 2.6 * step(0.014 - ring, 0.008))


def aortic_arch(g: Lateral) -> tuple[float, float, float]:
    """Centre and radius of the arch of the aorta."""
    aorta = g.patient.aorta if g.shape.aorta is None else g.shape.aorta
    return 0.028 + 0.02 * aorta, 0.325, 0.055 + 0.028 * aorta


def _aorta(g: Lateral) -> Field:
    """Arch and descending aorta, cm of tissue instead of air ``[H, W]``; the older, the better seen."""
    aorta = g.patient.aorta if g.shape.aorta is None else g.shape.aorta
    x, y, radius = aortic_arch(g)
    ring = np.abs(np.sqrt((g.x - x) ** 2 + (g.y - y) ** 2) - np.float32(radius))
    arch = chord(0.024 - ring, 0.02) * step(y + 0.02 - g.y, 0.02)
    line = x + radius + (0.02 + 0.03 * aorta) * np.clip(g.y - y, 0.0, 0.3)
    descending = chord(0.024 - np.abs(g.x - line), 0.02) * step(g.y - y, 0.03) * step(0.70 - g.y, 0.2)
    tissue: Field = (0.5 + 1.5 * aorta) * np.maximum(arch, descending)
    return tissue


def _bones(g: Lateral, density: Field) -> None:
    """Add spine, sternum, ribs and the edges of the scapulae, in place."""
    amount = g.patient.bone * g.exposure.style.ribs
    off = g.x - g.spine
    half = curve(g.y, [(0.0, 0.024), (0.3, 0.031), (0.7, 0.040), (1.0, 0.044)])
    level = (g.y - 0.02 + 0.28 * off) * (1 / 0.050) - 0.9 * unit(g.y - 0.2) * g.y
    part = level - np.floor(level)
    disc = step(0.37 - np.abs(part - 0.5), 0.10)
    plate = step(0.05 - np.abs(np.abs(part - 0.5) - 0.35), 0.05)
    bodies = chord(half - np.abs(off), 0.010) * (0.15 + 1.6 * disc + 1.3 * plate)
    posterior = step(0.018 - np.abs(off - half - 0.030), 0.012) * (0.5 + 0.5 * step(0.25 - np.abs(part - 0.6), 0.1))
    density += amount * (bodies + 1.4 * posterior)
    bone = step(0.011 - np.abs(g.x - g.front + 0.011), 0.006) * step(g.y - 0.175, 0.02) * step(0.60 - g.y, 0.03)
    joints = 1.0 - 0.5 * step(0.006 - np.abs(g.y - 0.26), 0.006)
    density += (2.2 * amount) * bone * joints
    inside = step(np.minimum(g.x - g.front, g.back + 0.02 - g.x), 0.02)
    for slope, spacing, shift in ((0.62, 0.058, 0.0), (0.50, 0.060, 0.45)):
        phase = (g.y + slope * (g.x - 0.25) * (1.0 + 0.9 * (0.28 - g.x)) + shift * spacing) * (1 / spacing)
        side = np.abs(phase - np.floor(phase) - 0.5) * (1 / 0.20)
        band = (0.45 + 0.55 * side * side) * unit((1.05 - side) * 6.0)
        density += (0.80 * amount) * band * inside * unit_ramp(g.x + 0.20, 0.30)
    for shift in (0.0, 0.028):
        edge = curve(g.y, [(0.12, 0.16), (0.25, 0.255 + shift), (0.42, 0.300 + shift), (0.50, 0.285 + shift)])
        line = step(0.004 - np.abs(g.x - edge), 0.006) * step(np.minimum(g.y - 0.13, 0.49 - g.y), 0.03)
        density += (1.3 * amount) * line
