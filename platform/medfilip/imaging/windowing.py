"""Stored values → grey values: Modality LUT, VOI LUT or window, MONOCHROME1, in that order.

All of it is a function of one stored value, so it is computed once for the at most 65,536 values there are and looked
up for each pixel: exact, and many times faster than on a whole image in floating point.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.radiograph import Pixels


def to_monochrome2(stored: NDArray[Any], dataset: Dataset) -> Pixels:
    """Turn stored values into grey values of which the larger is the brighter.

    Parameters
    ----------
    stored
        8 or 16 bit integers ``[H, W]`` as decoded from Pixel Data.
    dataset
        The attributes of the image; needs Photometric Interpretation.

    Returns
    -------
    ndarray
        ``uint8`` for up to 8 bits stored, else ``uint16`` over its full range: the range of the VOI LUT or window,
        and without one the range of the image's own values, as viewers do. 8-bit data without any transformation
        keep their values.

    Raises
    ------
    MedfilipError
        ``IMAGE_UNDECODABLE`` if the transformation gives no finite values.
    """
    info = np.iinfo(stored.dtype)
    domain = np.arange(info.min, info.max + 1, dtype=np.int64)
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    top = 255 if bits <= 8 else 65535
    modality = apply_modality_lut(domain, dataset)
    index = stored.astype(np.int32) - int(info.min)
    unit = _voi_unit(modality, dataset)
    if unit is None:
        if bits <= 8 and info.min == 0 and np.array_equal(modality, domain):
            unit = np.clip(domain / 255.0, 0.0, 1.0)
        else:
            low, high = _range_of(modality, index)
            unit = np.clip((modality - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    if not np.isfinite(unit).all():
        raise MedfilipError(
            ErrorCode.IMAGE_UNDECODABLE,
            "The rescale or window attributes give grey values that are not finite.",
            fix="Correct Rescale Slope, Rescale Intercept, Window Center and Window Width.",
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1.0 - unit
    table = np.rint(unit * top).astype(np.uint8 if bits <= 8 else np.uint16)
    return np.ascontiguousarray(table[index])


def _range_of(modality: NDArray[Any], index: NDArray[np.int32]) -> tuple[float, float]:
    """Smallest and largest modality value that occurs in the image."""
    occurring = np.bincount(index.ravel(), minlength=len(modality)) > 0
    values = modality[occurring].astype(np.float64)
    return float(values.min()), float(values.max())


def _voi_unit(modality: NDArray[Any], dataset: Dataset) -> NDArray[np.float64] | None:
    """Apply the VOI LUT or the first window and scale its output range to [0, 1]; ``None`` if there is neither."""
    if dataset.get("VOILUTSequence"):
        # A LUT is indexed by integers (C.11.2.1.1), and a rescaled value is a float even where it is whole.
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        values = apply_voi_lut(np.rint(modality).astype(np.int64), dataset)
        mapped: NDArray[np.float64] = np.clip(values.astype(np.float64) / (2**depth - 1), 0.0, 1.0)
        return mapped
    if dataset.get("WindowCenter") is None or dataset.get("WindowWidth") is None:
        return None
    # pydicom derives the output range from the rescale attributes, which turns the image around when the slope is
    # negative. The window alone, with a plain 16-bit output range, says the same without that.
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 16, 0
    window.WindowCenter, window.WindowWidth = dataset.WindowCenter, dataset.WindowWidth
    if dataset.get("VOILUTFunction"):
        window.VOILUTFunction = dataset.VOILUTFunction
    unit: NDArray[np.float64] = np.clip(apply_voi_lut(modality.astype(np.float64), window) / 65535.0, 0.0, 1.0)
    return unit
