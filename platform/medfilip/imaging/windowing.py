"""Stored values → grey values: Modality LUT, VOI LUT or window, MONOCHROME1, in that order.

All of it is a function of one stored value, so it is computed once for the at most 65,536 values there are and looked
up for each pixel: exact, and many times faster than on a whole image in floating point.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom_file import text_of
from medfilip.imaging.radiograph import GreyValues, Pixels


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
    bits = int(dataset.get("BitsStored") or dataset.BitsAllocated)
    top = 255 if bits <= 8 else 65535
    unsigned = np.dtype(f"u{stored.dtype.itemsize}")
    domain = np.arange(2 ** (8 * stored.dtype.itemsize)).astype(unsigned).view(stored.dtype).astype(np.int64)
    index = np.ascontiguousarray(stored).view(unsigned)
    padding = _padding(domain, dataset)
    modality = apply_modality_lut(domain, dataset)
    unit = _voi_unit(modality, dataset)
    if unit is None:
        if bits <= 8 and stored.dtype == unsigned and np.array_equal(modality, domain):
            unit = np.clip(domain / 255.0, 0.0, 1.0)
        else:
            low, high = _range_of(modality, index, padding)
            unit = np.clip((modality - low) / (high - low if high > low else 1.0), 0.0, 1.0)
    if not np.isfinite(unit).all():
        raise MedfilipError(
            ErrorCode.IMAGE_UNDECODABLE,
            "The rescale or window attributes give grey values that are not finite.",
            fix="Correct Rescale Slope, Rescale Intercept, Window Center and Window Width.",
        )
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        unit = 1.0 - unit
    unit[padding] = 0.0
    table = np.rint(unit * top).astype(np.uint8 if bits <= 8 else np.uint16)
    return np.take(table, index)


def _padding(domain: NDArray[np.int64], dataset: Dataset) -> NDArray[np.bool_]:
    """Return which stored values only fill what was not exposed: on display they are background (C.7.5.1.1.2)."""
    value, limit = dataset.get("PixelPaddingValue"), dataset.get("PixelPaddingRangeLimit")
    if not isinstance(value, int):
        return np.zeros(len(domain), np.bool_)
    other = limit if isinstance(limit, int) else value
    if int(domain.min()) <= -32768 or int(domain.max()) >= 65535:
        # Written as unsigned where values are signed, or the other way round, it is the same word.
        value, other = ((number - domain.min()) % 65536 + domain.min() for number in (value, other))
    padding: NDArray[np.bool_] = (domain >= min(value, other)) & (domain <= max(value, other))
    return padding


def _range_of(modality: NDArray[Any], index: NDArray[Any], padding: NDArray[np.bool_]) -> tuple[float, float]:
    """Smallest and largest modality value that occurs in the image, padding left out."""
    occurring = np.zeros(len(modality), np.bool_)
    occurring[index.ravel()] = True
    values = modality[occurring & ~padding].astype(np.float64)
    return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)


def _voi_unit(modality: NDArray[Any], dataset: Dataset) -> NDArray[np.float64] | None:
    """Apply the VOI LUT or the first window and scale its output range to [0, 1]; ``None`` if there is neither."""
    if dataset.get("VOILUTSequence"):
        # A LUT is indexed by integers (C.11.2.1.1), and a rescaled value is a float even where it is whole.
        depth = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        values = apply_voi_lut(np.rint(modality).astype(np.int64), dataset)
        mapped: NDArray[np.float64] = np.clip(values.astype(np.float64) / (2**depth - 1), 0.0, 1.0)
        return mapped
    if not _has_window(dataset):
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


def grey_values_of(dataset: Dataset) -> GreyValues:
    """Say what `to_monochrome2` takes the grey values from."""
    if dataset.get("VOILUTSequence"):
        return "voi_lut"
    return "window" if _has_window(dataset) else "full_range"


def _has_window(dataset: Dataset) -> bool:
    """Whether there is a window of some width: some writers fill in 0, which means that there is none."""
    center, width = dataset.get("WindowCenter"), dataset.get("WindowWidth")
    if center is None or width is None:
        return False
    first = width[0] if isinstance(width, Sequence) and not isinstance(width, str) and len(width) else width
    exact = text_of(dataset, "VOILUTFunction") in ("LINEAR_EXACT", "SIGMOID")
    return float(first) > 0 if exact else float(first) >= 1
