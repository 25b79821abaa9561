"""What a decoder computes, as a plain class: Ray only places it (``serve.app``)."""

from __future__ import annotations

import numpy as np

from medfilip.imaging.facts import image_facts
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_encode, to_model, to_store
from medfilip.imaging.radiograph import Pixels, Radiograph
from serve.messages import Decoded, Refused, refusing

_PREVIEW_SIZE = 1024


class DecoderService:
    """Files from outside → model input. One image at a time; compressed pixels are decoded in a killable process.

    Parameters
    ----------
    limits
        Bounds on a file.
    store_size
        Long side of stored images in ingestion: training saw images that had been shrunk to it.
    image_size
        Side of the model's input.
    """

    def __init__(self, limits: ImageLimits, *, store_size: int, image_size: int) -> None:
        self._limits, self._store_size, self._image_size = limits, store_size, image_size
        self._decoder = IsolatedDecoder(limits)

    def decode(self, data: bytes, *, preview: bool = False) -> Decoded | Refused:
        """Decode one DICOM, PNG or JPEG file; ``preview`` asks for a picture of it as well."""
        return refusing(lambda: self._decode(data, preview))

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def _decode(self, data: bytes, preview: bool) -> Decoded:
        image = take_in(data, self._limits, self._decoder, checks=ACCEPTING)
        return prepared(image, store_size=self._store_size, image_size=self._image_size, preview=preview)


def prepared(image: Radiograph, *, store_size: int, image_size: int, preview: bool = False) -> Decoded:
    """Return an image as the model takes it, for endpoint and batch alike."""
    stored = to_store(image.pixels, store_size)
    return Decoded(to_model(stored, image_size), image_facts(image), _preview(stored) if preview else None)


def _preview(pixels: Pixels) -> bytes:
    small = to_store(pixels, _PREVIEW_SIZE)
    return png_encode((small >> 8).astype(np.uint8) if small.dtype == np.uint16 else small)
