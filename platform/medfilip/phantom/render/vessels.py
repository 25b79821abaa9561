"""Vessels of the lungs: trees that leave the hila, branch and taper, more and larger ones to the bases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medfilip.findings.finding import Laterality
from medfilip.phantom.render.field import FIELD_MM, Field, blur, splat, turn
from medfilip.phantom.render.geometry import LEFT, SIDES, Frontal

_TRUNKS: tuple[tuple[float, float, float, float], ...] = (
    # direction (lateral, down), length and width in fractions of the field
    (0.30, -0.95, 0.080, 0.0125), (0.62, -0.78, 0.085, 0.0115), (0.12, -0.99, 0.055, 0.010),
    (0.90, -0.42, 0.085, 0.0105), (0.99, -0.05, 0.080, 0.0105), (0.96, 0.30, 0.085, 0.0115),
    (0.80, 0.60, 0.105, 0.0140), (0.60, 0.80, 0.110, 0.0150), (0.38, 0.92, 0.115, 0.0160),
    (0.16, 0.98, 0.110, 0.0150), (0.70, 0.71, 0.075, 0.0110), (0.45, -0.89, 0.095, 0.0095),
)  # fmt: skip
_LEVELS = 5
_SHORTER, _THINNER = 0.76, 0.70
_WIDTHS = (0.0135, 0.00945, 0.006615, 0.0046305, 0.00324135)
"""Typical width of the branches of each level."""
Branches = tuple[Field, Field, Field, Field, Field, Field]
"""x, y, direction (x, y), length and width of branches; x grows laterally."""


def grow(rng: np.random.Generator, root: tuple[float, float]) -> list[Branches]:
    """Grow the tree of one lung level by level; every branch ends in two."""
    trunks = np.array(_TRUNKS, np.float32)
    count = len(trunks)
    jitter = 2.0 * rng.random((5, count), np.float32) - 1.0
    dx, dy = turn((trunks[:, 0], trunks[:, 1]), 0.10 * jitter[0])
    x = root[0] + 0.014 * jitter[1]
    y = root[1] + 0.026 * jitter[2] + 0.018 * dy
    length, width = trunks[:, 2] * (1 + 0.2 * jitter[3]), trunks[:, 3] * (1 + 0.15 * jitter[4])
    levels: list[Branches] = []
    for level in range(_LEVELS):
        levels.append((x, y, dx, dy, length, width))
        if level == _LEVELS - 1:
            break
        jitter = rng.random((4, 2 * len(x)), np.float32)
        ends_x, ends_y = x + dx * length, y + dy * length
        x, y = np.concatenate((ends_x, ends_x)), np.concatenate((ends_y, ends_y))
        spread = np.repeat(np.array([1.0, -1.0], np.float32), len(dx))
        dx, dy = turn((np.tile(dx, 2), np.tile(dy, 2)), spread * (0.06 + 0.20 * jitter[0]) + 0.05 * (jitter[1] - 0.5))
        length = np.tile(length, 2) * _SHORTER * (0.75 + 0.5 * jitter[2])
        width = np.tile(width, 2) * _THINNER * (0.9 + 0.25 * jitter[3])
    return levels


def _points(branches: Branches, pixel: float, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Points along branches that bend a little: lateral position, height and mass (cm of water times pixels)."""
    x, y, dx, dy, length, width = branches
    count = max(int(float(length.max()) / (0.9 * pixel)), 3)
    along = ((np.arange(count) + 0.5) / count).astype(np.float32)
    bend = 0.22 * (2.0 * rng.random(len(x), np.float32) - 1.0)
    s = along[None, :] * length[:, None]
    sideways = bend[:, None] * s * along[None, :]
    px = x[:, None] + dx[:, None] * s - dy[:, None] * sideways
    py = y[:, None] + dy[:, None] * s + dx[:, None] * sideways
    taper = width[:, None] * (1.0 - 0.28 * along[None, :])
    spacing = length[:, None] / (count * pixel)
    mass = (0.7854 * FIELD_MM / 10) * taper * (taper / pixel) * spacing
    return px.ravel(), py.ravel(), mass.ravel()


def _passes(variance: float) -> list[int]:
    """Strides of blurs whose variances add up to about a variance in square pixels."""
    strides = []
    for stride in (4, 2, 1):
        while variance >= stride * stride / 2:
            strides.append(stride)
            variance -= stride * stride / 2
    return strides


def blurred_tree(
    shape: tuple[int, int],
    trees: list[tuple[float, list[Branches]]],
    place: Callable[[float, Field, Field], tuple[Field, Field]],
    pixel: float,
    rng: np.random.Generator,
    first: Field | None = None,
) -> Field:
    """Draw trees: the widest branches first and blurred most; what is thinner is added on the way.

    Parameters
    ----------
    shape
        Rows and columns of the image.
    trees
        A sign for `place` and the levels of each tree.
    place
        Turns places in the body to rows and columns.
    pixel
        Side of a pixel in the body, fractions of the field.
    rng
        Bends the branches.
    first
        What is drawn already, still to be blurred with the first level.

    Returns
    -------
    Field
        Thickness of the vessels along the beam, cm ``[H, W]``.
    """
    field = np.zeros(shape, np.float32) if first is None else first
    variances = [0.23 * 0.23 * (width / pixel) * (width / pixel) for width in _WIDTHS]
    for level in range(_LEVELS):
        found = []
        for part, levels in trees:
            x, y, mass = _points(levels[level], pixel, rng)
            found.append((*place(part, x, y), mass))
        rows, columns, weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
        field += splat(shape, rows, columns, weights)
        below = variances[level + 1] if level + 1 < _LEVELS else 0.0
        for stride in _passes(variances[level] - below):
            field = blur(field, stride)
    return field


def vessel_tree(g: Frontal, *, fresh: int = 0) -> Field:
    """Thickness of the vessels along the beam, in centimetres, in the window of the thorax.

    ``fresh`` other than 0 grows another tree of the same patient, without the arteries of the hila.
    """
    pixel = 1.0 / (g.size * g.exposure.zoom)
    tree = g.patient.tree
    rows, columns = g.thorax
    trees = [
        (1.0 if side is LEFT else -1.0, grow(np.random.default_rng([tree, 1 + SIDES.index(side), fresh]), g.hila[side]))
        for side in SIDES
    ]

    def place(part: float, x: Field, y: Field) -> tuple[Field, Field]:
        row, column = g.pixels(part * x, y)
        return row - rows.start, column - columns.start

    arteries = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    if not fresh:
        for side in SIDES:
            x, y, mass = _hilar_arteries(g, side, pixel)
            arteries += splat(arteries.shape, *place(1.0 if side is LEFT else -1.0, x, y), mass)
        for stride in _passes((0.0075 / pixel) ** 2):
            arteries = blur(arteries, stride)
    return blurred_tree(arteries.shape, trees, place, pixel, np.random.default_rng([tree, 3]), arteries)


def _hilar_arteries(g: Frontal, side: Laterality, pixel: float) -> tuple[Field, Field, Field]:
    """Descending pulmonary artery of a side, which makes most of the hilum's shadow."""
    x, y = g.hila[side]
    ends = [(-0.024, -0.022, 0.28, 0.96), (-0.012, -0.012, 0.75, 0.55), (0.0, 0.0, 0.45, -0.75)]
    place = np.array(ends, np.float32)
    xs, ys, dx, dy = place[:, 0] + np.float32(x), place[:, 1] + np.float32(y), place[:, 2], place[:, 3]
    length = np.array([0.125, 0.06, 0.05], np.float32)
    width = np.array([0.039, 0.038, 0.032], np.float32)
    return _points((xs, ys, dx, dy, length, width), pixel, np.random.default_rng([g.patient.tree, 4]))


def vessels(g: Frontal, air: Field) -> Field:
    """Attenuation of the vessels, as far as there is lung around them, in the window of the thorax."""
    tree = vessel_tree(g)
    tree *= np.clip(air * np.float32(1 / 4.0), 0.0, 1.0) * np.float32(3.0)
    return tree
