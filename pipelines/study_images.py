"""Images of studies to diagnose: files, taken in as the endpoint does it, or what an ingest has stored of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import pyarrow as pa

from medfilip.answers import ImageFacts
from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import ImageListing, read_listed, read_part
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.imaging.radiograph import Radiograph
from medfilip.storage.location import Location
from medfilip.storage.manifest import Manifest, Shard
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import read_shard
from serve.decoding import prepared
from serve.messages import Decoded, unexpected

_STORED = (
    "image_id", "study_id", "view", "quality", "pixels", "bits", "source_height", "source_width", "source_photometric",
    "source_transfer_syntax", "pixel_hash",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TakenImage:
    """An image that was read.

    Attributes
    ----------
    image_id, study_id
        Pseudonyms, as ingest gives them.
    path
        Path below the folder, where paths are kept.
    pixel_hash
        Of its decoded pixels.
    decoded
        As the model takes it, with its facts.
    """

    image_id: str
    study_id: str
    path: str | None
    pixel_hash: str
    decoded: Decoded = field(repr=False)


class ImageSource(Protocol):
    """Where images come from, in parts that a worker reads on its own."""

    def sizes(self) -> tuple[int, ...]:
        """Return the number of images of each part."""
        ...

    def table(self, part: int) -> pa.Table:
        """Return the rows of a part, one an image."""
        ...

    def name(self, row: Mapping[str, Any]) -> str:
        """Return what an image is called where it is refused."""
        ...

    def take(self, row: Mapping[str, Any]) -> TakenImage:
        """Read an image, or raise a `MedfilipError` with the reason for which it is refused."""
        ...


@dataclass(frozen=True)
class FileImages:
    """Files of a listing: DICOM, PNG and JPEG.

    Attributes
    ----------
    folder
        Where they lie.
    listing
        File of the listing, a row group a part.
    counts
        Images of each part.
    key
        The project's key, for pseudonyms.
    limits
        Bounds on a file.
    store_size
        Long side to which an image is shrunk before it becomes model input.
    image_size
        Side of the model's input.
    keep_paths
        Whether paths may be told.
    """

    folder: Location
    listing: Location
    counts: tuple[int, ...]
    key: bytes = field(repr=False)
    limits: ImageLimits
    store_size: int
    image_size: int
    keep_paths: bool

    @classmethod
    def of(cls, listing: ImageListing, file: Location, **settings: Any) -> FileImages:
        """Write a listing where workers read it, and return its images."""
        listing.write(file)
        counts = tuple(after - before for before, after in pairwise(listing.cuts()))
        return cls(folder=listing.folder, listing=file, counts=counts, **settings)

    def sizes(self) -> tuple[int, ...]:
        """Return the number of images of each part."""
        return self.counts

    def table(self, part: int) -> pa.Table:
        """Return the listed files of a part."""
        return read_part(self.listing, part)

    def name(self, row: Mapping[str, Any]) -> str:
        """Return the pseudonym of a file, or its path where paths are kept."""
        return str(row["name"]) if self.keep_paths else pseudonym(self.key, "file", row["name"])

    def take(self, row: Mapping[str, Any]) -> TakenImage:
        """Read a file; one that states no study is its own.

        Raises
        ------
        MedfilipError
            As `medfilip.imaging.intake.take_in`, ``IMAGE_MISSING`` or ``INTERNAL``.
        """
        # Outside of what is caught: storage that fails is no reason to refuse images.
        data = read_listed(self.folder, row, self.limits)
        image, decoded = self._taken(data, row["view"])
        file_id = pseudonym(self.key, "file", row["name"])
        study = row["study_id"] or image.study_uid
        return TakenImage(
            image_id=pseudonym(self.key, "image", image.sop_uid) if image.sop_uid else file_id,
            study_id=pseudonym(self.key, "study", study or file_id),
            path=row["name"] if self.keep_paths else None,
            pixel_hash=image.pixel_hash,
            decoded=decoded,
        )

    def _taken(self, data: bytes, view: str | None) -> tuple[Radiograph, Decoded]:
        try:
            image = take_in(data, self.limits, shared_decoder(self.limits), checks=ACCEPTING, stated_view=view)
            return image, prepared(image, store_size=self.store_size, image_size=self.image_size)
        except MedfilipError:
            raise
        except Exception as error:
            unexpected(error)  # logs where, without the exception's text, which may quote the file
            raise MedfilipError(
                ErrorCode.INTERNAL,
                f"The image could not be taken in, for a reason that was not foreseen ({type(error).__name__}).",
                fix="Look for 'unexpected' in the log of the worker.",
            ) from None


@dataclass(frozen=True)
class StoredImages:
    """Images of a run of ingest, whose pixels are stored as they were set upright.

    Attributes
    ----------
    run
        The run.
    shards
        Shards of its images.
    image_size
        Side of the model's input.
    """

    run: Location
    shards: tuple[Shard, ...]
    image_size: int

    @classmethod
    def of(cls, run: Location, manifest: Manifest, image_size: int) -> StoredImages:
        """Return the images of a run."""
        return cls(run, tuple(manifest.dataset("images").shards), image_size)

    def sizes(self) -> tuple[int, ...]:
        """Return the number of images of each shard."""
        return tuple(shard.rows for shard in self.shards)

    def table(self, part: int) -> pa.Table:
        """Return the images of a shard."""
        return read_shard(self.run, self.shards[part], IMAGES, list(_STORED))

    def name(self, row: Mapping[str, Any]) -> str:
        """Return the id of an image."""
        return str(row["image_id"])

    def take(self, row: Mapping[str, Any]) -> TakenImage:
        """Turn stored pixels into model input.

        Raises
        ------
        MedfilipError
            ``IMAGE_UNDECODABLE``.
        """
        facts = ImageFacts(
            view=row["view"],
            rows=row["source_height"],
            columns=row["source_width"],
            bits=row["bits"],
            photometric=row["source_photometric"],
            inverted=row["source_photometric"] == "MONOCHROME1",
            transfer_syntax=row["source_transfer_syntax"],
            quality=tuple(row["quality"] or ()),
        )
        pixels_1SS = to_model(png_decode(row["pixels"]), self.image_size)
        return TakenImage(row["image_id"], row["study_id"], None, row["pixel_hash"], Decoded(pixels_1SS, facts))
