"""Masks of what an image shows, brought through the same geometry as its pixels.

A source says of an image by its id which pixels show a category, in the pixels of the file it came from, upright.
Ingestion shrinks images and `medfilip.imaging.preprocess.to_model` letterboxes them: the same two functions are applied
to masks, so that no pixel of a mask lies anywhere else than what it marks.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.protocols.masks import CATEGORY, read_masks
from medfilip.imaging.preprocess import to_model, to_store
from medfilip.imaging.quality import QualityFlag
from medfilip.storage.location import Location

if TYPE_CHECKING:
    import pyarrow as pa

Mask = NDArray[np.bool_]
_FULL = np.uint16(65_535)


class MaskSource(Protocol):
    """Anything that knows masks by image: drawn by a generator, or read from annotations."""

    def get(self, image_id: str, category: str) -> Mask | None:
        """Return bool [H, W] in pixels of the source image, all false where it shows nothing; ``None`` if unknown."""
        ...


def fitted(mask: Mask, row: Mapping[str, object]) -> bool:
    """Whether a mask lies on its image: a row of ``images`` with its shapes, ``quality`` and transfer syntax.

    An image that was turned when it was read lies otherwise than the file that the mask was drawn on. A DICOM file is
    never turned (`medfilip.imaging.intake`), whatever its pixels look like.
    """
    quality = row.get("quality")
    looks_turned = QualityFlag.ROTATED in quality if isinstance(quality, list) else False
    turned = looks_turned and str(row["source_transfer_syntax"]).startswith("image/")
    return not turned and mask.shape == (row["source_height"], row["source_width"])


def mask_to_model(mask: Mask, stored: tuple[int, int], size: int) -> Mask:
    """Bring a mask to the model's input: true where it covers at least half of a pixel.

    Parameters
    ----------
    mask
        bool [H, W], in pixels of the source image.
    stored
        Shape of the image as it is stored, which came from the same source.
    size
        Side of the model's input.

    Returns
    -------
    ndarray
        bool [size, size].

    Raises
    ------
    MedfilipError
        ``MASK_UNFIT`` if an image of the mask's shape is not stored with this shape.
    """
    shrunk = to_store(mask * _FULL, max(stored))
    if shrunk.shape != stored:
        raise MedfilipError(
            ErrorCode.MASK_UNFIT,
            f"A mask of {mask.shape[0]} x {mask.shape[1]} pixels does not lie on an image stored with "
            f"{stored[0]} x {stored[1]}.",
            fix="Give masks in the pixels of the source images, upright and uncropped.",
        )
    covered: Mask = to_model(shrunk, size)[0] >= 0  # the middle of the normalised grey range: half
    return covered


class ModelMasks:
    """The masks of a table of images as the model meets them, by row; the last ones stay in memory, as bits.

    Parameters
    ----------
    source, category
        Whose masks of what.
    listed
        Columns ``image_id``, ``height`` and ``width``, as `medfilip.transfer.labelled.list_images` gives them.
    size
        Side of the model's input.
    cache_mb
        Megabytes of masks that are kept.
    """

    def __init__(self, source: MaskSource, category: str, listed: pa.Table, size: int, *, cache_mb: int = 64) -> None:
        self._source, self._category, self._size = source, category, size
        self._ids = listed["image_id"].to_pylist()
        self._shapes = list(zip(listed["height"].to_pylist(), listed["width"].to_pylist(), strict=True))
        self._room = max((cache_mb << 23) // size**2, 1)
        self._kept: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def __call__(self, row: int) -> Mask:
        """Return the mask of a row, bool [S, S].

        Raises
        ------
        MedfilipError
            ``MASK_UNFIT`` if there is none, or one of another shape.
        """
        if row not in self._kept:
            mask = self._source.get(self._ids[row], self._category)
            if mask is None:
                raise MedfilipError(
                    ErrorCode.MASK_UNFIT, "An image has no mask any more.", fix="Restore the masks, and start again."
                )
            self._kept[row] = np.packbits(mask_to_model(mask, self._shapes[row], self._size))
            while len(self._kept) > self._room:
                self._kept.popitem(last=False)
        bits = np.unpackbits(self._kept[row], count=self._size**2)
        return bits.reshape(self._size, self._size).astype(np.bool_)


class PhantomMasks:
    """The masks of a phantom corpus that was written with ``masks=true``.

    Parameters
    ----------
    corpus
        Folder of the corpus.
    images
        Image id → report id and view ("frontal" or "lateral").
    """

    def __init__(self, corpus: Path, images: Mapping[str, tuple[str, str]]) -> None:
        self._folder, self._images = corpus / "masks", images
        if not self._folder.is_dir():
            raise MedfilipError(
                ErrorCode.INPUT_NOT_FOUND,
                "The phantom corpus has no folder 'masks'.",
                fix="Write it again with masks=true: the same seed gives the same images.",
            )

    @classmethod
    def of(cls, corpus: Path, studies: Mapping[str, str], listed: pa.Table) -> PhantomMasks:
        """Return the masks of listed images; ``studies`` says to which report each study belongs."""
        rows = zip(*(listed[name].to_pylist() for name in ("image_id", "study_id", "view")), strict=True)
        return cls(corpus, {image: (studies[study], view) for image, study, view in rows if study in studies})

    def get(self, image_id: str, category: str) -> Mask | None:
        """Return the mask of a category, of both sides together; see `MaskSource`."""
        if image_id not in self._images:
            return None
        report, view = self._images[image_id]
        folder = self._folder / report
        files = [file for file in sorted(folder.glob("*.png")) if _is_of(file.stem, category, view)]
        masks = [_read(file) for file in files]
        if not masks:
            shape = self._shape(report, view)
            return np.zeros(shape, np.bool_) if shape is not None else None
        joined: Mask = np.logical_or.reduce(masks)
        return joined

    def _shape(self, report: str, view: str) -> tuple[int, int] | None:
        """Return the shape of a study's image from its header: an image without lesions has no file of a mask."""
        from pydicom import dcmread
        from pydicom.errors import InvalidDicomError

        name = f"{report}.dcm" if view == "frontal" else f"{report}-lateral.dcm"
        try:
            header = dcmread(self._folder.parent / "images" / name, stop_before_pixels=True)
        except (OSError, InvalidDicomError):
            return None
        return int(header.Rows), int(header.Columns)


class ProtocolMasks:
    """The masks of the SIIM-ACR challenge, by the challenge's ids of images.

    Parameters
    ----------
    data
        Folder of the data set as it is shipped.
    """

    def __init__(self, data: Location) -> None:
        self._masks = read_masks(data)

    def get(self, image_id: str, category: str) -> Mask | None:
        """Return the mask of a pneumothorax, of both sides together; see `MaskSource`."""
        known = category == CATEGORY and image_id in self._masks.runs
        return self._masks.mask(image_id) if known else None


def _is_of(stem: str, category: str, view: str) -> bool:
    position, _, lesion = stem.partition("-")
    return (position == "LL") == (view == "lateral") and lesion.partition("-")[0] == category


def _read(file: Path) -> Mask:
    from PIL import Image

    with Image.open(io.BytesIO(file.read_bytes()), formats=["PNG"]) as image:
        mask: Mask = np.asarray(image.convert("L")) > 127
    return mask
