"""What lesions do to the anatomy as a whole."""

from __future__ import annotations

from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.geometry import RIGHT, Shape
from medfilip.phantom.render.patient import Patient

_HEART = {"mild": 0.545, "moderate": 0.605, "severe": 0.675}  # cardiothoracic ratio; above 0.5 is cardiomegaly
_HYPERINFLATION = {"mild": 0.032, "moderate": 0.052, "severe": 0.075}
_HYPOINFLATION = {"mild": -0.050, "moderate": -0.078, "severe": -0.105}
_CURVE = {"mild": 0.030, "moderate": 0.052, "severe": 0.080}
_AORTA = {"mild": 0.80, "moderate": 1.05, "severe": 1.32}
_LIFT = {"mild": 0.0, "moderate": 0.022, "severe": 0.042}  # of the diaphragm, by a lobe that loses volume
_PULL = {"mild": 0.0, "moderate": 0.006, "severe": 0.018}  # of the mediastinum


def shape_of(lesions: tuple[Lesion, ...], patient: Patient) -> Shape:
    """Return how the lesions of a patient deform the chest."""
    by_category: dict[str, Lesion] = {lesion.category: lesion for lesion in lesions}

    def grade(category: str) -> str:
        lesion = by_category.get(category)
        return lesion.severity or "mild" if lesion is not None else ""

    lift, shift = [0.0, 0.0], 0.0
    for lesion in lesions:
        if lesion.category == "atelectasis":
            right = lesion.laterality is RIGHT
            severity = lesion.severity or "mild"
            lift[0 if right else 1] += _LIFT[severity] * (1.0 if lesion.site == "lower_lobe" else 0.4)
            shift += _PULL[severity] * (-1.0 if right else 1.0)
    return Shape(
        heart=_HEART.get(grade("cardiomegaly")),
        inflation=_HYPERINFLATION.get(grade("hyperinflation"), 0.0) + _HYPOINFLATION.get(grade("hypoinflation"), 0.0),
        lift=(lift[0], lift[1]),
        shift=shift,
        # Four of five thoracic curves are convex to the right.
        curve=_CURVE.get(grade("scoliosis"), 0.0) * (1.0 if patient.tree % 5 == 0 else -1.0),
        aorta=_AORTA.get(grade("tortuous_aorta")),
    )
