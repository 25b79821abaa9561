"""The image half of ingest: DICOM, PNG and JPEG files → staged rows of `images`, and what was refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.imaging.isolation import IsolatedDecoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.preprocess import png_encode, to_store
from medfilip.imaging.radiograph import Radiograph
from medfilip.imaging.reader import read_image
from medfilip.storage.location import Location
from medfilip.storage.schemas import IMAGES, REJECTED
from medfilip.storage.shards import write_shard
from pipelines.row_index import IndexRow, write_index

FILES_PER_PART = 64
PHANTOM = "phantom"
"""Source of synthetic rows: what is trained on them says so wherever it answers."""
_NO_IMAGES = (
    ".csv", ".gz", ".htm", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".parquet", ".pdf", ".py", ".tsv", ".txt",
    ".xml", ".yaml", ".yml", ".zip",
)  # fmt: skip
"""Names that are surely no image. Everything else is read: DICOM files have any name, often a bare UID."""


@dataclass(frozen=True)
class ImagePart:
    """A share of the image files: paths relative to their folder, in a fixed order."""

    number: int
    folder: Location
    names: tuple[str, ...]


@dataclass(frozen=True)
class ImageFiles:
    """The image files below a folder, by path relative to it; ``others`` is the number of files of other kinds."""

    names: list[str]
    stamps: list[tuple[int, int]]
    others: int


def list_images(folder: Location) -> ImageFiles:
    """List the files below a folder that may be images, with size in bytes and time of change in nanoseconds."""
    if not folder.is_dir():
        raise MedfilipError(
            ErrorCode.INPUT_NOT_FOUND, f"There is no folder of images at {folder}.", fix="Check the setting 'images'."
        )
    files = folder.files()
    found = [file for file in files if not file.path.lower().endswith(_NO_IMAGES)]
    if not found:
        raise MedfilipError(
            ErrorCode.INPUT_EMPTY, f"There are no image files below {folder}.", fix="Check the setting 'images'."
        )
    names = [file.path.removeprefix(folder.path + "/") for file in found]
    return ImageFiles(names, [(file.size, file.mtime_ns or 0) for file in found], len(files) - len(found))


def plan_images(folder: Location, names: list[str]) -> list[ImagePart]:
    """Cut the files into parts."""
    return [
        ImagePart(number, folder, tuple(names[begin : begin + FILES_PER_PART]))
        for number, begin in enumerate(range(0, len(names), FILES_PER_PART))
    ]


def ingest_images(
    part: ImagePart,
    *,
    staging: Location,
    key: bytes,
    limits: ImageLimits,
    store_size: int,
    excluded: frozenset[str],
    synthetic: bool,
) -> dict[str, Any]:
    """Read the files of a part and stage ``images`` rows without a split; one bad file costs one row."""
    rows: list[dict[str, Any]] = []
    rejected: list[dict[str, object]] = []
    with IsolatedDecoder(limits) as decoder:
        for name in part.names:
            image_id = pseudonym(key, "file", name)
            try:
                data = _read_bounded(part.folder / name, limits)
                image = read_image(data, limits, decoder)
                if excluded & {image.patient_id, image.study_uid}:
                    raise MedfilipError(ErrorCode.EXCLUDED, "The image is on the list of excluded ids.")
                row = _row(image, image_id, key, store_size)
                rows.append(row | {"source": PHANTOM} if synthetic else row)
            except MedfilipError as error:
                rejected.append({"id": image_id, "stage": "ingest", "code": error.code, "message": error.message})
    path = f"part-{part.number:05d}.parquet"
    write_shard(staging / "images", path, IMAGES, IMAGES.from_rows(rows))
    write_index(staging / f"images_index/{path}", map(_index_row, rows), key)
    write_shard(staging / "images_rejected", path, REJECTED, REJECTED.from_rows(rejected))
    return {"path": path, "rows": len(rows), "rejected": len(rejected)}


def _index_row(row: dict[str, Any]) -> IndexRow:
    return IndexRow(row["image_id"], row["patient_id"], row["study_id"], row["pixel_hash"], row["split"])


def _read_bounded(file: Location, limits: ImageLimits) -> bytes:
    size = file.size()
    if size > limits.max_file_bytes:
        raise MedfilipError(
            ErrorCode.IMAGE_TOO_LARGE,
            f"The file has {size} bytes; the limit is {limits.max_file_bytes}.",
            fix="Raise limits.max_file_bytes if such files are expected.",
        )
    return file.read_bytes()


def _row(image: Radiograph, image_id: str, key: bytes, store_size: int) -> dict[str, Any]:
    study = image.study_uid or image_id
    pixels = to_store(image.pixels, store_size)
    return {
        "image_id": pseudonym(key, "image", image.sop_uid) if image.sop_uid else image_id,
        "study_id": pseudonym(key, "study", study),
        "patient_id": pseudonym(key, "patient", image.patient_id or study),
        "view": image.view,
        "pixels": png_encode(pixels),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "bits": pixels.dtype.itemsize * 8,
        "spacing_mm": image.spacing_mm * image.pixels.shape[0] / pixels.shape[0] if image.spacing_mm else None,
        "source_photometric": image.photometric,
        "source_transfer_syntax": image.transfer_syntax,
        "pixel_hash": image.pixel_hash,
        "source": "dicom" if image.sop_uid else "image",
        "split": None,
    }


def rejected_rows(table: Any) -> Iterator[tuple[str, int]]:
    """Yield (code, count) of a ``rejected`` table."""
    counts = table["code"].value_counts()
    yield from ((str(entry["values"]), int(entry["counts"])) for entry in counts.to_pylist())
