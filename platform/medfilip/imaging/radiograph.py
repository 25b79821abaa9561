"""The decoded radiograph: pixels that mean the same whatever file they came from, and the facts about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
"""Greyscale ``[H, W]``, larger is brighter (MONOCHROME2)."""

RadiographView = Literal["frontal", "lateral", "unknown"]

ViewSource = Literal["table", "header", "pixels"]

GreyValues = Literal["voi_lut", "window", "full_range"]
"""What turned stored values into grey values: the file's VOI LUT, its window, or the range of its values."""

ViewPosition = Literal["PA", "AP", "LL", "RL", "LATERAL"]
"""Way of the beam (PS3.3, section C.8.7.1.1.1); ``"LATERAL"`` where the file does not say which side."""


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One decoded projection image.

    The representation shows neither pixels nor identifiers, so that a radiograph in a log line or a traceback tells
    nothing about the patient.

    Attributes
    ----------
    pixels
        ``uint8`` or ``uint16`` ``[H, W]``, larger is brighter.
    view
        ``"frontal"``, ``"lateral"`` or ``"unknown"``.
    view_position
        The way of the beam; ``None`` where the file does not say.
    spacing_mm
        Distance between rows in millimetres at the detector; ``None`` when the file does not say.
    photometric
        Photometric interpretation of the file, before it was turned to MONOCHROME2.
    transfer_syntax
        DICOM transfer syntax UID, ``image/png`` or ``image/jpeg``.
    bits_stored
        Bits per pixel in the file.
    pixel_hash
        `pixel_hash` of ``pixels``.
    view_source
        Who says which view it is; ``None`` if nobody does, or before `medfilip.imaging.intake` asked.
    grey_values
        How stored values became grey values.
    quality
        Flags of `medfilip.imaging.quality.QualityFlag`, from `medfilip.imaging.intake`.
    set_upright
        Whether what ``quality`` says of polarity and turn was undone.
    study_uid, sop_uid, patient_id, sex, age
        As the file gives them; ``None`` when empty or absent. The first three identify a patient.
    """

    pixels: Pixels = field(repr=False)
    view: RadiographView
    spacing_mm: float | None
    photometric: str
    transfer_syntax: str
    bits_stored: int
    pixel_hash: str
    view_position: ViewPosition | None = None
    view_source: ViewSource | None = None
    grey_values: GreyValues = "full_range"
    quality: tuple[str, ...] = ()
    set_upright: bool = False
    study_uid: str | None = field(default=None, repr=False)
    sop_uid: str | None = field(default=None, repr=False)
    patient_id: str | None = field(default=None, repr=False)
    sex: str | None = field(default=None, repr=False)
    age: str | None = field(default=None, repr=False)

    @property
    def from_dicom(self) -> bool:
        """Whether the file was DICOM, which states polarity and orientation."""
        return not self.transfer_syntax.startswith("image/")


def pixel_hash(pixels: NDArray[Any]) -> str:
    """Return the SHA-256, in hex, of shape, type and values: equal pixels hash equally whatever their container."""
    # Little endian on every machine, otherwise the same image would hash differently on a big-endian one.
    values = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    head = f"{values.shape[0]}x{values.shape[1]}:{values.dtype.str}:"
    return hashlib.sha256(head.encode() + values.tobytes()).hexdigest()
