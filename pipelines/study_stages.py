"""The first stage of a batch of studies: images are read and embedded, and grouped by study wherever they lay.

Reading is work for any processor and runs in tasks; what needs the model runs in a pool of actors that keep it. The
embeddings of a chunk of images are staged in a file; they are small, so the images of a study may lie far apart.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.storage.location import Location
from medfilip.storage.schemas import DatasetSchema
from medfilip.storage.shards import write_staged
from pipelines.model_pool import ModelPool
from pipelines.runtime import Attempts, Progress, local_concurrency, run_stream
from pipelines.study_images import ImageSource, TakenImage
from serve.messages import Refused

STAGE = "diagnose"
"""Where a refused image was refused, in ``rejected``."""
ENCODED = DatasetSchema(
    "encoded_images",
    1,
    ("image_id",),
    pa.schema(
        [
            ("image_id", pa.string()),
            ("study_id", pa.string()),
            ("path", pa.string()),
            ("facts", pa.string()),  # `ImageFacts` as JSON
            ("view_D", pa.list_(pa.float32())),  # output of the image tower, before the views of a study are joined
        ]
    ),
)


class EncodedImage(NamedTuple):
    """Where an embedded image lies, and what decides its study.

    Attributes
    ----------
    chunk, row
        Its place.
    name
        What it is called if it is refused after all.
    """

    chunk: str
    row: int
    name: str
    image_id: str
    study_id: str
    pixel_hash: str


class Place(NamedTuple):
    """Chunk and row of an embedded image."""

    chunk: str
    row: int


Studies = list[list[Place]]
"""The images of each study, in order."""
RejectedRows = list[dict[str, object]]


def rejected_row(name: str, error: MedfilipError) -> dict[str, object]:
    """Return a row of ``rejected``."""
    return {"id": name, "stage": STAGE, "code": str(error.code), "message": error.message}


def encode_images(
    source: ImageSource, staging: Location, pool: ModelPool, show: Progress
) -> tuple[list[EncodedImage], RejectedRows]:
    """Embed every image of a source; chunks that a killed job had finished are neither read nor embedded again."""
    import ray
    from ray.data import TaskPoolStrategy

    records = staging / "records" / "encode"
    done = {file.name.removesuffix(".json") for file in records.children()}
    parts = [chunks(part, count, pool.chunk_images) for part, count in enumerate(source.sizes())]
    waiting = [part for part, names in enumerate(parts) if not done.issuperset(names)]
    if waiting:
        reader = ChunkReader(source, pool.chunk_images, frozenset(done), Attempts.of(staging, "read"))
        items = ray.data.from_items([{"part": part} for part in waiting], override_num_blocks=len(waiting))
        most = local_concurrency()
        tasks = TaskPoolStrategy(size=min(most, len(waiting)) if most else None)
        # max_calls=0 is Ray's default; stated, it keeps Ray Data from running tasks and actors as one stage.
        read = items.map_batches(
            reader.__call__, batch_size=1, batch_format="pyarrow", compute=tasks, num_cpus=1, max_calls=0
        )
        given = (staging, pool, Attempts.of(staging, "encode"))
        encoded = read.map(ChunkEncoder, fn_constructor_args=given, **pool.resources())
        total = sum(map(len, parts))
        with show("encode", "chunks", total, lambda: len(records.children())):
            run_stream(encoded)
    images: list[EncodedImage] = []
    rejected: RejectedRows = []
    for name in (name for names in parts for name in names):
        record = json.loads((records / f"{name}.json").read_bytes())
        images += [EncodedImage(name, row, *told) for row, told in enumerate(record["images"])]
        rejected += record["rejected"]
    return images, rejected


def chunks(part: int, images: int, size: int) -> list[str]:
    """Return the names of the chunks of a part."""
    return [f"part-{part:05d}-{number:04d}" for number in range(-(-images // size))]


@dataclass(frozen=True)
class ChunkReader:
    """Reads the images of parts that are not embedded yet; a task of Ray Data."""

    source: ImageSource
    chunk_images: int
    done: frozenset[str]
    attempts: Attempts

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yield a row for each chunk of a part."""
        for part in batch["part"].to_pylist():
            self.attempts.count(f"part-{part:05d}")
            table = self.source.table(part)
            for number, name in enumerate(chunks(part, table.num_rows, self.chunk_images)):
                if name not in self.done:
                    yield self._chunk(name, table.slice(number * self.chunk_images, self.chunk_images))

    def _chunk(self, name: str, rows: pa.Table) -> pa.Table:
        images: list[dict[str, Any]] = []
        pixels: list[bytes] = []
        rejected: RejectedRows = []
        for row in rows.to_pylist():
            called = self.source.name(row)
            try:
                image = self.source.take(row)
            except MedfilipError as error:
                rejected.append(rejected_row(called, error))
                continue
            images.append(_told(called, image))
            pixels.append(image.decoded.pixels.tobytes())
        return pa.table(
            {
                "chunk": [name],
                "images": [json.dumps(images)],
                "rejected": [json.dumps(rejected)],
                "pixels": pa.array([b"".join(pixels)], pa.large_binary()),
            }
        )


def _told(name: str, image: TakenImage) -> dict[str, Any]:
    facts = image.decoded.facts.model_dump_json()
    told = {"image_id": image.image_id, "study_id": image.study_id, "path": image.path, "facts": facts}
    return {**told, "name": name, "pixel_hash": image.pixel_hash}


@dataclass(frozen=True)
class ChunkEncoder:
    """Embeds the images of a chunk and stages them; an actor of Ray Data."""

    staging: Location
    pool: ModelPool
    attempts: Attempts

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Embed a chunk; its record is written last."""
        name, images = str(row["chunk"]), json.loads(row["images"])
        self.attempts.count(name)
        shape = (len(images), 1, self.pool.image_size, self.pool.image_size)
        pixels_I1SS = np.frombuffer(row["pixels"], np.float32).reshape(shape)
        views: list[Any] = []
        for begin in range(0, len(images), self.pool.max_batch_size):
            views += self.pool.service().embed(list(pixels_I1SS[begin : begin + self.pool.max_batch_size]))
        refused = next((view for view in views if isinstance(view, Refused)), None)
        if refused is not None:
            raise refused.error()
        rows = [
            {column: image[column] for column in ("image_id", "study_id", "path", "facts")} | {"view_D": view.tolist()}
            for image, view in zip(images, views, strict=True)
        ]
        write_staged(self.staging / "encoded" / name, ENCODED, ENCODED.from_rows(rows))
        told = [[image[key] for key in ("name", "image_id", "study_id", "pixel_hash")] for image in images]
        record = {"images": told, "rejected": json.loads(row["rejected"])}
        (self.staging / "records" / "encode" / f"{name}.json").write_bytes(json.dumps(record).encode())
        return {"chunk": name}


def group_studies(images: Sequence[EncodedImage], max_images: int) -> tuple[Studies, RejectedRows]:
    """Return the studies of images, in the order of their first ones; an image that was met before is refused.

    Counted twice, it would weigh twice in its study.
    """
    studies: dict[str, list[EncodedImage]] = {}
    rejected: RejectedRows = []
    met: set[tuple[str, ...]] = set()
    twice = MedfilipError(
        ErrorCode.IMAGE_DUPLICATE, "An earlier image has the same id, or the same pixels in the same study."
    )
    for image in images:
        known = {(image.image_id,), (image.study_id, image.pixel_hash)}
        if known & met:
            rejected.append(rejected_row(image.name, twice))
            continue
        met |= known
        studies.setdefault(image.study_id, []).append(image)
    kept: Studies = []
    for study in studies.values():
        if len(study) <= max_images:
            kept.append([Place(image.chunk, image.row) for image in study])
            continue
        error = MedfilipError(
            ErrorCode.STUDY_TOO_LARGE, f"Its study has {len(study)} images; max_images is {max_images}."
        )
        rejected += [rejected_row(image.name, error) for image in study]
    return kept, rejected
