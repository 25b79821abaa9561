"""Findings of the pleura on a frontal image, and of the air below the diaphragm and under the skin."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Patch
from medfilip.phantom.render.field import Field, blur, enlarge, noise_patch, step, unit
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal

_EFFUSION = {"minimal": 0.085, "mild": 0.140, "moderate": 0.245, "severe": 0.39}  # height at the wall
_PNEUMOTHORAX = {"mild": 0.030, "moderate": 0.055, "severe": 0.095}  # width at mid-height
_FREE_AIR = {"mild": 0.014, "moderate": 0.025, "severe": 0.040}  # thickness under the dome
_EMPHYSEMA = {"mild": 1.0, "moderate": 1.6, "severe": 2.3}  # cm of water


def pleural_effusion(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Fill the costophrenic angle; the surface is a meniscus that climbs to the side. Supine it layers and veils."""
    g, side = canvas.g, lesion.laterality or LEFT
    window = canvas.g.half(side)
    off, y = canvas.g.own(side, window), g.y
    height = _EFFUSION[lesion.severity or "mild"]
    cage = float(g.cage.max())
    outward = unit(off * np.float32(1 / cage))
    angle = g.dome_at(side) + 0.115 - 0.35 * (g.dome_at(side) - 0.68)
    square = outward * outward
    climb = (0.58 if height > 0.1 else 0.30) + 0.05 * (float(rng.random()) - 0.5)
    surface = np.float32(angle) - np.float32(height) * (climb + (1.0 - climb) * square * square)
    depth = y - surface
    soft = 0.030 if not g.exposure.portable else 0.055
    # Fluid thins out upwards between the lung and the wall before and behind it.
    share = np.maximum(step(depth - 0.3 * soft, soft), np.float32(0.45) * step(depth + 0.035, 0.09))
    if g.exposure.portable and height > 0.15:
        veil = unit((y - 0.25) * 1.6) * np.float32(0.9 * height)
        share = np.maximum(share, veil)
    share *= canvas.air[window] > 0.05
    return Patch(window, canvas.fill(window, share, 1.0), 0.6)


def pneumothorax(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Part the lung from the wall: a thin pleural line, and beyond it air without any markings."""
    g, side = canvas.g, lesion.laterality or LEFT
    window = canvas.g.half(side)
    off, y = canvas.g.own(side, window), g.y
    inner: Field
    width = _PNEUMOTHORAX[lesion.severity or "mild"] * (0.92 + 0.16 * float(rng.random()))
    if lesion.site == "lung_apex":
        # A cap measured from the apex down: a lung that sank, not one that shrank.
        lowered = g.cage_at(y - np.float32(2.3 * width)) + np.float32(0.35) * np.clip(y - 0.30, 0.0, 0.2)
        inner = np.minimum(lowered, g.cage) - off - np.float32(0.004)
    else:
        # The lung keeps its hilum and draws back from the side and from the apex.
        lowered = g.cage_at(y - np.float32(1.5 * width))
        inner = lowered - off - np.float32(width)
    lung = canvas.air[window] > 0.4
    lung &= off > 0.03
    free = step(-inner, 0.004) * lung
    line = unit(1.0 - np.abs(inner) * np.float32(1 / 0.0055)) * lung
    change = -free * (canvas.marks[window] + np.float32(0.175) * canvas.air[window])
    change += np.float32(0.95) * line
    # What has shrunk holds less air, a little.
    change += np.float32(1.6 * width) * canvas.air[window] * step(inner, 0.01) * lung
    visible = np.where(free > 0.5, np.float32(1.0), line)
    canvas.density[window] += change
    canvas.note(lesion.key, window, (visible > 0.4) & lung)
    return Patch(window, np.zeros_like(change), 0.0)


def pneumoperitoneum(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a crescent of free air between the right hemidiaphragm, which becomes a thin line, and the liver."""
    g = canvas.g
    window = g.window(-0.17, g.dome_at(RIGHT) + 0.05, 0.19, 0.13)
    off, y = canvas.g.own(RIGHT, window), g.y[window[0]]
    thick = _FREE_AIR[lesion.severity or "mild"]
    middle = 0.15 + 0.03 * (float(rng.random()) - 0.5)
    u = (off - middle) * np.float32(1 / (0.10 + 1.4 * thick))
    below = g.floor[:, window[1]] + np.float32(0.0085)
    crescent = np.float32(thick) * unit(1.0 - u * u)
    gas = step(np.minimum(y - below, below + crescent - y) + np.float32(0.001), 0.004) * (crescent > 0.0015)
    return Patch(window, -gas * np.float32(7.5) * unit(canvas.density[window] * 0.06), 1.0)


def subcutaneous_emphysema(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Streak the chest wall and the shoulder with air between the muscles."""
    g, side = canvas.g, lesion.laterality or LEFT
    window = canvas.g.half(side)
    off, y = canvas.g.own(side, window), g.y
    coarse = noise_patch("mesh", rng, max(g.size // 2, 64))[:, : max(g.size // 7, 16)]
    streaks = enlarge(coarse, g.size, g.size)
    mesh = np.maximum(blur(streaks)[window] - np.float32(0.05), 0.0)
    amount = _EMPHYSEMA[lesion.severity or "mild"]
    low = 0.40 + 0.09 * amount
    region = step(off - (g.cage + 0.008), 0.012) * step(np.float32(low) - y, 0.10) * step(y - 0.07, 0.05)
    region *= unit(canvas.density[window] * np.float32(0.25))
    fibres = 0.75 + 0.25 * smooth_stripes(y + 0.7 * off)
    return Patch(window, -np.float32(amount) * 1.9 * mesh * region * fibres, 0.30)


def smooth_stripes(phase: Field) -> Field:
    """Triangular wave in [-1, 1] with a period of 0.03: fibres of the pectoral muscle."""
    part = phase * np.float32(1 / 0.03)
    part -= np.floor(part)
    stripes: Field = np.abs(part - np.float32(0.5)) * np.float32(4.0) - np.float32(1.0)
    return stripes
