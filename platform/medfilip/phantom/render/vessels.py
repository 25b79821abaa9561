"""Vessels of the lungs: trees that leave the hila, branch and taper, more and larger ones to the bases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medfilip.phantom.render.field import FIELD_MM, Field, blur, splat, turn, unit
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal, Plane, Window

_TRUNKS: tuple[tuple[float, float, float, float], ...] = (
    # direction (lateral, down), length and width in fractions of the field
    (0.30, -0.95, 0.080, 0.0125), (0.62, -0.78, 0.085, 0.0115), (0.12, -0.99, 0.055, 0.010),
    (0.90, -0.42, 0.085, 0.0105), (0.99, -0.05, 0.080, 0.0105), (0.96, 0.30, 0.085, 0.0115),
    (0.80, 0.60, 0.105, 0.0140), (0.60, 0.80, 0.110, 0.0150), (0.38, 0.92, 0.115, 0.0160),
    (0.16, 0.98, 0.110, 0.0150), (0.70, 0.71, 0.075, 0.0110), (0.45, -0.89, 0.095, 0.0095),
)  # fmt: skip
_LEVELS = 5
_ARTERIES = (
    # place against the hilum, direction, length and width
    (-0.024, -0.022, 0.28, 0.96, 0.125, 0.039), (-0.012, -0.012, 0.75, 0.55, 0.06, 0.038),
    (0.0, 0.0, 0.45, -0.75, 0.05, 0.032),
)  # fmt: skip
_SHORTER, _THINNER = 0.76, 0.70
_WIDTHS = (0.0135, 0.00945, 0.006615, 0.0046305, 0.00324135)
"""Typical width of the branches of each level."""
Branches = tuple[Field, Field, Field, Field, Field, Field, Field]
"""x, y, direction (x, y), length, width and bend (deviation of the end, shares of the length) of branches."""
Root = tuple[float, float, float]
"""Where the vessels of a lung begin, x and y, and 1 if they spread to growing x, else -1."""


def grow(rng: np.random.Generator, roots: Sequence[Root]) -> list[Branches]:
    """Grow the trees of the lungs together, level by level; every branch ends in two."""
    trunks = np.array(_TRUNKS * len(roots), np.float32)
    root_x, root_y, sign = np.repeat(np.array(roots, np.float32), len(_TRUNKS), axis=0).T
    jitter = 2.0 * rng.random((5, len(trunks)), np.float32) - 1.0
    dx, dy = turn((trunks[:, 0] * sign, trunks[:, 1]), 0.10 * jitter[0])
    x = root_x + 0.014 * jitter[1]
    y = root_y + 0.026 * jitter[2] + 0.018 * dy
    length, width = trunks[:, 2] * (1 + 0.2 * jitter[3]), trunks[:, 3] * (1 + 0.15 * jitter[4])
    levels: list[Branches] = []
    for level in range(_LEVELS):
        bend = 0.30 * (2.0 * rng.random(len(x), np.float32) - 1.0)
        levels.append((x, y, dx, dy, length, width, bend))
        if level == _LEVELS - 1:
            break
        jitter = rng.random((4, 2 * len(x)), np.float32)
        ends_x, ends_y = x + (dx - dy * bend) * length, y + (dy + dx * bend) * length
        dx, dy = turn((dx, dy), bend)
        x, y = np.concatenate((ends_x, ends_x)), np.concatenate((ends_y, ends_y))
        spread = np.repeat(np.array([1.0, -1.0], np.float32), len(dx))
        spread *= 0.05 + 0.14 * jitter[0]
        spread += 0.05 * (jitter[1] - 0.5)
        dx, dy = turn((np.concatenate((dx, dx)), np.concatenate((dy, dy))), spread)
        length = np.concatenate((length, length)) * (_SHORTER * (0.75 + 0.5 * jitter[2]))
        width = np.concatenate((width, width)) * (_THINNER * (0.9 + 0.25 * jitter[3]))
    return levels


def _points(branches: Branches, pixel: float) -> tuple[Field, Field, Field]:
    """Points along branches that bend a little: lateral position, height and mass (cm of water times pixels)."""
    x, y, dx, dy, length, width, bend = branches
    count = max(int(float(length.max()) / (0.9 * pixel)), 3)
    along = ((np.arange(count) + 0.5) / count).astype(np.float32)
    s = along[None, :] * length[:, None]
    sideways = bend[:, None] * s * along[None, :]
    px = x[:, None] + dx[:, None] * s - dy[:, None] * sideways
    py = y[:, None] + dy[:, None] * s + dx[:, None] * sideways
    taper = width[:, None] * (1.0 - 0.28 * along[None, :])
    spacing = length[:, None] / (count * pixel)
    mass = (0.7854 * FIELD_MM / 10) * taper * (taper / pixel) * spacing
    return px.ravel(), py.ravel(), mass.ravel()


def _passes(variance: float) -> list[int]:
    """Strides of blurs whose variances add up to about a variance in square pixels.

    A stride wider than what is blurred already would leave a comb of copies.
    """
    strides: list[int] = []
    reached = 0.0
    while variance - reached >= 0.5:
        fitting = (stride for stride in (4, 2, 1) if stride * stride / 2 <= variance - reached)
        stride = next(one for one in fitting if one == 1 or reached >= one * one / 4)
        strides.append(stride)
        reached += stride * stride / 2
    return strides


def blurred_tree(plane: Plane, window: Window, levels: list[Branches]) -> Field:
    """Draw trees: the widest branches first and blurred most; what is thinner is added on the way.

    Parameters
    ----------
    plane, window
        The image, and the part of it that is drawn.
    levels
        Branches by level.

    Returns
    -------
    Field
        Thickness of the vessels along the beam, cm, in the window.
    """
    pixel = 1.0 / (plane.size * plane.exposure.zoom)
    field = np.zeros((window[0].stop - window[0].start, window[1].stop - window[1].start), np.float32)
    variances = [0.23 * 0.23 * (width / pixel) * (width / pixel) for width in _WIDTHS]
    for level, branches in enumerate(levels):
        field += _splatted(plane, window, _points(branches, pixel))
        below = variances[level + 1] if level + 1 < _LEVELS else 0.0
        for stride in _passes(variances[level] - below):
            field = blur(field, stride)
    return field


def _splatted(plane: Plane, window: Window, points: tuple[Field, Field, Field]) -> Field:
    x, y, mass = points
    rows, columns = plane.pixels(x, y)
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    return splat(shape, rows - window[0].start, columns - window[1].start, mass)


def vessel_tree(g: Frontal, *, fresh: int = 0) -> Field:
    """Thickness of the vessels along the beam, in centimetres, in the window of the thorax.

    ``fresh`` other than 0 grows another tree of the same patient, without the arteries of the hila.
    """
    tree, window = g.patient.tree, g.thorax
    roots = [(g.hila[LEFT][0], g.hila[LEFT][1], 1.0), (-g.hila[RIGHT][0], g.hila[RIGHT][1], -1.0)]
    levels = grow(np.random.default_rng([tree, 1, fresh]), roots)
    field = blurred_tree(g, window, levels)
    if not fresh:
        (rows, columns), arteries = _hilar_arteries(g, roots)
        top, left = rows.start - window[0].start, columns.start - window[1].start
        field[top : top + arteries.shape[0], left : left + arteries.shape[1]] += arteries
    return field


def _hilar_arteries(g: Frontal, roots: Sequence[Root]) -> tuple[Window, Field]:
    """Where the descending pulmonary arteries are, and their thickness: they make most of the shadow of the hila."""
    pixel = 1.0 / (g.size * g.exposure.zoom)
    place = np.array(_ARTERIES * len(roots), np.float32)
    root_x, root_y, sign = np.repeat(np.array(roots, np.float32), len(_ARTERIES), axis=0).T
    x, y = root_x + sign * place[:, 0], root_y + place[:, 1]
    branches = (x, y, sign * place[:, 2], place[:, 3], place[:, 4], place[:, 5], -0.10 * sign)
    window = g.window(0.0, 0.46, 0.20, 0.17)
    field = _splatted(g, window, _points(branches, pixel))
    for stride in _passes((0.0075 / pixel) * (0.0075 / pixel)):
        field = blur(field, stride)
    return window, field


def vessels(g: Frontal, air: Field) -> Field:
    """Attenuation of the vessels, as far as there is lung around them, in the window of the thorax."""
    tree = vessel_tree(g)
    tree *= unit(air * np.float32(1 / 7.0)) * np.float32(3.4)
    return tree
