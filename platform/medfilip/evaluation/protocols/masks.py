"""Masks of the SIIM-ACR pneumothorax challenge, for segmentation."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.folder import DataFolder
from medfilip.evaluation.protocols.protocol import load_protocol
from medfilip.evaluation.protocols.readers.siim_acr import read_runs
from medfilip.imaging.run_lengths import rle_decode
from medfilip.storage.location import Location

PROTOCOL, CATEGORY = "siim_acr", "pneumothorax"
SIDE = 1024
"""Height and width of the challenge's images in pixels."""
_RECIPE = "phantom.json"


@dataclass(frozen=True)
class Masks:
    """The masks of all images that the table names, kept encoded.

    Attributes
    ----------
    runs
        Image id → its encoded masks (`medfilip.imaging.run_lengths`); none for an image without a pneumothorax.
    side
        Height and width of the images that were annotated, in pixels.
    """

    runs: Mapping[str, tuple[str, ...]]
    side: int = SIDE

    def mask(self, image_id: str) -> NDArray[np.bool_]:
        """Return all that is marked on an image: bool ``[side, side]``, in pixels of the file as it is shipped.

        Raises
        ------
        MedfilipError
            ``NOT_FOUND`` for an image that the table does not name; as `rle_decode`.
        """
        shape = (self.side, self.side)
        if image_id not in self.runs:
            raise MedfilipError(
                ErrorCode.NOT_FOUND, f"The table of masks does not name the image {image_id}.", fix="Check the id."
            )
        whole = np.zeros(shape, np.bool_)
        for text in self.runs[image_id]:
            whole |= rle_decode(text, shape)
        return whole


def read_masks(data: Location) -> Masks:
    """Read the table of masks below a folder of the SIIM-ACR data, or of phantoms in its layout.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``COLUMN_MISSING``, ``SHARD_CORRUPT``.
    """
    recipe = data / _RECIPE
    side = int(json.loads(recipe.read_bytes())["size"]) if recipe.exists() else SIDE
    return Masks(read_runs(DataFolder(data, load_protocol(PROTOCOL))), side)
