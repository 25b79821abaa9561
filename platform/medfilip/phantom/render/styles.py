"""Renderer styles: how detectors and their processing differ between hospitals.

A style fixes tone curve, sharpness, noise, grid, markers, collimation, lung texture and a few proportions. A model may
be trained on some styles and tested on another that it has never seen.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """What sets the images of one unit apart.

    Attributes
    ----------
    name
        What settings call it.
    bedside
        Whether the unit takes only bedside (``True``) or only upright images (``False``); ``None`` for both.
    half, steep
        Attenuation (cm of water) that is rendered as half of the full brightness, and whether the curve is of second
        or of third degree there.
    toe, shoulder
        Brightness of direct exposure, and the largest brightness.
    scatter
        Share of the attenuation at large that scatter hides.
    flatten
        Share of it that processing takes away (dynamic-range compression).
    sharpen
        Weights of the fine and the coarse unsharp mask.
    soften
        Passes of the blur of the detector.
    noise, grain
        Strength of the quantum noise, and its kind (`field.noise_tile`).
    grid
        Contrast of the lines of a scatter grid, cm of water.
    texture
        Kind and strength (cm of water) of the lung's fine texture.
    border
        Chance of a collimated border.
    annotation
        What the marker says below its letter.
    zoom, ribs
        Size of the patient in the field against other units', and contrast of bone.
    """

    name: str
    bedside: bool | None
    half: float
    steep: bool
    toe: float
    shoulder: float
    scatter: float
    flatten: float
    sharpen: tuple[float, float]
    soften: int
    noise: float
    grain: str
    grid: float
    texture: tuple[str, float]
    border: float
    annotation: str
    zoom: float
    ribs: float


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style(
            "digital", None, 12.6, False, 0.02, 0.97, 0.05, 0.06, (0.55, 0.0), 0, 0.10, "white", 0.0,
            ("grain", 0.13), 0.35, "", 0.0, 1.0,
        ),
        Style(
            "film", False, 12.6, True, 0.05, 0.92, 0.12, 0.0, (0.0, 0.0), 1, 0.16, "grain", 0.0,
            ("mesh", 0.13), 0.5, "12 A", -0.03, 0.85,
        ),
        Style(
            "portable", True, 12.4, False, 0.05, 0.92, 0.16, 0.0, (0.35, 0.0), 0, 0.22, "white", 0.10,
            ("grain", 0.17), 0.15, "PORTABLE", 0.03, 0.9,
        ),
        Style(
            "enhanced", None, 11.2, False, 0.0, 0.97, 0.0, 0.30, (1.0, 0.35), 0, 0.08, "white", 0.0,
            ("mesh", 0.20), 0.2, "", 0.01, 1.15,
        ),
    )
}  # fmt: skip
"""By name. Every style but ``film`` makes a corpus from which ``film`` is held out."""
