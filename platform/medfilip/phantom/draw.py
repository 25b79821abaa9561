"""Draws a radiograph-like image that shows exactly the lesions it is given.

It is a caricature: enough anatomy that every finding has a plausible place and that a small network has to look for
it, and no claim to resemble a patient. Shapes are built from sums, products and square roots only, which IEEE 754
rounds exactly, so that the same study has the same pixels on every machine.

Coordinates are fractions of the image: ``x`` from the left, ``y`` from the top. The patient's right is on the left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medfilip.findings.finding import Laterality
from medfilip.phantom.lesions import CATEGORIES, SIDES, Lesion

Field = NDArray[np.float32]
Box = tuple[int, int, int, int]

DEFAULT_SIZE = 512
FIELD_MM = 360.0
"""Side of the imaged square in millimetres."""
MAX_VALUE = 4095
"""Largest pixel value: 12 bits."""

_HEART_HALF_WIDTH = {None: 0.125, "mild": 0.178, "moderate": 0.205, "severe": 0.235}
_EFFUSION_HEIGHT = {"minimal": 0.10, "mild": 0.15, "moderate": 0.25, "severe": 0.38}
_PNEUMOTHORAX_WIDTH = {"mild": 0.045, "moderate": 0.075, "severe": 0.12}
_CONSOLIDATION = {"mild": (0.085, 0.24), "moderate": (0.105, 0.32), "severe": (0.13, 0.42)}  # radius, opacity
_LOBE_HEIGHT = {"upper_lobe": 0.30, "middle_lobe": 0.50, "lower_lobe": 0.63}
_LUNG_TOP, _LUNG_WIDEST = 0.14, 0.55
_MIN_VISIBLE = 0.04  # opacity from which a pixel belongs to a lesion's box


@dataclass(frozen=True)
class _Lung:
    """One lung: signed distances in fractions of the image, positive inside."""

    sign: float  # -1 where x is smaller than the midline
    x: Field  # distance from the midline, growing to the side
    wall: Field  # inside the chest wall and lateral to the mediastinum
    floor: Field  # above the diaphragm

    @property
    def mask(self) -> Field:
        return _step(np.minimum(self.wall, self.floor), 0.008)


def draw(lesions: tuple[Lesion, ...], seed: int, index: int, size: int = DEFAULT_SIZE) -> tuple[Any, dict[str, Box]]:
    """Draw the frontal image of one study.

    Anatomy, exposure and noise depend on ``seed`` and ``index`` alone, and every lesion has random numbers of its
    own: adding a lesion changes the pixels of that lesion and nothing else.

    Parameters
    ----------
    lesions
        What the image shows.
    seed, index
        Name the study.
    size
        Side of the image in pixels.

    Returns
    -------
    image
        ``uint16`` ``[size, size]``, 0 to 4095, larger is brighter.
    boxes
        ``Lesion.key`` → ``(row0, col0, row1, col1)``, half open, in pixels.
    """
    rng = np.random.default_rng([seed, index, 1])
    x, y = _grid(rng, size)
    lungs = {side: _lung(x, y, side, rng) for side in SIDES}
    by_key = {lesion.key: lesion for lesion in lesions}
    enlarged = by_key.get("cardiomegaly")
    heart = _heart(x, y, enlarged.severity if enlarged else None, rng)
    image = _chest(x, y, lungs, heart, rng)
    boxes: dict[str, Box] = {}
    if enlarged is not None:
        boxes[enlarged.key] = _box(heart)
    # Air first, fluid over it, as gravity has it.
    for category in ("pneumothorax", "consolidation", "nodule", "pleural_effusion"):
        for side in SIDES:
            lesion = by_key.get(f"{category}/{side}")
            if lesion is not None:
                own = np.random.default_rng([seed, index, 2, CATEGORIES.index(category), SIDES.index(side)])
                image, visible = _add(image, lesion, lungs[side], y, own)
                boxes[lesion.key] = _box(visible)
    return _expose(image, rng), boxes


def _grid(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Coordinates of pixel centres, slightly shifted and scaled: patients are not positioned twice alike."""
    scale = 1.0 + 0.10 * (rng.random() - 0.5)
    shift = 0.04 * (rng.random(2) - 0.5)
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x = (line[None, :] - 0.5) * np.float32(scale) + np.float32(0.5 + shift[0])
    y = (line[:, None] - 0.5) * np.float32(scale) + np.float32(0.5 + shift[1])
    return np.broadcast_to(x, (size, size)).astype(np.float32), np.broadcast_to(y, (size, size)).astype(np.float32)


def _step(distance: Field, softness: float) -> Field:
    """Smooth step from 0 to 1 over ``softness`` around zero distance."""
    t = np.clip(distance / np.float32(2 * softness) + np.float32(0.5), 0.0, 1.0)
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)


def _bump(squared: Field) -> Field:
    """Bell of a squared normalised distance: 1 at 0, 0 from 1 on."""
    t = np.clip(np.float32(1.0) - squared, 0.0, 1.0)
    return t * t


def _noise(rng: np.random.Generator, size: int, cells: int) -> Field:
    """Smooth noise in [-1, 1]: random values on a grid of ``cells``, interpolated."""
    nodes = (2.0 * rng.random((cells + 1, cells + 1)) - 1.0).astype(np.float32)
    at = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells) / np.float32(size)
    low = np.minimum(at.astype(np.int64), cells - 1)
    t = at - low
    t = t * t * (np.float32(3.0) - np.float32(2.0) * t)
    rows = nodes[low] * (1 - t)[:, None] + nodes[low + 1] * t[:, None]
    return rows[:, low] * (1 - t) + rows[:, low + 1] * t


def _lung(x: Field, y: Field, side: Laterality, rng: np.random.Generator) -> _Lung:
    sign = 1.0 if side is Laterality.LEFT else -1.0
    away = (x - np.float32(0.5)) * np.float32(sign)
    half, centre = 0.165 + 0.01 * rng.random(), 0.205
    top = _LUNG_TOP + 0.02 * rng.random()
    # An arch above the widest level, straight and slightly spreading below it.
    rise = np.clip((_LUNG_WIDEST - y) / np.float32(_LUNG_WIDEST - top), 0.0, 1.0)
    width = half * np.sqrt(np.float32(1.0) - rise * rise) + np.float32(0.05) * np.clip(y - _LUNG_WIDEST, 0.0, 0.4)
    across = np.float32(centre) + np.float32(0.02) * (y - np.float32(0.5))
    wall = width - np.abs(away - across)
    wall = np.where(y < top, np.float32(-1.0), wall)
    dome = (away - np.float32(centre - 0.04)) / np.float32(half)
    level = (0.70 if side is Laterality.RIGHT else 0.725) + 0.02 * (rng.random() - 0.5)
    floor = np.float32(level) + np.float32(0.085) * dome * dome - y
    return _Lung(sign, away, wall.astype(np.float32), floor.astype(np.float32))


def _heart(x: Field, y: Field, severity: str | None, rng: np.random.Generator) -> Field:
    """Opacity mask of the heart, two thirds of which lie left of the midline."""
    half = _HEART_HALF_WIDTH[severity] + 0.012 * (rng.random() - 0.5)
    u = (x - np.float32(0.5 + 0.25 * half)) / np.float32(half)
    v = (y - np.float32(0.615)) / np.float32(0.115 + 0.25 * half)
    tilted = v + np.float32(0.25) * u * v
    return _step(np.float32(1.0) - np.sqrt(u * u + tilted * tilted), 0.05)


def _chest(x: Field, y: Field, lungs: dict[Laterality, _Lung], heart: Field, rng: np.random.Generator) -> Field:
    """Density without lesions, about 0 (air) to 1 (bone)."""
    size = x.shape[0]
    off = np.abs(x - np.float32(0.5))
    shoulders = y - (np.float32(0.06) + np.float32(0.55) * np.clip(off - np.float32(0.11), 0.0, 0.3))
    body = _step(np.minimum(np.float32(0.455) - off, np.where(off < 0.1, np.float32(1.0), shoulders)), 0.012)
    tissue = np.float32(0.58) + np.float32(0.10) * _step(y - np.float32(0.72), 0.1)
    spine = _step(np.float32(0.035) - off, 0.012)
    mediastinum = _step(np.float32(0.062) + np.float32(0.03) * _bump((y - np.float32(0.3)) ** 2 / 0.01) - off, 0.02)
    image = tissue + np.float32(0.10) * mediastinum + np.float32(0.05) * spine
    image += np.float32(0.03) * _noise(rng, size, 6)
    texture = np.float32(0.035) * _noise(rng, size, 40) + np.float32(0.03) * _noise(rng, size, 14)
    for lung in lungs.values():
        vessels = np.float32(0.14) * _bump(((lung.x - 0.09) / 0.085) ** 2 + ((y - 0.46) / 0.16) ** 2)
        air = np.float32(0.24) + texture + vessels + np.float32(0.05) * _step(y - np.float32(0.55), 0.2)
        image = image + lung.mask * (air - image)
    image = image + heart * (np.float32(0.72) - image) * np.float32(0.92)
    image += _bones(lungs, y, rng)
    trachea = _bump((off / 0.022) ** 2) * _step(np.float32(0.34) - y, 0.03) * body
    image -= np.float32(0.14) * trachea
    return np.clip(image, 0.0, 1.0) * body + np.float32(0.03) * (1 - body)


def _bones(lungs: dict[Laterality, _Lung], y: Field, rng: np.random.Generator) -> Field:
    """Ribs and clavicles, as faint bands added to the density."""
    phase = np.float32(rng.random())
    total = np.zeros_like(y)
    for lung in lungs.values():
        chest = _step(lung.wall + np.float32(0.03), 0.02) * _step(np.float32(0.82) - y, 0.05)
        arc = (y - np.float32(0.9) * (lung.x - np.float32(0.14)) ** 2 * 2 + np.float32(0.12) * lung.x) * 11 + phase
        band = np.abs(arc - np.floor(arc) - np.float32(0.5))
        total += np.float32(0.05) * chest * _step(np.float32(0.17) - band, 0.1)
        line = np.abs(y - (np.float32(0.215) - np.float32(0.25) * (lung.x - np.float32(0.05))))
        span = _step(lung.x - np.float32(0.035), 0.01) * _step(np.float32(0.30) - lung.x, 0.02)
        total += np.float32(0.11) * _step(np.float32(0.012) - line, 0.006) * span
    return total


def _add(image: Field, lesion: Lesion, lung: _Lung, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Add one lesion; return the new density and how visible the lesion is at each pixel (0 to 1)."""
    if lesion.category == "pneumothorax":
        return _pneumothorax(image, lesion, lung, y)
    if lesion.category == "consolidation":
        return _consolidation(image, lesion, lung, y, rng)
    if lesion.category == "nodule":
        return _nodule(image, lesion, lung, y, rng)
    return _effusion(image, lesion, lung, y)


def _effusion(image: Field, lesion: Lesion, lung: _Lung, y: Field) -> tuple[Field, Field]:
    """Fluid from the costophrenic angle up, its surface a meniscus that climbs towards the side."""
    height = np.float32(_EFFUSION_HEIGHT[lesion.severity or "mild"])
    outward = np.clip((lung.x - np.float32(0.06)) / np.float32(0.32), 0.0, 1.0)
    surface = np.float32(0.80) - height * (np.float32(0.5) + np.float32(0.5) * outward * outward)
    depth = y - surface
    fluid = _step(lung.wall, 0.008) * _step(depth, 0.02) * _step(lung.floor + np.float32(0.02), 0.02)
    return image + fluid * (np.float32(0.74) - image), fluid


def _consolidation(
    image: Field, lesion: Lesion, lung: _Lung, y: Field, rng: np.random.Generator
) -> tuple[Field, Field]:
    """A blotchy opacity with soft borders in its lobe."""
    radius, opacity = _CONSOLIDATION[lesion.severity or "mild"]
    row, column = _place(lesion, rng)
    squared = ((lung.x - column) / np.float32(radius)) ** 2 + ((y - row) / np.float32(1.05 * radius)) ** 2
    blotches = np.float32(0.75) + np.float32(0.35) * _noise(rng, y.shape[0], 24)
    t = np.clip(np.float32(1.45) * (np.float32(1.0) - squared), 0.0, 1.0)
    shade = t * blotches * lung.mask
    return image + np.float32(opacity) * shade * (np.float32(1.15) - image), shade * np.float32(opacity)


def _nodule(image: Field, lesion: Lesion, lung: _Lung, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """A disc of ``size_mm`` across, away from heart and hilum."""
    radius = np.float32((lesion.size_mm or 20.0) / FIELD_MM / 2)
    row, column = _place(lesion, rng)
    distance = np.sqrt((lung.x - column) ** 2 + (y - row) ** 2)
    disc = _step(radius - distance, 0.006)
    return image + np.float32(0.42) * disc * (np.float32(1.0) - image), disc * np.float32(0.42)


def _place(lesion: Lesion, rng: np.random.Generator) -> tuple[np.float32, np.float32]:
    """Row and distance from the midline of a lesion's centre, within its lobe and the lateral lung."""
    height = _LOBE_HEIGHT[lesion.site or "lower_lobe"]
    spread = 0.05 if lesion.site != "lower_lobe" else 0.02
    row = height + spread * (2 * rng.random() - 1)
    column = 0.235 + 0.045 * (2 * rng.random() - 1) - (0.02 if lesion.site == "upper_lobe" else 0.0)
    return np.float32(row), np.float32(column)


def _pneumothorax(image: Field, lesion: Lesion, lung: _Lung, y: Field) -> tuple[Field, Field]:
    """Air without lung markings between the chest wall and a thin pleural line."""
    width = np.float32(_PNEUMOTHORAX_WIDTH[lesion.severity or "mild"])
    if lesion.site == "lung_apex":
        # The cap is measured from the apex down: a lung that sank, not one that shrank.
        inner = y - np.float32(_LUNG_TOP + 0.02) - np.float32(1.6) * width
    else:
        lateral = np.float32(0.205 + 0.17) - lung.x
        inner = np.minimum(np.minimum(lung.wall, lateral + np.float32(0.02)), y - np.float32(_LUNG_TOP)) - width
        inner = np.where(lung.x < np.float32(0.16), np.maximum(inner, y - np.float32(_LUNG_TOP + 0.04) - width), inner)
    inside = _step(lung.wall - np.float32(0.004), 0.006) * _step(lung.floor, 0.008)
    air = inside * _step(-inner, 0.005)
    line = inside * _bump((inner / np.float32(0.007)) ** 2)
    emptied = image + air * (np.float32(0.10) - image) * np.float32(0.85)
    return emptied + np.float32(0.16) * line, air


def _expose(image: Field, rng: np.random.Generator) -> NDArray[np.uint16]:
    """Turn density into 12-bit values: contrast, exposure and quantum noise differ from study to study."""
    contrast = np.float32(0.5 * (rng.random() - 0.5))
    gain, offset = np.float32(0.82 + 0.14 * rng.random()), np.float32(0.02 + 0.06 * rng.random())
    toned = image + contrast * image * (np.float32(1.0) - image)
    grain = rng.integers(0, 256, (2, *image.shape), dtype=np.uint8).astype(np.int16)
    noise = (grain[0] - grain[1]).astype(np.float32) * np.float32(0.028 / 256)
    values = (toned * gain + offset + noise) * np.float32(MAX_VALUE)
    return np.clip(np.rint(values), 0, MAX_VALUE).astype(np.uint16)


def _box(visible: Field) -> Box:
    """Smallest box around the visible pixels; a lesion that is not visible at all is a mistake of this module."""
    rows = np.flatnonzero((visible >= _MIN_VISIBLE).any(axis=1))
    columns = np.flatnonzero((visible >= _MIN_VISIBLE).any(axis=0))
    assert rows.size and columns.size, "a drawn lesion must be visible"
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
