"""Crude drawings of what is no chest: other body parts, slices, photographs, pages and patterns.

They teach the view check what to refuse. Legend as in `medfilip.imaging.caricature`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medfilip.imaging.caricature import Dice, Field, bar, ellipse, expose, over, step


def other(rng: np.random.Generator, n: int, size: int) -> Field:
    """Draw ``n`` images ``[n, s, s]`` that are no chest, of all kinds in turn, shuffled."""
    per_kind = -(-n // len(KINDS))
    drawn = np.concatenate([kind(Dice(rng, per_kind, size)) for kind in KINDS])
    turns = rng.integers(0, 4, len(drawn))
    turned = np.stack([np.rot90(image, k) for image, k in zip(drawn, turns, strict=True)])
    chosen: Field = turned[rng.permutation(len(turned))[:n]]
    return chosen


def _limbs(dice: Dice) -> Field:
    """One to three long bones in soft tissue: arms, legs, fingers, a knee."""
    x, y = dice.frame((0.7, 1.3), 0.15, 0.8, 0.0)
    image = dice.between(0, 0.15) + 0 * (x + y)
    count = dice.rng.integers(1, 5, (dice.n, 1, 1))
    flesh, bone, gap = dice.between(0.25, 0.5), dice.between(0.6, 1), dice.between(0.15, 0.4)
    bones, tissue = 0 * image, 0 * image
    joint = dice.between(-0.4, 0.4)
    for k in range(4):
        across = np.abs(x - gap * (k - (count - 1) / 2))
        thick = dice.between(0.03, 0.1) * (1 + dice.between(0, 1) * np.exp(-(((y - joint) / 0.15) ** 2)))
        shown = (k < count) * 1.0
        bones = np.maximum(bones, shown * step(thick - across))
        tissue = np.maximum(tissue, shown * step(thick * dice.between(1.8, 4) - across, 0.03))
    image = over(over(image, tissue, flesh), bones, bone - dice.between(0, 0.2) * tissue)
    image = image - dice.between(0, 0.4) * bones * step(0.02 - np.abs(y - joint))
    shutter = step(np.abs(x + dice.between(-0.1, 0.1)) - dice.between(0.15, 0.5), 0.01) * dice.chance(0.5)
    return expose(dice, over(image, shutter, dice.chance(0.6)))


def _pelvis(dice: Dice) -> Field:
    """Pelvis, hips or a lower abdomen: bright wings, dark holes, femurs, gas."""
    x, y = dice.frame((0.5, 1.4), 0.3, 0.2, 0.0)
    off = np.abs(x)
    image = dice.between(0.3, 0.6) + 0 * (x + y)
    wings = ellipse(off, y, (0.27, -0.12), (0.2, 0.22), 0.2) * dice.between(0.1, 0.5)
    ring = ellipse(off, y, (0.14, 0.18), (0.14, 0.11), 0.1) - ellipse(off, y, (0.14, 0.18), (0.08, 0.06), 0.2)
    femur = bar(off, y, (0.33, 0.1), dice.between(1.2, 1.7), 0.06, 0.7) + ellipse(off, y, (0.33, 0.1), (0.08, 0.08))
    sacrum = step(0.08 - off, 0.03) * step(0.1 - y, 0.05)
    image = image + wings + dice.between(0.1, 0.5) * ring + dice.between(0.1, 0.5) * femur
    image = image + dice.between(0.1, 0.4) * sacrum
    for _ in range(4):
        where = (dice.between(-0.35, 0.35), dice.between(-0.5, 0.2))
        gas = ellipse(x, y, where, (dice.between(0.03, 0.1), dice.between(0.03, 0.08)), 0.3)
        image = image - dice.chance(0.5) * dice.between(0.05, 0.3) * gas
    body = step(dice.between(0.4, 0.8) - off, 0.03)
    return expose(dice, image * body)


def _skull(dice: Dice) -> Field:
    """Skull from any side, or a brain slice: a bright ring with something mottled in it."""
    x, y = dice.frame((0.8, 1.5), 0.15, 0.5, 0.0)
    wide, high = dice.between(0.3, 0.45), dice.between(0.3, 0.48)
    outer = ellipse(x, y, (0, 0), (wide, high), 0.05)
    inner = ellipse(x, y, (0, 0), (wide * 0.88, high * 0.9), 0.05)
    filling = dice.between(0.15, 0.7) + dice.between(0, 0.15) * dice.noise(6)
    for _ in range(3):
        where = (dice.between(-0.2, 0.2), dice.between(-0.2, 0.3))
        spot = ellipse(x, y, where, (dice.between(0.04, 0.12), dice.between(0.04, 0.12)), 0.2)
        filling = over(filling, spot * dice.between(0, 1), dice.between(0, 1))
    image = over(dice.between(0, 0.1) + outer * dice.between(0.6, 1), inner, filling)
    return expose(dice, image)


def _slice(dice: Dice) -> Field:
    """Axial slice of a trunk on black: lungs, heart and spine inside one oval, or organs without lungs."""
    x, y = dice.frame((0.9, 1.5), 0.1, 0.2, 0.0)
    wide, high = dice.between(0.38, 0.5), dice.between(0.24, 0.36)
    body = ellipse(x, y, (0, 0), (wide, high), 0.04)
    image = body * dice.between(0.35, 0.6)
    shown = dice.chance(0.6)
    for mirror in (x, -x):
        air = ellipse(mirror, y, (wide * 0.48, 0), (wide * 0.38, high * dice.between(0.6, 0.8)), 0.06)
        image = over(image, air * shown, dice.between(0, 0.15))
    heart = ellipse(x, y, (0.06, -0.06), (0.15, 0.13), 0.1)
    image = over(image, heart * dice.between(0.5, 1), dice.between(0.5, 0.7))
    spine = ellipse(x, y, (0, high * 0.65), (0.05, 0.05), 0.2)
    organs = dice.noise(5) * body * (1 - shown) * dice.between(0, 0.15)
    return expose(dice, over(image + organs, spine, dice.between(0.7, 1)))


def _teeth(dice: Dice) -> Field:
    """Jaw: a row of bright bars between dark gaps."""
    x, y = dice.frame((0.8, 1.3), 0.1, 0.2, 0.0)
    curve = y - dice.between(-0.4, 0.4) * x**2 + 0.05
    teeth = step(np.sin(2 * np.pi * x * dice.between(6, 14)) + 0.5, 0.3) * step(dice.between(0.08, 0.2) - np.abs(curve))
    image = dice.between(0.15, 0.5) + dice.between(0.2, 0.5) * teeth + 0.15 * dice.noise(5)
    return expose(dice, image - 0.3 * step(0.015 - np.abs(curve)))


def _sector(dice: Dice) -> Field:
    """Ultrasound: a fan of speckle on black."""
    x, y = dice.frame((0.9, 1.2), 0.05, 0.1)
    far = np.sqrt(x**2 + (y + 0.15) ** 2)
    fan = step(dice.between(0.3, 0.9) - np.abs(np.arctan2(x, y + 0.15)), 0.02) * step(far - 0.2) * step(1.05 - far)
    speckle = dice.between(0.2, 0.5) + 0.15 * dice.noise(dice.size // 2) + 0.2 * dice.noise(5)
    return expose(dice, fan * speckle)


def _photo(dice: Dice) -> Field:
    """Scene: natural spectrum, objects with edges before a background with a horizon."""
    x, y = dice.frame((0.8, 1.2), 0.1, 0.3, 0.0)
    image = dice.between(0.1, 0.9) + dice.between(-0.4, 0.4) * step(y - dice.between(-0.4, 0.4), 0.1)
    for cells in (2, 4, 8, 16, 24):
        image = image + dice.between(0, 0.6) / cells**0.8 * dice.noise(cells)
    for _ in range(6):
        at, radii = (
            (dice.between(-0.5, 0.5), dice.between(-0.5, 0.5)),
            (dice.between(0.04, 0.4), dice.between(0.04, 0.4)),
        )
        shape = np.where(dice.chance(0.5) > 0, ellipse(x, y, at, radii, 0.05), _box(x, y, at, radii))
        shade = dice.between(0, 1) + dice.between(-0.3, 0.3) * (x - at[0]) / radii[0]
        image = over(image, shape * dice.chance(0.6), shade)
    return expose(dice, image)


def _page(dice: Dice) -> Field:
    """Page, form or screen: lines of words, boxes, a picture or two; dark on light or the other way round."""
    x, y = dice.frame((0.9, 1.2), 0.05, 0.03, 0.0)
    words = step(np.sin(2 * np.pi * y * dice.between(8, 30)), 0.3) * step(dice.noise(24) + dice.between(-0.5, 1), 0.2)
    words = words * step(dice.between(0.3, 0.6) - np.abs(x)) * step(dice.between(0.3, 0.6) - np.abs(y))
    image = words * dice.between(0.3, 1)
    for _ in range(3):
        at = (dice.between(-0.4, 0.4), dice.between(-0.4, 0.4))
        shape = _box(x, y, at, (dice.between(0.03, 0.4), dice.between(0.03, 0.3)))
        image = over(image, shape * dice.chance(0.5), dice.between(0, 1))
    return expose(dice, np.where(dice.chance(0.5) > 0, image, 1 - image))


def _pattern(dice: Dice) -> Field:
    """Gradients, gratings, checkerboards, blobs and noise."""
    x, y = dice.frame((0.9, 1.2), 0.3, 3.1, 0.0)
    wave = np.sin(2 * np.pi * (x * dice.between(0.2, 5))) * np.where(dice.chance(0.5) > 0, 1, np.sin(12 * y))
    far = np.sqrt((x - dice.between(-0.1, 0.1)) ** 2 + (y - dice.between(-0.1, 0.1)) ** 2)
    rings = np.sin(2 * np.pi * (far * dice.between(0.5, 9) + dice.between(0, 1)))
    grain = dice.noise(dice.size) + dice.noise(dice.size // 2)
    kind = dice.rng.integers(0, 5, (dice.n, 1, 1))
    flat = np.broadcast_to(x, wave.shape)
    return expose(dice, 0.5 + 0.5 * np.choose(kind, [wave, rings, grain, flat, dice.noise(3)]))


def _box(x: Field, y: Field, at: tuple[Field, Field], radii: tuple[Field, Field]) -> Field:
    return step(np.minimum(radii[0] - np.abs(x - at[0]), radii[1] - np.abs(y - at[1])))


KINDS: tuple[Callable[[Dice], Field], ...] = (
    _limbs,
    _pelvis,
    _skull,
    _slice,
    _teeth,
    _sector,
    _photo,
    _photo,
    _page,
    _pattern,
)
