"""Images as a user of the library has them: a path, bytes, an array, a PIL image or a radiograph.

All of them end in the one intake, so that the same picture gives the same numbers here and at the endpoint.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.imaging.intake import QualityChecks, judge, take_in
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.radiograph import Radiograph, pixel_hash
from medfilip.storage.location import Location

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

GivenImage: TypeAlias = Union[str, Path, bytes, NDArray[np.uint8], NDArray[np.uint16], "PilImage", Radiograph]
"""One image; arrays are greyscale ``uint8`` or ``uint16`` ``[H, W]``, larger is brighter."""

ACCEPTING = QualityChecks(not_chest="accept")
"""An image that looks like no chest is answered, and its flags say so: whoever asked shall see why."""


def radiograph_of(image: object, limits: ImageLimits, decoder: IsolatedDecoder) -> Radiograph:
    """Read an image in whatever form it is given, judge it and set it upright.

    Parameters
    ----------
    image
        A path or ``s3://`` place of a DICOM, PNG or JPEG file, or its bytes; a greyscale ``uint8`` or ``uint16``
        array ``[H, W]`` or a PIL image, both treated as a PNG file with these pixels; or a `Radiograph`.
    limits
        Bounds that hold before anything is decoded.
    decoder
        Worker for compressed pixels.

    Raises
    ------
    MedfilipError
        ``REQUEST_INVALID`` for another type, ``INPUT_NOT_FOUND``, ``STORAGE_FAILED``, ``IMAGE_UNSUPPORTED`` for
        arrays of another kind, and as `medfilip.imaging.reader.read_image`.
    """
    if isinstance(image, Radiograph):
        return image if image.set_upright else judge(image, checks=ACCEPTING)
    if isinstance(image, np.ndarray):
        return judge(_of_array(image, limits), checks=ACCEPTING)
    if isinstance(image, str | os.PathLike):
        return take_in(_file(image, limits), limits, decoder, checks=ACCEPTING)
    if isinstance(image, bytes | bytearray | memoryview):
        return take_in(bytes(image), limits, decoder, checks=ACCEPTING)
    data = _png_of_pil(image)
    if data is None:
        raise MedfilipError(
            ErrorCode.REQUEST_INVALID,
            f"An image cannot be a {type(image).__name__}.",
            fix="Give a path, the bytes of a file, a PIL image, a numpy array [H, W] or a Radiograph.",
        )
    return take_in(data, limits, decoder, checks=ACCEPTING)


def _file(path: str | os.PathLike[str], limits: ImageLimits) -> bytes:
    place = Location.parse(Path(path) if isinstance(path, os.PathLike) else path)
    if not place.exists() or place.is_dir():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, "The image file is not there.", fix="Check the path; a folder is no image."
        )
    if place.size() > limits.max_file_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The file has {place.size()} bytes; max_file_bytes is {limits.max_file_bytes}.",
            fix="Give single radiographs.",
        )
    return place.read_bytes()


def _of_array(pixels: NDArray[Any], limits: ImageLimits) -> Radiograph:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16) or not pixels.size:
        raise MedfilipError(
            ErrorCode.IMAGE_UNSUPPORTED,
            f"An array must be uint8 or uint16 [H, W]; this one is {pixels.dtype} {list(pixels.shape)}.",
            fix="Give grey values, larger is brighter; several images as a list of arrays.",
        )
    if pixels.size > limits.max_pixels:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The array has {pixels.shape[1]} x {pixels.shape[0]} pixels; max_pixels is {limits.max_pixels}.",
            fix="Give it at a lower resolution.",
        )
    return Radiograph(
        pixels=np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("=")),
        view="unknown",
        spacing_mm=None,
        photometric="MONOCHROME2",
        transfer_syntax="image/png",
        bits_stored=8 * pixels.dtype.itemsize,
        pixel_hash=pixel_hash(pixels),
    )


def _png_of_pil(image: object) -> bytes | None:
    """Return a PIL image as a PNG file, so that its mode and orientation mean what they mean in a file."""
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        return None
    buffer = io.BytesIO()
    try:
        ImageOps.exif_transpose(image).save(buffer, "PNG", compress_level=1)
    except (OSError, ValueError) as error:
        raise MedfilipError(
            ErrorCode.IMAGE_UNSUPPORTED,
            f"A PIL image of mode {image.mode} cannot be read as a radiograph.",
            fix="Convert it to mode L or I;16.",
        ) from error
    return buffer.getvalue()
