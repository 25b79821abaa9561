"""Findings of both lungs at once: oedema and interstitial opacity."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Patch
from medfilip.phantom.render.field import bump, enlarge, noise_patch, smooth_noise, step, unit
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal
from medfilip.phantom.render.vessels import vessel_tree

_EDEMA = {"mild": (0.17, 0.7, 0.5), "moderate": (0.38, 0.9, 0.55), "severe": (0.68, 0.5, 0.4)}
"""Share of the air filled around the hila, strength of the septal lines, and of the engorged vessels."""
_RETICULAR = {"mild": 1.15, "moderate": 1.85, "severe": 2.8}  # cm of water


def edema(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw engorged and blurred vessels, haze around the hila, septal (Kerley B) lines; when severe, filled airspaces.

    The order is that of rising pressure in the left atrium (Milne et al., AJR 1985).
    """
    g = canvas.g
    window = canvas.g.everywhere
    share, lines, vessels = _EDEMA[lesion.severity or "mild"]
    hila = np.where(g.is_left, np.float32(g.hila[LEFT][0]), np.float32(g.hila[RIGHT][0]))
    across, down = g.off - hila - np.float32(0.03), g.y - np.float32(g.hila[RIGHT][1] + 0.05)
    near = unit(1.5 * bump(across * across * (1 / 0.24**2) + down * down * (1 / 0.32**2)))
    lumps = smooth_noise(rng, g.size, g.size, 16)
    lumps *= np.float32(0.22)
    near *= np.float32(1.0) + lumps
    haze = np.float32(share) * near + np.float32(0.10 + 0.10 * share)
    change = canvas.fill(window, haze * (canvas.air > 0.5), 0.9)
    low = step(g.y - np.float32(g.dome - 0.17), 0.08) * step(g.off - (g.cage - np.float32(0.055)), 0.02)
    rows = (g.y - np.float32(g.dome)) * np.float32(1 / 0.019) + 1.5 * g.off + np.float32(2.5) * lumps
    rows -= np.floor(rows)
    change += (
        (np.float32(1.1 * lines) + np.float32(2.5 * lines) * lumps)
        * low
        * step(np.float32(0.13) - np.abs(rows - 0.5), 0.12)
        * (canvas.air > 1.0)
    )
    tree = vessel_tree(g, fresh=1)
    tree *= unit(canvas.air[g.thorax] * np.float32(0.25))
    change[g.thorax] += np.float32(3.0 * vessels) * tree
    return Patch(window, change, 0.45)


def interstitial_opacity(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw a net of thickened septa, densest at the periphery of the bases."""
    g = canvas.g
    window = canvas.g.everywhere
    coarse = noise_patch("mesh", rng, max(g.size // 2, 64))
    mesh = enlarge(coarse, g.size, g.size)
    np.maximum(mesh, 0.0, out=mesh)
    low = step(g.y - np.float32(g.dome - 0.24), 0.30)
    outer = 0.45 + 0.55 * step(g.off - 0.55 * g.cage, 0.20)
    amount = np.float32(_RETICULAR[lesion.severity or "mild"])
    mesh *= amount * (0.25 + 0.75 * low) * outer
    mesh += np.float32(0.22) * amount * low * outer
    mesh *= np.clip(canvas.air * np.float32(1 / 7.0), 0.0, 1.1)
    return Patch(window, mesh, 0.18)
