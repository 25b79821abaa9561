"""One entrance for images from outside: DICOM, PNG or JPEG, told apart by their first bytes and never by a name."""

from __future__ import annotations

import numpy as np

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.dicom import read_dicom
from medfilip.imaging.dicom_file import check_file_size, looks_like_dicom
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import Radiograph, pixel_hash

_RASTER_MAGIC = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def read_image(data: bytes, limits: ImageLimits, decoder: IsolatedDecoder | None = None) -> Radiograph:
    """Read a radiograph from the bytes of a DICOM, PNG or JPEG file.

    PNG and JPEG say nothing about view, spacing or patient, and are taken to be MONOCHROME2. 16-bit PNG stays 16 bit.
    A grey image saved in colour is accepted, a coloured one is not.

    Parameters
    ----------
    data
        The whole file.
    limits
        Bounds that hold before anything is decoded.
    decoder
        Worker for compressed pixels; without it one is started and ended for this image.

    Raises
    ------
    MedfilipError
        As `read_dicom`; ``IMAGE_UNSUPPORTED`` for any other kind of file.
    """
    check_file_size(data, limits)
    media_type = next((name for magic, name in _RASTER_MAGIC.items() if data.startswith(magic)), None)
    if media_type is not None:
        return _read_raster(data, media_type, limits, decoder)
    if looks_like_dicom(data):
        return read_dicom(data, limits, decoder)
    raise MedfilipError(
        ErrorCode.IMAGE_UNSUPPORTED,
        "The file is neither DICOM nor PNG nor JPEG.",
        fix="Send a DICOM, PNG or JPEG file.",
    )


def _read_raster(data: bytes, media_type: str, limits: ImageLimits, decoder: IsolatedDecoder | None) -> Radiograph:
    if decoder is not None:
        pixels = decoder.decode_raster(data)
    else:
        with IsolatedDecoder(limits) as own:
            pixels = own.decode_raster(data)
    return Radiograph(
        pixels=pixels,
        view="unknown",
        spacing_mm=None,
        photometric="MONOCHROME2",
        transfer_syntax=media_type,
        bits_stored=8 if pixels.dtype == np.uint8 else 16,
        pixel_hash=pixel_hash(pixels),
    )
