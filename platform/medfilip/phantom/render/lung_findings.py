"""Focal findings of the lung on a frontal image: consolidation, atelectasis, nodule, mass and cavity."""

from __future__ import annotations

import math

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Patch, sign
from medfilip.phantom.render.field import FIELD_MM, Field, chord, smooth_noise, step, unit
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal, Window

_LOBE_HEIGHT = {"upper_lobe": 0.275, "middle_lobe": 0.525, "lower_lobe": 0.60}
_SPREAD = {"upper_lobe": 0.05, "middle_lobe": 0.03, "lower_lobe": 0.035}
_MINOR_FISSURE = 0.455  # height of the horizontal fissure of the right lung
_CONSOLIDATION = {"mild": (0.075, 0.50), "moderate": (0.098, 0.66), "severe": (0.125, 0.85)}  # radius, share filled


def place(g: Frontal, lesion: Lesion, rng: np.random.Generator, reach: float) -> tuple[float, float]:
    """Distance from the midline and height of a lesion's centre: in its lobe, between the mediastinum and the wall.

    ``reach`` (fractions of the field) is kept from the wall.
    """
    assert lesion.laterality is not None
    site = lesion.site or "lower_lobe"
    drop = (g.dome_at(lesion.laterality) - 0.68) * {"upper_lobe": 0.15, "middle_lobe": 0.6, "lower_lobe": 0.95}[site]
    y = _LOBE_HEIGHT[site] + drop + _SPREAD[site] * (2.0 * float(rng.random()) - 1.0)
    row = min(max(int(g.pixel(0.0, y)[0]), 0), g.size - 1)
    border = float((g.left_border if lesion.laterality is LEFT else g.right_border)[row, 0])
    wall = float(g.cage[row, 0])
    inner, outer = max(border, 0.09) + 0.5 * reach, wall - 0.012 - 0.75 * reach
    x = inner + max(outer - inner, 0.0) * (0.15 + 0.7 * float(rng.random()))
    return x, y


def consolidation(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Fill a part of a lobe: blotchy, soft at its border unless a fissure bounds it, with an air bronchogram."""
    g = canvas.g
    radius, share = _CONSOLIDATION[lesion.severity or "mild"]
    x, y = place(g, lesion, rng, 0.5 * radius)
    window = g.window(sign(lesion.laterality) * x, y, 1.75 * radius, 1.6 * radius)
    across, down = canvas.g.own(lesion.laterality or LEFT, window) - x, g.y[window[0]] - y
    rows, columns = across.shape
    lumps = smooth_noise(rng, rows, columns, 5)
    fine = smooth_noise(rng, rows, columns, 14)
    squared = across * across * (0.72 / radius**2) + down * down * (1 / radius**2)
    body = step(1.0 - squared + 0.55 * lumps + 0.20 * fine, 1.1)
    if lesion.laterality is RIGHT and lesion.site in ("upper_lobe", "middle_lobe"):
        above = _MINOR_FISSURE + (g.dome - 0.672) * 0.5 - g.y[window[0]] + 0.12 * across
        body *= step(above if lesion.site == "upper_lobe" else -above, 0.010)
    body *= 1.0 - _air_bronchogram(across, down, x, y, g, lesion, rng)
    body *= np.float32(share) * (0.86 + 0.14 * fine)
    return Patch(window, canvas.fill(window, body, 0.95), 0.55)


def _air_bronchogram(
    across: Field, down: Field, x: float, y: float, g: Frontal, lesion: Lesion, rng: np.random.Generator
) -> Field:
    """Bronchi that stay open: dark lines that spread from the hilum, share of the filling they lack."""
    hilum_x, hilum_y = g.hila[lesion.laterality or LEFT]
    away = math.sqrt((x - hilum_x) ** 2 + (y - hilum_y) ** 2) + 1e-6
    ux, uy = (x - hilum_x) / away, (y - hilum_y) / away
    open_ = np.zeros_like(across)
    pixel = 1.0 / (g.size * g.exposure.zoom)
    back = 0.9 * _CONSOLIDATION[lesion.severity or "mild"][0]
    for spread in (-0.30, -0.10, 0.08, 0.27):
        scale = 1.0 / (1.0 + spread * spread)
        turn = 0.12 * (float(rng.random()) - 0.5)
        c, s = (1 - spread * spread) * scale, 2 * spread * scale + turn
        vx, vy = ux * c - uy * s, ux * s + uy * c
        along = across * np.float32(vx) + down * np.float32(vy) + np.float32(back)
        side = np.abs(down * np.float32(vx) - across * np.float32(vy) + np.float32(0.3 * spread) * along * along)
        width = np.maximum(np.float32(0.0046) - 0.022 * along, np.float32(0.4 * pixel))
        open_ = np.maximum(open_, step(width - side, 0.006) * step(along, 0.01) * step(1.5 * back - along, 0.05))
    return np.float32(0.38) * open_


def nodule(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a small ball of soft tissue into its lobe."""
    g = canvas.g
    diameter = lesion.size_mm or 20.0
    radius = 0.5 * diameter / FIELD_MM
    x, y = place(g, lesion, rng, radius + 0.02)
    window = g.window(sign(lesion.laterality) * x, y, 1.4 * radius, 1.4 * radius)
    distance, _ = _distances(canvas, lesion, window, x, y)
    ball = chord(1.0 - distance * (1 / radius), 0.8)
    return Patch(window, np.float32(1.3 + 0.085 * diameter) * ball, 0.45)


def mass(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a lobulated mass with short spicules into its lobe."""
    g = canvas.g
    diameter = lesion.size_mm or 45.0
    radius = 0.5 * diameter / FIELD_MM
    x, y = place(g, lesion, rng, 0.8 * radius)
    window = g.window(sign(lesion.laterality) * x, y, 1.5 * radius, 1.5 * radius)
    distance, shape = _distances(canvas, lesion, window, x, y)
    lobes = smooth_noise(rng, *shape, 5)
    spikes = smooth_noise(rng, *shape, 16)
    inside = 1.0 + 0.14 * lobes + 0.09 * spikes - distance * (1 / radius)
    return Patch(window, np.float32(1.4 + 0.055 * diameter) * chord(inside, 0.75), 0.6)


def cavity(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a thick-walled cavity into its lobe; upright, some hold fluid with a level."""
    g = canvas.g
    radius = 0.5 * (lesion.size_mm or 40.0) / FIELD_MM
    x, y = place(g, lesion, rng, 0.9 * radius)
    window = g.window(sign(lesion.laterality) * x, y, 1.35 * radius, 1.35 * radius)
    distance, shape = _distances(canvas, lesion, window, x, y)
    lumps = 0.10 * smooth_noise(rng, *shape, 5)
    outer = chord(1.0 + lumps - distance * (1 / radius), 0.6)
    hollow = (0.58 + 0.12 * float(rng.random())) * radius
    hole = step(1.0 + 1.5 * lumps - distance * (1 / hollow), 0.12)
    change = 3.4 * outer - 3.6 * hole * (0.75 + 0.25 * outer)
    if float(rng.random()) < 0.5 and not g.exposure.portable:
        fluid = step(g.y[window[0]] - y - 0.25 * hollow, 0.006) * hole
        change = change + 3.6 * fluid
    return Patch(window, change, 0.5)


def _distances(
    canvas: Canvas[Frontal], lesion: Lesion, window: Window, x: float, y: float
) -> tuple[Field, tuple[int, int]]:
    across, down = (
        canvas.g.own(lesion.laterality or LEFT, window) - np.float32(x),
        canvas.g.y[window[0]] - np.float32(y),
    )
    distance = np.sqrt(across * across + down * down)
    return distance, (distance.shape[0], distance.shape[1])


def atelectasis(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw bands of airless lung; from moderate on a wedge, which loses volume (`shape.shape_of`) and is dense."""
    g, side = canvas.g, lesion.laterality or LEFT
    upper = lesion.site == "upper_lobe"
    level = 0.30 if upper else g.dome_at(side) - 0.045
    window = g.window(sign(side) * 0.20, level, 0.19, 0.16)
    off, y = canvas.g.own(side, window), g.y[window[0]]
    grade = {"mild": 0, "moderate": 1, "severe": 2}[lesion.severity or "mild"]
    share = np.zeros_like(off)
    for number in range(0 if upper and grade else 2):
        slope = (0.42 if upper else -0.10) + 0.30 * (float(rng.random()) - 0.5)
        middle = level + (0.028 if upper else -0.022) * (number - 0.6 * grade) + 0.012 * (float(rng.random()) - 0.5)
        start, length = 0.10 + 0.06 * float(rng.random()), 0.10 + 0.09 * float(rng.random())
        thick = (0.0065 + 0.0022 * grade) * (0.8 + 0.4 * float(rng.random()))
        bend = middle + slope * (off - 0.2) + 0.8 * (off - 0.2) * (off - 0.2) * (1 if upper else -1)
        band = step(np.float32(thick) - np.abs(y - bend), 0.006) * step(off - start, 0.03)
        share = np.maximum(share, band * step(np.float32(start + length) - off, 0.03))
    share *= np.float32(0.50 + 0.08 * grade)
    if grade:
        share = np.maximum(share, _wedge(canvas, side, window, upper=upper, grade=grade))
    return Patch(window, canvas.fill(window, share), 0.45)


def _wedge(canvas: Canvas[Frontal], side: str, window: Window, *, upper: bool, grade: int) -> Field:
    """Share filled by a collapsing lobe: at the mediastinum above the hilum, or behind the heart on the diaphragm."""
    g = canvas.g
    off = canvas.g.own(LEFT if side == LEFT else RIGHT, window)
    y = g.y[window[0]]
    if upper:
        edge = 0.385 - 0.055 * grade + 0.55 * (off - 0.10)  # the fissure, drawn up
        return np.float32(0.34 + 0.22 * grade) * step(edge + 0.06 - 0.9 * off - y + 0.06 * grade, 0.02)
    reach = 0.11 + 0.045 * grade - 0.85 * unit(g.floor[:, window[1]] - 0.01 - y)
    return np.float32(0.30 + 0.24 * grade) * step(reach - (off - 0.05), 0.022)
