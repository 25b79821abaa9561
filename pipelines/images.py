"""The image half of ingest: DICOM, PNG and JPEG files → staged rows of `images`, and what was refused."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.core.ids import pseudonym
from medfilip.findings.labels import LabelSet
from medfilip.imaging.intake import QualityChecks, take_in
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import read_listed, read_part
from medfilip.imaging.preprocess import png_encode, to_store
from medfilip.imaging.radiograph import Radiograph
from medfilip.reports.report import SPLIT_NAMES
from medfilip.storage.location import Location
from medfilip.storage.schemas import IMAGES, REJECTED, RESOLVED_FINDINGS
from medfilip.storage.shards import write_shard
from pipelines.row_index import IndexRow, write_index

PHANTOM = "phantom"
"""Source of synthetic rows: what is trained on them says so wherever it answers."""
_SEXES = {"f": "F", "female": "F", "woman": "F", "m": "M", "male": "M", "man": "M", "o": "O", "other": "O"}
"""By whole words only: "mujer" and "missing" begin with M."""
_OLDEST = 90
"""Ages above are told as this one: there are few such people (HIPAA, 45 CFR 164.514(b)(2)(i)(C))."""


@dataclass(frozen=True)
class ImageOptions:
    """How images are ingested.

    Attributes
    ----------
    key
        The project's key, for pseudonyms.
    limits
        Bounds on a file.
    checks
        What follows from what the pixels look like.
    store_size
        Long side of stored images, in pixels.
    excluded
        Ids of patients and studies that are left out.
    keep_characteristics
        Whether sex and age are kept.
    source
        Source of rows whose table names none; ``None``: ``dicom`` or ``image``.
    """

    key: bytes
    limits: ImageLimits
    checks: QualityChecks
    store_size: int
    excluded: frozenset[str]
    keep_characteristics: bool
    source: str | None


@dataclass(frozen=True)
class ImageIngester:
    """Stages parts of a listing; compressed pixels are decoded in a killable process that all parts share.

    Attributes
    ----------
    folder
        Where the files lie.
    listing
        File of the listing, a row group a part.
    staging
        Where rows are staged.
    options
        How images are ingested.
    labels
        The label set of the listing, if there is one.
    """

    folder: Location
    listing: Location
    staging: Location
    options: ImageOptions
    labels: LabelSet | None

    def __call__(self, part: int) -> dict[str, Any]:
        """Read the files of a part and stage its rows, without a split of our own; one bad file costs one row."""
        rows: list[dict[str, Any]] = []
        rejected: list[dict[str, object]] = []
        states: dict[str, list[str]] = {}
        strangers: set[str] = set()
        for listed in read_part(self.listing, part).to_pylist():
            image_id = pseudonym(self.options.key, "file", listed["name"])
            try:
                image = self._image(listed)
                row = self._row(listed, image, image_id)
            except MedfilipError as error:
                rejected.append({"id": image_id, "stage": "ingest", "code": error.code, "message": error.message})
                continue
            rows.append(row)
            if not (listed["patient_id"] or image.patient_id):
                strangers.add(row["image_id"])
            if listed["labels"] is not None:
                states.setdefault(row["study_id"], []).append(listed["labels"])
        path = f"part-{part:05d}.parquet"
        write_shard(self.staging / "images", path, IMAGES, IMAGES.from_rows(rows))
        write_index(self.staging / f"images_index/{path}", map(_index_row, rows), self.options.key)
        write_shard(self.staging / "images_rejected", path, REJECTED, REJECTED.from_rows(rejected))
        if self.labels is not None:
            write_shard(self.staging / "labels", path, RESOLVED_FINDINGS, _findings(self.labels, states))
        return {"path": path, "rows": len(rows), "rejected": len(rejected), "without_patient": len(strangers)}

    def _image(self, listed: dict[str, Any]) -> Radiograph:
        limits, checks = self.options.limits, self.options.checks
        decoder = shared_decoder(limits)
        data = read_listed(self.folder, listed, limits)
        return take_in(data, limits, decoder, checks=checks, stated_view=listed["view"])

    def _row(self, listed: dict[str, Any], image: Radiograph, image_id: str) -> dict[str, Any]:
        options = self.options
        patient = listed["patient_id"] or image.patient_id
        study = listed["study_id"] or image.study_uid
        if options.excluded & {patient, study, image.patient_id, image.study_uid}:
            raise MedfilipError(ErrorCode.EXCLUDED, "The image is on the list of excluded ids.")
        own = pseudonym(options.key, "image", image.sop_uid) if image.sop_uid else image_id
        return {
            "image_id": own,
            "study_id": pseudonym(options.key, "study", study or image_id),
            "patient_id": pseudonym(options.key, "patient", patient or study or image_id),
            **stored_columns(image, options.store_size),
            **(
                characteristics(listed["sex"] or image.sex, listed["age"] or image.age)
                if options.keep_characteristics
                else {}
            ),
            "source": options.source or listed["source"] or ("dicom" if image.sop_uid else "image"),
            "split": _split(listed["split"]),
        }


def stored_columns(image: Radiograph, store_size: int) -> dict[str, Any]:
    """Return the columns of ``images`` that follow from the file alone, pixels shrunk to ``store_size``."""
    pixels = to_store(image.pixels, store_size)
    height, width = image.pixels.shape
    return {
        "view": image.view,
        "view_source": image.view_source,
        "view_position": image.view_position,
        "quality": list(image.quality),
        "pixels": png_encode(pixels),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "bits": pixels.dtype.itemsize * 8,
        "spacing_mm": image.spacing_mm * height / pixels.shape[0] if image.spacing_mm else None,
        "source_height": height,
        "source_width": width,
        "source_photometric": image.photometric,
        "source_transfer_syntax": image.transfer_syntax,
        "pixel_hash": image.pixel_hash,
    }


def _index_row(row: dict[str, Any]) -> IndexRow:
    return IndexRow(row["image_id"], row["patient_id"], row["study_id"], row["pixel_hash"], row["split"])


def characteristics(sex: str | None, age: str | None) -> dict[str, Any]:
    """Return the columns ``sex`` and ``age_years``, from what a table or a header says."""
    return {"sex": _SEXES.get((sex or "").strip().lower()), "age_years": age_years(age)}


def age_years(text: str | None) -> int | None:
    """Return an age in whole years, at most 90: ``57``, ``57.0``, or an Age String (PS3.5, 6.2) such as ``004M``."""
    match = re.fullmatch(r"\s*(\d{1,3})(?:\.\d*)?\s*([DWMY]?)\s*", (text or "").upper())
    if match is None:
        return None
    years = int(match[1]) // {"D": 365, "W": 52, "M": 12}.get(match[2], 1)
    return min(years, _OLDEST)


def _split(stated: str | None) -> str | None:
    if not (stated or "").strip():
        return None
    split = SPLIT_NAMES.get(str(stated).strip().lower())
    if split is None:
        raise MedfilipError(ErrorCode.SPLIT_UNKNOWN, f"The split is none of {', '.join(SPLIT_NAMES)}.")
    return split


def _findings(labels: LabelSet, states: dict[str, list[str]]) -> Any:
    rows = [row for study, said in states.items() for row in labels.findings(labels.merge(said), study)]
    return RESOLVED_FINDINGS.from_rows(rows)


def rejected_rows(table: Any) -> Iterator[tuple[str, int]]:
    """Yield (code, count) of a ``rejected`` table."""
    counts = table["code"].value_counts()
    yield from ((str(entry["values"]), int(entry["counts"])) for entry in counts.to_pylist())
