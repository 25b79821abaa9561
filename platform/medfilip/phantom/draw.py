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

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.findings.finding import Laterality
from medfilip.phantom.lesions import CATEGORIES, SIDES, Lesion

Field = NDArray[Any]
"""``float32``, but numpy's type stubs call the result of most arithmetic with scalars ``float64``."""
Box = tuple[int, int, int, int]

DEFAULT_SIZE = 512
MIN_SIZE = 64
"""Smallest side in pixels at which every lesion can be seen."""

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
    """One lung: signed distances in fractions of the image, positive inside.

    Fields of one coordinate keep an axis of length 1 and broadcast.
    """

    x: Field  # distance from the midline, growing to the side [1, W]
    half: float  # half width of the lung at its widest
    top: float  # height of the apex
    wall: Field  # inside the chest wall and lateral to the mediastinum [H, W]
    floor: Field  # above the diaphragm [H, W]
    columns: slice  # the half of the image in which it lies
    mask: Field  # opacity of the whole lung [H, W]


def draw(
    lesions: tuple[Lesion, ...], seed: int, index: int, size: int = DEFAULT_SIZE
) -> tuple[NDArray[np.uint16], dict[str, Box]]:
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

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if ``size`` is below `MIN_SIZE`.
    """
    if size < MIN_SIZE:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A phantom image needs a size of at least {MIN_SIZE} pixels, not {size}.",
            fix=f"Pass size >= {MIN_SIZE}.",
        )
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
    # Air first and fluid over it; then what is dense, so that no effusion hides a lesion that the truth names.
    for category in ("pneumothorax", "pleural_effusion", "consolidation", "nodule"):
        for side in SIDES:
            lesion = by_key.get(f"{category}/{side}")
            if lesion is not None:
                own = np.random.default_rng([seed, index, 2, CATEGORIES.index(category), SIDES.index(side)])
                image, visible = _add(image, lesion, lungs[side], y, own)
                boxes[lesion.key] = _box(visible)
    return _expose(image, rng), boxes


def _grid(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Coordinates ``[1, W]`` and ``[H, 1]`` of pixel centres, shifted and scaled: nobody is positioned twice alike."""
    scale = 1.0 + 0.10 * (rng.random() - 0.5)
    shift = 0.04 * (rng.random(2) - 0.5)
    line = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    x = (line[None, :] - 0.5) * np.float32(scale) + np.float32(0.5 + shift[0])
    y = (line[:, None] - 0.5) * np.float32(scale) + np.float32(0.5 + shift[1])
    return x, y


def _step(distance: Field, softness: float) -> Field:
    """Smooth step from 0 to 1 over ``softness`` around zero distance."""
    t = distance * np.float32(0.5 / softness)
    t += np.float32(0.5)
    np.clip(t, 0.0, 1.0, out=t)
    smooth = np.float32(3.0) - np.float32(2.0) * t
    smooth *= t
    smooth *= t
    return smooth


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
    across = nodes[:, low] * (1 - t) + nodes[:, low + 1] * t
    steps = across[1:] - across[:-1]
    noise: Field = steps[low]  # whole rows are copied in this direction, which is much the faster one
    noise *= t[:, None]
    noise += across[low]
    return noise


def _lung(x: Field, y: Field, side: Laterality, rng: np.random.Generator) -> _Lung:
    away = (x - np.float32(0.5)) * np.float32(1.0 if side is Laterality.LEFT else -1.0)
    half, top = 0.165 + 0.01 * rng.random(), _LUNG_TOP + 0.02 * rng.random()
    wall = _half_width(y, half, top) - np.abs(away - _middle(y))
    wall = np.where(y < top, np.float32(-1.0), wall)
    dome = (away - np.float32(0.165)) / np.float32(half)
    level = (0.70 if side is Laterality.RIGHT else 0.725) + 0.02 * (rng.random() - 0.5)
    floor = np.float32(level) + np.float32(0.085) * dome * dome - y
    own = np.flatnonzero(away[0] > 0)
    columns = slice(int(own[0]), int(own[-1]) + 1)
    return _Lung(away, half, top, wall, floor, columns, _step(np.minimum(wall, floor), 0.008))


def _half_width(y: Field, half: float, top: float) -> Field:
    """Half width of a lung by height: an arch above the widest level, straight and slightly spreading below it."""
    rise = np.clip((np.float32(_LUNG_WIDEST) - y) / np.float32(_LUNG_WIDEST - top), 0.0, 1.0)
    below = np.clip(y - np.float32(_LUNG_WIDEST), 0.0, 0.4)
    return np.float32(half) * np.sqrt(np.float32(1.0) - rise * rise) + np.float32(0.05) * below


def _middle(y: Field) -> Field:
    """Distance of a lung's middle from the midline, by height."""
    return np.float32(0.205) + np.float32(0.02) * (y - np.float32(0.5))


def _heart(x: Field, y: Field, severity: str | None, rng: np.random.Generator) -> Field:
    """Opacity mask of the heart, two thirds of which lie left of the midline."""
    half = _HEART_HALF_WIDTH[severity] + 0.012 * (rng.random() - 0.5)
    u = (x - np.float32(0.5 + 0.25 * half)) / np.float32(half)
    v = (y - np.float32(0.615)) / np.float32(0.115 + 0.25 * half)
    tilted = v + np.float32(0.25) * u * v
    return _step(np.float32(1.0) - np.sqrt(u * u + tilted * tilted), 0.05)


def _chest(x: Field, y: Field, lungs: dict[Laterality, _Lung], heart: Field, rng: np.random.Generator) -> Field:
    """Density without lesions, about 0 (air) to 1 (bone)."""
    size = x.shape[1]
    off = np.abs(x - np.float32(0.5))
    shoulders = y - (np.float32(0.06) + np.float32(0.55) * np.clip(off - np.float32(0.11), 0.0, 0.3))
    neck = np.where(off < 0.1, np.float32(1.0), shoulders)
    body = _step(np.minimum(np.float32(0.455) - off, neck), 0.012)
    tissue = np.float32(0.58) + np.float32(0.10) * _step(y - np.float32(0.72), 0.1)
    spine = _step(np.float32(0.035) - off, 0.012)
    mediastinum = _step(np.float32(0.062) + np.float32(0.03) * _bump((y - np.float32(0.3)) ** 2 / 0.01) - off, 0.02)
    image = tissue + np.float32(0.10) * mediastinum + np.float32(0.05) * spine + np.float32(0.03) * _noise(rng, size, 6)
    texture = np.float32(0.24) + np.float32(0.05) * _step(y - np.float32(0.55), 0.2)
    texture = np.float32(0.035) * _noise(rng, size, 40) + np.float32(0.03) * _noise(rng, size, 14) + texture
    for lung in lungs.values():
        part = lung.columns  # half of the image is the other lung's
        hilum = ((lung.x[:, part] - 0.09) / 0.085) ** 2 + ((y - 0.46) / 0.16) ** 2
        air = texture[:, part] + np.float32(0.14) * _bump(hilum)
        image[:, part] += lung.mask[:, part] * (air - image[:, part])
    image += heart * (np.float32(0.6624) - np.float32(0.92) * image)
    _add_bones(image, lungs, y, rng)
    trachea = _bump((off / 0.022) ** 2) * _step(np.float32(0.34) - y, 0.03) * body
    image -= np.float32(0.14) * trachea
    np.clip(image, 0.0, 1.0, out=image)
    return np.float32(0.03) + (image - np.float32(0.03)) * body


def _add_bones(image: Field, lungs: dict[Laterality, _Lung], y: Field, rng: np.random.Generator) -> None:
    """Add ribs and clavicles to the density in place, as faint bands."""
    phase = np.float32(rng.random())
    for lung in lungs.values():
        x = lung.x[:, lung.columns]
        chest = _step(lung.wall[:, lung.columns] + np.float32(0.03), 0.02) * _step(np.float32(0.82) - y, 0.05)
        arc = y * np.float32(11) + (
            np.float32(11) * (np.float32(0.12) * x - np.float32(1.8) * (x - np.float32(0.14)) ** 2) + phase
        )
        arc -= np.floor(arc)
        ribs = _step(np.float32(0.17) - np.abs(arc - np.float32(0.5)), 0.1)
        line = np.abs(y - (np.float32(0.215) - np.float32(0.25) * (x - np.float32(0.05))))
        span = _step(x - np.float32(0.035), 0.01) * _step(np.float32(0.30) - x, 0.02)
        clavicle = _step(np.float32(0.012) - line, 0.006) * span
        image[:, lung.columns] += np.float32(0.05) * chest * ribs + np.float32(0.11) * clavicle


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
    """Fill the costophrenic angle with fluid, whose surface is a meniscus that climbs towards the side."""
    height = np.float32(_EFFUSION_HEIGHT[lesion.severity or "mild"])
    outward = np.clip((lung.x - np.float32(0.06)) / np.float32(0.32), 0.0, 1.0)
    surface = np.float32(0.80) - height * (np.float32(0.5) + np.float32(0.5) * outward * outward)
    depth = y - surface
    fluid = _step(lung.wall, 0.008) * _step(depth, 0.02) * _step(lung.floor + np.float32(0.02), 0.02)
    return image + fluid * (np.float32(0.74) - image), fluid


def _consolidation(
    image: Field, lesion: Lesion, lung: _Lung, y: Field, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Put a blotchy opacity with soft borders into its lobe."""
    radius, opacity = _CONSOLIDATION[lesion.severity or "mild"]
    row, column = _place(lesion, rng)
    squared = ((lung.x - column) / np.float32(radius)) ** 2 + ((y - row) / np.float32(1.05 * radius)) ** 2
    blotches = np.float32(0.75) + np.float32(0.35) * _noise(rng, y.shape[0], 24)
    t = np.clip(np.float32(1.45) * (np.float32(1.0) - squared), 0.0, 1.0)
    shade = t * blotches * lung.mask
    return image + np.float32(opacity) * shade * (np.float32(1.15) - image), shade * np.float32(opacity)


def _nodule(image: Field, lesion: Lesion, lung: _Lung, y: Field, rng: np.random.Generator) -> tuple[Field, Field]:
    """Put a disc of ``size_mm`` across into its lobe, away from heart and hilum."""
    radius = np.float32((lesion.size_mm or 20.0) / FIELD_MM / 2)
    row, column = _place(lesion, rng)
    distance = np.sqrt((lung.x - column) ** 2 + (y - row) ** 2)
    disc = _step(radius - distance, 0.006)
    return image + np.float32(0.55) * disc * (np.float32(1.0) - image), disc * np.float32(0.55)


def _place(lesion: Lesion, rng: np.random.Generator) -> tuple[np.float32, np.float32]:
    """Row and distance from the midline of a lesion's centre, within its lobe and the lateral lung."""
    height = _LOBE_HEIGHT[lesion.site or "lower_lobe"]
    spread = 0.05 if lesion.site != "lower_lobe" else 0.02
    row = height + spread * (2 * rng.random() - 1)
    column = 0.235 + 0.045 * (2 * rng.random() - 1) - (0.02 if lesion.site == "upper_lobe" else 0.0)
    return np.float32(row), np.float32(column)


def _pneumothorax(image: Field, lesion: Lesion, lung: _Lung, y: Field) -> tuple[Field, Field]:
    """Put air without lung markings between the chest wall and a thin pleural line."""
    width = np.float32(_PNEUMOTHORAX_WIDTH[lesion.severity or "mild"])
    if lesion.site == "lung_apex":
        # A cap measured from the apex down: a lung that sank, not one that shrank.
        inner = y - np.float32(lung.top) - np.float32(1.6) * width + np.float32(0.3) * (lung.x - np.float32(0.2))
    else:
        # The lung keeps its hilum and draws back from the side and from the apex.
        lowered = _half_width(y - width, lung.half, lung.top)
        inner = np.minimum(lowered - (lung.x - _middle(y)), np.float32(4.0) * (y - np.float32(lung.top))) - width
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
    grey: NDArray[np.uint16] = np.clip(np.rint(values), 0, MAX_VALUE).astype(np.uint16)
    return grey


def _box(visible: Field) -> Box:
    """Smallest box around the visible pixels; a lesion that is not visible at all is a mistake of this module."""
    rows = np.flatnonzero((visible >= _MIN_VISIBLE).any(axis=1))
    columns = np.flatnonzero((visible >= _MIN_VISIBLE).any(axis=0))
    assert rows.size and columns.size, "a drawn lesion must be visible"
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
