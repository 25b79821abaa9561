"""Proportions of the chest on a frontal image: cage, hemidiaphragms, contours of heart and mediastinum, spine.

Knots of the contours were read off textbook proportions: nine to ten posterior ribs above the diaphragm, right
hemidiaphragm about 2 cm above the left, carina at the level of T4 to T5, left hilum 1 cm above the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from medfilip.findings.finding import Laterality
from medfilip.phantom.render.field import Field, curve, pixel_line, step, unit
from medfilip.phantom.render.patient import Exposure, Patient

Window = tuple[slice, slice]
LEFT, RIGHT = Laterality.LEFT, Laterality.RIGHT
SIDES = (LEFT, RIGHT)
_LEFT_VENTRICLE, _RIGHT_ATRIUM = 0.675, 0.325  # shares of the heart's width on either side of the midline
_WALL = 0.62  # height at which the cage is widest
_DOME_MIDDLE, _DOME_HALF = 0.155, 0.19


@dataclass(frozen=True)
class Shape:
    """What lesions do to the anatomy as a whole: deviations from a normal chest, in fractions of the field.

    Attributes
    ----------
    heart
        Cardiothoracic ratio instead of the patient's.
    inflation
        How much lower (positive) or higher the diaphragm stands.
    lift
        How much higher the right and the left hemidiaphragm stand by themselves.
    shift
        Shift of the mediastinum to the patient's left.
    curve
        Deviation of the spine at the apex of a scoliosis, to the patient's left.
    aorta
        Unfolding of the aorta instead of the patient's.
    """

    heart: float | None = None
    inflation: float = 0.0
    lift: tuple[float, float] = (0.0, 0.0)
    shift: float = 0.0
    curve: float = 0.0
    aorta: float | None = None


class Plane:
    """Where the pixels of an image lie in the body.

    Attributes
    ----------
    y
        Height by row ``[H, 1]``, growing downwards, in fractions of the field of a patient of standard size.
    across
        Horizontal position by column ``[1, W]``, 0 in the middle of the field.
    """

    def __init__(self, patient: Patient, exposure: Exposure, shape: Shape, size: int) -> None:
        self.patient, self.exposure, self.shape, self.size = patient, exposure, shape, size
        line, zoom = pixel_line(size), exposure.zoom
        self.y: Field = (line[:, None] - np.float32(0.5 + exposure.shift[1])) * np.float32(1 / zoom) + np.float32(0.5)
        self.across: Field = (line[None, :] - np.float32(0.5 + exposure.shift[0])) * np.float32(1 / zoom)

    def middle(self, y: Field) -> Field:
        """Horizontal position of the body's midline by height."""
        return np.zeros_like(y)

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return row and column (pixels) of a place in the body."""
        middle = float(self.middle(np.array([y], np.float32))[0])
        column = ((x + middle) * self.exposure.zoom + 0.5 + self.exposure.shift[0]) * self.size - 0.5
        row = ((y - 0.5) * self.exposure.zoom + 0.5 + self.exposure.shift[1]) * self.size - 0.5
        return row, column

    def pixels(self, x: Field, y: Field) -> tuple[Field, Field]:
        """Return rows and columns of many places."""
        columns = ((x + self.middle(y)) * self.exposure.zoom + 0.5 + self.exposure.shift[0]) * self.size - 0.5
        rows = ((y - 0.5) * self.exposure.zoom + 0.5 + self.exposure.shift[1]) * self.size - 0.5
        return rows, columns

    def window(self, x: float, y: float, rx: float, ry: float) -> Window:
        """Return the pixels within ``rx`` and ``ry`` (fractions) of a place in the body, at least one of each side."""
        row, column = self.pixel(x, y)
        w, h = rx * self.exposure.zoom * self.size, ry * self.exposure.zoom * self.size
        return _span(row, h, self.size), _span(column, w, self.size)

    @property
    def everywhere(self) -> Window:
        """The window of the whole image."""
        return slice(0, self.size), slice(0, self.size)


def _span(middle: float, half: float, size: int) -> slice:
    start = min(max(int(middle - half), 0), size - 1)
    return slice(start, max(min(int(middle + half) + 2, size), start + 1))


class Frontal(Plane):
    """Geometry of one frontal image.

    ``x`` ``[H, W]`` grows from the midline to the patient's left, ``y`` ``[H, 1]`` from the top of the field down;
    both in fractions of the field of a patient of standard size. What depends on the height alone is ``[H, 1]``.
    """

    def __init__(self, patient: Patient, exposure: Exposure, shape: Shape, size: int) -> None:
        super().__init__(patient, exposure, shape, size)
        self.x: Field = self.across - self.middle(self.y)
        self.off: Field = np.abs(self.x)
        self.is_left: NDArray[np.bool_] = self.x > 0
        self.dome = patient.dome - exposure.breath + shape.inflation

    def middle(self, y: Field) -> Field:
        """Lateral position of the middle of the body: tilted, and a little bent along a curved spine."""
        middle = (self.exposure.tilt * (y - 0.5)).astype(np.float32)
        if self.shape.curve:
            middle += np.float32(0.35 * self.shape.curve) * curve(y, [(0.15, 0.0), (0.45, 1.0), (0.8, 0.0)])
        return middle

    @cached_property
    def thorax(self) -> Window:
        """Window that holds both lungs and the ribs: most of the work is done inside it."""
        return self.window(0.0, 0.52, 0.385, 0.44)

    def half(self, side: Laterality) -> Window:
        """Window of the half of the image in which a lung lies."""
        columns = np.flatnonzero((self.is_left if side is LEFT else ~self.is_left).any(axis=0))
        return slice(0, self.size), slice(int(columns[0]), int(columns[-1]) + 1)

    def own(self, side: Laterality, window: Window) -> Field:
        """Distance from the midline, growing towards a side, in a window."""
        x: Field = self.x[window]
        return x if side is LEFT else -x

    @cached_property
    def spine(self) -> Field:
        """Lateral position of the spine ``[H, 1]`` against the middle of the body."""
        if not self.shape.curve:
            return np.zeros_like(self.y)
        bend = curve(self.y, [(0.05, -0.12), (0.2, 0.1), (0.45, 1.0), (0.7, 0.1), (0.9, -0.25)])
        return (0.65 * self.shape.curve * bend).astype(np.float32)

    @cached_property
    def front(self) -> float:
        """Lateral position of what lies in front (sternum, heart): moved by rotation and by a shift."""
        return self.exposure.rotation + self.shape.shift

    def cage_at(self, y: Field) -> Field:
        """Half width of the rib cage by height."""
        patient = self.patient
        rise = unit((_WALL - y) / (_WALL - patient.apex))
        below = np.clip(y - _WALL, 0.0, 0.4)
        width = patient.cage * (1.0 + 0.25 * self.shape.inflation)
        arch = np.sqrt(1.0 - rise * rise * (0.45 + 0.55 * rise))
        return (width * arch * (1.0 - 0.10 * below)).astype(np.float32)

    @cached_property
    def cage(self) -> Field:
        """Half width of the rib cage, ``[H, 1]``."""
        return self.cage_at(self.y)

    def dome_at(self, side: Laterality) -> float:
        """Height of the top of a hemidiaphragm."""
        lift = self.shape.lift[0 if side is RIGHT else 1]
        return self.dome - lift + (0.0 if side is RIGHT else 0.026)

    def floor_at(self, side: Laterality, x: Field) -> Field:
        """Height of a hemidiaphragm by distance from the midline: a dome that falls off to the costophrenic angle."""
        u = (x - _DOME_MIDDLE) * (1 / _DOME_HALF)
        top = self.dome_at(side)
        flat = 1.0 - 7.0 * max(self.shape.inflation, 0.0) - 3.0 * min(self.shape.inflation, 0.0)
        square = u * u * np.where(u < 0, np.float32(0.45), np.float32(1.0))
        deep = 0.070 + (0.69 - top) * 0.55  # the angle stays where it is while the dome rises
        floor: Field = top + flat * (deep * square + 0.048 * square * square)
        return floor

    @cached_property
    def floor(self) -> Field:
        """Height of the hemidiaphragm of the pixel's own side, ``[1, W]``, measured at the height of the domes."""
        x = self.across - float(self.middle(np.array([0.72], np.float32))[0])
        own = np.where(x > 0, self.floor_at(LEFT, x), self.floor_at(RIGHT, -x))
        return own.astype(np.float32)

    @property
    def ratio(self) -> float:
        """Cardiothoracic ratio that is drawn; without cardiomegaly below 0.5, and narrower in a hyperinflated chest."""
        if self.shape.heart is not None:
            return self.shape.heart
        supine = 0.016 if self.exposure.portable else 0.0
        return min(max(self.patient.heart + supine - 0.9 * self.shape.inflation, 0.33), 0.488)

    @cached_property
    def heart_widths(self) -> tuple[float, float]:
        """How far the heart reaches to the left and to the right of the midline."""
        total = self.ratio * 2.0 * float(self.cage.max())
        return total * _LEFT_VENTRICLE, total * _RIGHT_ATRIUM

    def _stretched(self, knots: list[tuple[float, float]]) -> list[tuple[float, float]]:
        """Move the heights of knots below the hila with the diaphragm, on which the heart lies."""
        drop = (self.dome - 0.672) / (0.672 - 0.36)
        return [(y + max(y - 0.36, 0.0) * drop, value) for y, value in knots]

    @cached_property
    def left_border(self) -> Field:
        """Left border of the mediastinum ``[H, 1]``: aortic knob, pulmonary trunk, atrial appendage, left ventricle."""
        wide, _ = self.heart_widths
        aorta = self.patient.aorta if self.shape.aorta is None else self.shape.aorta
        knob = 0.060 + 0.036 * aorta
        place = 0.285 - 0.014 * aorta
        knots = self._stretched([
            (0.08, 0.056), (0.15, 0.046), (0.195, 0.046),
            (place - 0.034 - 0.010 * aorta, 0.60 * knob + 0.019), (place + 0.004, knob),
            (place + 0.034 + 0.014 * aorta, 0.74 * knob + 0.010), (0.352, 0.052), (0.385, 0.072),
            (0.425, 0.066 + 0.06 * wide),
            (0.475, 0.036 + 0.34 * wide), (0.53, 0.016 + 0.67 * wide), (0.59, 0.004 + 0.91 * wide), (0.635, wide),
            (0.672, 0.97 * wide), (0.71, 0.82 * wide), (0.75, 0.55 * wide),
        ])  # fmt: skip
        return curve(self.y, knots) + np.float32(self.front)

    @cached_property
    def right_border(self) -> Field:
        """Right border of the mediastinum ``[H, 1]``, to the right: superior vena cava, right atrium."""
        _, wide = self.heart_widths
        aorta = self.patient.aorta if self.shape.aorta is None else self.shape.aorta
        knots = self._stretched([
            (0.08, 0.052), (0.16, 0.044), (0.24, 0.047), (0.33, 0.047 + 0.012 * aorta), (0.40, 0.050 + 0.008 * aorta),
            (0.45, 0.028 + 0.42 * wide), (0.50, 0.010 + 0.82 * wide), (0.555, wide), (0.61, 0.98 * wide),
            (0.66, 0.84 * wide), (0.72, 0.6 * wide),
        ])  # fmt: skip
        return curve(self.y, knots) - np.float32(self.front)

    @cached_property
    def inside_border(self) -> Field:
        """Distance inside the mediastinal border of the pixel's own side ``[H, W]``, positive inside."""
        inside: Field = np.where(self.is_left, self.left_border, self.right_border)
        inside -= self.off
        return inside

    @cached_property
    def heart(self) -> Field:
        """How much of a pixel is heart (0 to 1), ``[H, W]``."""
        top, bottom = self._stretched([(0.43, 0.0), (0.715, 0.0)])
        upper = self.y - (top[0] + 0.25 * (self.off - 0.04))
        return step(np.minimum(np.minimum(self.inside_border, upper), bottom[0] - self.y), 0.006)

    @cached_property
    def hila(self) -> dict[Laterality, tuple[float, float]]:
        """Distance from the midline and height of the hila."""
        drop = (self.dome - 0.672) * 0.35
        return {
            LEFT: (0.092 + self.front * 0.6, 0.405 + drop),
            RIGHT: (0.090 - self.front * 0.6, 0.43 + drop),
        }

    @property
    def carina(self) -> tuple[float, float]:
        """Lateral position and height of the bifurcation of the trachea."""
        return -0.006 + 0.7 * self.front, 0.362 + 0.2 * (self.dome - 0.672)
