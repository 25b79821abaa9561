"""Who is imaged and how: anatomy that differs between people, and positioning and exposure that differ between images.

None of it depends on what a patient has: each part is drawn from a random stream of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medfilip.phantom.render.styles import STYLES, Style

VIEWS = ("PA", "AP", "LL")
"""Values of ViewPosition (PS3.3, C.8.11.5): postero-anterior, antero-posterior (portable), left lateral."""

_PORTABLE_SHARE = 0.35


@dataclass(frozen=True)
class Patient:
    """Anatomy of a patient; numbers are fractions of the field unless said otherwise.

    Attributes
    ----------
    sex, age
        ``F`` or ``M``; years.
    habitus
        0 (thin) to 1 (obese): thickness of the soft tissue.
    cage
        Half width of the rib cage at its widest.
    apex, dome
        Height of the lung apices, and of the top of the right hemidiaphragm at full inspiration.
    heart
        Cardiothoracic ratio; up to 0.5 is normal (Danzer, Am J Med Sci 1919).
    aorta
        0 (young) to 1 (unfolded): size of the aortic knob.
    bone
        Relative density of bone.
    breast
        0 (none) to 1: size of the breast shadows.
    ribs
        Offset of the first rib, of the left against the right ribs, and relative spacing.
    posture
        How low the shoulders hang, and how far the arms are away; -1 to 1.
    stomach
        Amount, place and shape of the gas in the stomach.
    tree
        Seed of the branching of the vessels.
    """

    sex: str
    age: int
    habitus: float
    cage: float
    apex: float
    dome: float
    heart: float
    aorta: float
    bone: float
    breast: float
    ribs: tuple[float, float, float]
    posture: tuple[float, float]
    stomach: tuple[float, float, float]
    tree: int


@dataclass(frozen=True)
class Exposure:
    """How one image is taken.

    Attributes
    ----------
    view
        ``PA`` or ``AP``.
    style
        How the detector and its processing render the image.
    zoom, shift, tilt, rotation
        Size of the patient in the field, offset (x, y), slope of the midline, and turn about the long axis (fraction
        by which the front of the chest moves to the patient's left).
    dose
        Quanta relative to the usual: noise is its inverse square root.
    gain, contrast
        Relative brightness and slope of the rendering.
    breath
        Fraction by which the diaphragm is higher than at full inspiration.
    """

    view: str
    style: Style
    zoom: float
    shift: tuple[float, float]
    tilt: float
    rotation: float
    dose: float
    gain: float
    contrast: float
    breath: float

    @property
    def portable(self) -> bool:
        """Whether it was taken at the bedside, of a patient who lies or sits against the detector."""
        return self.view == "AP"


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _central(rng: np.random.Generator) -> float:
    """Draw from [-1, 1], values near 0 preferred."""
    return float(rng.random()) + float(rng.random()) - 1.0


def draw_patient(rng: np.random.Generator, sex: str, age: int) -> Patient:
    """Draw the anatomy of a patient."""
    old = min(max((age - 35) / 50, 0.0), 1.0)
    habitus = min(max(0.42 + 0.42 * _central(rng), 0.0), 1.0)
    return Patient(
        sex=sex,
        age=age,
        habitus=habitus,
        cage=(0.325 if sex == "F" else 0.338) + 0.020 * _central(rng),
        apex=0.125 + 0.020 * _central(rng),
        dome=0.672 + 0.028 * _central(rng) - 0.012 * habitus,
        heart=0.435 + 0.03 * _central(rng) + 0.02 * old,
        aorta=min(max(0.12 + 0.42 * old + 0.10 * _central(rng), 0.0), 0.62),
        bone=1.0 - 0.28 * old * float(rng.random()) + 0.10 * _central(rng),
        breast=_between(rng, 0.35, 1.0) if sex == "F" else 0.0,
        ribs=(0.012 * _central(rng), 0.006 * _central(rng), 1.0 + 0.06 * _central(rng)),
        posture=(_central(rng), _central(rng)),
        stomach=(float(rng.random()), _central(rng), float(rng.random())),
        tree=int(rng.integers(1 << 31)),
    )


def draw_exposure(rng: np.random.Generator, styles: tuple[str, ...]) -> Exposure:
    """Draw view, style, positioning and exposure of an image; portable units take only AP views."""
    portable = rng.random() < _PORTABLE_SHARE
    fitting = [name for name in styles if STYLES[name].bedside in (None, portable)] or list(styles)
    style = STYLES[fitting[int(rng.integers(len(fitting)))]]
    return Exposure(
        view="AP" if portable else "PA",
        style=style,
        zoom=(1.04 if portable else 1.0) + 0.04 * _central(rng) + style.zoom,
        shift=(0.018 * _central(rng), 0.014 * _central(rng) + (0.005 if portable else 0.0)),
        tilt=0.03 * _central(rng) * (2.0 if portable else 1.0),
        rotation=0.014 * _central(rng) * (2.0 if portable else 1.0),
        dose=_between(rng, 0.6, 1.5),
        gain=1.0 + 0.10 * _central(rng),
        contrast=1.0 + 0.14 * _central(rng),
        breath=_between(rng, 0.015, 0.04) if portable else _between(rng, 0.0, 0.015),
    )
