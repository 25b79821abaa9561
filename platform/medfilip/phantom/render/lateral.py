"""A left lateral image: anatomy, then lesions, then exposure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Canvas, Mark
from medfilip.phantom.render.detector import expose, veil
from medfilip.phantom.render.lateral_anatomy import Lateral, anatomy
from medfilip.phantom.render.lateral_findings import PAINTERS, note_shape
from medfilip.phantom.render.markers import add_markers, collimate
from medfilip.phantom.render.patient import Exposure, Patient
from medfilip.phantom.render.shape import shape_of
from medfilip.phantom.render.streams import lesion_stream

_EXPOSURE = 0.60  # a lateral image takes more quanta: the body is half as thick again


def draw_lateral(
    lesions: tuple[Lesion, ...], patient: Patient, exposure: Exposure, seed: int, index: int, size: int
) -> tuple[NDArray[np.uint16], dict[str, Mark]]:
    """Draw the lateral image of a study; arguments and result as `draw_frontal`.

    Of categories that a lateral view cannot judge nothing is drawn, but for the heart's size.
    """
    g = Lateral(patient, exposure, shape_of(lesions, patient), size)
    density, air, marks = anatomy(g, np.random.default_rng([seed, index, 1, 10]))
    smooth = veil(density)
    canvas = Canvas(g, density, air, marks)
    for lesion in lesions:
        note_shape(canvas, lesion)
    for category, paint in PAINTERS.items():
        for lesion in lesions:
            if lesion.category == category:
                canvas.add(lesion.key, paint(canvas, lesion, lesion_stream(seed, index, lesion, 1)))
    density *= np.float32(_EXPOSURE)
    smooth *= np.float32(_EXPOSURE)
    add_markers(density, exposure, "L", np.random.default_rng([seed, index, 1, 11]))
    np.maximum(density, 0.0, out=density)
    pixels = expose(density, smooth, exposure, np.random.default_rng([seed, index, 1, 12]))
    collimate(pixels, exposure, np.random.default_rng([seed, index, 1, 13]))
    return pixels, {lesion.key: canvas.found[lesion.key] for lesion in lesions if lesion.key in canvas.found}
