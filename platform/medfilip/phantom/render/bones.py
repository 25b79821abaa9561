"""Bones of a frontal image: ribs, clavicles, scapulae, humeri and spine, drawn as shells, dense at their edges."""

from __future__ import annotations

import numpy as np

from medfilip.phantom.render.field import Field, chord, curve, edge, enlarge, step, unit
from medfilip.phantom.render.geometry import Frontal

RIBS = 12
_SPACING = 0.0585  # of the posterior ribs at their heads, fractions of the field


def rib_phase(g: Frontal, off: Field, y: Field, cage: Field, *, left: bool | Field = False) -> Field:
    """Return the number (from 0, and fractions between) of the posterior rib at a place."""
    first, slant, spread = g.patient.ribs
    t = off / np.maximum(cage, 0.06)
    head = (0.140 + first) + np.where(left, np.float32(slant), np.float32(-slant))
    # Each rib rises a little from the spine, bends and falls to the side: the lower, the steeper.
    fall = (0.095 + 0.05 * np.clip(y - 0.2, 0.0, 0.6)) * t * t * t - 0.052 * t * (1.0 - t)
    phase: Field = (y - head - fall) * np.float32(1 / (_SPACING * spread))
    return phase


def posterior_ribs(g: Frontal) -> Field:
    """Attenuation of the posterior ribs, from the spine to the lateral wall, in the window of the thorax."""
    rows, _ = window = g.thorax
    off, cage = g.off[window], g.cage[rows]
    ribs = posterior_shell(rib_phase(g, off, g.y[rows], cage, left=g.is_left[window]))
    inside = cage + 0.005 - off
    rim = 1.0 + 0.55 * step(0.035 - inside, 0.05)  # along the wall the beam meets the rib lengthwise
    ribs *= edge(inside, 0.006) * rim
    ribs *= step(np.abs(g.x[window] - g.spine[rows]) - 0.030, 0.02)
    return ribs


def posterior_shell(phase: Field) -> Field:
    """Profile of the posterior ribs by their phase (`rib_phase`): 0 between ribs, up to 1 on them."""
    number = np.floor(phase)
    side = np.abs(phase - number - 0.5)
    side *= 1.0 / 0.235
    ribs = _shell(side)
    ribs *= (number > -1.5) & (number < RIBS - 1.5)
    return ribs


def _shell(side: Field) -> Field:
    """Profile of a tube of bone: 0 at its border, brightest just inside, dimmer in the middle."""
    square = side * side
    wall = unit((1.06 - side) * 7.0)
    profile: Field = (0.62 + 0.38 * square * square) * wall
    return profile


def anterior_ribs(g: Frontal) -> Field:
    """Attenuation of the anterior ribs in the window of the thorax: from the wall down, fading into cartilage."""
    first, slant, spread = g.patient.ribs
    rows, _ = window = g.thorax
    whole = g.off[window]
    off, y = whole[::2, ::2], g.y[rows][::2]  # they are faint and broad: every other pixel will do
    inward = np.maximum(g.cage[rows][::2] - off, np.float32(-0.02))
    wall_fall = 0.05 * np.clip(y - 0.2 - 0.62 * inward, 0.0, 0.6)
    head = (0.239 + first) + np.where(g.is_left[window][::2, ::2], np.float32(slant), np.float32(-slant))
    place = y - head - wall_fall + inward * (0.5 * inward - 0.62)
    place *= 1 / (_SPACING * spread * 1.06)
    number = np.floor(place)
    place -= number
    side = np.abs(place - 0.5)
    side *= 1 / 0.255
    ribs = _shell(side)
    ribs *= (number > -1.5) & (number < 8.5)
    ribs *= edge(inward, 0.006) * step(off - (0.115 + 0.06 * y), 0.06)
    return enlarge(ribs, whole.shape[0], whole.shape[1])


def clavicles(g: Frontal, density: Field) -> None:
    """Add the clavicles: S-shaped, thick at both ends, higher on a bedside image; rotation parts them unevenly."""
    lift = 0.030 if g.exposure.portable else 0.0
    for sign in (1.0, -1.0):
        start = 0.022 + sign * 1.6 * g.exposure.rotation
        rows, columns = g.window(sign * 0.22, 0.17 - lift, 0.24, 0.10)
        off = g.x[rows, columns] * np.float32(sign)
        along = unit((off - start) * (1 / 0.36))
        bow = along * (1 - along) * (1 - 2 * along)
        middle = (
            0.232
            - lift
            - (0.165 - 0.7 * lift - 0.032 * g.patient.posture[0]) * along
            + 0.062 * along * along
            - 0.13 * bow
        )
        half = 0.0100 + 0.004 * (1 - along) * (1 - along) * (1 - along) + 0.003 * along * along * along
        side = np.abs(g.y[rows] - middle) / half
        bone = _shell(side) * edge(off - start, 0.008) * step(start + 0.36 - off, 0.02)
        density[rows, columns] += (1.9 * g.patient.bone * g.exposure.style.ribs) * bone


def shoulders(g: Frontal, density: Field) -> None:
    """Add scapulae and humeri; on PA images the blades are turned out of the lungs, on AP images they overlie them."""
    inward = 0.040 if g.exposure.portable else 0.0
    amount = g.patient.bone * g.exposure.style.ribs
    for sign in (1.0, -1.0):
        rows, columns = g.window(sign * 0.40, 0.27, 0.16, 0.26)
        off, y = g.x[rows, columns] * np.float32(sign), g.y[rows]
        medial = curve(
            y, [(0.13, 0.345 - inward), (0.20, 0.322 - inward), (0.36, 0.340 - inward), (0.46, 0.375 - inward)]
        )
        lateral = curve(y, [(0.17, 0.412), (0.22, 0.405), (0.34, 0.393 - 0.4 * inward), (0.465, 0.380 - inward)])
        plate = edge(np.minimum(off - medial, lateral - off), 0.006) * edge(np.minimum(y - 0.125, 0.468 - y), 0.012)
        rims = edge(0.007 - np.abs(off - lateral), 0.007) * step(np.minimum(y - 0.17, 0.468 - y), 0.02)
        rims += 0.55 * edge(0.004 - np.abs(off - medial), 0.006) * step(np.minimum(y - 0.13, 0.468 - y), 0.02)
        ridge = edge(0.010 - np.abs(y - (0.200 - 0.26 * (off - 0.33))), 0.010)
        ridge *= step(np.minimum(off - 0.325 + inward, 0.46 - off), 0.02)
        head = chord(0.046 - np.sqrt((off - 0.448) ** 2 + (y - 0.205) ** 2), 0.03)
        shaft = _shell(np.abs(off - (0.452 + 0.20 * unit(y - 0.2))) * (1 / 0.021)) * step(y - 0.235, 0.03)
        density[rows, columns] += amount * (0.55 * plate + 0.9 * rims + 0.7 * ridge + 1.9 * head + 1.5 * shaft)


def spine(g: Frontal, density: Field) -> None:
    """Add the vertebral column: bodies parted by discs, pedicles, spinous processes."""
    rows, columns = g.window(0.0, 0.5, 0.15, 0.6)
    y = g.y[rows]
    x = g.x[rows, columns] - g.spine[rows]
    off = np.abs(x)
    half = curve(y, [(0.0, 0.030), (0.2, 0.033), (0.5, 0.037), (0.8, 0.044), (1.0, 0.048)])
    level = (y - 0.02) * (1 / 0.050) - 0.9 * unit(y - 0.2) * y  # vertebrae grow downwards
    part = level - np.floor(level)
    body = chord(half - off, 0.010)
    disc = 1.0 - 0.62 * step(0.10 - np.abs(part - 0.5), 0.10)
    plate = 0.55 * step(0.05 - np.abs(np.abs(part - 0.5) - 0.16), 0.05)
    column = body * (1.05 * disc + 0.5 * plate)
    column += 0.5 * edge(0.005 - np.abs(half - off - 0.004), 0.006)
    ring = np.sqrt(((off - 0.68 * half) * (1 / 0.0075)) ** 2 + ((part - 0.93) * (1 / 0.16)) ** 2)
    column += 0.6 * step(0.35 - np.abs(ring - 0.9), 0.4)
    turned = 1.2 * g.exposure.rotation
    spike = np.sqrt(((x + turned) * (1 / 0.0075)) ** 2 + ((part - 0.30) * (1 / 0.22)) ** 2)
    column += 0.6 * step(0.9 - spike, 0.4)
    processes = step(0.062 - off, 0.02) * step(0.17 - np.abs(part - 0.88), 0.12) * edge(off - half, 0.01)
    density[rows, columns] += g.patient.bone * (column + 0.7 * processes)


def add_bones(g: Frontal, density: Field) -> None:
    """Add every bone to the attenuation, in place."""
    amount = g.patient.bone * g.exposure.style.ribs
    ribs = (1.25 * amount) * posterior_ribs(g)
    ribs += (0.80 * amount) * anterior_ribs(g)
    density[g.thorax] += ribs
    clavicles(g, density)
    shoulders(g, density)
    spine(g, density)
