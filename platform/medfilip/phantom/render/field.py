"""Fields of numbers: smooth shapes, curves through points, interpolation and noise, of exactly rounded operations."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]
"""``float32``, but numpy's type stubs call the result of most arithmetic with scalars ``float64``."""
Box = tuple[int, int, int, int]
"""``(row0, col0, row1, col1)``, half open, in pixels."""

FIELD_MM = 360.0
"""Side of the imaged square in millimetres."""

_TILE_SEED = 7_041_776


def pixel_line(size: int) -> Field:
    """Return the centres of pixels along a side, ``[size]``, in fractions of it."""
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)


def unit(value: Field) -> Field:
    """Clip to [0, 1], in place."""
    np.maximum(value, np.float32(0.0), out=value)  # both together cost half as much as np.clip on small fields
    return np.minimum(value, np.float32(1.0), out=value)


def step(distance: Field, softness: float) -> Field:
    """Smooth step from 0 to 1 over ``softness`` around zero distance."""
    t = distance * np.float32(1.0 / softness)
    t += np.float32(0.5)
    t = unit(t)
    smooth = t * np.float32(-2.0)
    smooth += np.float32(3.0)
    smooth *= t
    smooth *= t
    return smooth


def edge(distance: Field, softness: float) -> Field:
    """Straight ramp from 0 to 1 over ``softness`` around zero distance: for borders about as sharp as a pixel."""
    t = distance * np.float32(1.0 / softness)
    t += np.float32(0.5)
    return unit(t)


def bump(squared: Field) -> Field:
    """Bell of a squared normalised distance: 1 at 0, 0 from 1 on."""
    t = unit(1.0 - squared)
    return t * t


def chord(inside: Field, radius: float) -> Field:
    """Thickness (0 to 1) of a rounded body at a depth inside its border: a quarter circle of ``radius``, then flat."""
    t = unit(inside * np.float32(1.0 / radius))
    return np.sqrt(t * (2.0 - t))


def curve(at: Field, knots: Sequence[tuple[float, float]]) -> Field:
    """Interpolate knots ``(position, value)`` smoothly (cubic Hermite), constant beyond the ends."""
    place = np.array([one[0] for one in knots])
    value = np.array([one[1] for one in knots])
    gap = place[1:] - place[:-1]
    slope = (value[1:] - value[:-1]) / gap
    tangent = np.empty_like(value)
    tangent[0], tangent[-1] = 0.0, 0.0
    tangent[1:-1] = (slope[:-1] * gap[1:] + slope[1:] * gap[:-1]) / (gap[1:] + gap[:-1])
    position = np.minimum(np.maximum(at, place[0]), place[-1])
    left = np.searchsorted(place[1:-1], position, side="right")
    h = gap[left]
    t = (position - place[left]) / h
    rest = 1.0 - t
    start, end = value[left], value[left + 1]
    found: Field = start + t * t * (3.0 - 2.0 * t) * (end - start)
    found += h * t * rest * (rest * tangent[left] - t * tangent[left + 1])
    curved: Field = found.astype(np.float32)
    return curved


@lru_cache(maxsize=32)
def _spread(coarse: int, size: int) -> tuple[NDArray[np.int64], Field]:
    """Lower node and weight of the upper one for every pixel of a side that ``coarse`` pixel centres cover."""
    at = pixel_line(size) * np.float32(coarse) - np.float32(0.5)
    at = np.clip(at, 0.0, coarse - 1.0)
    low = np.minimum(at.astype(np.int64), coarse - 2)
    return low, (at - low).astype(np.float32)


def enlarge(coarse: Field, rows: int, columns: int) -> Field:
    """Interpolate a coarse field ``[h, w]`` bilinearly to ``[rows, columns]``, pixel centres on pixel centres."""
    low, t = _spread(coarse.shape[1], columns)
    across = coarse[:, low]
    across += (coarse[:, low + 1] - across) * t
    low, t = _spread(coarse.shape[0], rows)
    steps = across[1:] - across[:-1]
    fine: Field = steps[low]  # whole rows are copied in this direction, which is much the faster one
    fine *= t[:, None]
    fine += across[low]
    return fine


def smooth_noise(rng: np.random.Generator, rows: int, columns: int, cells: int) -> Field:
    """Smooth noise in [-1, 1], ``[rows, columns]``: random values on ``cells`` by ``cells`` nodes, interpolated."""
    nodes = (2.0 * rng.random((cells, cells)) - 1.0).astype(np.float32)
    return enlarge(nodes, rows, columns)


def blur(field: Field, stride: int = 1) -> Field:
    """Blur with the kernel 1 2 1 in both directions, its taps ``stride`` pixels apart (variance stride squared / 2)."""
    out = field.copy()
    out[stride:-stride] += field[stride:-stride]
    out[stride:-stride] += field[: -2 * stride]
    out[stride:-stride] += field[2 * stride :]
    out[stride:-stride] *= 0.25
    across = out.copy()
    across[:, stride:-stride] += out[:, stride:-stride]
    across[:, stride:-stride] += out[:, : -2 * stride]
    across[:, stride:-stride] += out[:, 2 * stride :]
    across[:, stride:-stride] *= 0.25
    return across


def halve(field: Field) -> Field:
    """Mean of blocks of 2 by 2 pixels; an odd last row or column is left out."""
    rows, columns = field.shape[0] // 2 * 2, field.shape[1] // 2 * 2
    even = field[:rows]
    down = even[0::2] + even[1::2]
    small: Field = (down[:, 0:columns:2] + down[:, 1:columns:2]) * np.float32(0.25)
    return small


@lru_cache(maxsize=12)
def noise_tile(kind: str, side: int) -> Field:
    """Return a tile of noise ``[side, side]`` with unit variance, shared by all images of a process.

    ``white`` is uncorrelated (the sum of four uniform draws), ``grain`` has the blobs of film, ``mesh`` the lines
    of a fine network, which the interstitium of a lung resembles.
    """
    seed = [_TILE_SEED, ("white", "grain", "mesh").index(kind), side]
    draws = np.random.default_rng(seed).integers(0, 256, (4, side, side), dtype=np.uint8).astype(np.int16)
    white: Field = (draws[0] + draws[1] - draws[2] - draws[3]).astype(np.float32) * np.float32(1 / 147.8)
    if kind == "white":
        return white
    soft = blur(white)
    if kind == "grain":
        grain: Field = (0.35 * white + 1.9 * soft).astype(np.float32)
        return grain
    wide = blur(blur(soft), 2)
    middle = soft - wide
    ridges = np.float32(0.30) - np.abs(middle)  # zero crossings of smooth noise are lines
    mesh: Field = np.clip(ridges * 4.0, -1.0, 1.2).astype(np.float32)
    return mesh


def noise_patch(kind: str, rng: np.random.Generator, size: int) -> Field:
    """Cut ``[size, size]`` out of a tile, at a random place and perhaps mirrored."""
    spare = max(size // 4, 16)
    tile = noise_tile(kind, size + spare)
    row, column, turned = (int(rng.integers(0, limit)) for limit in (spare, spare, 4))
    part = tile[row : row + size, column : column + size]
    part = part[::-1] if turned & 1 else part
    return part[:, ::-1] if turned & 2 else part


def turn(direction: tuple[Field, Field], tangent: Field) -> tuple[Field, Field]:
    """Rotate directions by an angle whose half has this tangent: a rational rotation, without sine and cosine."""
    dx, dy = direction
    square = tangent * tangent
    scale = 1.0 / (1.0 + square)
    cosine, sine = (1.0 - square) * scale, 2.0 * tangent * scale
    return dx * cosine - dy * sine, dx * sine + dy * cosine


def splat(shape: tuple[int, int], rows: Field, columns: Field, weights: Field) -> Field:
    """Add points at fractional pixel positions to an empty field, each shared among its four neighbours."""
    height, width = shape
    keep = (rows >= 0) & (rows < height - 1) & (columns >= 0) & (columns < width - 1)
    rows, columns, weights = rows[keep], columns[keep], weights[keep]
    row, column = rows.astype(np.int64), columns.astype(np.int64)
    dr, dc = rows - row, columns - column
    index = row * width + column
    places = np.concatenate((index, index + 1, index + width, index + width + 1))
    lower = dr * weights
    upper = weights - lower
    right_above, right_below = upper * dc, lower * dc
    shares = np.concatenate((upper - right_above, right_above, lower - right_below, right_below))
    total = np.bincount(places, weights=shares, minlength=height * width)
    return total.reshape(shape).astype(np.float32)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box around a mask that is not empty."""
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1
