"""The images of a public data set, read as its protocol says: what evaluation and fine-tuning on one share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from pydantic import Field

from medfilip._version import __version__
from medfilip.core.errors import MedfilipError
from medfilip.core.fingerprint import fingerprint
from medfilip.core.settings import operational
from medfilip.evaluation.protocols.protocol import load_protocol
from medfilip.evaluation.protocols.record import check_fingerprint, check_lock, write_lock
from medfilip.evaluation.protocols.table import ProtocolTable, read_protocol
from medfilip.imaging.given import ACCEPTING
from medfilip.imaging.intake import take_in
from medfilip.imaging.isolation import shared_decoder
from medfilip.imaging.limits import ImageLimits
from medfilip.imaging.listing import read_listed
from medfilip.imaging.preprocess import DEFAULT_STORE_SIZE
from medfilip.imaging.radiograph import Radiograph
from medfilip.storage.location import Location
from medfilip.storage.manifest import MANIFEST_NAME, DatasetEntry, Manifest, Shard, read_manifest
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import write_shard
from pipelines.images import stored_columns
from pipelines.job import JobSettings
from pipelines.runtime import Progress, map_parts

RECORD = "protocol.json"
IMAGES_PER_PART = 512
_PHANTOM = "phantom.json"
Rows = list[dict[str, object]]


class DataSetSettings(JobSettings):
    """What a job can be told of a public data set beside its name and place."""

    allow_partial: bool = Field(
        False, description="take what is there of incomplete data; the result says that it is partial"
    )
    expected_split: str | None = operational(
        None, description="split fingerprint of an earlier run: other data are refused"
    )
    lock: str | None = operational(None, description="lock file: written if it is not there, held to if it is")
    limits: ImageLimits = Field(ImageLimits(), description="bounds on a file of the data set")


class Image(NamedTuple):
    """What a worker needs to know of an image."""

    image_id: str
    name: str
    size: int
    view: str | None
    patient: str
    split: str
    sex: str | None
    age: str | None


@dataclass(frozen=True)
class DataSet:
    """A data set that its protocol and the settings of a job have passed.

    Attributes
    ----------
    table
        Images, splits and truth.
    data
        The folder.
    limits
        Bounds on a file.
    lock
        Where the lock lies, or will.
    """

    table: ProtocolTable
    data: Location
    limits: ImageLimits
    lock: Location | None

    @classmethod
    def of(cls, protocol: str, data: str, settings: DataSetSettings) -> DataSet:
        """Read a data set and hold it to the split and the lock that the settings name.

        Raises
        ------
        MedfilipError
            As `read_protocol`, `check_fingerprint` and `check_lock`.
        """
        place = Location.parse(data)
        table = read_protocol(load_protocol(protocol), place, allow_partial=settings.allow_partial)
        if settings.expected_split:
            check_fingerprint(table.record, settings.expected_split)
        lock = Location.parse(settings.lock) if settings.lock else None
        if lock is not None and lock.exists():
            check_lock(table.record, lock)
        return cls(table, place, settings.limits, lock)

    @property
    def is_phantom(self) -> bool:
        """Whether it is a phantom corpus in the layout of the data set."""
        return (self.data / _PHANTOM).exists()

    def images(self, splits: Sequence[str]) -> list[Image]:
        """Return the images of some splits, a split after the other."""
        table = self.table
        return [
            Image(
                table.image_ids[at],
                table.names[at],
                table.sizes[at],
                table.views[at],
                table.patients[at],
                split,
                *table.people[at],
            )
            for split in splits
            for at in table.rows(split)
        ]

    def inputs(self, images: Sequence[Image]) -> dict[str, str]:
        """Return the fingerprints of what a job reads of it."""
        return {
            "record": fingerprint(self.table.record.model_dump(mode="json")),
            "images": fingerprint([list(image) for image in images]),
        }

    def keep_lock(self) -> None:
        """Write the lock if one is asked for and not there yet."""
        if self.lock is not None and not self.lock.exists():
            write_lock(self.table.record, self.lock)

    def describe(self, rejected: Rows, **more: object) -> dict[str, object]:
        """Return what stands in ``protocol.json``: the record, the protocol, and what could not be read."""
        return {
            **more,
            "record": self.table.record.model_dump(mode="json"),
            "protocol": self.table.protocol.model_dump(mode="json"),
            "unreadable": dict(Counter(str(row["code"]) for row in rejected)),
        }


def in_parts(images: Sequence[Image]) -> list[tuple[int, Sequence[Image]]]:
    """Cut images into the parts of a map, with their numbers."""
    cuts = range(0, len(images), IMAGES_PER_PART)
    return [(number, images[begin : begin + IMAGES_PER_PART]) for number, begin in enumerate(cuts)]


def read_images(
    images: Sequence[Image], data: Location, limits: ImageLimits, rejected: Rows, *, stage: str
) -> Iterator[tuple[Image, Radiograph]]:
    """Read images; one that cannot be read costs one image and is told in ``rejected``."""
    decoder = shared_decoder(limits)
    for image in images:
        try:
            content = read_listed(data, {"name": image.name, "bytes": image.size}, limits)
            yield image, take_in(content, limits, decoder, checks=ACCEPTING, stated_view=image.view)
        except MedfilipError as error:
            rejected.append({"id": image.image_id, "stage": stage, "code": error.code, "message": error.message})


def store_images(
    folder: Location, data_set: DataSet, images: Sequence[Image], progress: Progress
) -> tuple[Manifest, Rows]:
    """Store images below a folder as an ingest run would, on the cluster, with the splits of the protocol.

    Returns
    -------
    manifest
        That of the folder, which readers of ``images`` take like any other run.
    rejected
        Rows of what could not be read.
    """
    work = partial(_store_part, folder=folder, data=data_set.data, limits=data_set.limits)
    records = map_parts(folder / "staging", "store", work, in_parts(images), progress=progress)
    shards = tuple(Shard.model_validate(record["shard"]) for record in records)
    entry = DatasetEntry(schema_version=IMAGES.version, rows=sum(shard.rows for shard in shards), shards=shards)
    if not (folder / MANIFEST_NAME).exists():
        now = datetime.now(UTC)
        manifest = Manifest(
            job="protocol_images",
            run_id=folder.name,
            config_fingerprint=data_set.table.record.split_fingerprint,
            code_version=__version__,
            config={},
            inputs=data_set.inputs(images),
            datasets={IMAGES.name: entry},
            counts={"synthetic_images": entry.rows if data_set.is_phantom else 0},
            started_at=now,
            finished_at=now,
        )
        (folder / MANIFEST_NAME).create(manifest.with_fingerprint().model_dump_json().encode())
    return read_manifest(folder), [row for record in records for row in record["rejected"]]


def _store_part(
    numbered: tuple[int, Sequence[Image]], *, folder: Location, data: Location, limits: ImageLimits
) -> dict[str, Any]:
    number, images = numbered
    rejected: Rows = []
    rows = [
        {
            **stored_columns(found, DEFAULT_STORE_SIZE),
            "image_id": image.image_id,
            "study_id": image.image_id,
            "patient_id": image.patient,
            "source": "image",
            "split": image.split,
        }
        for image, found in read_images(images, data, limits, rejected, stage="finetune")
    ]
    shard = write_shard(folder, f"images/part-{number:05d}.parquet", IMAGES, IMAGES.from_rows(rows))
    return {"shard": shard.model_dump(mode="json"), "rejected": rejected}
