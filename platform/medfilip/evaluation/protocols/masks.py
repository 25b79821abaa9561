"""Masks of the SIIM-ACR pneumothorax challenge, for segmentation."""

from __future__ import annotations

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

SIDE = 1024
"""Height and width of the challenge's images in pixels."""


@dataclass(frozen=True)
class Masks:
    """The masks of all images that the table names, kept encoded.

    Attributes
    ----------
    runs
        Image id → its encoded masks (`medfilip.imaging.run_lengths`); none for an image without a pneumothorax.
    """

    runs: Mapping[str, tuple[str, ...]]

    def mask(self, image_id: str, shape: tuple[int, int] = (SIDE, SIDE)) -> NDArray[np.bool_]:
        """Return all that is marked on an image: bool ``[H, W]``, in pixels of the file.

        Raises
        ------
        MedfilipError
            ``NOT_FOUND`` for an image that the table does not name; as `rle_decode`.
        """
        if image_id not in self.runs:
            raise MedfilipError(
                ErrorCode.NOT_FOUND, f"The table of masks does not name the image {image_id}.", fix="Check the id."
            )
        whole = np.zeros(shape, np.bool_)
        for text in self.runs[image_id]:
            whole |= rle_decode(text, shape)
        return whole


def read_masks(data: Location) -> Masks:
    """Read the table of masks below a folder of the SIIM-ACR data.

    Raises
    ------
    MedfilipError
        ``INPUT_NOT_FOUND``, ``COLUMN_MISSING``, ``SHARD_CORRUPT``.
    """
    return Masks(read_runs(DataFolder(data, load_protocol("siim_acr"))))
