"""Devices on a frontal image: tubes, lines, pacemaker, wires and clips, with their tips where they are said to be."""

from __future__ import annotations

import math

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Patch, line_patch, sign
from medfilip.phantom.render.field import FIELD_MM, step
from medfilip.phantom.render.geometry import LEFT, RIGHT, Frontal

Path = list[tuple[float, float]]


def endotracheal_tube(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Lead a tube down the trachea to its tip above the carina."""
    g = canvas.g
    x, carina = g.carina
    tip = carina - (lesion.tip_mm or 40.0) / FIELD_MM
    sway = 0.006 * (float(rng.random()) - 0.5)
    path = [(0.004, -0.02), (sway, 0.09), (0.4 * x + sway, 0.5 * (tip + 0.09)), (0.8 * x, tip)]
    return line_patch(canvas, [path], 0.0190, 2.2, walls=True)


def enteric_tube(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Lead a tube down the oesophagus and into the stomach."""
    g = canvas.g
    dome = g.dome_at(LEFT)
    end = 0.09 + 0.05 * float(rng.random())
    depth = 0.075 + 0.05 * float(rng.random())
    path = [
        (-0.012, -0.02), (0.004, 0.15), (0.010 + 0.4 * g.front, 0.30), (0.012 + 0.5 * g.front, 0.5),
        (0.022, dome - 0.03), (0.052, dome + 0.5 * depth), (end, dome + depth), (end + 0.05, dome + depth - 0.012),
    ]  # fmt: skip
    return line_patch(canvas, [path], 0.0085, 2.4, visible=0.3)


def central_venous_catheter(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Lead a catheter from the jugular or subclavian vein of a side to its tip in or near the superior vena cava."""
    g, side = canvas.g, lesion.laterality or RIGHT
    s = sign(side)
    cava = -0.034 + 0.8 * g.front
    drop = 0.35 * (g.dome - 0.672)
    ends = {
        "brachiocephalic_vein": (s * 0.030 if side is LEFT else cava + 0.002, 0.235 if side is LEFT else 0.245),
        "superior_vena_cava": (cava, 0.335 + 0.03 * float(rng.random())),
        "cavoatrial_junction": (cava - 0.003, 0.425 + drop),
        "right_atrium": (cava - 0.010, 0.52 + 1.5 * drop),
    }
    tip = ends[lesion.position or "superior_vena_cava"]
    jugular = float(rng.random()) < 0.6
    path: Path = [(s * 0.075, 0.0), (s * 0.062, 0.10), (s * 0.046, 0.185)]
    if not jugular:
        path = [(s * 0.30, 0.265), (s * 0.21, 0.205), (s * 0.12, 0.182), (s * 0.06, 0.200)]
    if lesion.position != "brachiocephalic_vein":
        path.append((cava - s * 0.004, 0.255) if side is RIGHT else (0.006, 0.228))
        path += [(cava, 0.275)] if side is LEFT else []
    return line_patch(canvas, [[*path, tip]], 0.0070, 2.5, visible=0.3)


def chest_tube(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Lead a drain from the lateral wall to the apex or the base of a lung."""
    g, side = canvas.g, lesion.laterality or RIGHT
    s, cage = sign(side), float(g.cage.max())
    entry = 0.50 + 0.06 * float(rng.random())
    if lesion.site == "lung_apex":
        path = [
            (s * (cage + 0.13), entry + 0.05), (s * (cage + 0.01), entry), (s * 0.84 * cage, 0.40),
            (s * 0.62 * cage, 0.27), (s * 0.12, 0.185),
        ]  # fmt: skip
    else:
        base = g.dome_at(side) + 0.01
        path = [
            (s * (cage + 0.13), base - 0.10), (s * (cage + 0.01), base - 0.06), (s * 0.75 * cage, base - 0.025),
            (s * 0.12, base - 0.035),
        ]  # fmt: skip
    return line_patch(canvas, [path], 0.0190, 2.2, walls=True)


def pacemaker(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a generator below the clavicle, with leads through the subclavian vein to right atrium and ventricle."""
    g, side = canvas.g, lesion.laterality or LEFT
    s = sign(side)
    x, y = 0.255 + 0.03 * float(rng.random()), 0.235 + 0.03 * float(rng.random())
    cava = -0.034 + 0.8 * g.front
    heart = g.dome - 0.045
    wide, _ = g.heart_widths
    start: Path = [(s * x, y - 0.03), (s * 0.17, 0.185), (s * 0.07, 0.205)]
    cross: Path = [(0.0, 0.232)] if side is LEFT else []
    bend: Path = [*cross, (cava, 0.30), (cava - 0.004, 0.42)]
    ventricle = [*start, *bend, (-0.045 + g.front, heart - 0.07), (0.02, heart), (0.55 * wide, heart + 0.012)]
    atrium = [*start, *bend, (-0.050 + g.front, heart - 0.09), (-0.062 + g.front, heart - 0.13)]
    leads = [ventricle, atrium] if float(rng.random()) < 0.7 else [ventricle]
    wires = line_patch(canvas, leads, 0.0060, 3.2)
    box = g.window(s * x, y, 0.062, 0.062)
    rows = slice(min(box[0].start, wires.window[0].start), max(box[0].stop, wires.window[0].stop))
    columns = slice(min(box[1].start, wires.window[1].start), max(box[1].stop, wires.window[1].stop))
    change = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.float32)
    row, column = wires.window[0].start - rows.start, wires.window[1].start - columns.start
    change[row : row + wires.change.shape[0], column : column + wires.change.shape[1]] += wires.change
    across, down = canvas.g.own(side, (rows, columns)) - np.float32(x), g.y[rows] - np.float32(y)
    u, v = across * np.float32(1 / 0.047), down * np.float32(1 / 0.042)
    can = step(1.0 - np.sqrt(u * u * u * u + v * v * v * v), 0.10)
    change = np.maximum(change, (11.0 - 2.5 * (down < -0.022)) * can)
    return Patch((rows, columns), change, 0.8)


def sternotomy_wires(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Close the sternum with twisted loops of wire, one below the other."""
    g = canvas.g
    middle = 1.4 * g.exposure.rotation + g.shape.shift * 0.3
    count = int(rng.integers(5, 8))
    paths: list[Path] = []
    for number in range(count):
        y = 0.24 + 0.060 * number + 0.008 * (float(rng.random()) - 0.5)
        x = middle + 0.006 * (float(rng.random()) - 0.5)
        wide, high = 0.015 + 0.004 * float(rng.random()), 0.010 + 0.003 * float(rng.random())
        slant = 0.005 * (float(rng.random()) - 0.5)
        paths.append([(x - wide, y), (x, y - high), (x + wide, y + slant), (x, y + high), (x - wide, y)])
        paths.append([(x, y + high), (x + 0.004, y + high + 0.010)])
    return line_patch(canvas, paths, 0.0045, 4.2)


def surgical_material(canvas: Canvas[Frontal], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Scatter metal clips at the hilum, in the axilla, or in the upper abdomen."""
    g, side = canvas.g, lesion.laterality or RIGHT
    s = sign(side)
    hilum = g.hila[side]
    x, y = {
        "hilum": hilum,
        "chest_wall": (float(g.cage.max()) + 0.035, 0.38),
        "abdomen": (0.12, g.dome_at(side) + 0.14),
    }[lesion.site or "hilum"]
    paths: list[Path] = []
    for _ in range(int(rng.integers(4, 8))):
        at_x, at_y = x + 0.065 * (float(rng.random()) - 0.5), y + 0.085 * (float(rng.random()) - 0.5)
        slope = 2.0 * float(rng.random()) - 1.0
        length = 0.012 / math.sqrt(1.0 + slope * slope)
        paths.append([(s * at_x, at_y), (s * at_x + length, at_y + length * slope)])
    return line_patch(canvas, paths, 0.0045, 5.5)
