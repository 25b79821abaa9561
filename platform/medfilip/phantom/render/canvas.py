"""The image in the making, and what a lesion changes of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from medfilip.findings.finding import Laterality
from medfilip.phantom.render.field import Box, Field, blur, box_of, curve, splat
from medfilip.phantom.render.geometry import Plane, Window

P = TypeVar("P", bound=Plane)


@dataclass(frozen=True)
class Patch:
    """Change of the attenuation (cm of water) inside a window of the image, by one lesion.

    ``visible`` is the change from which a pixel belongs to the lesion.
    """

    window: Window
    change: Field
    visible: float = 0.30


@dataclass(frozen=True)
class Mark:
    """Pixels of a lesion, cut out of the image to save memory.

    ``mask`` ``[h, w]`` begins at ``row`` and ``column`` of an image of ``size``.
    """

    row: int
    column: int
    mask: NDArray[np.bool_]

    @property
    def box(self) -> Box:
        """Smallest box around the mask, in pixels of the image."""
        row0, col0, row1, col1 = box_of(self.mask)
        return row0 + self.row, col0 + self.column, row1 + self.row, col1 + self.column

    def full(self, size: int) -> NDArray[np.bool_]:
        """Return the mask in the whole image, ``[size, size]``."""
        whole = np.zeros((size, size), bool)
        height, width = self.mask.shape
        whole[self.row : self.row + height, self.column : self.column + width] = self.mask
        return whole


@dataclass
class Canvas(Generic[P]):
    """Attenuation of an image while lesions are added.

    Attributes
    ----------
    g
        Geometry.
    density
        Attenuation, cm of water ``[H, W]``.
    air
        Thickness of aerated lung, cm, without lesions ``[H, W]``.
    marks
        What vessels and texture of the lung add to the attenuation ``[H, W]``.
    filled
        Share of the air that lesions have taken already ``[H, W]``.
    """

    g: P
    density: Field
    air: Field
    marks: Field
    filled: Field = field(init=False)
    found: dict[str, Mark] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with lungs full of air."""
        self.filled = np.zeros_like(self.air)

    def fill(self, window: Window, share: Field, weight: float = 1.0) -> Field:
        """Take a share (0 to 1) of the air and return what that adds; where air is gone already, 2/5 of it.

        Two lesions over one another would hide each other otherwise, and the truth names both.
        """
        taken = self.filled[window]
        change: Field = share * self.air[window] * (1.0 - 0.6 * taken) * np.float32(0.76 * weight)
        np.maximum(taken, share, out=taken)
        return change

    def add(self, key: str, patch: Patch) -> None:
        """Add the change of a lesion, and note which pixels it is seen at."""
        self.density[patch.window] += patch.change
        strength = np.abs(patch.change)
        # What is fine or half hidden may stay below the usual bound everywhere, on small images above all.
        self.note(key, patch.window, strength >= max(min(patch.visible, 0.6 * float(strength.max())), 1e-3))

    def note(self, key: str, window: Window, mask: NDArray[np.bool_]) -> None:
        """Note the pixels of a lesion; one that cannot be seen at all is a mistake of the renderer."""
        assert mask.any(), f"{key} must be visible"
        self.found[key] = Mark(window[0].start or 0, window[1].start or 0, mask)


def sign(side: Laterality | None) -> float:
    """Return 1 for the patient's left, which is the right of the image, and -1 for the right."""
    return -1.0 if side is Laterality.RIGHT else 1.0


def line_patch(
    canvas: Canvas[Any],
    paths: Sequence[Sequence[tuple[float, float]]],
    width: float,
    amount: float,
    *,
    walls: bool = False,
    visible: float = 0.25,
) -> Patch:
    """Draw lines along smooth paths, as wires, catheters and tubes are drawn.

    Parameters
    ----------
    canvas
        The image.
    paths
        Places ``(x, y)`` in the body that a line runs through, one path a line.
    width
        Of a line, fractions of the field; lines thinner than a pixel stay a pixel wide and get fainter.
    amount
        Attenuation at the middle of a line, cm of water.
    walls
        Whether to draw a tube: two walls and a stripe between.
    visible
        Share of ``amount`` from which a pixel belongs to the line.
    """
    g = canvas.g
    rows, columns = [], []
    for path in paths:
        places = [g.pixel(x, y) for x, y in path]
        row, column = _sample(places)
        if walls:
            down, right = np.gradient(row), np.gradient(column)
            length = np.sqrt(down * down + right * right) + 1e-9
            aside = 0.5 * width * g.size * g.exposure.zoom
            for part in (-1.0, 1.0):
                rows.append(row + part * aside * right / length)
                columns.append(column - part * aside * down / length)
        rows.append(row)
        columns.append(column)
    row, column = np.concatenate(rows), np.concatenate(columns)
    margin = 4 + int(width * g.size)
    top, left = max(int(row.min()) - margin, 0), max(int(column.min()) - margin, 0)
    bottom, right_end = min(int(row.max()) + margin, g.size), min(int(column.max()) + margin, g.size)
    pixels = max((0.3 if walls else 1.0) * width * g.size * g.exposure.zoom, 0.7)
    mass = np.full(row.shape, amount * min(pixels, 1.6) * _STEP)
    drawn = splat((bottom - top, right_end - left), row - top, column - left, mass)
    for _ in range(int(min(pixels, 5.0) * 0.8)):
        drawn = blur(drawn)
    if pixels > 1.6:
        drawn *= np.float32(pixels / 1.6)
    window = (slice(top, bottom), slice(left, right_end))
    return Patch(window, drawn, max(visible * float(drawn.max()), 0.05))


_STEP = 0.4  # distance of the points of a line, pixels


def _sample(places: Sequence[tuple[float, float]]) -> tuple[Field, Field]:
    """Points along a smooth curve through places (row, column), about `_STEP` pixels apart."""
    at = [0.0]
    for (row0, col0), (row1, col1) in itertools.pairwise(places):
        at.append(at[-1] + max(math.sqrt((row1 - row0) ** 2 + (col1 - col0) ** 2), 1e-3))
    along = (np.arange(int(at[-1] / _STEP) + 1) * _STEP).astype(np.float64)
    row = _through(along, at, [one[0] for one in places])
    return row, _through(along, at, [one[1] for one in places])


def _through(along: Field, at: list[float], values: list[float]) -> Field:
    if len(at) == 2:
        return values[0] + (values[1] - values[0]) * along / at[1]
    return curve(along, list(zip(at, values, strict=True))).astype(np.float64)
