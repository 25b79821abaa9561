"""Embedding the images of a corpus with a checkpoint: the step that evaluation and calibration share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from medfilip.core.errors import ErrorCode, MedfilipError
from medfilip.evaluation.embedded import IMAGE_COLUMNS, EmbeddedImages, Unit
from medfilip.imaging.preprocess import png_decode, to_model
from medfilip.model.diagnoser import Diagnoser
from medfilip.model.locate import local_copy
from medfilip.storage.location import Location
from medfilip.storage.manifest import read_manifest
from medfilip.storage.run import Run
from medfilip.storage.schemas import IMAGES
from medfilip.storage.shards import read_shard
from pipelines.runtime import RaySettings, map_parts
from pipelines.sentences import NumberedShard, numbered_shards
from serve.cluster import ray_session

_BATCH = 64


def embed_images(
    run: Run,
    images: Location,
    checkpoint: Location,
    splits: Sequence[str],
    ray: RaySettings,
    *,
    phase: str = "encode",
    unit: Unit = "image",
) -> EmbeddedImages:
    """Embed the images of some splits, a shard a task; shards that a killed run had finished are not embedded again.

    ``phase`` names the work within the run, where it embeds with several models. With ``unit="study"`` the images of a
    study are pooled, in whatever shards they lie.

    Raises
    ------
    MedfilipError
        ``NOT_ENOUGH_DATA`` if there are no images in these splits.
    """
    work = partial(
        _embed_shard, staging=run.staging / phase, images=images, checkpoint=checkpoint, splits=tuple(splits)
    )
    with ray_session(ray, ray.address), run.stage(phase):
        parts = map_parts(run.staging, phase, work, numbered_shards(read_manifest(images), "images"))
    read = [pq.read_table(pa.BufferReader((run.staging / phase / part["path"]).read_bytes())) for part in parts]
    table = pa.concat_tables(read)
    if not table.num_rows:
        raise MedfilipError(
            ErrorCode.NOT_ENOUGH_DATA,
            f"There are no images in the splits {' and '.join(repr(split) for split in splits)}.",
            fix="Ingest with larger shares " + " and ".join(f"split.{split}" for split in splits) + ".",
        )
    values = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    feature_ND = values.reshape(table.num_rows, -1).astype(np.float32)
    return EmbeddedImages.of(feature_ND, table.drop_columns(["embedding"]), diagnoser_of(checkpoint), unit)


@lru_cache(maxsize=1)
def diagnoser_of(checkpoint: Location) -> Diagnoser:
    """Return the model of a checkpoint, loaded once for each process."""
    return Diagnoser.load(local_copy(checkpoint))


def _embed_shard(
    numbered: NumberedShard, *, staging: Location, images: Location, checkpoint: Location, splits: Sequence[str]
) -> dict[str, Any]:
    number, shard = numbered
    diagnoser = diagnoser_of(checkpoint)
    table = read_shard(images, shard, IMAGES, [*IMAGE_COLUMNS, "pixels"])
    table = table.filter(pa.array([split in splits for split in table["split"].to_pylist()], pa.bool_()))
    parts = []
    for at in range(0, table.num_rows, _BATCH):  # decoded images are large; only a batch of them is held
        pixels = [
            to_model(png_decode(data), diagnoser.image_size) for data in table["pixels"][at : at + _BATCH].to_pylist()
        ]
        parts.append(diagnoser.image_features(np.stack(pixels)))
    rows = [row.tolist() for part in parts for row in part]
    table = table.drop_columns(["pixels"]).append_column("embedding", pa.array(rows, pa.list_(pa.float32())))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    path = f"embeddings/part-{number:05d}.parquet"
    (staging / path).write_bytes(sink.getvalue().to_pybytes())
    return {"path": path}
