"""Crude drawings from which the view check learns: chests from the front and the side, and what is no chest.

The licences of real radiographs forbid that weights which ship learn from them, so the small network of
`medfilip.imaging.view` learns from these. Each drawing varies far more than patients do (build, crop, tilt, opacities,
exposure, markers, tubes), so that what is common to all drawings of a kind is the anatomy alone: two dark fields
beside a bright column over a bright abdomen; or one dark field before a bright spine, over an oblique floor.

All drawings of a batch are drawn at once. Legend: ``n`` drawings, ``s`` pixels a side; parameters are ``[n, 1, 1]``,
images ``[n, s, s]`` with density 0 (air) to 1 (bone). Chest coordinates: ``x`` from the midline, ``y`` from the top;
the chest is about 1 unit wide and high.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]


class Dice:
    """Random parameters ``[n, 1, 1]`` of ``n`` drawings."""

    def __init__(self, rng: np.random.Generator, n: int, size: int) -> None:
        self.rng, self.n, self.size = rng, n, size

    def between(self, low: float, high: float) -> Field:
        """Uniform values."""
        return self.rng.uniform(low, high, (self.n, 1, 1)).astype(np.float32)

    def chance(self, p: float) -> Field:
        """1 with probability ``p``, else 0."""
        return (self.rng.random((self.n, 1, 1)) < p).astype(np.float32)

    def noise(self, cells: int) -> Field:
        """Smooth noise ``[n, s, s]`` of about unit deviation: random nodes, interpolated."""
        nodes = self.rng.standard_normal((self.n, cells + 1, cells + 1)).astype(np.float32)
        at = (np.arange(self.size) + 0.5) * cells / self.size
        low = np.minimum(at.astype(int), cells - 1)
        t = (at - low).astype(np.float32)
        across = nodes[:, :, low] * (1 - t) + nodes[:, :, low + 1] * t
        mixed: Field = across[:, low] * (1 - t)[:, None] + across[:, low + 1] * t[:, None]
        return mixed

    def frame(self, zoom: tuple[float, float], shift: float, tilt: float, middle: float = 0.5) -> tuple[Field, Field]:
        """Chest coordinates ``x, y`` of all pixels under a random crop, stretch and small tilt (radians)."""
        line = ((np.arange(self.size) + 0.5) / self.size - 0.5).astype(np.float32)
        scale = self.between(*zoom)
        u = line[None, None, :] * scale * self.between(0.85, 1.18)
        v = line[None, :, None] * scale * self.between(0.85, 1.18)
        a = self.between(-tilt, tilt)
        x = u * np.cos(a) - v * np.sin(a) + self.between(-shift, shift)
        y = u * np.sin(a) + v * np.cos(a) + middle + self.between(-shift, shift)
        return x, y


def step(distance: Field, softness: float | Field = 0.02) -> Field:
    """Smooth step from 0 (below) to 1 (above zero)."""
    t = np.clip(distance / (2 * softness) + 0.5, 0, 1)
    smooth: Field = t * t * (3 - 2 * t)
    return smooth


def ellipse(x: Field, y: Field, at: tuple[Any, Any], radii: tuple[Any, Any], softness: float | Field = 0.1) -> Field:
    """Soft ellipse."""
    return step(1 - np.sqrt(((x - at[0]) / radii[0]) ** 2 + ((y - at[1]) / radii[1]) ** 2), softness)


def bar(x: Field, y: Field, start: tuple[Any, Any], angle: Field, half: Any, length: Any) -> Field:
    """Soft bar from ``start`` in direction ``angle`` (radians, 0 to the right, a quarter turn downwards)."""
    along = (x - start[0]) * np.cos(angle) + (y - start[1]) * np.sin(angle)
    across = -(x - start[0]) * np.sin(angle) + (y - start[1]) * np.cos(angle)
    return step(half - np.abs(across)) * step(along + half) * step(length - along)


def thickness(dice: Dice, inside: Field) -> Field:
    """Shadow of a rounded body by the distance inside its outline: steep for some, slowly denser for others."""
    reach = dice.between(0.02, 0.3)
    shadow: Field = step(inside) * np.sqrt(np.clip(inside / reach, 0.1, 1))
    return shadow


def over(image: Field, mask: Field, value: Any) -> Field:
    """Blend ``value`` into the image where ``mask`` is 1."""
    blended: Field = image + mask * (value - image)
    return blended


def frontal(rng: np.random.Generator, n: int, size: int) -> Field:
    """Draw ``n`` chests from the front, upright, patient's left on the right for most."""
    dice = Dice(rng, n, size)
    x, y = dice.frame((0.7, 1.4), 0.09, 0.14)
    x = x * np.where(dice.chance(0.12) > 0, -1, 1)
    wide = dice.between(0.36, 0.56)
    body, image = _trunk(dice, x, y, wide)
    belly = dice.between(0.5, 0.98)
    floor = dice.between(0.62, 0.82)
    image = over(image, body * step(y - floor + 0.03, dice.between(0.05, 0.4)), belly)
    for side in (-1.0, 1.0):
        image = _lung(dice, image, x * side, y, wide, floor, is_left=side > 0)
    column = dice.between(0.04, 0.12) + dice.between(0.0, 0.06) * np.clip(y, 0, 1)
    column = body * step(column - np.abs(x), dice.between(0.02, 0.06))
    image = over(image, column * dice.between(0.7, 1), np.maximum(image, dice.between(0.55, 0.95)))
    half = dice.between(0.1, 0.26)
    at = (0.3 * half, floor - dice.between(-0.02, 0.1))
    heart = ellipse(x, y + 0.25 * x, at, (half, dice.between(0.12, 0.26)), dice.between(0.1, 0.4))
    image = over(image, heart * dice.between(0.7, 1), np.maximum(image, dice.between(0.55, 0.92)))
    image = image + dice.between(0, 0.15) * body * step(0.05 - np.abs(x), 0.02) * step(floor + 0.3 - y, 0.3)
    image = image - dice.between(0, 0.15) * body * step(0.025 - np.abs(x), 0.02) * step(0.3 - y, 0.05)
    gas = ellipse(x, y, (dice.between(0.05, 0.28), floor + dice.between(0.06, 0.2)), (0.09, 0.05), 0.3)
    image = image - dice.chance(0.5) * dice.between(0.1, 0.6) * gas
    for _ in range(2):
        where = (dice.between(-0.3, 0.3), floor + dice.between(0.12, 0.5))
        image = image - dice.chance(0.4) * dice.between(0.1, 0.4) * ellipse(x, y, where, (0.09, 0.05), 0.3)
    return expose(dice, image + _bones(dice, x, y) * body)


def _trunk(dice: Dice, x: Field, y: Field, wide: Field) -> tuple[Field, Field]:
    """Outline of trunk, neck, head and arms ``[n, s, s]`` and its density, lungs not yet drawn."""
    off = np.abs(x)
    air, tissue = dice.between(0, 0.15), dice.between(0.4, 0.85)
    shoulder = y - dice.between(-0.04, 0.1) - dice.between(0.1, 0.7) * np.clip(off - 0.12, 0, 0.5)
    side = wide + dice.between(-0.12, 0.12) * (y - 0.4) - off
    trunk = thickness(dice, np.minimum(side, shoulder))
    body = np.maximum(trunk, step(dice.between(0.07, 0.15) - off, 0.02) * step(0.4 - y, 0.05))
    image = air + body * (tissue - air)
    image = image + dice.between(0, 0.3) * body * step(0.12 - np.abs(y - 0.05), 0.15) * step(wide - off, 0.1)
    head = ellipse(x, y, (dice.between(-0.08, 0.08), dice.between(-0.3, -0.08)), (0.17, dice.between(0.15, 0.24)))
    image = over(image, head * dice.chance(0.5), dice.between(0.6, 0.95))
    pose = dice.rng.integers(0, 4, (dice.n, 1, 1))  # arms out of sight, hanging, held out, raised
    for mirror in (x, -x):
        tilt = np.where(pose == 1, dice.between(1.2, 1.7), np.where(pose == 2, dice.between(-0.2, 1.0), -1.1))
        half = dice.between(0.05, 0.1)
        gap = np.where(pose == 1, half + dice.between(0.0, 0.06), 0)
        arm = bar(mirror, y, (wide + gap, dice.between(0.1, 0.22)), tilt, half, dice.between(0.3, 1.2))
        arm = arm * (pose > 0)
        image = over(image, arm * dice.between(0.5, 1), np.maximum(image, tissue * dice.between(0.7, 1.2)))
        breast = ellipse(mirror, y, (dice.between(0.15, 0.3), dice.between(0.6, 0.75)), (0.2, 0.17), 0.2)
        image = image + dice.chance(0.3) * dice.between(0.05, 0.2) * breast * body
    return body, image


def _lung(dice: Dice, image: Field, x: Field, y: Field, wide: Field, floor: Field, *, is_left: bool) -> Field:
    """One lung at positive ``x``: an arch over a dome, more or less opaque, with fluid at its foot in some."""
    outer = wide - dice.between(0.03, 0.12) - dice.chance(0.25) * dice.between(0, 0.12)
    inner = dice.between(0.01, 0.06)
    middle, half = (outer + inner) / 2, (outer - inner) / 2
    top, level = dice.between(0.06, 0.2), floor + dice.between(-0.05, 0.05) + (0.02 if is_left else -0.01)
    belly = dice.between(0.4, 0.8)
    rise = np.clip((belly - y) / (belly - top), 0, 1)
    arch = np.sqrt(1 - rise**2)
    wall = half * (arch + dice.between(0, 1) * (1 - rise - arch)) - np.abs(x - middle + dice.between(0, 0.05) * rise)
    dome = level + dice.between(0.04, 0.14) * (((x - middle) / half) ** 2 - 0.3) - y
    mask = step(np.minimum(np.minimum(wall, dome), y - top), dice.between(0.015, 0.1))
    air = dice.between(0.0, 0.4) + dice.between(0, 0.12) * step(y - 0.4, 0.3)
    for _ in range(2):
        where = (middle + dice.between(-0.13, 0.13), dice.between(0.15, 0.8))
        blot = ellipse(x, y, where, (dice.between(0.06, 0.2), dice.between(0.06, 0.22)), 0.5)
        air = air + dice.chance(0.4) * dice.between(0.05, 0.45) * blot
    hilum = ellipse(x, y, (0.1, dice.between(0.38, 0.5)), (0.1, 0.16), 0.5)
    air = air + dice.between(0, 0.25) * hilum + dice.between(0, 0.05) * dice.noise(8)
    fluid = dice.chance(0.25) * step(y - level + dice.between(0.02, 0.3) - 0.3 * (x - middle), 0.05)
    opaque = np.clip(fluid + dice.chance(0.04), 0, 1)
    air = over(air, opaque * dice.between(0.5, 1), dice.between(0.55, 0.8))
    return over(image, mask * dice.between(0.75, 1), air)


def _bones(dice: Dice, x: Field, y: Field) -> Field:
    """Ribs and clavicles as faint bands."""
    off = np.abs(x)
    ribs = np.sin(2 * np.pi * (dice.between(7, 12) * (y - dice.between(0.2, 0.7) * off) + dice.between(0, 1)))
    line = np.abs(y - dice.between(0.06, 0.2) + dice.between(-0.2, 0.35) * (off - 0.05))
    clavicle = step(0.02 - line, 0.015) * step(off - 0.03) * step(0.4 - off)
    clavicle = clavicle + dice.between(0, 0.6) * dice.noise(12) * step(0.25 - y, 0.1)  # shoulder blades, vertebrae
    bones: Field = dice.between(0, 0.04) * ribs * step(0.8 - y, 0.1) + dice.between(0, 0.15) * clavicle
    return bones


def lateral(rng: np.random.Generator, n: int, size: int) -> Field:
    """Draw ``n`` chests from the side, upright, facing either way."""
    dice = Dice(rng, n, size)
    x, y = dice.frame((0.72, 1.25), 0.1, 0.15)
    x = x * np.where(dice.chance(0.5) > 0, -1, 1)  # the front is at negative x
    half = dice.between(0.26, 0.46)
    bow = np.clip(y - dice.between(0.3, 0.5), -1, dice.between(0.1, 0.35)) ** 2
    crown = np.clip(dice.between(0.1, 0.35) - y, 0, 1) ** 2  # shoulders and raised arms close the trunk like a dome
    front = x + half + dice.between(-0.35, 0.35) * (y - 0.4) - dice.between(0, 0.5) * bow - dice.between(0.5, 8) * crown
    breast = ellipse(x, y, (-half, dice.between(0.5, 0.7)), (dice.between(0.08, 0.25), dice.between(0.1, 0.2)), 0.1)
    back = half - x - dice.between(0.1, 0.9) * bow - dice.between(0.5, 8) * crown
    air, tissue = dice.between(0, 0.12), dice.between(0.5, 0.85)
    trunk = thickness(dice, np.minimum(front, back))
    body = np.maximum(trunk, breast * dice.chance(0.4))
    image = air + body * (tissue - air)
    margin, skin = dice.between(0.02, 0.1), dice.between(0.05, 0.2)
    floor = dice.between(0.6, 0.9) + dice.between(0.1, 0.45) * x + dice.between(0, 1.2) * (x + half * 0.3) ** 2
    top = dice.between(0.02, 0.22)
    inside = np.minimum(np.minimum(front - margin, back - skin), np.minimum(floor - y, y - top + 0.5 * np.abs(x)))
    lung = dice.between(0.03, 0.36) + dice.between(0, 0.08) * dice.noise(8)
    lung = lung - dice.between(0, 0.12) * step(y - 0.5, 0.2)
    haze = ellipse(x, y, (dice.between(-0.2, 0.2), dice.between(0.2, 0.7)), (0.15, 0.15), 0.5)
    lung = lung + dice.chance(0.35) * dice.between(0.05, 0.4) * haze
    hilum = ellipse(x, y, (dice.between(-0.05, 0.08), dice.between(0.35, 0.5)), (0.1, 0.13), 0.5)
    lung = lung + dice.between(0, 0.25) * hilum
    heart = ellipse(x, y - 0.4 * x, (-half * dice.between(0.3, 0.6), dice.between(0.62, 0.72)), (0.2, 0.17), 0.2)
    lung = lung + dice.between(0.08, 0.4) * heart
    oval = 1 - np.sqrt(((x - 0.4 * (y - 0.4)) / (half - margin)) ** 2 + ((y - 0.45) / (0.5 - top)) ** 2)
    inside = np.where(dice.chance(0.4) > 0, np.minimum(inside, 0.3 * oval), inside)
    image = over(image, step(inside, dice.between(0.015, 0.05)) * dice.between(0.75, 1), lung)
    image = over(image, body * step(y - floor, dice.between(0.02, 0.1)), dice.between(0.6, 0.98))
    spine = step(0.05 - np.abs(back - skin), 0.03) * (0.7 + 0.3 * np.sin(2 * np.pi * y * dice.between(9, 14)))
    image = image + body * spine * dice.between(0, 0.15) * step(0.75 - y, 0.4)
    image = _arms_raised(dice, image, x, y, half, tissue)
    ribs = np.sin(2 * np.pi * (dice.between(6, 11) * (y - dice.between(-0.6, 0.1) * x) + dice.between(0, 1)))
    return expose(dice, image + dice.between(0, 0.03) * ribs * trunk)


def _arms_raised(dice: Dice, image: Field, x: Field, y: Field, half: Field, tissue: Field) -> Field:
    """Shoulders over the upper chest, arms upwards or forwards, and the neck."""
    at = (dice.between(-0.12, 0.16), dice.between(-0.1, 0.14))
    shoulder = ellipse(x, y, at, (half, dice.between(0.12, 0.36)), dice.between(0.2, 0.9))
    image = over(image, shoulder * dice.between(0.4, 1), np.maximum(image, dice.between(0.55, 1)))
    thick = dice.between(0.08, 0.17)
    arm = bar(x, y, (dice.between(-0.2, 0.1), dice.between(0, 0.12)), -dice.between(1.2, 3.2), thick, 1.0)
    image = over(image, arm * dice.chance(0.45), np.maximum(image, tissue * dice.between(0.7, 1.3)))
    neck = step(dice.between(0.08, 0.16) - np.abs(x - dice.between(-0.1, 0.1))) * step(0.1 - y)
    return over(image, neck * dice.chance(0.6), np.maximum(image, tissue))


def expose(dice: Dice, image: Field) -> Field:
    """Add what the room and the machine add: uneven exposure, lines, markers, wedges, strips, grain; clip to [0, 1]."""
    u = ((np.arange(dice.size) + 0.5) / dice.size).astype(np.float32)
    x, y = np.broadcast_arrays(u[None, None, :], u[None, :, None])
    image = image + dice.between(-0.15, 0.15) * (x - 0.5) + dice.between(-0.15, 0.15) * (y - 0.5)
    image = image + dice.between(0, 0.05) * dice.noise(3) + dice.between(0, 0.03) * dice.noise(dice.size // 2)
    for reach in (dice.size // 4, dice.size // 8):
        image = image - dice.chance(0.2) * dice.between(0, 0.9) * (_blur(image, reach) - image.mean())
    for _ in range(2):
        angle = dice.between(0, 2 * np.pi)
        line = step(0.008 - np.abs((x - dice.between(0, 1)) * np.cos(angle) + (y - dice.between(0, 1)) * np.sin(angle)))
        image = over(image, line * dice.chance(0.2) * dice.between(0.2, 0.8), dice.between(0.6, 1))
    marker_x = np.where(dice.chance(0.5) > 0, dice.between(0, 0.18), dice.between(0.82, 1))
    near = np.maximum(np.abs(x - marker_x), np.abs(y - dice.between(0, 1))) < dice.between(0.02, 0.06)
    image = over(image, near * dice.chance(0.5), np.where(dice.chance(0.85) > 0, 1, 0))
    angle, far = dice.between(0, 2 * np.pi), dice.between(0.42, 0.62)
    wedge = step((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle) - far, 0.01)
    image = over(image, wedge * dice.chance(0.4), np.where(dice.chance(0.6) > 0, 0, 1))
    edge = np.choose(dice.rng.integers(0, 4, (dice.n, 1, 1)), [x, 1 - x, y, 1 - y])
    strip = step(dice.between(0.01, 0.2) - edge, 0.005) * dice.chance(0.25) * dice.between(0.6, 1)
    image = over(image, strip, dice.chance(0.3) * dice.between(0.5, 1))
    low, high = dice.between(-0.05, 0.08), dice.between(0.85, 1.25)
    clipped: Field = np.clip((image - low) / (high - low), 0, 1)
    return clipped


def _blur(image: Field, reach: int) -> Field:
    """Means over large squares: what a console's dynamic range compression takes away."""
    for axis in (1, 2):
        pads = [(0, 0)] * 3
        pads[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(image, pads, mode="edge"), axis=axis)
        count = image.shape[axis]
        image = (
            np.take(sums, range(2 * reach + 1, 2 * reach + 1 + count), axis) - np.take(sums, range(count), axis)
        ) / (2 * reach + 1)
    return image
