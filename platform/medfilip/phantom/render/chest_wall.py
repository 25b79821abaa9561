"""Findings of bones, vessels and the hiatus on a frontal image; and pixels of findings that shape the whole chest."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.bones import posterior_shell, rib_phase
from medfilip.phantom.render.canvas import Canvas, Patch, sign
from medfilip.phantom.render.field import chord, step
from medfilip.phantom.render.geometry import LEFT, Frontal

_HERNIA = {"mild": 0.042, "moderate": 0.062, "severe": 0.088}  # half width


def rib_fracture(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Break two or three neighbouring ribs at the side: a gap, and ends that have slipped past each other."""
    g, side = canvas.g, lesion.laterality or LEFT
    first = int(rng.integers(4, 7))
    count = int(rng.integers(2, 4))
    at = 0.70 + 0.14 * float(rng.random())
    y = 0.150 + 0.0585 * (first + 0.5 * count) + 0.075
    cage = float(g.cage_at(np.array([[y]], np.float32))[0, 0])
    x = at * cage
    window = g.window(sign(side) * x, y, 0.062, 0.045 + 0.032 * count)
    off, row = canvas.g.own(side, window), g.y[window[0]]
    wall = g.cage[window[0]]
    phase = rib_phase(g, off, row, wall, left=side is LEFT)
    own = (phase >= first) & (phase < first + count)
    slip = 0.34 + 0.16 * float(rng.random())
    blend = step(off - at * wall, 0.012) * step(0.055 - (off - at * wall), 0.03)
    moved = posterior_shell(phase - slip * blend)
    gap = step(0.0042 - np.abs(off - at * wall - 0.02 * (phase - np.floor(phase) - 0.5)), 0.004)
    amount = np.float32(2.1 * max(g.patient.bone, 0.85) * g.exposure.style.ribs)
    before = posterior_shell(phase)
    change = (moved * (1.0 + 0.35 * blend) - before) * amount - gap * before * amount * 1.3
    change *= own & (off < wall + 0.008)
    return Patch(window, change, 0.25)


def hiatal_hernia(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a part of the stomach behind the heart: a round border, and gas above a level of fluid."""
    g = canvas.g
    half = _HERNIA[lesion.severity or "mild"]
    x = 0.028 + 0.03 * (float(rng.random()) - 0.3) + g.front
    y = g.dome + 0.002 - 0.75 * half
    window = g.window(x, y, 1.5 * half, 1.5 * half)
    across, down = g.x[window] - np.float32(x), g.y[window[0]] - np.float32(y)
    distance = np.sqrt(across * across * np.float32(1 / half**2) + down * down * np.float32(1 / (0.92 * half) ** 2))
    sac = np.float32(2.1) * chord(1.0 - distance, 0.5) * step(g.floor[:, window[1]] + 0.02 - g.y[window[0]], 0.02)
    level = (0.12 + 0.3 * float(rng.random())) * half
    gas = step(0.86 - distance, 0.10) * step(np.float32(level) - down, 0.005)
    return Patch(window, sac - np.float32(5.6) * gas, 0.6)


def aortic_calcification(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Line the wall of the aortic knob with a shell of calcium."""
    g = canvas.g
    aorta = g.patient.aorta if g.shape.aorta is None else g.shape.aorta
    top = 0.289 - 0.014 * aorta
    window = g.window(g.front + 0.055, top, 0.06, 0.05)
    inside = g.left_border[window[0]] - g.x[window]
    pixel = 1.0 / (g.size * g.exposure.zoom)  # never thinner than what an image can show
    arc = step(max(0.0046, 0.5 * pixel) - np.abs(inside - 0.0068), max(0.004, 0.8 * pixel))
    breaks = 0.72 + 0.28 * (np.floor((g.y[window[0]] + float(rng.random())) * 90.0) % 3 > 0)
    arc = arc * step(0.036 - np.abs(g.y[window[0]] - top), 0.008) * breaks
    return Patch(window, np.float32(5.2) * arc, 0.8)


def note_shape(canvas: Canvas[Frontal], lesion: Lesion) -> None:
    """Note where a finding is seen that shapes the chest as a whole and so is drawn with it."""
    g, window = canvas.g, canvas.g.everywhere
    if lesion.category == "cardiomegaly":
        mask = g.heart > 0.5
    elif lesion.category == "scoliosis":
        mask = (np.abs(g.x - g.spine) < 0.042) & (g.y > 0.12) & (g.y < 0.80)
    elif lesion.category == "tortuous_aorta":
        knob = (np.abs(g.y - 0.275) < 0.05) & (g.inside_border > 0) & (g.x > 0.012)
        mask = knob | ((g.y > 0.27) & (g.y < 0.60) & (g.x > 0.012) & (g.x < 0.10) & (g.inside_border > 0))
    else:
        mask = canvas.air > 1.5
    canvas.note(lesion.key, window, np.broadcast_to(mask, (g.size, g.size)))
