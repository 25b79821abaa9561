"""Findings and devices on a lateral image, at the level and depth at which the frontal image shows them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Patch, line_patch
from medfilip.phantom.render.field import FIELD_MM, Field, bump, chord, enlarge, noise_patch, smooth_noise, step, unit
from medfilip.phantom.render.lateral_anatomy import Lateral, aortic_arch

Painter = Callable[[Canvas[Lateral], Lesion, np.random.Generator], Patch]
_SITES = {"upper_lobe": (-0.02, 0.27), "middle_lobe": (-0.14, 0.55), "lower_lobe": (0.13, 0.60)}  # x, y
_EFFUSION = {"minimal": 0.055, "mild": 0.095, "moderate": 0.19, "severe": 0.34}
_CONSOLIDATION = {"mild": (0.070, 0.34), "moderate": (0.090, 0.45), "severe": (0.115, 0.58)}
_EDEMA = {"mild": 0.10, "moderate": 0.22, "severe": 0.42}
_RETICULAR = {"mild": 0.9, "moderate": 1.5, "severe": 2.3}
_HERNIA = {"mild": 0.042, "moderate": 0.062, "severe": 0.088}
_FREE_AIR = {"mild": 0.012, "moderate": 0.022, "severe": 0.034}


def _place(g: Lateral, lesion: Lesion, rng: np.random.Generator) -> tuple[float, float]:
    x, y = _SITES[lesion.site or "lower_lobe"]
    drop = 0.7 * (g.dome - 0.672) if lesion.site != "upper_lobe" else 0.0
    jitter = 2.0 * rng.random(2) - 1.0
    return x + 0.035 * float(jitter[0]), y + drop + 0.03 * float(jitter[1])


def _distance(canvas: Canvas[Lateral], x: float, y: float, reach: float) -> tuple[tuple[slice, slice], Field]:
    window = canvas.g.window(x, y, reach, reach)
    across, down = canvas.g.x[:, window[1]] - np.float32(x), canvas.g.y[window[0]] - np.float32(y)
    return window, np.sqrt(across * across + down * down)


def ball(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw a nodule, mass or cavity."""
    diameter = lesion.size_mm or 30.0
    radius = 0.5 * diameter / FIELD_MM
    x, y = _place(canvas.g, lesion, rng)
    window, distance = _distance(canvas, x, y, 1.4 * radius)
    lumps = 0.12 * smooth_noise(rng, distance.shape[0], distance.shape[1], 5) * (lesion.category != "nodule")
    change = (1.2 + 0.085 * diameter) * chord(1.0 + lumps - distance * (1 / radius), 0.8)
    if lesion.category == "cavity":
        change = change - 4.6 * step(1.0 + lumps - distance * (1 / (0.62 * radius)), 0.12)
    return Patch(window, change, 0.6)


def consolidation(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Fill a part of a lobe of one lung."""
    radius, share = _CONSOLIDATION[lesion.severity or "mild"]
    x, y = _place(canvas.g, lesion, rng)
    window, distance = _distance(canvas, x, y, 1.6 * radius)
    lumps = smooth_noise(rng, distance.shape[0], distance.shape[1], 6)
    inside = step(1.0 + 0.5 * lumps - (distance * (1 / radius)) ** 2, 1.1)
    return Patch(window, canvas.fill(window, np.float32(share) * inside), 0.6)


def pleural_effusion(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Fill the posterior costophrenic angle of one side up to a meniscus."""
    g = canvas.g
    height = _EFFUSION[lesion.severity or "mild"]
    behind = unit((g.x + 0.25) * (1 / 0.52))
    surface = np.float32(0.815) - np.float32(height) * (0.55 + 0.45 * behind * behind)
    share = np.float32(0.62) * step(g.y - surface, 0.035) * step(g.x - (0.16 - 1.3 * height), 0.12)
    return Patch(g.everywhere, canvas.fill(g.everywhere, share * (canvas.air > 0.05)), 0.6)


def atelectasis(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw a band of airless lung, thicker the more volume is lost."""
    g = canvas.g
    thick = {"mild": 0.007, "moderate": 0.016, "severe": 0.034}[lesion.severity or "mild"]
    upper = lesion.site == "upper_lobe"
    x, y = (-0.08, 0.30) if upper else (0.10, g.dome + 0.01)
    window = g.window(x, y, 0.15, 0.13)
    across, down = g.x[:, window[1]] - np.float32(x), g.y[window[0]] - np.float32(y)
    slope = (-0.35 if upper else 0.55) + 0.2 * (float(rng.random()) - 0.5)
    band = step(np.float32(thick) - np.abs(down - np.float32(slope) * across), 0.008) * step(
        0.12 - np.abs(across), 0.05
    )
    return Patch(window, canvas.fill(window, np.float32(0.36) * band), 0.4)


def edema(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Haze around the hila."""
    g = canvas.g
    x, y = g.hilum
    near = bump(((g.x - x) * (1 / 0.26)) ** 2 + ((g.y - y - 0.05) * (1 / 0.30)) ** 2)
    near *= 1.0 + 0.3 * smooth_noise(rng, g.size, g.size, 16)
    share = np.float32(_EDEMA[lesion.severity or "mild"]) * (0.25 + near)
    return Patch(g.everywhere, canvas.fill(g.everywhere, share * (canvas.air > 0.5)), 0.5)


def interstitial_opacity(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw a net of thickened septa, densest behind and below."""
    g = canvas.g
    mesh = enlarge(noise_patch("mesh", rng, max(g.size // 2, 64)), g.size, g.size)
    np.maximum(mesh, 0.0, out=mesh)
    mesh *= np.float32(_RETICULAR[lesion.severity or "mild"]) * (0.3 + 0.7 * step(g.y + 0.5 * g.x - 0.5, 0.4))
    return Patch(g.everywhere, mesh * unit(canvas.air * np.float32(1 / 12)), 0.25)


def hiatal_hernia(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put a part of the stomach behind the heart, with a level of fluid."""
    g = canvas.g
    half = _HERNIA[lesion.severity or "mild"]
    x, y = 0.075, g.dome - 0.5 * half
    window, distance = _distance(canvas, x, y, 1.4 * half)
    level = step(np.float32(y + 0.15 * half) - g.y[window[0]], 0.005)
    sac = 2.4 * chord(1.0 - distance * (1 / half), 0.5)
    return Patch(window, sac - 5.4 * level * step(0.84 - distance * (1 / half), 0.1), 0.6)


def aortic_calcification(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Line the arch of the aorta with calcium."""
    g = canvas.g
    x, y, radius = aortic_arch(g)
    window, distance = _distance(canvas, x, y, radius + 0.04)
    arc = step(0.0036 - np.abs(distance - (radius + 0.021)), 0.004) * step(y - 0.005 - g.y[window[0]], 0.02)
    return Patch(window, 4.0 * arc, 0.9)


def pneumoperitoneum(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Put free air under the front of the diaphragm."""
    g = canvas.g
    window = g.window(-0.08, g.dome + 0.02, 0.16, 0.09)
    thick = _FREE_AIR[lesion.severity or "mild"]
    u = (g.x[:, window[1]] + 0.08) * np.float32(1 / 0.13)
    below = g.floor()[:, window[1]] + np.float32(0.007)
    crescent = np.float32(thick) * unit(1.0 - u * u)
    gas = step(np.minimum(g.y[window[0]] - below, below + crescent - g.y[window[0]]), 0.004) * (crescent > 0.002)
    return Patch(window, -8.0 * gas, 1.0)


def subcutaneous_emphysema(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Streak the chest wall in front of the sternum and above with air."""
    g = canvas.g
    mesh = np.maximum(enlarge(noise_patch("mesh", rng, max(g.size // 2, 64)), g.size, g.size), 0.0)
    wall = step(g.front - 0.02 - g.x, 0.02) * step(0.58 - g.y, 0.1) * step(g.y - 0.06, 0.05)
    amount = {"mild": 1.6, "moderate": 2.4, "severe": 3.4}[lesion.severity or "mild"]
    return Patch(g.everywhere, -np.float32(amount) * mesh * wall * unit(canvas.density * 0.25), 0.4)


def device(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw tubes, lines and wires where a lateral image shows them."""
    g = canvas.g
    x, y = g.hilum
    if lesion.category == "endotracheal_tube":
        tip = y - 0.055 - (lesion.tip_mm or 40.0) / FIELD_MM
        return line_patch(canvas, [[(-0.05, -0.02), (-0.036, 0.10), (-0.026, tip)]], 0.019, 3.0, walls=True)
    if lesion.category == "enteric_tube":
        path = [
            (-0.02, -0.02),
            (0.02, 0.2),
            (0.055, 0.42),
            (0.06, g.dome - 0.02),
            (-0.02, g.dome + 0.09),
            (-0.07, g.dome + 0.13),
        ]
        return line_patch(canvas, [path], 0.0085, 3.4)
    if lesion.category == "central_venous_catheter":
        low = {"brachiocephalic_vein": 0.25, "superior_vena_cava": 0.34, "cavoatrial_junction": 0.425}
        path = [(-0.05, 0.0), (-0.055, 0.12), (-0.045, 0.22), (-0.040, low.get(lesion.position or "", 0.51))]
        return line_patch(canvas, [path], 0.007, 3.4)
    if lesion.category == "chest_tube":
        tip_at = (0.02, 0.19) if lesion.site == "lung_apex" else (0.17, g.dome + 0.05)
        return line_patch(canvas, [[(-0.02, 0.55), (0.03, 0.47), tip_at]], 0.019, 3.0, walls=True)
    if lesion.category == "sternotomy_wires":
        rows = [0.24 + 0.06 * number for number in range(int(rng.integers(5, 8)))]
        fronts = [float(g.front[min(max(int(g.pixel(0.0, row)[0]), 0), g.size - 1), 0]) for row in rows]
        loops = [[(at, row), (at - 0.022, row + 0.004)] for at, row in zip(fronts, rows, strict=True)]
        return line_patch(canvas, loops, 0.006, 5.5)
    places = {"hilum": (x, y), "chest_wall": (0.0, 0.36), "abdomen": (-0.08, g.dome + 0.14)}
    at_x, at_y = places[lesion.site or "hilum"]
    clips = []
    for jitter in rng.random((5, 3)) - 0.5:
        start = (at_x + 0.06 * float(jitter[0]), at_y + 0.08 * float(jitter[1]))
        clips.append([start, (start[0] + 0.010, start[1] + 0.012 * float(jitter[2]))])
    return line_patch(canvas, clips, 0.0045, 7.0)


def pacemaker(canvas: Canvas[Lateral], lesion: Lesion, rng: np.random.Generator) -> Patch:
    """Draw the generator edge on, and a lead that runs forward to the apex of the right ventricle."""
    g = canvas.g
    x0, y0, _, b = g.heart_axes
    lead = [
        (-0.20, 0.235),
        (-0.10, 0.19),
        (-0.04, 0.26),
        (-0.05, 0.42),
        (x0 - 0.01, y0 + 0.55 * b),
        (x0 - 0.07, y0 + 0.62 * b),
    ]
    can = [[(-0.205, 0.20), (-0.225, 0.265)]]
    return line_patch(canvas, [lead, *can, *can, *can], 0.0075, 4.0)


PAINTERS: dict[str, Painter] = {
    "pleural_effusion": pleural_effusion,
    "interstitial_opacity": interstitial_opacity,
    "edema": edema,
    "atelectasis": atelectasis,
    "consolidation": consolidation,
    "mass": ball,
    "cavity": ball,
    "nodule": ball,
    "hiatal_hernia": hiatal_hernia,
    "pneumoperitoneum": pneumoperitoneum,
    "subcutaneous_emphysema": subcutaneous_emphysema,
    "aortic_calcification": aortic_calcification,
    "chest_tube": device,
    "enteric_tube": device,
    "endotracheal_tube": device,
    "central_venous_catheter": device,
    "sternotomy_wires": device,
    "surgical_material": device,
    "pacemaker": pacemaker,
}
"""What a lateral image shows; pneumothorax, rib fracture and scoliosis can be judged on frontal images only."""


def note_shape(canvas: Canvas[Lateral], lesion: Lesion) -> None:
    """Note where a finding is seen that shapes the chest as a whole and so is drawn with it."""
    g = canvas.g
    if lesion.category == "cardiomegaly":
        canvas.note(lesion.key, g.everywhere, g.heart > 0)
    elif lesion.category in ("hyperinflation", "hypoinflation"):
        canvas.note(lesion.key, g.everywhere, canvas.air > 2.0)
    elif lesion.category == "tortuous_aorta":
        x, y, radius = aortic_arch(g)
        ring = np.sqrt((g.x - x) ** 2 + (g.y - y) ** 2)
        line = (np.abs(g.x - x - radius - 0.01) < 0.03) & (g.y > y) & (g.y < 0.62)
        canvas.note(lesion.key, g.everywhere, (np.abs(ring - radius) < 0.03) & (g.y < y + 0.02) | line)
