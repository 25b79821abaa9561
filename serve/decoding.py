"""What a decoder computes, as a plain class: Ray only places it (``serve.app``)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medfilip.answers import Diagnosis
from medfilip.imaging.facts import image_facts
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.one_study import origin_of
from medfilip.imaging.preprocess import png_encode, to_model, to_store
from medfilip.imaging.radiograph import Pixels, Radiograph
from serve.messages import Decoded, Refused, refusing
from serve.rendering import Form, render

_PREVIEW_SIZE = 1024


class DecoderService:
    """Files from outside → model input. One image at a time; compressed pixels are decoded in a killable process.

    Parameters
    ----------
    limits
        Bounds on a file.
    store_size
        Long side of stored images in ingestion: training saw images that had been shrunk to it.
    """

    def __init__(self, limits: ImageLimits, *, store_size: int) -> None:
        self._limits, self._store_size = limits, store_size
        self._decoder = IsolatedDecoder(limits)

    def decode(self, data: bytes, image_size: int, *, preview: bool = False) -> Decoded | Refused:
        """Decode one DICOM, PNG or JPEG file for a model whose input has sides of ``image_size`` pixels.

        ``preview`` asks for a picture of it as well.
        """
        return refusing(lambda: self._decode(data, image_size, preview))

    def render(self, form: Form, diagnosis: Diagnosis, files: Sequence[bytes]) -> tuple[bytes, ...] | Refused:
        """Write an answer about files in another form; see `serve.rendering.render`."""
        return refusing(lambda: render(form, diagnosis, files, self._limits, self._decoder))

    def close(self) -> None:
        """End the decoding process."""
        self._decoder.close()

    def _decode(self, data: bytes, image_size: int, preview: bool) -> Decoded:
        image = take_in(data, self._limits, self._decoder, checks=ACCEPTING)
        return prepared(image, store_size=self._store_size, image_size=image_size, preview=preview)


def prepared(image: Radiograph, *, store_size: int, image_size: int, preview: bool = False) -> Decoded:
    """Return an image as the model takes it, for endpoint and batch alike."""
    stored = to_store(image.pixels, store_size)
    return Decoded(
        to_model(stored, image_size),
        image_facts(image),
        _preview(stored) if preview else None,
        origin_of(image),
    )


def _preview(pixels: Pixels) -> bytes:
    small = to_store(pixels, _PREVIEW_SIZE)
    return png_encode((small >> 8).astype(np.uint8) if small.dtype == np.uint16 else small)
