"""A frontal image: anatomy, then lesions in an order that hides none of them, then exposure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render import chest_wall, devices, diffuse, lung_findings, pleura
from medfilip.phantom.render.bones import add_bones
from medfilip.phantom.render.canvas import Canvas, Mark, Patch
from medfilip.phantom.render.detector import expose, veil
from medfilip.phantom.render.geometry import Frontal
from medfilip.phantom.render.markers import add_markers, collimate
from medfilip.phantom.render.patient import Exposure, Patient
from medfilip.phantom.render.shape import shape_of
from medfilip.phantom.render.streams import lesion_stream
from medfilip.phantom.render.thorax import chest

Painter = Callable[[Canvas[Frontal], Lesion, np.random.Generator], Patch]

PAINTERS: dict[str, Painter] = {
    "pneumothorax": pleura.pneumothorax,
    "pleural_effusion": pleura.pleural_effusion,
    "interstitial_opacity": diffuse.interstitial_opacity,
    "edema": diffuse.edema,
    "atelectasis": lung_findings.atelectasis,
    "consolidation": lung_findings.consolidation,
    "mass": lung_findings.mass,
    "cavity": lung_findings.cavity,
    "nodule": lung_findings.nodule,
    "hiatal_hernia": chest_wall.hiatal_hernia,
    "pneumoperitoneum": pleura.pneumoperitoneum,
    "subcutaneous_emphysema": pleura.subcutaneous_emphysema,
    "rib_fracture": chest_wall.rib_fracture,
    "aortic_calcification": chest_wall.aortic_calcification,
    "chest_tube": devices.chest_tube,
    "enteric_tube": devices.enteric_tube,
    "endotracheal_tube": devices.endotracheal_tube,
    "central_venous_catheter": devices.central_venous_catheter,
    "pacemaker": devices.pacemaker,
    "sternotomy_wires": devices.sternotomy_wires,
    "surgical_material": devices.surgical_material,
}
"""In the order of drawing: air first and fluid over it, then what is dense, then what lies outside the lungs."""
SHAPED = ("cardiomegaly", "hyperinflation", "hypoinflation", "scoliosis", "tortuous_aorta")
"""Findings of the anatomy as a whole, drawn with it."""


def draw_frontal(
    lesions: tuple[Lesion, ...], patient: Patient, exposure: Exposure, seed: int, index: int, size: int
) -> tuple[NDArray[np.uint16], dict[str, Mark]]:
    """Draw the frontal image of a study.

    Parameters
    ----------
    lesions
        What it shows.
    patient, exposure
        Whom, and how.
    seed, index
        Name the study, and with it the random streams of texture, noise, markers and every lesion.
    size
        Side of the image in pixels.

    Returns
    -------
    pixels
        ``uint16`` ``[size, size]``, 0 to 4095, larger is brighter.
    marks
        ``Lesion.key`` → pixels that show it.
    """
    g = Frontal(patient, exposure, shape_of(lesions, patient), size)
    density, air, marks = chest(g, np.random.default_rng([seed, index, 1, 0]))
    add_bones(g, density)
    smooth = veil(density)
    add_markers(density, exposure, "L", np.random.default_rng([seed, index, 1, 1]))
    canvas = Canvas(g, density, air, marks)
    for lesion in lesions:
        if lesion.category in SHAPED:
            chest_wall.note_shape(canvas, lesion)
    for category, paint in PAINTERS.items():
        for lesion in lesions:
            if lesion.category == category:
                patch = paint(canvas, lesion, lesion_stream(seed, index, lesion, 0))
                if lesion.key not in canvas.found:
                    canvas.add(lesion.key, patch)
    np.maximum(density, 0.0, out=density)
    pixels = expose(density, smooth, exposure, np.random.default_rng([seed, index, 1, 2]))
    collimate(pixels, exposure, np.random.default_rng([seed, index, 1, 3]))
    return pixels, {lesion.key: canvas.found[lesion.key] for lesion in lesions}
