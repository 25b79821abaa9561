"""Soft tissue and air of a frontal image: outline of the body, lungs, heart and mediastinum, airways, stomach."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.render.field import (
    Field,
    bump,
    chord,
    curve,
    edge,
    enlarge,
    noise_patch,
    pixel_line,
    smooth_noise,
    step,
    unit,
)
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal
from medfilip.phantom.render.vessels import vessels

AIR = 0.76
"""Attenuation that a centimetre of aerated lung lacks against soft tissue, in centimetres of water."""


def soft_tissue(g: Frontal, rng: np.random.Generator) -> Field:
    """Attenuation of the body without lungs and bones ``[H, W]``, drawn on a coarser grid: nothing in it is fine."""
    coarse = max(g.size * 2 // 5, 64)
    line = pixel_line(coarse)
    exposure, patient = g.exposure, g.patient
    y = (line[:, None] - np.float32(0.5 + exposure.shift[1])) * np.float32(1 / exposure.zoom) + np.float32(0.5)
    x = (line[None, :] - np.float32(0.5 + exposure.shift[0])) * np.float32(1 / exposure.zoom)
    x = x - g.middle(y)
    off = np.abs(x)
    fat = patient.habitus
    thick = 17.0 + 7.0 * fat
    wide = float(patient.cage) + 0.042 + 0.06 * fat
    half = curve(y, [(0.05, wide - 0.02), (0.30, wide - 0.012), (0.45, wide), (0.65, wide), (0.85, wide + 0.012)])
    depth = curve(y, [(0.0, 0.42), (0.12, 0.56), (0.22, 0.72), (0.38, 0.93), (0.6, 1.0), (0.8, 1.05), (1.0, 1.06)])
    ratio = off / half
    torso = thick * depth * np.sqrt(unit(1.0 - ratio * ratio))
    body = np.maximum(torso * step(y - (0.055 + 0.28 * unit(off - 0.09)), 0.09), _shoulders(x, off, y, g))
    neck = 11.5 * chord(np.float32(0.098 + 0.02 * fat) + 0.9 * np.clip(y - 0.05, 0.0, 0.2) - off, 0.09)
    body = np.maximum(body, neck * step(0.16 - y, 0.12))
    if patient.breast > 0:
        body += _breasts(off, y, g)
    else:
        pectoral = bump(((off - 0.19) / 0.15) ** 2 + ((y - 0.36) / 0.17) ** 2)
        body += (0.9 - 0.4 * fat) * pectoral
    # No tissue is even, least of all the bowel below the diaphragm.
    body += smooth_noise(rng, coarse, coarse, 9) * (0.25 + 0.45 * step(y - 0.80, 0.15)) * (body > 2.0)
    return enlarge(body.astype(np.float32), g.size, g.size)


def _shoulders(x: Field, off: Field, y: Field, g: Frontal) -> Field:
    """Shoulder girdle and upper arms, which hang down at the side, away from the chest on an upright image."""
    fat = g.patient.habitus
    down = 0.012 if g.exposure.portable else 0.0
    slope = np.clip(off - 0.085, 0.0, 0.5)
    rise = slope * (1.0 / 0.40)
    top = (0.002 - down) + 0.16 * (rise * (2.0 - rise)) * (0.55 + 0.45 * rise)
    top = top + (0.035 * g.patient.posture[0] - 0.03) * rise
    lower = 0.50 - 0.9 * unit(off - 0.36)
    shoulder = (10.5 + 3.0 * fat) * chord(y - top, 0.11) * step(lower - y, 0.20)
    lean = 0.35 if g.exposure.portable else 0.62
    axis = 0.452 + 0.02 * fat + 0.025 * g.patient.posture[1] + lean * unit(y - 0.22)
    inside = (0.060 + 0.030 * fat) - np.abs(off - axis) * (0.94 if g.exposure.portable else 0.85)
    arm = (7.5 + 2.5 * fat) * chord(inside, 0.065) * step(y - 0.15, 0.10)
    girdle: Field = np.maximum(shoulder, arm)
    return girdle


def _breasts(off: Field, y: Field, g: Frontal) -> Field:
    """Breast shadows: faint above, with a curved lower border."""
    size = g.patient.breast
    width, height = 0.105 + 0.05 * size, 0.12 + 0.06 * size
    low = 0.655 + 0.07 * size + (0.02 if g.exposure.portable else 0.0)
    centre = low - height * 0.78
    u, v = (off - (0.185 + 0.02 * size)) / width, (y - centre) / height
    v = np.where(v < 0, v * 0.62, v)
    return (1.2 + 3.6 * size) * np.sqrt(unit(1.0 - u * u - v * v)) * unit(0.62 + 0.55 * v)


def lung_depth(g: Frontal) -> Field:
    """Thickness of lung along the beam in centimetres, without the heart's share, in the window of the thorax."""
    rows, columns = window = g.thorax
    y, off = g.y[rows], g.off[window]
    fat = g.patient.habitus
    deep = (16.6 + 3.2 * fat) * (1.0 + 1.6 * g.shape.inflation)
    along = deep * curve(y, [(0.11, 0.28), (0.17, 0.50), (0.25, 0.72), (0.36, 0.92), (0.5, 1.0), (0.75, 0.98)])
    wall = np.where(y > g.patient.apex, g.cage[rows], np.float32(-1.0)) - off
    depth = chord(wall, 0.15)
    depth *= along
    depth *= chord(np.abs(g.x[window] - g.spine[rows]) - 0.024, 0.045)
    height = g.floor[:, columns] - y
    above = unit_ramp(height, 0.12)
    lung = edge(height, 0.005) * (0.74 + 0.26 * above * (2.0 - above))
    # The lung reaches down behind the dome, where the liver hides all but a trace of it.
    recess = unit_ramp(height + 0.085, 0.085) * 0.16
    depth *= np.maximum(lung, recess)
    return depth


def unit_ramp(distance: Field, length: float) -> Field:
    """Linear ramp from 0 to 1 over ``length``."""
    ramp: Field = unit(distance * np.float32(1 / length))
    return ramp


def mediastinum(g: Frontal) -> Field:
    """Share of the lung's depth that heart, vessels and oesophagus take instead (0 to 1), in the thorax."""
    rows, _ = window = g.thorax
    inside, y = g.inside_border[window], g.y[rows]
    cardiac = curve(y, [(0.36, 0.0), (0.52, 1.0)])
    great = 0.97 * chord(inside, 0.022)
    heart = 0.80 * chord(inside, 0.085)
    share = great + (heart - great) * cardiac
    # The lung behind the heart ends at the descending aorta, whose edge shows through.
    aorta = g.patient.aorta if g.shape.aorta is None else g.shape.aorta
    line = curve(y, [(0.28, 0.05 + 0.03 * aorta), (0.5, 0.045 + 0.035 * aorta), (0.7, 0.028 + 0.02 * aorta)])
    descending = chord(line + g.spine[rows] + 0.3 * g.front - g.x[window], 0.02) * g.is_left[window]
    descending *= step(y - 0.27, 0.03) * 0.55
    taken: Field = np.maximum(share, descending)
    return taken


def airways(g: Frontal) -> Field:
    """Thickness of air in trachea and main bronchi in centimetres ``[H, W]``."""
    air = np.zeros((g.size, g.size), np.float32)
    carina_x, carina_y = g.carina
    rows, columns = g.window(0.0, 0.19, 0.06, 0.22)
    y, x = g.y[rows], g.x[rows, columns]
    aorta = g.patient.aorta
    middle = curve(
        y, [(0.0, 0.0), (0.15, 0.3 * g.front), (0.285, carina_x - 0.004 - 0.012 * aorta), (carina_y, carina_x)]
    )
    tube = 3.0 * np.sqrt(unit(1.0 - ((x - middle) * (1 / 0.0255)) ** 2))
    air[rows, columns] = tube * step(carina_y + 0.006 - y, 0.02) * step(y - 0.015, 0.05)
    for side in (LEFT, RIGHT):
        sign = 1.0 if side is LEFT else -1.0
        length, steep = (0.085, 0.62) if side is LEFT else (0.058, 0.95)
        rows, columns = g.window(carina_x + sign * 0.045, carina_y + 0.03, 0.06, 0.07)
        along = (g.x[rows, columns] - carina_x) * sign
        across = g.y[rows] - (carina_y - 0.004 + steep * along - 1.5 * along * along)
        bronchus = 1.9 * np.sqrt(unit(1.0 - (across * (1 / 0.0175)) ** 2))
        bronchus *= step(along - 0.002, 0.015) * step(length - along, 0.04)
        np.maximum(air[rows, columns], bronchus, out=air[rows, columns])
    return air


def stomach(g: Frontal) -> tuple[tuple[slice, slice], Field]:
    """Gas in the stomach below the left hemidiaphragm: where, and its thickness in centimetres; level when upright."""
    amount, place, shape = g.patient.stomach
    x, y = 0.115 + 0.03 * place, g.dome_at(LEFT) + 0.045 + 0.02 * (1 - amount)
    wide, high = 0.03 + 0.045 * amount, 0.02 + 0.022 * amount
    window = g.window(x, y, wide * 1.5, high * 2.2)
    rows, columns = window
    u = (g.x[rows, columns] - x) / wide
    v = (g.y[rows] - y - 0.012 * u * (shape - 0.5)) / high
    inside = 1.0 - np.sqrt(u * u + v * v + 0.35 * u * u * v)
    gas = (2.0 + 3.5 * amount) * chord(inside, 0.8)
    if not g.exposure.portable:
        gas *= edge(y + high * (0.55 - 0.3 * shape) - g.y[rows], 0.006)
    return window, gas * edge(g.y[rows] - g.floor[:, columns] - 0.007, 0.006)


def lung_texture(g: Frontal, lung: Field, rng: np.random.Generator) -> Field:
    """Fine pattern of vessels and septa too small to be drawn one by one, cm of water, in the thorax."""
    kind, strength = g.exposure.style.texture
    fine = noise_patch(kind, rng, g.size)[g.thorax]
    patchy = smooth_noise(rng, lung.shape[0], lung.shape[1], 12)
    patchy *= 0.18
    patchy += (0.055 * strength / 0.13) * 2.4 * fine
    patchy *= lung * np.float32(1 / 9.0)
    return patchy


def chest(g: Frontal, rng: np.random.Generator) -> tuple[Field, Field, Field]:
    """Draw a chest without its bones.

    Returns
    -------
    density
        Attenuation, cm of water ``[H, W]``.
    air
        Thickness of aerated lung, cm ``[H, W]``.
    marks
        What vessels and texture of the lung contribute to the attenuation ``[H, W]``.
    """
    body = soft_tissue(g, rng)
    lung = lung_depth(g)
    lung *= 1.0 - mediastinum(g)
    np.minimum(lung, np.maximum(body[g.thorax] - 1.6, 0.0), out=lung)
    air, marks = np.zeros_like(body), np.zeros_like(body)
    air[g.thorax] = lung
    marks[g.thorax] = lung_texture(g, lung, rng)
    marks[g.thorax] += vessels(g, lung)
    density = body
    density[g.thorax] += marks[g.thorax] - AIR * lung
    density -= airways(g)
    window, gas = stomach(g)
    density[window] -= np.minimum(gas, density[window] * 0.6)
    return density, air, marks
