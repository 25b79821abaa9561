"""Draws the radiographs of a study, which show exactly the lesions they are given.

Anatomy depends on the patient, positioning and exposure on the study alone, and every lesion has random numbers of
its own: adding a lesion changes the pixels of that lesion and nothing else, unless it shapes the chest as a whole
(`medfilip.phantom.render.shape`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.phantom.lesions import Lesion
from medfilip.phantom.render.canvas import Mark
from medfilip.phantom.render.detector import MAX_VALUE
from medfilip.phantom.render.field import FIELD_MM, Box
from medfilip.phantom.render.frontal import draw_frontal
from medfilip.phantom.render.lateral import draw_lateral
from medfilip.phantom.render.patient import Exposure, Patient, draw_exposure, draw_patient
from medfilip.phantom.render.styles import STYLES

__all__ = [
    "ALL_STYLES", "DEFAULT_SIZE", "FIELD_MM", "MAX_VALUE", "MIN_SIZE", "Box", "PhantomImage", "check_styles", "draw",
    "draw_study", "exposure_of", "patient_of",
]  # fmt: skip

DEFAULT_SIZE = 512
MIN_SIZE = 64
"""Smallest side in pixels at which every lesion can be seen."""
ALL_STYLES = tuple(STYLES)


@dataclass(frozen=True, eq=False)
class PhantomImage:
    """One radiograph.

    Attributes
    ----------
    view
        ViewPosition: ``PA``, ``AP`` or ``LL``.
    style
        Name of the renderer style.
    pixels
        ``uint16`` ``[size, size]`` with 12-bit values, larger is brighter.
    marks
        ``Lesion.key`` → pixels that show the lesion.
    """

    view: str
    style: str
    pixels: NDArray[np.uint16] = field(repr=False)
    marks: dict[str, Mark] = field(repr=False)

    @property
    def boxes(self) -> dict[str, Box]:
        """``Lesion.key`` → ``(row0, col0, row1, col1)``, half open, in pixels: the box of the mask."""
        return {key: mark.box for key, mark in self.marks.items()}

    @property
    def masks(self) -> dict[str, NDArray[np.bool_]]:
        """``Lesion.key`` → ``bool`` ``[size, size]``."""
        return {key: mark.full(len(self.pixels)) for key, mark in self.marks.items()}


def check_styles(styles: tuple[str, ...]) -> tuple[str, ...]:
    """Return styles in the order of `ALL_STYLES`.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if there are none, or one that does not exist.
    """
    unknown = sorted(set(styles) - set(ALL_STYLES))
    if unknown or not styles:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"There is no phantom style {', '.join(unknown)}." if unknown else "A phantom corpus needs a style.",
            fix=f"Choose from {', '.join(ALL_STYLES)}.",
        )
    return tuple(style for style in ALL_STYLES if style in styles)


def patient_of(seed: int, patient: int, sex: str, age: int) -> Patient:
    """Return the anatomy of a patient, the same in all of their studies."""
    return draw_patient(np.random.default_rng([seed, patient, 7]), sex, age)


def exposure_of(seed: int, index: int, styles: tuple[str, ...] = ALL_STYLES) -> Exposure:
    """Return how the frontal image of a study is taken: from a random stream that nothing else draws from."""
    return draw_exposure(np.random.default_rng([seed, index, 8]), styles)


def draw_study(
    lesions: tuple[Lesion, ...],
    patient: Patient,
    exposure: Exposure,
    seed: int,
    index: int,
    *,
    size: int = DEFAULT_SIZE,
    lateral: bool = False,
) -> tuple[PhantomImage, ...]:
    """Draw the images of one study: a frontal one and, if asked for, a lateral one.

    Raises
    ------
    MedfilipError
        ``CONFIG_INVALID`` if ``size`` is below `MIN_SIZE`.
    """
    if size < MIN_SIZE:
        raise MedfilipError(
            ErrorCode.CONFIG_INVALID,
            f"A phantom image needs a size of at least {MIN_SIZE} pixels, not {size}.",
            fix=f"Pass size >= {MIN_SIZE}.",
        )
    pixels, marks = draw_frontal(lesions, patient, exposure, seed, index, size)
    images = [PhantomImage(exposure.view, exposure.style.name, pixels, marks)]
    if lateral:
        pixels, marks = draw_lateral(lesions, patient, exposure, seed, index, size)
        images.append(PhantomImage("LL", exposure.style.name, pixels, marks))
    return tuple(images)


def draw(
    lesions: tuple[Lesion, ...],
    seed: int,
    index: int,
    size: int = DEFAULT_SIZE,
    *,
    styles: tuple[str, ...] = ALL_STYLES,
    sex: str = "M",
    age: int = 50,
    lateral: bool = False,
) -> PhantomImage:
    """Draw one image of a patient and an exposure that follow from ``seed`` and ``index``."""
    images = draw_study(
        lesions,
        patient_of(seed, index, sex, age),
        exposure_of(seed, index, styles),
        seed,
        index,
        size=size,
        lateral=lateral,
    )
    return images[-1]
